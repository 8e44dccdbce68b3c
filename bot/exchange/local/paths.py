"""The fair price between the bars: what the market makers of the local exchange quote around."""

from random import Random
from typing import NamedTuple, Protocol

import numpy as np

from bot.market.bars import BarTable

_EARLIEST, _LATEST = 0.1, 0.9  # share of the bar in which its extremes lie


class Fair(NamedTuple):
    """At one moment: price, and how much trades (base coin per ms)."""

    price: float
    volume: float


class Path(Protocol):
    def at(self, ts: int) -> Fair:
        """The fair price at `ts` (ms UTC)."""


class BarPath:
    """Runs through every bar from its open over both extremes to its close, in an order drawn by seed.

    Before the first bar it stands at its open; after the last one at its close, without volume.
    """

    def __init__(self, bars: BarTable, seed: str) -> None:
        self._bars = bars
        self._seed = seed
        self._index = -1
        self._corners: tuple[list[float], list[float]] = ([], [])

    def at(self, ts: int) -> Fair:
        bars = self._bars
        index = int(np.searchsorted(bars.start, ts, side="right")) - 1
        if index < 0:
            return Fair(float(bars.open[0]), 0.0)
        age = (ts - int(bars.start[index])) / bars.interval
        if age >= 1:  # a gap, or the end
            return Fair(float(bars.close[index]), 0.0)
        if index != self._index:
            self._index, self._corners = index, self._draw(index)
        price = float(np.interp(age, *self._corners))
        return Fair(price, float(bars.volume[index]) / bars.interval)

    def _draw(self, index: int) -> tuple[list[float], list[float]]:
        """(share of the bar, price) of its corners."""
        bars = self._bars
        rng = Random(f"{self._seed}/{int(bars.start[index])}")
        first, second = sorted(rng.uniform(_EARLIEST, _LATEST) for _ in range(2))
        extremes = [float(bars.low[index]), float(bars.high[index])]
        if rng.random() < 0.5:
            extremes.reverse()
        return [0.0, first, second, 1.0], [float(bars.open[index]), *extremes, float(bars.close[index])]


class FlatPath:
    """A price that stands still until it is moved: for tests, and for symbols listed by hand."""

    def __init__(self, price: float, volume: float = 0.0) -> None:
        self.price = price
        self.volume = volume

    def at(self, ts: int) -> Fair:
        return Fair(self.price, self.volume)
