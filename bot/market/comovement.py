"""How tokens move together: exponentially weighted correlations of their decision bars' log returns."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bot.core.events import BarClosed


class Comovement:
    """Fed with decision bars; the returns of one moment are taken in together, when the next one begins.

    half_life: bars; warm_up: common bars of a pair before its correlation is known. Each pair has sums of its
    own (products and squares over the moments that both have), so a correlation lies within -1 and 1.
    """

    def __init__(self, half_life: float, warm_up: int) -> None:
        self._decay = 0.5 ** (1 / half_life)
        self._warm_up = warm_up
        self._places: dict[str, int] = {}
        self._moment = 0  # open time of the bars that are being gathered, ms
        self._bars: dict[str, BarClosed] = {}  # of that moment
        self._before: dict[str, BarClosed] = {}  # of the moment before
        self._products = np.zeros((0, 0))
        self._squares = np.zeros((0, 0))  # [i, j]: of i, over the moments that i and j have in common
        self._common = np.zeros((0, 0))

    def update(self, bar: BarClosed) -> None:
        start = bar.start
        if start > self._moment:
            if len(self._bars) > 1:  # nothing moves together with itself only
                self._take_in()
            self._moment, self._before, self._bars = start, self._bars, {}
        if start == self._moment:
            self._bars[bar.symbol] = bar
        elif bar.ts == self._moment:  # it came late
            self._before[bar.symbol] = bar

    def correlation(self, one: str, other: str) -> float:
        """NaN while it is not known."""
        i, j = self._places.get(one), self._places.get(other)
        if i is None or j is None or self._common[i, j] < self._warm_up:
            return math.nan
        scale = math.sqrt(self._squares[i, j] * self._squares[j, i])
        return float(self._products[i, j]) / scale if scale > 0 else math.nan

    def drop(self, symbol: str) -> None:
        """It is not traded any more."""
        self._bars.pop(symbol, None)
        self._before.pop(symbol, None)
        place = self._places.pop(symbol, None)
        if place is None:
            return
        self._places = {name: i - (i > place) for name, i in self._places.items()}
        for name in ("_products", "_squares", "_common"):
            kept = np.delete(np.delete(getattr(self, name), place, 0), place, 1)
            setattr(self, name, kept)

    def _take_in(self) -> None:
        """A return needs two bars without a gap between them."""
        pairs = ((bar, self._before.get(symbol)) for symbol, bar in self._bars.items())
        moved = {bar.symbol: bar.close / old.close for bar, old in pairs if old and old.ts == bar.start}
        if len(moved) < 2:
            return
        self._add([symbol for symbol in moved if symbol not in self._places])
        r = np.full(len(self._places), np.nan)
        for symbol, ratio in moved.items():
            r[self._places[symbol]] = math.log(ratio)
        here = np.isfinite(r)
        both = np.outer(here, here)
        r[~here] = 0.0
        self._products = _blend(self._products, np.outer(r, r), both, self._decay)
        squares = np.repeat((r * r)[:, None], len(r), axis=1)
        self._squares = _blend(self._squares, squares, both, self._decay)
        self._common += both

    def _add(self, symbols: Sequence[str]) -> None:
        if not symbols:
            return
        self._places |= {symbol: len(self._places) + i for i, symbol in enumerate(symbols)}
        self._products, self._squares, self._common = (
            np.pad(table, (0, len(symbols))) for table in (self._products, self._squares, self._common)
        )


def _blend(
    old: NDArray[np.float64], new: NDArray[np.float64], where: NDArray[np.bool_], decay: float
) -> NDArray[np.float64]:
    return np.where(where, decay * old + (1 - decay) * new, old)
