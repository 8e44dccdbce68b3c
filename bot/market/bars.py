"""A column table of closed bars: what files, the simulated market and pretraining exchange."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bot.core.events import BarClosed

COLUMNS = ("open", "high", "low", "close", "volume", "turnover")


@dataclass(frozen=True, slots=True)
class BarTable:
    """Closed bars of one symbol, oldest first, `start` on the grid of `interval` (ms), gaps allowed.

    start: int64 (n,) ms UTC; the others float64 (n,): volume in base coin, turnover in quote coin
    (NaN if unknown).
    """

    symbol: str
    interval: int
    start: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    turnover: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start)

    def rows(self, selection: slice | NDArray[np.bool_]) -> Self:
        return replace(
            self, start=self.start[selection], **{name: getattr(self, name)[selection] for name in COLUMNS}
        )

    def between(self, first: int, end: int) -> Self:
        """Bars that opened at or after `first` and closed at or before `end` (ms)."""
        low = int(np.searchsorted(self.start, first))
        high = int(np.searchsorted(self.start, end - self.interval, side="right"))
        return self.rows(slice(low, high))

    def resampled(self, interval: int) -> Self:
        """Bars of a multiple of the interval; one with a missing part is left out, as a gap."""
        if interval == self.interval:
            return self
        parts = interval // self.interval
        group = self.start // interval
        first = np.flatnonzero(np.diff(group, prepend=group[:1] - 1))
        count = np.diff(first, append=len(group))
        first = first[count == parts]
        last = first + parts - 1
        return replace(
            self,
            interval=interval,
            start=group[first] * interval,
            open=self.open[first],
            high=_reduce(np.maximum, self.high, first, parts),
            low=_reduce(np.minimum, self.low, first, parts),
            close=self.close[last],
            volume=_reduce(np.add, self.volume, first, parts),
            turnover=_reduce(np.add, self.turnover, first, parts),
        )

    def events(self) -> Iterator[BarClosed]:
        step = self.interval
        columns = [self.start.tolist(), *(getattr(self, name).tolist() for name in COLUMNS)]
        for start, opened, high, low, close, volume, turnover in zip(*columns, strict=True):
            end = start + step
            yield BarClosed(end, end, self.symbol, start, step, opened, high, low, close, volume, turnover)


def _reduce(
    operation: np.ufunc, column: NDArray[np.float64], first: NDArray[np.intp], parts: int
) -> NDArray[np.float64]:
    """Fold `parts` consecutive values from each `first`, left to right as the live aggregation does."""
    result = column[first]
    for offset in range(1, parts):
        result = operation(result, column[first + offset])
    return result
