"""How tokens move together: exponentially weighted correlations of their decision bars' log returns."""

import math

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
        self._last: dict[str, BarClosed] = {}
        self._moment = 0  # open time of the bars that are being gathered, ms
        self._returns: dict[str, float] = {}  # of that moment, as ratios of prices
        self._products = np.zeros((0, 0))
        self._squares = np.zeros((0, 0))  # [i, j]: of i, over the moments that i and j have in common
        self._common = np.zeros((0, 0))

    def update(self, bar: BarClosed) -> None:
        """A return needs two bars without a gap between them."""
        if bar.start > self._moment:
            self._take_in()
            self._moment = bar.start
        before = self._last.get(bar.symbol)
        self._last[bar.symbol] = bar
        if before is not None and before.ts == bar.start == self._moment:
            self._returns[bar.symbol] = bar.close / before.close

    def correlation(self, one: str, other: str) -> float:
        """NaN while it is not known."""
        i, j = self._places.get(one), self._places.get(other)
        if i is None or j is None or self._common[i, j] < self._warm_up:
            return math.nan
        scale = math.sqrt(self._squares[i, j] * self._squares[j, i])
        return float(self._products[i, j]) / scale if scale > 0 else math.nan

    def drop(self, symbol: str) -> None:
        """It is not traded any more."""
        self._last.pop(symbol, None)
        self._returns.pop(symbol, None)
        place = self._places.pop(symbol, None)
        if place is None:
            return
        self._places = {name: i - (i > place) for name, i in self._places.items()}
        for name in ("_products", "_squares", "_common"):
            kept = np.delete(np.delete(getattr(self, name), place, 0), place, 1)
            setattr(self, name, kept)

    def _take_in(self) -> None:
        if len(self._returns) < 2:  # nothing moves together with itself only
            self._returns.clear()
            return
        for symbol in self._returns:
            if symbol not in self._places:
                self._add(symbol)
        r = np.full(len(self._places), np.nan)
        for symbol, ratio in self._returns.items():
            r[self._places[symbol]] = math.log(ratio)
        here = np.isfinite(r)
        both = np.outer(here, here)
        r[~here] = 0.0
        self._products = _blend(self._products, np.outer(r, r), both, self._decay)
        squares = np.repeat((r * r)[:, None], len(r), axis=1)
        self._squares = _blend(self._squares, squares, both, self._decay)
        self._common += both
        self._returns.clear()

    def _add(self, symbol: str) -> None:
        self._places[symbol] = len(self._places)
        self._products, self._squares, self._common = (
            np.pad(table, (0, 1)) for table in (self._products, self._squares, self._common)
        )


def _blend(
    old: NDArray[np.float64], new: NDArray[np.float64], where: NDArray[np.bool_], decay: float
) -> NDArray[np.float64]:
    return np.where(where, decay * old + (1 - decay) * new, old)
