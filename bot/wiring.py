"""The parts of a run on an exchange, wired: market and broker tell the inbox, one loop feeds the engine."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bot.auditing import DailyAudit
from bot.control import Control
from bot.core.commands import Command
from bot.core.events import EntriesAllowed, EntriesBlocked, Event, OperatorCommanded
from bot.core.records import Record
from bot.core.types import Verb
from bot.dashboard.lines import LineView
from bot.engine.engine import Engine
from bot.engine.live import follow
from bot.engine.runner import Adapter, Runner
from bot.engine.standing import standing
from bot.exchange.bybit.audit import Line, RunLog, audit, frames_line
from bot.exchange.bybit.broker import BybitBroker
from bot.exchange.bybit.clock import Health, keep_measured
from bot.exchange.bybit.live_market import LiveMarket
from bot.exchange.bybit.maintenance import watch_maintenance
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams.connection import first_to_end
from bot.exchange.simulated.broker import SimulatedBroker
from bot.ops.systemd import Notifier
from bot.storage.journal import Journal

LEAVE_SECONDS: Final = 1.0  # for commands under way when the run is stopped or given up
_FLATTEN_SECONDS: Final = 4.5


@dataclass(slots=True)
class Wiring:
    """`inbox` is what market and broker were given to tell.

    control: what a person may tell the run by, if anything. flatten_at_stop: close everything when stopped.
    opened: when the balance was read, ms UTC. tell_audit: takes the lines of each day's audit.
    """

    rest: Rest
    inbox: "asyncio.Queue[Event]"
    market: LiveMarket
    broker: BybitBroker | SimulatedBroker
    engine: Engine
    journal: Journal
    view: LineView
    adapter: Adapter
    adaptation_delay: int  # ms
    control: Control | None = None
    flatten_at_stop: bool = False
    opened: int = 0
    tell_audit: Callable[[Sequence[Line]], None] = lambda _: None
    notifier: Notifier = field(default_factory=Notifier)
    log: RunLog = field(default_factory=RunLog)
    replaying: bool = False  # the past: for the counts, not for the screen
    runner: Runner = field(init=False)
    audits: DailyAudit = field(init=False)

    def __post_init__(self) -> None:
        self.audits = DailyAudit(
            self.rest, self.engine, self.log, self.inbox.put_nowait, self.tell_audit, self.opened
        )
        observers = [self._show, self.log.apply]
        if self.control is not None:
            observers.append(self.control.apply)
        self.runner = Runner(
            self.engine, self.broker, self.adapter, self.journal, self.adaptation_delay, observers
        )

    def _show(self, message: Event | Command | Record) -> None:
        (self.view.learn if self.replaying else self.view.apply)(message)

    async def live(self, stop: asyncio.Event) -> None:
        """Until `stop`. Raises what ends a service that should not end."""
        services = [
            self.market.run(),
            watch_clock(self.rest, self.inbox),
            watch_maintenance(self.rest, self._on_maintenance),
        ]
        if isinstance(self.broker, BybitBroker):
            services += [self.broker.run(), self.audits.run()]
        await first_to_end(self._follow(stop), *services)

    def _on_maintenance(self, reason: str) -> None:
        now = self.rest.clock.now_ms()
        blocked = EntriesBlocked(now, now, "maintenance", reason)
        self.inbox.put_nowait(blocked if reason else EntriesAllowed(now, now, "maintenance"))

    async def _follow(self, stop: asyncio.Event) -> None:
        if self.control is not None:
            self.control.watch(self.engine)
        self.notifier.ready()
        await follow(self.runner, self.inbox, stop, self.journal.commit, self._tick, self.rest.clock.now_ms)
        self.notifier.stopping()
        killed = self.control is not None and self.control.killed is not None
        if self.flatten_at_stop and not killed and isinstance(self.broker, BybitBroker):
            await self._flatten()

    def _tick(self) -> None:
        """Whenever the loop comes round."""
        self.view.tick(self.rest.clock.now_ms())
        self.notifier.alive()

    async def _flatten(self) -> None:
        """While all services still run: close everything and see it closed, or give up in time."""
        now = self.rest.clock.now_ms()
        wish = OperatorCommanded(now, now, 0, Verb.FLATTEN, "the stop of the process", "live.on_stop")
        self.inbox.put_nowait(wish)
        flat = asyncio.Event()

        def look() -> None:
            self._tick()
            if standing(self.engine).is_flat:
                flat.set()

        with suppress(TimeoutError):
            async with asyncio.timeout(_FLATTEN_SECONDS):
                await follow(self.runner, self.inbox, flat, self.journal.commit, look, self.rest.clock.now_ms)

    async def close(self) -> list[Line]:
        """Let what is under way come to its end, then compare our books with the exchange's since the last
        audit, and the frames of the streams with what became of them. Empty for paper money.

        Raises ExchangeError.
        """
        if not isinstance(self.broker, BybitBroker):
            return []
        try:
            submitted = -1
            while self.broker.submitted != submitted:  # the last prices may move a stop or end a position
                submitted = self.broker.submitted
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEAVE_SECONDS):
                        await self.broker.settled()
                await self.broker.reconcile()
                self._hear()
        finally:  # what came is booked, also where the time or the exchange fails
            self._hear()
        books = self.engine.portfolio
        held = list(books.positions.values())
        lines = await audit(self.rest, self.log, held, books.balance, self.audits.since)
        frames = {"market": self.market.frames(), **self.broker.frames()}
        return lines + [frames_line(name, counts) for name, counts in frames.items()]

    def _hear(self) -> None:
        """Everything that is there."""
        while not self.inbox.empty():
            self.runner.advance([self.inbox.get_nowait()])


async def watch_clock(rest: Rest, inbox: "asyncio.Queue[Event]") -> None:
    """Keep the exchange's time known, and tell when it is not. For ever."""

    def tell(health: Health) -> None:
        now = rest.clock.now_ms()
        blocked = EntriesBlocked(now, now, "clock", health.reason)
        inbox.put_nowait(EntriesAllowed(now, now, "clock") if health.ok else blocked)

    await keep_measured(rest.clock, rest.market.time_ms, tell)
