"""What we know of our orders and positions on the exchange, from messages in any order and number.

Pure. The streams, REST lists and answers to questions all tell parts of one story, some of them twice or
late. What comes out is the story as the engine can book it: each execution once, and each order ended once,
after all its executions.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import msgspec

from bot.core.events import (
    Event,
    FundingPaid,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PositionAdopted,
    StopMoved,
)
from bot.core.types import OrderRequest
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.translate import event_of_execution, events_of_order, events_of_position
from bot.exchange.bybit.wire.private import Execution, Order, Position

_ZERO: Final = Decimal(0)
_REMEMBERED: Final = 100_000  # execution ids: days of the busiest trading
_LOST: Final = 1_000  # orders given up: an exchange that shows one after so many others has kept it for days
_LESS: Final = "the exchange reduced the quantity"


@dataclass(slots=True)
class _Tracked:
    """An order of this run that has not ended. `executed`: what the exchange says was filled of it."""

    request: OrderRequest
    filled: Decimal = _ZERO
    executed: Decimal = _ZERO
    heard: bool = False  # the exchange has spoken of it
    risen: bool = False  # it was given up before
    ended: OrderCancelled | OrderRejected | None = None  # told when its executions are complete

    @property
    def is_complete(self) -> bool:
        return self.filled >= self.executed


@dataclass(frozen=True, slots=True)
class Held:
    qty: Decimal = _ZERO  # signed
    entry: Decimal = _ZERO
    stop: Decimal | None = None


@dataclass(slots=True)
class AccountBook:
    """owners: whose a symbol is; what is not ours is not booked."""

    owners: Ownership = field(default_factory=Ownership)
    booked: int = 0  # executions so far
    bookings: Counter[str] = field(default_factory=Counter)  # fills and adoptions, by symbol
    _orders: dict[str, _Tracked] = field(default_factory=dict)
    _lost: dict[str, _Tracked] = field(default_factory=dict)  # ended without its word, oldest first
    _seen: dict[str, None] = field(default_factory=dict)  # execution ids, oldest first
    _qty: dict[str, Decimal] = field(default_factory=dict)  # signed, of open positions, as told
    _stops: dict[str, Decimal | None] = field(default_factory=dict)  # as the exchange last said
    _told_stops: dict[str, Decimal | None] = field(default_factory=dict)

    # --- what we do -----------------------------------------------------------------------------------------

    def track(self, request: OrderRequest) -> None:
        """An order that is about to leave."""
        self._orders[request.link_id] = _Tracked(request)
        self.owners.know(request.link_id)

    def is_open(self, link_id: str) -> bool:
        """Not ended yet, as far as has been told."""
        return link_id in self._orders

    def is_leaving(self, symbol: str) -> bool:
        """An order that closes is on its way."""
        orders = (tracked.request for tracked in self._orders.values())
        return any(order.reduce_only and order.symbol == symbol for order in orders)

    def is_heard(self, link_id: str) -> bool:
        """Ended, or the exchange has spoken of it."""
        tracked = self._orders.get(link_id)
        return tracked is None or tracked.heard

    def reject(self, event: OrderRejected) -> list[Event]:
        """It never came to be."""
        tracked = self._orders.get(event.link_id)
        return [] if tracked is None or tracked.heard else self._lose(tracked, event)

    def give_up(self, event: OrderCancelled) -> list[Event]:
        """The exchange knew it once and does not any more."""
        tracked = self._orders.get(event.link_id)
        return [] if tracked is None else self._lose(tracked, event)

    def rise(self, link_id: str) -> OrderRequest | None:
        """The exchange speaks of an order that we gave up: it is followed again, to its end."""
        tracked = self._lost.pop(link_id, None)
        if tracked is None:
            return None
        tracked.risen = True
        self._orders[link_id] = tracked
        return tracked.request

    @property
    def risen_entries(self) -> list[str]:
        """Link ids of entries that were given up, are there after all, and have not ended."""
        return [
            link_id
            for link_id, tracked in self._orders.items()
            if tracked.risen and not tracked.request.reduce_only
        ]

    # --- what the exchange says -----------------------------------------------------------------------------

    def on_order(self, order: Order, received: int) -> list[Event]:
        """Raises WireError for a status that we do not know; orders of others are nothing to us."""
        tracked = self._orders.get(order.order_link_id)
        if tracked is None:
            return []
        events = events_of_order(order, received)
        out: list[Event] = []
        if not tracked.heard and not isinstance(next(iter(events), None), OrderRejected):
            out.append(OrderAccepted(order.updated_time, received, order.order_link_id, order.order_id))
        tracked.heard = True
        tracked.executed = max(tracked.executed, order.cum_exec_qty or _ZERO)
        if order.order_status == "Filled" and tracked.executed < tracked.request.qty:
            tracked.ended = OrderCancelled(order.updated_time, received, order.order_link_id, _LESS)
        for event in events:
            if isinstance(event, OrderCancelled | OrderRejected):
                tracked.ended = event
        return out + self._end_if_complete(tracked)

    def on_execution(self, execution: Execution, received: int) -> list[Event]:
        """Each of ours once, of linear contracts. Raises WireError for a kind that we cannot book."""
        if execution.exec_id in self._seen:
            return []
        if not self.owners.takes(execution):
            self.mark_seen([execution.exec_id])
            return []
        event = event_of_execution(execution, received)
        if event is None:
            return []
        self.mark_seen([execution.exec_id])
        self.booked += 1
        if not isinstance(event, OrderFilled):
            assert isinstance(event, FundingPaid)
            return [event]
        tracked = self._orders.get(event.link_id)
        begun: list[Event] = []
        ending: list[Event] = []
        if tracked is not None:
            if not tracked.heard:
                begun = [OrderAccepted(event.ts, received, event.link_id, execution.order_id)]
            tracked.heard = True
            tracked.filled += event.qty
            leaves = max(tracked.request.qty - tracked.filled, _ZERO)
            event = msgspec.structs.replace(event, leaves_qty=leaves)
            if not leaves:
                del self._orders[event.link_id]
            else:
                ending = self._end_if_complete(tracked)
        return [*begun, event, *self._book(event), *ending]

    def on_position(self, position: Position, received: int) -> list[Event]:
        """Its stop. What we hold is told by executions. Raises WireError in hedge mode."""
        symbol = position.symbol
        if not position.size:
            self._stops.pop(symbol, None)
        if not self.owners.holds(symbol):
            if position.size:
                self._stops[symbol] = position.stop_loss or None  # should it turn out to be ours
            return [*self.owners.hear(position, received)]
        if not position.size:
            return []
        events = events_of_position(position, received)
        for event in events:
            if isinstance(event, StopMoved):
                self._stops[symbol] = event.stop_loss
        return self._tell_stop(symbol, position.updated_time, received)

    # --- reconciliation -------------------------------------------------------------------------------------

    def mark_seen(self, exec_ids: Iterable[str]) -> None:
        """Executions that are booked already, or that the adopted positions contain."""
        self._seen.update(dict.fromkeys(exec_ids))
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def open_links(self) -> dict[str, str]:
        """Our orders that have not ended: link id to symbol."""
        return {link_id: tracked.request.symbol for link_id, tracked in self._orders.items()}

    def incomplete(self) -> dict[str, str]:
        """Our orders that the exchange filled more of than it has told us: link id to symbol."""
        return {
            link_id: tracked.request.symbol
            for link_id, tracked in self._orders.items()
            if not tracked.is_complete
        }

    @property
    def quantities(self) -> dict[str, Decimal]:
        """Signed quantities of open positions, as the engine knows them."""
        return dict(self._qty)

    def adopt(self, symbol: str, held: Held, now: int, reason: str) -> list[Event]:
        """The exchange is right about what we hold."""
        self.bookings[symbol] += 1
        self._set(symbol, held.qty)
        self._stops[symbol] = self._told_stops[symbol] = held.stop
        return [PositionAdopted(now, now, symbol, held.qty, held.entry, held.stop, reason)]

    # --- parts ----------------------------------------------------------------------------------------------

    def _end_if_complete(self, tracked: _Tracked) -> list[Event]:
        if tracked.ended is None or not tracked.is_complete:
            return []
        return self._end(tracked, tracked.ended)

    def _lose(self, tracked: _Tracked, event: OrderCancelled | OrderRejected) -> list[Event]:
        self._lost[tracked.request.link_id] = tracked
        if len(self._lost) > _LOST:
            del self._lost[next(iter(self._lost))]
        return self._end(tracked, event)

    def _end(self, tracked: _Tracked, event: OrderCancelled | OrderRejected) -> list[Event]:
        del self._orders[tracked.request.link_id]
        return [event]

    def _book(self, fill: OrderFilled) -> list[Event]:
        """The position after a fill; its stop is told again, since the engine begins a position without."""
        self.bookings[fill.symbol] += 1
        before = self._qty.get(fill.symbol, _ZERO)
        after = before + fill.qty * fill.side.sign
        self._set(fill.symbol, after)
        if before * after <= 0:
            self._told_stops.pop(fill.symbol, None)
            if before:
                self._stops.pop(fill.symbol, None)
        return self._tell_stop(fill.symbol, fill.ts, fill.received)

    def _set(self, symbol: str, qty: Decimal) -> None:
        if qty:
            self._qty[symbol] = qty
        else:
            self._qty.pop(symbol, None)

    def _tell_stop(self, symbol: str, ts: int, received: int) -> list[Event]:
        if symbol not in self._qty or symbol not in self._stops:
            return []
        stop = self._stops[symbol]
        if symbol in self._told_stops and self._told_stops[symbol] == stop:
            return []
        self._told_stops[symbol] = stop
        return [StopMoved(ts, received, symbol, stop)]
