"""The broker of testnet, demo and live: commands in, facts about our account out.

Facts come from the private streams; REST answers what they leave open. `submit` never waits: the facts go to
`emit`, in the order in which they became known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from bot.core.commands import BrokerCommand
from bot.core.errors import RuntimeFault
from bot.core.events import OPERATOR, RESTART, EntriesAllowed, EntriesBlocked, Event
from bot.exchange.bybit.account_book import AccountBook
from bot.exchange.bybit.environment import Credentials, Environment
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.order_desk import DeskSettings, OrderDesk
from bot.exchange.bybit.order_entry import OrderEntry
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.reconciliation import Opening, Reconciled, Reconciler
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import (
    Backoff,
    BadFrames,
    ConnectionBudget,
    Disconnected,
    LoginRefused,
    Notice,
    ResyncFailed,
    Stream,
    StreamSettings,
    TopicRejected,
    TopicStale,
)
from bot.exchange.bybit.streams.connection import first_to_end
from bot.exchange.bybit.streams.raw import RawBook
from bot.exchange.bybit.trade_stream import TradeStream
from bot.exchange.bybit.wallet_check import WalletSettings
from bot.exchange.bybit.wire import Pushed
from bot.exchange.bybit.wire.private import Executions, Orders, Positions

TOPICS: Final = ("order", "execution", "position", "wallet")
_ANEW: Final = "stop the bot and start it again"
_ACCOUNT: Final = "account"  # the cause of blocks that a quiet reconciliation lifts


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Seconds."""

    desk: DeskSettings = field(default_factory=DeskSettings)
    reconcile: float = 15.0  # between looks at the account by REST
    look: float = 1.0  # between looks for executions that did not come
    patience: float = 30.0  # for the exchange to answer at the start
    orders_by_websocket: bool = False
    wallet: WalletSettings = field(default_factory=WalletSettings)


