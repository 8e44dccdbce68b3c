"""The parts of a run on an exchange, wired: market and broker tell the inbox, one loop feeds the engine."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bot.core.commands import Command
from bot.core.events import EntriesAllowed, EntriesBlocked, Event
from bot.core.records import Record
from bot.dashboard.lines import LineView
from bot.engine.engine import Engine
from bot.engine.live import follow
from bot.engine.runner import Adapter, Runner
from bot.exchange.bybit.audit import Line, RunLog, audit
from bot.exchange.bybit.broker import BybitBroker
from bot.exchange.bybit.clock import Health, keep_measured
from bot.exchange.bybit.live_market import LiveMarket
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams.connection import first_to_end
from bot.exchange.simulated.broker import SimulatedBroker
from bot.storage.journal import Journal

_LEAVE_SECONDS: Final = 1.0  # for commands under way when the run is stopped


@dataclass(slots=True)
class Wiring:
    """`inbox` is what market and broker were given to tell."""

    rest: Rest
    inbox: "asyncio.Queue[Event]"
    market: LiveMarket
    broker: BybitBroker | SimulatedBroker
    engine: Engine
    journal: Journal
    view: LineView
    adapter: Adapter
    adaptation_delay: int  # ms
    log: RunLog = field(default_factory=RunLog)
    replaying: bool = False  # the past: for the counts, not for the screen
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.runner = Runner(
            self.engine, self.broker, self.adapter, self.journal, self.adaptation_delay,
            (self._show, self.log.apply),
        )  # fmt: skip

    def _show(self, message: Event | Command | Record) -> None:
        (self.view.learn if self.replaying else self.view.apply)(message)

    async def live(self, stop: asyncio.Event) -> None:
        """Until `stop`. Raises what ends a service that should not end."""
        clock = self.rest.clock
        services = [self.market.run(), watch_clock(self.rest, self.inbox)]
        if isinstance(self.broker, BybitBroker):
            services.append(self.broker.run())
        await first_to_end(
            follow(
                self.runner,
                self.inbox,
                stop,
                self.journal.commit,
                lambda: self.view.tick(clock.now_ms()),
                clock.now_ms,
            ),
            *services,
        )

    async def close(self, since: int) -> list[Line]:
        """Let what is under way come to its end, then compare our books with the exchange's.

        Empty for paper money. Raises ExchangeError.
        """
        if not isinstance(self.broker, BybitBroker):
            return []
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self.broker.settled()
        await self.broker.reconcile()
        while not self.inbox.empty():
            self.runner.advance([self.inbox.get_nowait()])
        books = self.engine.portfolio
        return await audit(self.rest, self.log, list(books.positions.values()), books.balance, since)


async def watch_clock(rest: Rest, inbox: "asyncio.Queue[Event]") -> None:
    """Keep the exchange's time known, and tell when it is not. For ever."""

    def tell(health: Health) -> None:
        now = rest.clock.now_ms()
        blocked = EntriesBlocked(now, now, "clock", health.reason)
        inbox.put_nowait(EntriesAllowed(now, now, "clock") if health.ok else blocked)

    await keep_measured(rest.clock, rest.market.time_ms, tell)
