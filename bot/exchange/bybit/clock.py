"""The exchange's time. An order is refused when its timestamp is more than a second ahead or too far behind.

The offset is measured against the monotonic clock, so a step of the wall clock cannot shift it; what does
shift it is a machine that slept, because the monotonic clock stands still meanwhile. That is noticed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

ALARM_MS: Final = 500.0
_DRIFT: Final = 100e-6  # a poor quartz: 6 ms a minute
_SLEPT_MS: Final = 1_000.0

FetchTime = Callable[[], Awaitable[float]]  # the exchange's time in ms UTC


class Health(NamedTuple):
    offset_ms: float  # exchange minus our wall clock
    uncertainty_ms: float
    ok: bool
    reason: str  # why not, in words


class ExchangeClock:
    """Estimates the exchange's time from the best of several round trips (Cristian 1989).

    With t0 and t1 the local times around a request, the exchange's time at their midpoint is known to within
    half the round trip; the sample with the shortest round trip is kept.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._base_ms = (wall() - monotonic()) * 1_000  # until measured: our own wall clock
        self._measured_at = 0.0
        self._error_ms = float("inf")
        self._wall_base_ms = self._base_ms
        self.sleeps = 0

    def now_ms(self) -> int:
        """The exchange's time, ms UTC."""
        return int(self._monotonic() * 1_000 + self._base_ms)

    async def measure(self, fetch: FetchTime, rounds: int = 5) -> Health:
        """Measure anew. A round that fails is left out; when all fail their last error is raised."""
        best: tuple[float, float] | None = None
        failure: Exception | None = None
        for _ in range(rounds):
            before = self._monotonic()
            try:
                exchange_ms = await fetch()
            except Exception as error:  # any failure of the transport is one lost round
                failure = error
                continue
            after = self._monotonic()
            sample = ((after - before) * 500, exchange_ms - (before + after) * 500)
            best = sample if best is None else min(best, sample)
        if best is None:
            raise failure or ValueError("at least one round is needed")
        self._error_ms, self._base_ms = best
        self._measured_at = self._monotonic()
        self._wall_base_ms = self._wall_now_ms() - self._monotonic() * 1_000
        return self.health()

    @property
    def uncertainty_ms(self) -> float:
        """Half the round trip of the best sample, plus what a quartz may have drifted since."""
        return self._error_ms + (self._monotonic() - self._measured_at) * 1_000 * _DRIFT

    def slept(self) -> float:
        """Seconds by which wall and monotonic clock parted since the last look, 0 if less than one.

        Call it every few seconds. A jump means that the machine slept or that somebody set its clock;
        the offset is unknown from then on, until it is measured.
        """
        wall_base = self._wall_now_ms() - self._monotonic() * 1_000
        jump = wall_base - self._wall_base_ms
        self._wall_base_ms = wall_base
        if abs(jump) < _SLEPT_MS:
            return 0.0
        self._error_ms = float("inf")
        self.sleeps += 1
        return jump / 1_000

    def health(self) -> Health:
        """Whether time is known well enough to open positions."""
        uncertainty = self.uncertainty_ms
        offset = self._monotonic() * 1_000 + self._base_ms - self._wall_now_ms()
        if uncertainty > ALARM_MS:
            known = "unknown" if uncertainty == float("inf") else f"known to {uncertainty:.0f} ms only"
            return Health(offset, uncertainty, False, f"the exchange's time is {known}; no entries")
        return Health(offset, uncertainty, True, "")

    def _wall_now_ms(self) -> float:
        return self._wall() * 1_000


async def keep_measured(
    clock: ExchangeClock,
    fetch: FetchTime,
    on_change: Callable[[Health], None],
    *,
    interval: float = 120.0,
    look: float = 5.0,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Measure every `interval` seconds and at once after a sleep; tell when health changes. Runs for ever."""
    healthy: bool | None = None
    due = 0.0
    while True:
        if due <= 0 or clock.slept():
            try:
                await clock.measure(fetch)
                due = interval
            except Exception:  # the exchange is away: uncertainty grows until it is too much
                due = look
        health = clock.health()
        if health.ok is not healthy:
            healthy = health.ok
            on_change(health)
        await sleep(look)
        due -= look
