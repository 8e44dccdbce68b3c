"""How a run on an exchange ends: everything closed where that is wanted, and a last look at the account.

The same before trading begins, while the account is only in care, and afterwards.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from bot.core.events import Event, OperatorCommanded
from bot.core.types import Verb
from bot.engine.engine import Engine
from bot.engine.live import follow
from bot.engine.runner import Journal, Runner
from bot.engine.standing import standing
from bot.exchange.bybit.audit import Line, RunLog, audit, frames_line
from bot.exchange.bybit.broker import BybitBroker
from bot.exchange.bybit.rest import Rest

LEAVE_SECONDS: Final = 1.0  # for commands under way when the run is stopped or given up
_FLATTEN_SECONDS: Final = 4.5


@dataclass(frozen=True, slots=True)
class Ending:
    """The parts that are needed for it; nobody else may feed the runner meanwhile."""

    rest: Rest
    broker: BybitBroker
    inbox: "asyncio.Queue[Event]"
    engine: Engine
    runner: Runner
    journal: Journal
    log: RunLog

    async def flatten(self, tick: Callable[[], None] = lambda: None) -> None:
        """While the broker still runs: close everything and see it closed, or give up in time."""
        now = self.rest.clock.now_ms()
        wish = OperatorCommanded(now, now, 0, Verb.FLATTEN, "the stop of the process", "live.on_stop")
        self.inbox.put_nowait(wish)
        flat = asyncio.Event()

        def look() -> None:
            tick()
            if standing(self.engine).is_flat:
                flat.set()

        with suppress(TimeoutError):
            async with asyncio.timeout(_FLATTEN_SECONDS):
                await follow(self.runner, self.inbox, flat, self.journal.commit, look, self.rest.clock.now_ms)

    async def look(self, since: int) -> list[Line]:
        """Let what is under way come to its end, then compare our books with the exchange's.

        `since`: of what is compared, ms. The frames of the broker's streams are counted, too. Raises
        ExchangeError.
        """
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
        books, owners = self.engine.portfolio, self.broker.owners
        held = list(books.positions.values())
        lines = await audit(self.rest, owners, self.log, held, books.balance, since)
        return lines + [frames_line(name, counts) for name, counts in self.broker.frames().items()]

    def _hear(self) -> None:
        """Everything that is there."""
        while not self.inbox.empty():
            self.runner.advance([self.inbox.get_nowait()])
