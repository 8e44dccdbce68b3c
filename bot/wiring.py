"""The parts of a run on an exchange, wired: market and broker tell the inbox, one loop feeds the engine."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bot.auditing import DailyAudit
from bot.control import Control
from bot.core.commands import Command
from bot.core.events import EntriesAllowed, EntriesBlocked, Event
from bot.core.records import Record
from bot.dashboard.lines import LineView
from bot.ending import Ending
from bot.engine.engine import Engine
from bot.engine.live import follow
from bot.engine.runner import Adapter, Runner
from bot.exchange.bybit.audit import Line, RunLog, frames_line
from bot.exchange.bybit.broker import BybitBroker
from bot.exchange.bybit.clock import Health, keep_measured
from bot.exchange.bybit.live_market import LiveMarket
from bot.exchange.bybit.maintenance import watch_maintenance
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams.connection import first_to_end
from bot.exchange.simulated.broker import SimulatedBroker
from bot.ops.systemd import Notifier
from bot.storage.journal import Journal


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
    _ending: Ending | None = field(init=False, default=None)  # of paper money there is nothing to look at

    def __post_init__(self) -> None:
        real = self.broker if isinstance(self.broker, BybitBroker) else None
        owners = real.owners if real is not None else Ownership()
        self.audits = DailyAudit(
            self.rest, owners, self.engine, self.log, self.inbox.put_nowait, self.tell_audit, self.opened
        )
        observers = [self._show, self.log.apply]
        if self.control is not None:
            observers.append(self.control.apply)
        self.runner = Runner(
            self.engine, self.broker, self.adapter, self.journal, self.adaptation_delay, observers
        )
        if real is not None:
            self._ending = Ending(
                self.rest, real, self.inbox, self.engine, self.runner, self.journal, self.log
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
        if self.flatten_at_stop and not killed and self._ending is not None:
            await self._ending.flatten(self._tick)

    def _tick(self) -> None:
        """Whenever the loop comes round."""
        self.view.tick(self.rest.clock.now_ms())
        self.notifier.alive()

    async def close(self) -> list[Line]:
        """The last look, at the time since the last audit. Empty for paper money. Raises ExchangeError."""
        if self._ending is None:
            return []
        lines = await self._ending.look(self.audits.since)
        return [*lines, frames_line("market", self.market.frames())]


async def watch_clock(rest: Rest, inbox: "asyncio.Queue[Event]") -> None:
    """Keep the exchange's time known, and tell when it is not. For ever."""

    def tell(health: Health) -> None:
        now = rest.clock.now_ms()
        blocked = EntriesBlocked(now, now, "clock", health.reason)
        inbox.put_nowait(EntriesAllowed(now, now, "clock") if health.ok else blocked)

    await keep_measured(rest.clock, rest.market.time_ms, tell)
