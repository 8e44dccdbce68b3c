"""When to connect again: soon, then ever more rarely, out of step with others, within Bybit's budget."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

CONNECTIONS: Final = 500  # per five minutes and domain
PERIOD_S: Final = 300.0
_SHARE: Final = 0.8  # other programs may run at the same address


class Backoff:
    """Exponential backoff with full jitter (Brooker 2015): uniform between 0 and a doubling ceiling.

    By the default ceiling an exchange that is there again is tried within three seconds.
    """

    def __init__(self, base: float = 0.5, ceiling: float = 3.0, rng: random.Random | None = None) -> None:
        """Seconds."""
        self._base = base
        self._ceiling = ceiling
        self._rng = rng or random.Random()
        self._failures = 0

    def next(self) -> float:
        """How long to wait before the next attempt."""
        bound = min(self._ceiling, self._base * 2 ** min(self._failures, 30))
        self._failures += 1
        return self._rng.uniform(0, bound)

    def reset(self) -> None:
        self._failures = 0


class ConnectionBudget:
    """A sliding window over new connections, shared by every stream of the process.

    Its last quarter is rationed: an outage that lasts must not end in minutes without any attempt.
    """

    def __init__(
        self,
        connections: int = int(CONNECTIONS * _SHARE),
        period: float = PERIOD_S,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._connections = connections
        self._period = period
        self._monotonic = monotonic
        self._sleep = sleep
        self._taken: deque[float] = deque()

    async def take(self) -> None:
        """Return when one more connection is within the budget."""
        while (delay := self._delay()) > 0:
            await self._sleep(delay)
        self._taken.append(self._monotonic())

    def _delay(self) -> float:
        now = self._monotonic()
        while self._taken and now >= self._taken[0] + self._period:
            self._taken.popleft()
        left = self._connections - len(self._taken)
        if left > self._connections / 4:
            return 0.0
        newest = self._taken[-1]
        return newest + (self._taken[0] + self._period - newest) / (left + 1) - now
