"""The confirmed bars of one symbol in order: holes are asked for and waited for, repetitions seen through.

    for bar in feed.take(bar): ...          # what may be used now, oldest first
    for command in feed.commands(now): ...  # ask the exchange for what is missing; the answers go to `take`
    for bar in feed.give_up(now): ...       # what waited too long for a hole that nobody could fill

There is no way to hand in a bar that is still open: a BarClosed exists for confirmed bars only.
"""

from typing import Final

from bot.core.commands import FetchBars
from bot.core.errors import DataError
from bot.core.events import BarClosed

GRACE_MS: Final = 3_000  # after its close, in which a bar comes by itself
RETRY_MS: Final = 2_000
PATIENCE_MS: Final = 20_000  # that a bar waits for the ones before it
HELD: Final = 256  # bars that may wait; more mean that the hole will not be filled


class BarFeed:
    """Fixed memory; pure: `now` is the caller's clock, ms UTC of the exchange.

    next_start: open time of the first bar wanted, None = whatever comes first; fill a long past before live
    bars come, which would not wait for it longer than PATIENCE_MS. Counters: `repeated` bars that
    came again as they were, `corrected` ones that came again with other values, `late` ones that came after
    they were given up, `lost` ones that never came in time.
    """

    def __init__(self, symbol: str, interval: int, next_start: int | None = None) -> None:
        self.symbol = symbol
        self.interval = interval
        self.next_start = next_start
        self.repeated = self.corrected = self.late = self.lost = 0
        self._held: dict[int, BarClosed] = {}  # by open time, all later than next_start
        self._asked = 0
        self._given: dict[int, BarClosed] = {}  # the newest ones, to know a repetition from a correction

    def take(self, bar: BarClosed) -> list[BarClosed]:
        """Bars that may be used now. A correction of a used bar is only counted: what was decided stays.

        Raises DataError for a bar of another symbol or interval.
        """
        if (bar.symbol, bar.interval) != (self.symbol, self.interval) or bar.start % self.interval:
            raise DataError(
                f"a bar of {bar.symbol}, {bar.interval} ms from {bar.start}, is none of "
                f"{self.symbol}, {self.interval} ms"
            )
        if self.next_start is None:
            self.next_start = bar.start
        known = self._held.get(bar.start) or self._given.get(bar.start)
        if known is not None:
            self._count_again(known, bar)
        if bar.start < self.next_start:
            self.late += known is None
            return []
        self._held[bar.start] = bar
        return self._release() if len(self._held) <= HELD else self._skip()

    def commands(self, now: int) -> list[FetchBars]:
        """Requests for every bar that should be there by now and is not, at most every RETRY_MS."""
        if self.next_start is None or now - self._asked < RETRY_MS:
            return []
        end = max([self._closed(now), *self._held])
        if end <= self.next_start:
            return []
        requests = []
        start = self.next_start
        for held in [*sorted(self._held), end]:
            if start < held:
                requests.append(FetchBars(now, self.symbol, self.interval, start, held))
            start = held + self.interval
        if requests:
            self._asked = now
        return requests

    def give_up(self, now: int) -> list[BarClosed]:
        """Bars that have waited longer than PATIENCE_MS; what is missing before them stays a gap."""
        given: list[BarClosed] = []
        while self._held and now - min(bar.received for bar in self._held.values()) > PATIENCE_MS:
            given += self._skip()
        return given

    def missing(self, now: int) -> int:
        """Bars that have closed but have not come."""
        if self.next_start is None:
            return 0
        end = max([self._closed(now), *(start + self.interval for start in self._held)])
        return max(0, (end - self.next_start) // self.interval - len(self._held))

    def _closed(self, now: int) -> int:
        """Bars that opened before it have closed long enough ago."""
        return (now - GRACE_MS) // self.interval * self.interval

    def _count_again(self, known: BarClosed, bar: BarClosed) -> None:
        if _values(known) == _values(bar):
            self.repeated += 1
        else:
            self.corrected += 1

    def _release(self) -> list[BarClosed]:
        """Bars that follow without a hole."""
        ready = []
        assert self.next_start is not None
        while (bar := self._held.pop(self.next_start, None)) is not None:
            ready.append(bar)
            self._given[bar.start] = bar
            self.next_start += self.interval
        while len(self._given) > HELD:
            del self._given[next(iter(self._given))]
        return ready

    def _skip(self) -> list[BarClosed]:
        """Jump over the hole in front."""
        assert self.next_start is not None
        first = min(self._held)
        self.lost += (first - self.next_start) // self.interval
        self.next_start = first
        return self._release()


def _values(bar: BarClosed) -> tuple[float, ...]:
    values = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return (*values, bar.turnover) if bar.turnover == bar.turnover else values
