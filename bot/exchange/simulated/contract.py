"""One symbol at the simulated exchange: its filters, our working orders, our position and its protection."""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto
from math import inf
from typing import Final, NamedTuple

from bot.core.events import BarClosed, OrderCancelled, StopMoved
from bot.core.money import exact
from bot.core.types import HOUR_MS, FillOrigin, Instrument, OrderRequest, Side
from bot.exchange.simulated.account import ZERO, Account, Position
from bot.exchange.simulated.costs import CostModel, funding_amount

NEVER: Final = 2**62
NO_BAR: Final = (inf, -inf)  # a span that no bar fits in
DEFAULT_FUNDING_INTERVAL: Final = 8 * HOUR_MS


class Phase(Enum):
    ARRIVING = auto()  # meets the market at the next open
    RESTING = auto()  # in the book, maker
    UNTRIGGERED = auto()  # a conditional order that waits for its price


@dataclass(slots=True)
class WorkingOrder:
    """An accepted order that is not finished. It takes part in bars that open at or after `since` (ms)."""

    request: OrderRequest
    order_id: str
    since: int
    leaves: Decimal
    phase: Phase
    rising: bool  # of a conditional order: triggered from below
    margin: Decimal  # reserved for the whole quantity, quote coin

    @property
    def reserved(self) -> Decimal:
        return self.margin * self.leaves / self.request.qty

    def span(self, tick: Decimal) -> tuple[float, float]:
        """Prices between which a bar leaves the order as it is."""
        request = self.request
        if self.phase is Phase.RESTING and request.price is not None:
            if request.side is Side.BUY:
                return float(request.price - tick), inf
            return -inf, float(request.price + tick)
        if self.phase is Phase.UNTRIGGERED and request.trigger_price is not None:
            level = float(request.trigger_price)
            return (-inf, level) if self.rising else (level, inf)
        return NO_BAR


class Exit(NamedTuple):
    """A triggered stop loss or take profit whose rest is still to be filled, and its price."""

    origin: FillOrigin
    level: Decimal


