"""At the end of each UTC day our books are put beside the exchange's, and the result is told."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn

from bot.core.events import OPERATOR, EntriesBlocked, Event
from bot.core.types import DAY_MS, MINUTE_MS
from bot.engine.engine import Engine
from bot.exchange.bybit.audit import Line, RunLog, audit, change_of
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest

_AFTER_MIDNIGHT: Final = MINUTE_MS  # funding is booked, lists have caught up
_ATTEMPTS: Final = 6  # while we trade something may always be under way
_LOOK_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 10.0


class DailyAudit:
    """`run` beside a live run. What differs in the end blocks entries until a person has seen to it.

    tell: takes the lines of each day. emit: takes the block. since: when the balance was read, ms.
    """

    def __init__(
        self, rest: Rest, owners: Ownership, engine: Engine, log: RunLog, emit: Callable[[Event], None],
        tell: Callable[[Sequence[Line]], None], since: int,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._rest, self._owners, self._engine, self._log = rest, owners, engine, log
        self._emit, self._tell, self._sleep = emit, tell, sleep
        self.since = since  # of the next audit
        self._balance = engine.portfolio.balance  # at that time

    async def run(self) -> NoReturn:
        now = self._rest.clock.now_ms
        due = (now() // DAY_MS + 1) * DAY_MS + _AFTER_MIDNIGHT
        while True:
            while now() < due:  # in short steps: a machine may sleep, a clock may be set
                await self._sleep(_LOOK_SECONDS)
            due = (now() // DAY_MS + 1) * DAY_MS + _AFTER_MIDNIGHT
            await self.look()

    async def look(self) -> None:
        """Compare until it is equal, a few times; then say how it came out."""
        lines: list[Line] = []
        for attempt in range(_ATTEMPTS):
            if attempt:
                await self._sleep(_PAUSE_SECONDS)
            now, balance = self._rest.clock.now_ms(), self._engine.portfolio.balance
            try:
                held = list(self._engine.portfolio.positions.values())
                lines = await audit(self._rest, self._owners, self._log, held, balance, self.since)
                lines.append(await change_of(self._rest, balance - self._balance, self.since, now))
            except ExchangeError as error:
                lines = [Line("audit", "not made", str(error), False)]
            if all(line.equal for line in lines):
                break
        self._log.forget(self.since)
        self.since, self._balance = now, balance
        self._tell(lines)
        if differing := [line for line in lines if not line.equal]:
            now = self._rest.clock.now_ms()
            text = "; ".join(f"{line.what}: {line.ours}, the exchange: {line.theirs}" for line in differing)
            self._emit(EntriesBlocked(now, now, OPERATOR, f"the audit of the day differs: {text}"))
