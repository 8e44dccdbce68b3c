"""Our books against the exchange's, by REST: at the start, after every reconnect, and now and then.

Quantities are compared, never timestamps: Bybit stamps a position some milliseconds after its fill.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from bot.core.errors import RuntimeFault
from bot.core.events import Event, PositionMarked
from bot.core.types import DAY_MS, MINUTE_MS
from bot.exchange.bybit.account_book import AccountBook, Held
from bot.exchange.bybit.cancelling import cancel_many
from bot.exchange.bybit.order_desk import OrderDesk
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.transfers import SETTLE, transfers
from bot.exchange.bybit.wallet_check import LOOKS, WalletCheck, WalletSettings
from bot.exchange.bybit.wire.private import Execution, Order, Position
from bot.execution.orders import run_tag

_OVERLAP: Final = 2 * MINUTE_MS
_VOID: Final = 1_000  # ms after its recv_window in which a request may still be accepted by a slow exchange
_LONGEST: Final = 7 * DAY_MS - MINUTE_MS  # of one question for executions
_NO_STOP: Final = ("", "UNKNOWN", "Stop")  # an order of its own, not a position's stop


@dataclass(frozen=True, slots=True)
class Opening:
    """The account as a run finds it, at `ts` (ms)."""

    ts: int
    balance: Decimal  # wallet balance, USDT, without unrealised P&L
    positions: dict[str, Held]  # ours
    others: dict[str, Held] = field(default_factory=dict)  # somebody else's, left alone
    leftovers: list[str] = field(default_factory=list)  # open orders that were left alone
    cancelled: list[str] = field(default_factory=list)  # entries of earlier runs
    ledger: int = 0  # until when `balance` contains what came and went without our trading, ms
    unrealised: float = 0.0  # P&L of `positions` at the exchange's mark prices, USDT


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconciliation found. `differences`: what had to be adopted, in words."""

    ts: int
    missed: int = 0  # executions that the stream had not brought
    asked: int = 0  # orders that had to be asked for
    differences: tuple[str, ...] = ()
    wallet: str = ""  # a difference in money that nothing explains, in words
    wallet_lasts: bool = False  # for so long that a person must look; said once