class Contract:
    """State of one symbol.

    A bar that stays strictly between `floor` and `ceiling` and closes before `due` (ms) changes nothing.
    """

    __slots__ = (
        "_account",
        "bar",
        "ceiling",
        "costs",
        "due",
        "exit",
        "floor",
        "instrument",
        "next_funding",
        "orders",
        "position",
        "publishes_funding",
        "stop_loss",
        "take_profit",
        "trading",
    )

    def __init__(self, instrument: Instrument, account: Account, costs: CostModel) -> None:
        self._account = account
        self.costs = costs
        self.instrument = instrument
        self.trading = True
        self.bar: BarClosed | None = None  # the last one
        self.orders: dict[str, WorkingOrder] = {}
        self.position = Position()
        self.stop_loss: Decimal | None = None
        self.take_profit: Decimal | None = None
        self.exit: Exit | None = None
        self.publishes_funding = False
        self.next_funding = NEVER  # ms; of the default rate, while there is a position
        self.watch()

    @property
    def is_idle(self) -> bool:
        return not self.orders and not self.position.qty

    def watch(self) -> None:
        """Work out which bars matter; to be called after every change."""
        spans = [order.span(self.instrument.tick_size) for order in self.orders.values()]
        self.due = NEVER
        if self.position.qty:
            spans.append(self._protected_span())
            if self.costs.default_funding and not self.publishes_funding:
                self.due = self.next_funding
        self.floor = max((low for low, _ in spans), default=-inf)
        self.ceiling = min((high for _, high in spans), default=inf)

    def _protected_span(self) -> tuple[float, float]:
        if self.exit is not None:
            return NO_BAR
        stop, target, tick = self.stop_loss, self.take_profit, self.instrument.tick_size
        if self.position.qty > 0:
            return (
                -inf if stop is None else float(stop),
                inf if target is None else float(target + tick),
            )
        return (
            -inf if target is None else float(target - tick),
            inf if stop is None else float(stop),
        )

    def cancel(self, order: WorkingOrder, reason: str, ts: int) -> None:
        del self.orders[order.request.link_id]
        self._account.publish(OrderCancelled(ts, ts, order.request.link_id, reason))

    def fill_order(
        self, order: WorkingOrder, price: Decimal, qty: Decimal, ts: int, *, is_maker: bool
    ) -> None:
        """One execution of a working order; attaches its stop loss and take profit to the position."""
        request = order.request
        is_first = order.leaves == request.qty
        order.leaves -= qty
        if not order.leaves:
            del self.orders[request.link_id]
        self._fill(
            request.side,
            price,
            qty,
            ts,
            leaves=order.leaves,
            origin=FillOrigin.ORDER,
            link_id=request.link_id,
            is_maker=is_maker,
        )
        is_opening = self.position.qty * request.side.sign > 0
        # a later part of the order must not undo a stop that was moved in between
        if is_opening and (is_first or self.stop_loss is None):
            self._attach(request, ts)

    def fill_exit(self, price: Decimal, qty: Decimal, ts: int, origin: FillOrigin) -> None:
        """One execution of an order that the exchange made to close the position."""
        held = self.position.qty
        side = Side.SELL if held > 0 else Side.BUY
        self._fill(side, price, qty, ts, leaves=abs(held) - qty, origin=origin)

    def pay_published_funding(self, rate: float, ts: int) -> None:
        if self.position.qty and self.bar is not None:
            self._pay_funding(rate, self.bar.close, ts)

    def pay_default_funding(self, until: int, now: int) -> None:
        """Settle every 8-hour mark up to `until` (ms) that no published rate covers; either side pays."""
        if self.publishes_funding or self.bar is None or not self.costs.default_funding:
            return
        while self.position.qty and self.next_funding <= until:
            rate = self.costs.default_funding if self.position.qty > 0 else -self.costs.default_funding
            self._pay_funding(rate, self.bar.close, max(self.next_funding, now))
            self.next_funding += DEFAULT_FUNDING_INTERVAL

    def close_down(self, ts: int) -> None:
        """Delisting: orders are cancelled and the position is settled at the last close, with costs."""
        self.trading = False
        for order in tuple(self.orders.values()):
            self.cancel(order, "CancelBySettle", ts)
        if self.position.qty and self.bar is not None:
            side = Side.SELL if self.position.qty > 0 else Side.BUY
            price = self.costs.taker_price(side, self.bar.close, self.bar, self.instrument.tick_size)
            self.fill_exit(price, abs(self.position.qty), ts, FillOrigin.ORDER)
        self.watch()

    def last_price(self) -> Decimal:
        """Of the last close; zero before the first bar."""
        return ZERO if self.bar is None else exact(self.bar.close)

    def _fill(
        self,
        side: Side,
        price: Decimal,
        qty: Decimal,
        ts: int,
        *,
        leaves: Decimal,
        origin: FillOrigin,
        link_id: str = "",
        is_maker: bool = False,
    ) -> None:
        before = self.position.qty
        self._account.book_fill(
            self.position,
            self.instrument.symbol,
            ts=ts,
            side=side,
            price=price,
            qty=qty,
            fee=self.costs.fee(price, qty, is_maker=is_maker),
            leaves=leaves,
            is_maker=is_maker,
            origin=origin,
            link_id=link_id,
        )
        after = self.position.qty
        if not before and self.bar is not None:
            # counted from the bar's open: a fill inside the bar that ends at the mark has to pay
            self.next_funding = (self.bar.start // DEFAULT_FUNDING_INTERVAL + 1) * DEFAULT_FUNDING_INTERVAL
        if before * after <= 0:
            self._position_ended(ts)

    def _position_ended(self, ts: int) -> None:
        """Protection and reduce-only orders belong to the position and go with it."""
        self.stop_loss = self.take_profit = self.exit = None
        for order in tuple(self.orders.values()):
            if order.request.reduce_only and not self.position.opposed_by(order.request.side):
                self.cancel(order, "CancelByReduceOnly", ts)

    def _attach(self, request: OrderRequest, ts: int) -> None:
        if request.take_profit is not None:
            self.take_profit = request.take_profit
        if request.stop_loss is not None:
            self.move_stop(request.stop_loss, ts)

    def move_stop(self, stop_loss: Decimal, ts: int) -> None:
        self.stop_loss = stop_loss
        self.confirm_stop(ts)

    def confirm_stop(self, ts: int) -> None:
        self._account.publish(StopMoved(ts, ts, self.instrument.symbol, self.stop_loss))

    def _pay_funding(self, rate: float, price: float, ts: int) -> None:
        amount = funding_amount(self.position.qty, price, rate)
        self._account.book_funding(self.instrument.symbol, amount, rate, ts)
