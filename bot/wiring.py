"""The parts of a run on an exchange, wired: market and broker tell the inbox, one loop feeds the engine."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bot.core.events import EntriesAllowed, EntriesBlocked, Event
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
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.runner = Runner(
            self.engine, self.broker, self.adapter, self.journal, self.adaptation_delay,
            (self.view.apply, self.log.apply),
        )  # fmt: skip

    async def live(self, stop: asyncio.Event) -> None:
        """Until `stop`. Raises what ends a service that should not end."""
        clock = self.rest.clock
        services = [self.market.run(), keep_measured(clock, self.rest.market.time_ms, self._on_clock)]
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

    def _on_clock(self, health: Health) -> None:
        now = self.rest.clock.now_ms()
        event = (
            EntriesAllowed(now, now, "clock")
            if health.ok
            else EntriesBlocked(now, now, "clock", health.reason)
        )
        self.inbox.put_nowait(event)