class Reconciler:
    def __init__(
        self,
        rest: Rest,
        book: AccountBook,
        desk: OrderDesk,
        emit: Callable[[Event], None],
        wallet: WalletSettings,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._rest = rest
        self._book = book
        self._desk = desk
        self._owners = book.owners
        self._emit = emit
        self._sleep = sleep
        self._since = 0  # executions before are booked
        self._clear_again = 0  # when the last words of a bot that died are done or void, ms; then 0
        self._unknown: set[str] = set()  # orders that the exchange did not know the last time
        self._lock = asyncio.Lock()
        self._marks: dict[str, float] = {}  # of our positions that were last read
        self._wallet = WalletCheck(rest, book.owners, emit, wallet, sleep)

    async def open(self) -> Opening:
        """Begin with what the exchange says: past executions are in the positions. Raises ExchangeError."""
        async with self._lock:
            cancelled, orders = await self._clear()  # before positions are read: it may have filled
            start = self._rest.clock.now_ms() - _OVERLAP
            while True:
                ts = self._rest.clock.now_ms()
                before = self._ours_of(await self._executions(start))
                found = await self._rest.account.positions()
                await self._trace(found)
                positions = self._note(found)
                moved = await transfers(self._rest, self._owners, start, self._rest.clock.now_ms())
                balance = await self._wallet.balance()
                after = await self._executions(start)
                if before == self._ours_of(after):  # nothing of ours happened while we looked
                    break
            self._since = start + _OVERLAP
            self._clear_again = ts + self._rest.recv_window_ms + _VOID
            self._book.mark_seen(item.exec_id for item in after)
            ours = {symbol: held for symbol, held in positions.items() if self._owners.holds(symbol)}
            for symbol, held in ours.items():
                self._adopt(symbol, held, "held at the start")
            self._tell_others(positions, orders, ts)
            self._tell_marks()
            self._wallet.begin(balance, self._since, [line.id for line in moved])
            others = {symbol: held for symbol, held in positions.items() if symbol not in ours}
            ledger = max([ts, *(line.transaction_time for line in moved)])
            unrealised = sum(
                float(held.qty) * (self._marks[symbol] - float(held.entry))
                for symbol, held in ours.items()
                if symbol in self._marks
            )
            return Opening(ts, balance, ours, others, _names(orders), sorted(cancelled), ledger, unrealised)

    async def _clear(self) -> tuple[set[str], list[Order]]:
        """Entries of our earlier runs are wanted no more. Their link ids, and what else is open.

        Exits of ours still do what they are for; orders of others, another bot of this kind included, are
        not ours to judge.
        """
        cancelled: set[str] = set()
        for pause in LOOKS:
            await self._sleep(pause)
            entries, orders = await self._cancel_entries()
            if not entries:
                return cancelled, orders
            cancelled.update(order.order_link_id for order in entries)
        names = ", ".join(order.order_link_id for order in entries)
        raise RuntimeFault(f"entries of an earlier run cannot be cancelled: {names}; cancel them by hand")

    async def _cancel_entries(self) -> tuple[list[Order], list[Order]]:
        """Of earlier runs; they, and all open orders as they were before."""
        orders = await self._rest.orders.open_orders(settle_coin=SETTLE)
        entries = [
            order
            for order in orders
            if not order.reduce_only and run_tag(order.order_link_id) in self._owners.earlier
        ]
        if entries:
            await cancel_many(self._rest.orders, entries, orders)
        return entries, orders

    async def reconcile(self) -> Reconciled:
        """Find out what was missed; adopt what stays unexplained. Raises ExchangeError."""
        async with self._lock:
            now = self._rest.clock.now_ms()
            if self._clear_again and now > self._clear_again:
                entries, _ = await self._cancel_entries()
                self._clear_again = now if entries else 0
            missed = await self._catch_up()
            asked, orders = await self._ask_for_orders()
            differences = await self._compare(orders)
            self._tell_marks()
            wallet = await self._wallet.compare(self._catch_up)
            self._since = now
            return Reconciled(now, missed, asked, differences, wallet.trouble, wallet.lasts)

    def keep(self, event: Event) -> None:
        """Everything that is told passes here."""
        self._wallet.keep(event)

    async def _catch_up(self) -> int:
        """Book executions that the stream did not bring; how many."""
        before = self._book.booked
        found = await self._executions(self._since - _OVERLAP)
        for execution in sorted(found, key=lambda item: item.exec_time):
            self._desk.take_execution(execution)
        return self._book.booked - before

    async def _ask_for_orders(self) -> tuple[int, list[Order]]:
        """The fate of our orders that are not open at the exchange; those that are show themselves, also
        where we had given them up. How many had to be asked for, and all that are open."""
        ours = self._book.open_links()  # before the list is read: what is sent meanwhile is not in it
        open_there = await self._rest.orders.open_orders(settle_coin=SETTLE)
        for order in open_there:
            self._desk.take_order(order)
        doubtful = ours.keys() - {order.order_link_id for order in open_there}
        unknown = set()
        for link_id in sorted(doubtful):
            if not self._book.is_open(link_id) or self._desk.is_sending(link_id):
                continue
            if await self._desk.look_up(link_id, ours[link_id]) is False:
                unknown.add(link_id)
        for link_id in unknown & self._unknown:  # the second time: lists may lag
            self._desk.give_up(link_id, ours[link_id])
        self._unknown = unknown - self._unknown
        return len(doubtful), open_there

    async def _compare(self, orders: Sequence[Order]) -> tuple[str, ...]:
        """A difference that lasts, while nothing is booked, is the exchange's word against ours: it is right.

        Positions are read before executions, so that our books know at least as much as what they are
        compared with; a symbol that is booked meanwhile, or between two looks, cannot be compared: the same
        difference may be another order's.
        """
        suspects: dict[str, tuple[Held, Decimal, int]] | None = None
        for pause in LOOKS:
            await self._sleep(pause)
            before, asked = self._book.bookings.copy(), self._rest.clock.now_ms()
            positions = self._note(await self._rest.account.positions())
            await self._catch_up()
            ours, booked = self._book.quantities, self._book.bookings
            differing = {
                symbol: (positions.get(symbol, Held()), ours.get(symbol, Decimal(0)), booked[symbol])
                for symbol in positions.keys() | ours.keys()
                if positions.get(symbol, Held()).qty != ours.get(symbol, Decimal(0))
                and booked[symbol] == before[symbol]
                and (symbol in ours or self._owners.holds(symbol))
            }
            if suspects is None:
                suspects = differing
                self._release(positions, before, asked)
                self._tell_others(positions, orders, asked)
            suspects = {name: found for name, found in suspects.items() if differing.get(name) == found}
            if not suspects:
                return ()
        told = []
        for symbol, (held, own, _) in sorted((suspects or {}).items()):
            text = f"the exchange holds {held.qty:f}, our books {own:f}"
            self._adopt(symbol, held, text)
            told.append(f"{symbol}: {text}")
        return tuple(told)

    def _release(self, positions: Mapping[str, Held], before: Mapping[str, int], asked: int) -> None:
        """What was flat after `asked` (ms), with nothing of ours under way: anybody may have it."""
        if self._clear_again:
            return  # a bot that died may have had a last word
        used = {*positions, *self._book.quantities, *self._book.open_links().values()}
        for symbol in self._owners.claims:
            if symbol in used or self._book.bookings[symbol] != before.get(symbol, 0):
                continue
            inherited = symbol in self._owners.inherited
            if self._owners.release(symbol, asked) and inherited:
                self._adopt(
                    symbol, Held(), "what earlier runs had there is over"
                )  # so that the database knows

    def _tell_others(self, positions: Mapping[str, Held], orders: Sequence[Order], asked: int) -> None:
        """What somebody else holds, and has ordered that may add to it."""
        count = Counter(
            order.symbol
            for order in _no_stops(orders)
            if not order.reduce_only and self._owners.is_another(order.order_link_id)
        )
        held = {symbol: item.qty for symbol, item in positions.items()}
        for event in self._owners.look(held, count, asked, self._rest.clock.now_ms()):
            self._emit(event)

    async def _trace(self, positions: Sequence[Position]) -> None:
        """The executions say whose a position is that nobody claims: what the exchange carried out after all,
        as a bot died that had given it up, is ours."""
        for position in positions:
            if position.size and not self._owners.holds(position.symbol):
                now = self._rest.clock.now_ms()
                found = await self._rest.orders.executions(
                    symbol=position.symbol, start=now - _LONGEST, end=now + MINUTE_MS
                )
                self._owners.trace(position, found)

    def _adopt(self, symbol: str, held: Held, reason: str) -> None:
        for event in self._book.adopt(symbol, held, self._rest.clock.now_ms(), reason):
            self._emit(event)

    def _tell_marks(self) -> None:
        now = self._rest.clock.now_ms()
        for symbol, mark in self._marks.items():
            self._emit(PositionMarked(now, now, symbol, mark))

    async def _executions(self, start: int) -> list[Execution]:
        now = self._rest.clock.now_ms()
        return await self._rest.orders.executions(start=max(start, now - _LONGEST), end=now + MINUTE_MS)

    def _ours_of(self, executions: Sequence[Execution]) -> set[str]:
        is_ours = self._owners.is_ours
        return {
            item.exec_id for item in executions if is_ours(item.symbol, item.order_link_id, item.exec_time)
        }

    def _note(self, found: Sequence[Position]) -> dict[str, Held]:
        """Open positions, others' included; stops and marks of ours are taken note of."""
        ours = [position for position in found if self._owners.holds(position.symbol)]
        for position in ours:
            self._desk.take_position(position)
        self._marks = {item.symbol: float(item.mark_price) for item in ours if item.size and item.mark_price}
        return {position.symbol: _held(position) for position in found if position.size}


def _no_stops(orders: Sequence[Order]) -> list[Order]:
    return [order for order in orders if order.stop_order_type in _NO_STOP]


def _names(orders: Sequence[Order]) -> list[str]:
    return [f"{order.symbol} {order.order_link_id or order.order_id}" for order in _no_stops(orders)]


def _held(position: Position) -> Held:
    return Held(position.signed_size, position.entry or Decimal(0), position.stop_loss or None)