class BybitBroker:
    """`start`, then `run` for as long as anything is submitted; `close` at the end.

    last: the newest reconciliation. submitted: commands so far. prepare: see OrderDesk. owners: whose a
    symbol is; by default everything is ours.
    """

    def __init__(
        self,
        environment: Environment,
        credentials: Credentials,
        rest: Rest,
        emit: Callable[[Event], None],
        settings: BrokerSettings | None = None,
        *,
        prepare: Callable[[str], Awaitable[None]] | None = None,
        owners: Ownership | None = None,
        stream_settings: StreamSettings | None = None,
        budget: ConnectionBudget | None = None,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.last: Reconciled | None = None
        self.submitted = 0
        self._settings = settings or BrokerSettings()
        self._rest = rest
        self._emit = emit
        self.owners = owners or Ownership()
        self._book = AccountBook(self.owners)
        budget = budget or rest.connections
        self._trade_stream = (
            TradeStream(
                environment, credentials, clock=rest.clock, limits=rest.limits,
                on_notice=self._on_trade_notice, budget=budget, settings=stream_settings, backoff=backoff(),
                timeout=rest.recv_window_ms / 1_000, recv_window_ms=rest.recv_window_ms,
                resync=rest.measure_clock,
            )
            if self._settings.orders_by_websocket
            else None
        )  # fmt: skip
        self._desk = OrderDesk(
            rest, self._entry, self._book, self._tell, self.submit, self._settings.desk, prepare
        )
        self._reconciler = Reconciler(rest, self._book, self._desk, self._tell, self._settings.wallet)
        self._stream = Stream(
            environment.private_url, TOPICS, clock=rest.clock, credentials=credentials,
            resync=self._resync, budget=budget, settings=stream_settings, backoff=backoff(),
        )  # fmt: skip
        self._opening: asyncio.Future[Opening] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._blocked = ""  # why no entries
        self._doubted = asyncio.Event()
        self._trouble = ""  # why the account could not be read yet

    async def start(self) -> Opening:
        """Connect and read the account: its positions come as `PositionAdopted`.

        Raises RuntimeFault when the exchange does not answer in time.
        """
        self._running = asyncio.create_task(self._serve())
        done, _ = await asyncio.wait(
            (self._running, self._opening), timeout=self._settings.patience,
            return_when=asyncio.FIRST_COMPLETED,
        )  # fmt: skip
        if self._opening in done:
            return self._opening.result()
        await self.close()
        lost = ", ".join(self._stream.traffic.lost)
        raise RuntimeFault(
            f"{self._rest.transport.environment.name}: the account could not be read within "
            f"{self._settings.patience:g} s ({self._trouble or lost or 'no answer'}); check the network, the "
            "key and the exchange's status page"
        )

    async def run(self) -> None:
        """Until cancelled. Raises what should not happen."""
        assert self._running is not None
        await asyncio.shield(self._running)

    async def close(self) -> None:
        """Stop everything. What the exchange has, it keeps: orders, positions and their stops."""
        tasks = [*self._tasks, *([self._running] if self._running else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the runner's side (bot.engine.runner.Broker) -------------------------------------------------------

    def submit(self, command: BrokerCommand) -> list[Event]:
        """Send it, in a task of its own; nothing is known yet."""
        self.submitted += 1
        self._desk.accept(command)
        self._spawn(self._desk.carry_out(command))
        return []

    def on_market(self, events: Sequence[Event]) -> list[Event]:
        """The real exchange needs no telling."""
        return []

    async def settled(self) -> None:
        """Return when no command is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def reconcile(self) -> Reconciled:
        """Compare with the exchange now. Raises ExchangeError."""
        self.last = await self._reconciler.reconcile()
        if self.last.differences:
            self._block(f"adopted without an explanation: {'; '.join(self.last.differences)}", OPERATOR)
        elif self.last.wallet:
            self._block(self.last.wallet)
            if self.last.wallet_lasts:
                self._block(self.last.wallet, OPERATOR)
        elif risen := self._book.risen_entries:
            self._block(f"given up, at the exchange after all, and not cancelled yet: {', '.join(risen)}")
        elif self._stream.connected:
            self._allow()
        return self.last

    def _entry(self) -> OrderEntry:
        """REST where the WebSocket is down: an exit must not wait for a connection. While the address may
        send no requests, the open connection is still a way."""
        stream = self._trade_stream
        return stream if stream is not None and stream.connected else self._rest.orders

    def frames(self) -> dict[str, tuple[int, int]]:
        """Frames that came in and frames accounted for, by stream."""
        counts = {"private": self._stream.counts()}
        if self._trade_stream is not None:
            counts["order entry"] = self._trade_stream.counts()
        return counts

    # --- streams --------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        trading = (self._trade_stream.run(),) if self._trade_stream else ()
        await first_to_end(
            self._stream.run(), self._listen(), self._reconcile_for_ever(), self._chase(), *trading
        )

    async def _resync(self) -> None:
        if self._opening.done():
            await self.reconcile()
            return
        try:
            self._opening.set_result(await self._reconciler.open())
        except Exception as error:
            self._trouble = f"{type(error).__name__}: {error}"
            raise

    async def _listen(self) -> NoReturn:
        await asyncio.shield(self._opening)
        while True:
            for delivery in await self._stream.take():
                self._hear(delivery.message)

    def _hear(self, message: Pushed | RawBook | Any) -> None:
        if isinstance(message, Orders):
            for order in message.data:
                self._desk.take_order(order)
        elif isinstance(message, Executions):
            for execution in message.data:
                self._desk.take_execution(execution)
        elif isinstance(message, Positions):
            for position in message.data:
                self._desk.take_position(position)
        else:
            self._heed(message)

    def _heed(self, message: Pushed | RawBook | Any) -> None:
        """What the stream says of itself."""
        if isinstance(message, TopicRejected):
            self._block(f"the private stream has no {message.topic}: {message.reason}; {_ANEW}", RESTART)
        elif isinstance(message, BadFrames):
            self._doubt(f"{message.count} messages of the private stream cannot be read: {message.reason}")
        elif isinstance(message, TopicStale):
            self._doubt(f"{message.topic} is silent for {message.silent_s:.0f} s")
        elif isinstance(message, Disconnected):
            self._block(f"the private stream is down: {message.reason}")
        elif isinstance(message, LoginRefused):
            self._block(f"the private stream refuses the key: {message.reason}")
        elif isinstance(message, ResyncFailed):
            self._block(f"the account cannot be read: {message.reason}")

    def _on_trade_notice(self, notice: Notice) -> None:
        """Orders go by REST meanwhile; entries wait until the account has been looked at."""
        if isinstance(notice, Disconnected | LoginRefused):
            self._doubt(f"the order entry stream is down: {notice.reason}")
        elif isinstance(notice, BadFrames):
            self._doubt(f"the order entry stream sends what cannot be read: {notice.reason}")

    def _doubt(self, reason: str) -> None:
        """Something may have been missed: no entries before the account has been read again, at once."""
        self._block(reason)
        self._doubted.set()

    # --- looking after --------------------------------------------------------------------------------------

    async def _reconcile_for_ever(self) -> NoReturn:
        await asyncio.shield(self._opening)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.reconcile):
                    await self._doubted.wait()
            self._doubted.clear()
            try:
                await self.reconcile()
            except ExchangeError as error:
                self._block(f"the account cannot be read: {error.reason}")

    async def _chase(self) -> NoReturn:
        """Ask for executions that the exchange counts and has not told."""
        overdue: dict[str, str] = {}
        while True:
            await asyncio.sleep(self._settings.look)
            for link_id, symbol in overdue.items():
                if self._book.is_open(link_id):
                    await self._desk.look_up(link_id, symbol)
            overdue = self._book.incomplete()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._block(f"a command failed: {type(error).__name__}: {error}; {_ANEW}", RESTART)

    # --- health ---------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if isinstance(event, EntriesBlocked) and event.cause == _ACCOUNT:
            self._blocked = event.reason
        self._reconciler.keep(event)
        self._emit(event)

    def _block(self, reason: str, cause: str = _ACCOUNT) -> None:
        if cause == _ACCOUNT and reason == self._blocked:
            return
        now = self._rest.clock.now_ms()
        self._tell(EntriesBlocked(now, now, cause, reason))

    def _allow(self) -> None:
        """The account can be read and is as we know it. What a person must see to stays."""
        if self._blocked:
            now = self._rest.clock.now_ms()
            self._blocked = ""
            self._emit(EntriesAllowed(now, now, _ACCOUNT))
