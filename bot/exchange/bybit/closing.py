"""Closes everything, by REST alone: for a person who has no running bot to ask.

Reduce-only orders cannot open or turn a position, so an order whose outcome is unknown may be followed by
another one for what is still there.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bot.core.errors import RuntimeFault
from bot.core.types import DAY_MS, MINUTE_MS, OrderType, Side
from bot.exchange.bybit.bursts import Bursts
from bot.exchange.bybit.cancelling import cancel_many
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.transfers import SETTLE
from bot.exchange.bybit.wire.private import Order, Position
from bot.execution.orders import SALTS, Orders, run_tag, tag_of

_ROUNDS: Final = 12
_PAUSE: Final = 0.5  # seconds between rounds: an order fills, a list catches up
_LONGEST_PAUSE: Final = 3.0
_SETTLED: Final = 10_000  # ms after which the executions of a position are all listed
_TRACED: Final = 7 * DAY_MS - MINUTE_MS  # of one question for executions


@dataclass(frozen=True, slots=True)
class Closed:
    """What was done, by symbol and id; `left`: open orders of others, which may open something again;
    `others`: their positions."""

    positions: list[str]
    cancelled: list[str]
    left: list[str]
    others: list[str]


class Closing:
    """tell: takes a line for each thing that is done or refused. owners: whose a symbol is; None: everything
    is to go, whosever it is. blind: they are not certain, so orders of all runs of this program count as
    ours."""

    def __init__(
        self, rest: Rest, tell: Callable[[str], None], owners: Ownership | None, *, blind: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._rest = rest
        self._tell = tell
        self._owners = owners
        self._blind = blind or (owners is not None and not owners.leave)
        self._traced: dict[str, tuple[Decimal, int]] = {}  # positions of others, when they were asked about
        self._sleep = sleep
        self._ids = Orders(tag_of(rest.clock.now_ms(), secrets.randbelow(SALTS)))
        self._creates = Bursts(lambda: rest.orders).creates
        self._largest: dict[str, Decimal | None] = {}  # of one market order, by symbol; None = unknown

    async def run(self) -> Closed:
        """Cancel our entries, close every position that is ours, and see that none is left.

        Raises RuntimeFault that names what is still open after the last round.
        """
        closed: set[str] = set()
        cancelled: set[str] = set()
        trouble = ""
        for number in range(_ROUNDS):
            if number:
                await self._sleep(min(_PAUSE * number, _LONGEST_PAUSE))
            try:
                orders = await self._rest.orders.open_orders(settle_coin=SETTLE)
                held = [item for item in await self._rest.account.positions() if item.size]
            except ExchangeError as error:
                if not error.may_pass:
                    raise
                trouble = str(error)
                continue
            opening = [item for item in orders if not item.reduce_only]
            entries = [item for item in opening if self._is_own(item)]
            ours = [item for item in held if self._holds(item.symbol)]
            if entries:
                self._tell(f"cancelling {', '.join(map(_name, entries))}")
                work = cancel_many(self._rest.orders, entries, orders)
                trouble = await self._try(work, "entries are not cancelled") or trouble
                cancelled.update(order.order_id for order in entries)
            trouble = await self._close_all(ours) or trouble
            closed.update(item.symbol for item in ours)
            try:  # what is ours for certain does not wait for this
                traced = [item for item in held if item not in ours and await self._is_ours(item)]
            except ExchangeError as error:
                if not error.may_pass and not entries and not ours:
                    raise
                trouble = f"other positions may be ours or not: {error}"
                continue
            trouble = await self._close_all(traced) or trouble
            closed.update(item.symbol for item in traced)
            if not entries and not ours and not traced:
                others = [f"{item.symbol} {item.signed_size:+f}" for item in held]
                return Closed(sorted(closed), sorted(cancelled), [_name(item) for item in opening], others)
        raise RuntimeFault(f"not flat after {_ROUNDS} rounds ({trouble or 'no reason told'}): close by hand")

    def _is_own(self, order: Order) -> bool:
        link_id, owners = order.order_link_id, self._owners
        return owners is None or (bool(run_tag(link_id)) and (self._blind or not owners.is_another(link_id)))

    def _holds(self, symbol: str) -> bool:
        """By what is on record, or has been traced."""
        return self._owners is None or self._owners.holds(symbol)

    async def _is_ours(self, position: Position) -> bool:
        """By the orders that opened it: asked for once, but for a position that has just changed, since lists
        lag. Raises ExchangeError."""
        owners, symbol, now = self._owners, position.symbol, self._rest.clock.now_ms()
        assert owners is not None
        as_it_is = (position.signed_size, position.updated_time)
        if self._traced.get(symbol) == as_it_is:
            return False
        found = await self._rest.orders.executions(symbol=symbol, start=now - _TRACED, end=now + MINUTE_MS)
        for execution in found if self._blind else ():
            owners.know(execution.order_link_id)
        owners.trace(position, found)
        if position.updated_time < now - _SETTLED:
            self._traced[symbol] = as_it_is
        return owners.holds(symbol)

    async def _close_all(self, positions: Sequence[Position]) -> str:
        """What went wrong, in words."""
        await asyncio.gather(*(self._look_up(position.symbol) for position in positions))
        troubles = await asyncio.gather(*map(self._close, positions))
        return next(filter(None, reversed(troubles)), "")

    async def _close(self, position: Position) -> str:
        """At most what one market order may have; the next round closes the rest."""
        symbol = position.symbol
        side = Side.SELL if position.side == Side.BUY else Side.BUY
        largest = self._largest.get(symbol)
        qty = position.size if largest is None else min(position.size, largest)
        self._tell(f"{side.lower()} {qty:f} {symbol} to close it")
        order = NewOrder(
            symbol=symbol, side=side, order_type=OrderType.MARKET, qty=qty, reduce_only=True,
            position_idx=position.position_idx, order_link_id=self._ids.next_id(symbol),
        )  # fmt: skip
        return await self._try(self._creates.send(order), f"{symbol} is not closed")

    async def _look_up(self, symbol: str) -> None:
        """Its largest order. Not knowing it is no reason to leave a position open."""
        if symbol not in self._largest:
            with suppress(ExchangeError):
                found = await self._rest.market.instruments(symbol=symbol)
                limits = [
                    item.lot_size_filter.max_market_order_qty for item in found if item.symbol == symbol
                ]
                self._largest[symbol] = limits[0] if limits else None

    async def _try(self, work: Awaitable[object], what: str) -> str:
        """What went wrong, in words; the next round tries again."""
        try:
            await work
        except ExchangeError as error:
            if error.kind is not Kind.UNKNOWN:
                self._tell(f"{what}: {error}")
            return str(error)
        return ""


def _name(order: Order) -> str:
    return f"{order.symbol} {order.order_link_id or order.order_id}"
