"""Commands to the exchange, each to its end: sent, refused, or of unknown outcome and then found out.

An order is never sent again blindly. What was certainly not done may be sent again under the same
`orderLinkId`; what may have been done is asked for until the answer is certain. A request that was signed at
T cannot be accepted after T + recv_window: an order that the exchange does not know then never came to be.
Where the exchange itself was late, and speaks of such an order after all, it is followed again: an entry is
cancelled, what was filled of it is booked. Until that is unlikely no other entry of that symbol leaves.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from bot.core.commands import AmendOrder, BrokerCommand, CancelOrder, MoveStop, PlaceOrder
from bot.core.errors import UsageError
from bot.core.events import OPERATOR, EntriesBlocked, Event, OrderCancelled, OrderRejected
from bot.core.money import exact
from bot.core.types import OrderRequest
from bot.exchange.bybit.account_book import AccountBook
from bot.exchange.bybit.bursts import Bursts
from bot.exchange.bybit.errors import ExchangeError, Kind, Ruling
from bot.exchange.bybit.order_entry import OrderEntry
from bot.exchange.bybit.requests import Amendment, Cancellation, NewOrder, new_order, trading_stop
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.translate import ENDED
from bot.exchange.bybit.wire import WireError
from bot.exchange.bybit.wire.private import Execution, Order, Position

_STUBBORN: Final = 10  # attempts of what must be done, before it is told, and each time again
_PERSON: Final = (Kind.CONFIGURATION, Kind.FATAL)  # somebody must act


@dataclass(frozen=True, slots=True)
class DeskSettings:
    """Seconds."""

    entry_valid: float = 30.0  # an entry that could not be sent for so long is not wanted any more
    exit_valid: float = 300.0
    confirm: float = 3.0  # after an acknowledgement, until the stream should have spoken
    margin: float = 2.0  # creation is asynchronous: an order may show this much after it was accepted
    quarantine: float = 60.0  # without entries of a symbol of which an order was given up: it may show yet
    shortest_wait: float = 0.25
    longest_wait: float = 2.0


class OrderDesk:
    """Each method runs as a task of its own; what comes of it is told to `emit`.

    entry: the way for orders that is open now.
    submit: carries out a command in a task of its own.
    prepare: awaited with the symbol before an entry leaves (`Preparation.symbol`).
    """

    def __init__(
        self,
        rest: Rest,
        entry: Callable[[], OrderEntry],
        book: AccountBook,
        emit: Callable[[Event], None],
        submit: Callable[[BrokerCommand], object],
        settings: DeskSettings,
        prepare: Callable[[str], Awaitable[None]] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._rest = rest
        self._bursts = Bursts(entry)
        self._book = book
        self._emit = emit
        self._submit = submit
        self._settings = settings
        self._prepare = prepare
        self._rng = rng or random.Random()
        self._creating: dict[str, asyncio.Event] = {}  # set when the request has come to an end
        self._wanted_stops: dict[str, MoveStop] = {}
        self._quarantined: dict[str, float] = {}  # symbols without entries, until when (ms)

    # --- commands -------------------------------------------------------------------------------------------

    def accept(self, command: BrokerCommand) -> None:
        """Take note before the task begins, so that what follows finds it."""
        if isinstance(command, PlaceOrder):
            self._book.track(command.order)
            self._creating[command.order.link_id] = asyncio.Event()
        elif isinstance(command, MoveStop):
            self._wanted_stops[command.symbol] = command

    async def carry_out(self, command: BrokerCommand) -> None:
        if isinstance(command, PlaceOrder):
            try:
                await self._place(command)
            finally:
                self._creating.pop(command.order.link_id).set()
        elif isinstance(command, CancelOrder):
            await self._cancel(command)
        elif isinstance(command, AmendOrder):
            await self._amend(command)
        else:
            await self._move_stop(command)

    async def _place(self, command: PlaceOrder) -> None:
        order = command.order
        if not order.reduce_only and self._quarantined.get(order.symbol, 0.0) > self._now():
            self._reject(
                order.link_id, f"not sent: an order of {order.symbol} that was given up may show yet"
            )
            return
        valid = self._settings.exit_valid if order.reduce_only else self._settings.entry_valid
        until = command.valid_until or command.ts + valid * 1_000
        waits = self._waits()
        while self._now() <= until:
            try:
                if self._prepare is not None and not order.reduce_only:
                    await self._prepare(order.symbol)
                request = await self._request(order)
                if not order.reduce_only and not self._book.owners.enter(order.symbol, self._now()):
                    self._reject(order.link_id, f"not sent: somebody else is in {order.symbol}")
                    return
                await self._bursts.creates.send(request)
            except UsageError as error:
                self._stop_entries(str(error))
                self._reject(order.link_id, str(error))
                return
            except ExchangeError as error:
                if error.kind is Kind.RETRY:
                    await asyncio.sleep(max(waits(), error.retry_after))
                elif error.kind is Kind.UNKNOWN:
                    await self.resolve(order.link_id, order.symbol, self._now())
                    return
                else:
                    self._refused(order, error)
                    return
            else:
                await self._confirm(order, self._now())
                return
        self._reject(order.link_id, f"not sent: older than {(until - command.ts) / 1_000:g} s")

    async def _request(self, order: OrderRequest) -> NewOrder:
        last = None
        if order.trigger_price is not None:  # its direction depends on the price now
            (ticker,) = await self._rest.market.tickers(order.symbol)
            if not isinstance(ticker.last_price, float):
                raise ExchangeError(Ruling(Kind.RETRY, f"{order.symbol} has no last price"), path="tickers")
            last = exact(ticker.last_price)
        return new_order(order, last)

    async def _confirm(self, order: OrderRequest, signed_by: int) -> None:
        """The exchange took it; if the stream does not say so, ask."""
        await asyncio.sleep(self._settings.confirm)
        if not self._book.is_heard(order.link_id):
            await self.resolve(order.link_id, order.symbol, signed_by)

    def _refused(self, order: OrderRequest, error: ExchangeError) -> None:
        if error.kind in _PERSON:
            self._stop_entries(str(error))
        self._reject(order.link_id, f"{error.reason}: {error.text}" if error.text else error.reason)

    def _reject(self, link_id: str, reason: str) -> None:
        now = self._now()
        self._tell(self._book.reject(OrderRejected(now, now, link_id, reason)))

    async def _cancel(self, command: CancelOrder) -> None:
        link_id, symbol = command.link_id, command.symbol
        await self._created(link_id)
        waits, attempts, reason, hopeless = self._waits(), 0, "no word of its end", False
        while self._book.is_open(link_id):
            if attempts and attempts % _STUBBORN == 0:
                tell = self._stop_entries if hopeless else self._doubt
                tell(f"{link_id} of {symbol} is not cancelled after {attempts} attempts: {reason}")
            attempts += 1
            try:
                await self._bursts.cancellations.send(Cancellation(symbol=symbol, order_link_id=link_id))
                await asyncio.sleep(self._settings.confirm)
            except ExchangeError as error:
                was, reason = hopeless, str(error)
                hopeless = not error.may_pass
                if hopeless and not was:
                    self._stop_entries(f"cannot cancel {link_id}, which is tried again and again: {error}")
                await asyncio.sleep(max(waits(), error.retry_after))
            if self._book.is_open(link_id):
                await self.look_up(link_id, symbol)

    async def _amend(self, command: AmendOrder) -> None:
        """Once: an order that was filled meanwhile tells so itself, and a newer price may follow."""
        await self._created(command.link_id)
        if not self._book.is_open(command.link_id):
            return
        change = Amendment(symbol=command.symbol, order_link_id=command.link_id, price=command.price)
        try:
            await self._bursts.amendments.send(change)
        except ExchangeError as error:
            if error.kind in _PERSON:
                self._stop_entries(f"cannot amend {command.link_id}: {error}")
            else:
                await self.look_up(command.link_id, command.symbol)

    async def _created(self, link_id: str) -> None:
        """What overtakes its order would find nothing."""
        if (creating := self._creating.get(link_id)) is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rest.recv_window_ms / 1_000):
                    await creating.wait()

    async def _move_stop(self, command: MoveStop) -> None:
        """The newest wish for a symbol counts; afterwards the exchange says where the stop is.

        One that is refused beside an exit is no trouble: should the exit fail, the engine asks again.
        """
        symbol, waits, attempts, reason = command.symbol, self._waits(), 0, ""
        while self._wanted_stops.get(symbol) is command:
            if attempts and attempts % _STUBBORN == 0:
                stop = f"{command.stop_loss:f}"
                self._doubt(f"{symbol} has no stop at {stop} after {attempts} attempts: {reason}")
            attempts += 1
            refused: ExchangeError | None = None
            try:
                await self._rest.orders.set_stop(trading_stop(command))
            except ExchangeError as error:
                if error.may_pass:
                    reason = str(error)
                    await asyncio.sleep(max(waits(), error.retry_after))
                    continue
                refused = error
            try:
                positions = await self._rest.account.positions(symbol=symbol)
            except ExchangeError as error:
                reason = str(error)
                await asyncio.sleep(waits())
                continue
            for position in positions:
                self.take_position(position)
            held = any(position.size for position in positions) and not self._book.is_leaving(symbol)
            if refused is not None and held:
                self._stop_refused(command, refused)
            if self._wanted_stops.get(symbol) is command:  # a newer wish may have come meanwhile
                del self._wanted_stops[symbol]

    def _stop_refused(self, command: MoveStop, error: ExchangeError) -> None:
        now, text = self._now(), f"{command.symbol} did not get its stop at {command.stop_loss:f}: {error}"
        cause = OPERATOR if error.kind in _PERSON else "account"
        self._emit(EntriesBlocked(now, now, cause, text))

    # --- finding out ----------------------------------------------------------------------------------------

    async def resolve(self, link_id: str, symbol: str, signed_by: int) -> None:
        """Until the exchange knows the order, or cannot know it any more.

        `signed_by` (ms) must not be before the signature, which waits for prices, limits and other requests.
        """
        certain_at = signed_by + self._rest.recv_window_ms + self._settings.margin * 1_000
        waits, empty = self._waits(), 0
        while not self._book.is_heard(link_id):
            asked_at = self._now()
            if await self.look_up(link_id, symbol) is False and asked_at >= certain_at:
                empty += 1
                if empty == 2:  # two answers, so that one that came from a lagging part does not decide
                    self._quarantine(symbol)
                    self._reject(link_id, "the exchange never received it")
                    return
            await asyncio.sleep(waits())

    def is_sending(self, link_id: str) -> bool:
        """A task is still at it."""
        return link_id in self._creating

    def give_up(self, link_id: str, symbol: str) -> None:
        now = self._now()
        self._quarantine(symbol)
        self._tell(self._book.give_up(OrderCancelled(now, now, link_id, "the exchange does not know it")))

    def _quarantine(self, symbol: str) -> None:
        self._quarantined[symbol] = self._now() + self._settings.quarantine * 1_000

    async def look_up(self, link_id: str, symbol: str) -> bool | None:
        """Ask for an order and its executions; None when no answer came."""
        try:
            order = await self._rest.orders.find(link_id, symbol)
            executions = await self._rest.orders.executions(symbol=symbol, link_id=link_id)
        except ExchangeError:
            return None
        for execution in sorted(executions, key=lambda item: item.exec_time):
            if execution.order_link_id == link_id:
                self.take_execution(execution)
        if order is not None:
            self.take_order(order)
        return order is not None or bool(executions)

    # --- what the exchange says -----------------------------------------------------------------------------

    def take_order(self, order: Order) -> None:
        if order.cum_exec_qty or order.order_status not in ENDED:
            self._follow_again(order.order_link_id)
        self._take(lambda: self._book.on_order(order, self._now()))

    def take_execution(self, execution: Execution) -> None:
        self._follow_again(execution.order_link_id)
        self._take(lambda: self._book.on_execution(execution, self._now()))

    def take_position(self, position: Position) -> None:
        self._take(lambda: self._book.on_position(position, self._now()))

    def _follow_again(self, link_id: str) -> None:
        """If we had given it up. Nobody wants it any more: an entry is cancelled, an exit can only reduce."""
        order = self._book.rise(link_id)
        if order is None:
            return
        now, what = self._now(), "it may reduce" if order.reduce_only else "it is cancelled, fills are booked"
        self._doubt(f"{link_id} of {order.symbol} was given up and is at the exchange after all: {what}")
        if not order.reduce_only:
            self._quarantine(order.symbol)
            self._submit(CancelOrder(now, order.symbol, link_id))

    def _take(self, read: Callable[[], list[Event]]) -> None:
        """What cannot be understood stops entries: our books may lack it for good."""
        try:
            self._tell(read())
        except WireError as error:
            self._stop_entries(str(error))

    def _stop_entries(self, reason: str) -> None:
        """For a person to look at, and to end by `bot resume`; what lasts is told when it is met again."""
        now = self._now()
        self._emit(EntriesBlocked(now, now, OPERATOR, reason))

    def _doubt(self, reason: str) -> None:
        """Told; no entries before the account has been looked at."""
        now = self._now()
        self._emit(EntriesBlocked(now, now, "account", reason))

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            self._emit(event)

    def _now(self) -> int:
        return self._rest.clock.now_ms()

    def _waits(self) -> Callable[[], float]:
        """Growing waits between attempts, in seconds, with jitter."""
        settings, attempt = self._settings, 0

        def wait() -> float:
            nonlocal attempt
            bound = min(settings.longest_wait, settings.shortest_wait * 2**attempt)
            attempt += 1
            return self._rng.uniform(bound / 2, bound)

        return wait
