"""The first weeks of every token seen so far, with their labels: what the chain learns from. Bounded."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from strategies.labels import Matured
from strategies.learning.dataset import LabelledSeries

_FIRST_ROOM: Final = 256  # rows


class Snapshot(NamedTuple):
    """As in ExtendChain."""

    listings: tuple[tuple[str, int], ...]
    rows: NDArray[np.float32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int8]
    weights: NDArray[np.float32]
    log_vol: NDArray[np.float32]


class Listings:
    """Keeps the first `rows` ready rows of the newest `most` tokens, whether they still trade or not.

    Older tokens are forgotten first: how listings behave changes, and memory is bounded.
    """

    def __init__(self, features: int, rows: int, most: int) -> None:
        self._features = features
        self._rows = rows
        self._most = most
        self._kept: dict[str, _Listing] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, symbol: str, start: int, row: NDArray[np.float32]) -> None:
        """The row of the token's bar that opened at `start` (ms), later than all of its rows before."""
        if not self._most:
            return
        listing = self._kept.get(symbol)
        if listing is None:
            if len(self._kept) == self._most:
                del self._kept[next(iter(self._kept))]
            listing = self._kept[symbol] = _Listing(self._features)
        if listing.count < self._rows:
            listing.add(start, row)

    def join(self, series: LabelledSeries) -> None:
        """A token of before, with the labels that are known; newer than those that joined already."""
        for start, row in zip(series.starts.tolist(), series.x, strict=True):
            self.add(series.symbol, start, row)
        listing = self._kept.get(series.symbol)
        if listing is not None:
            listing.take_labels(series)

    def label(self, symbol: str, matured: Matured) -> None:
        """A label has matured; one whose row is not kept is ignored."""
        listing = self._kept.get(symbol)
        if listing is not None:
            listing.label(matured)

    def effective_labels(self, before: int) -> float:
        """Uniqueness-weighted labels of bars that opened before `before` (ms)."""
        return sum(listing.effective_labels(before) for listing in self._kept.values())

    def snapshot(self) -> Snapshot:
        """Copies of everything, the oldest listing first. Raises ValueError when nothing is kept."""
        kept = self._kept.values()
        return Snapshot(
            tuple((symbol, listing.count) for symbol, listing in self._kept.items()),
            np.concatenate([one.x[: one.count] for one in kept]).astype(np.float32),
            np.concatenate([one.starts[: one.count] for one in kept]),
            np.concatenate([one.labels[: one.count] for one in kept]),
            np.concatenate([one.weights[: one.count] for one in kept]),
            np.concatenate([one.log_vol[: one.count] for one in kept]),
        )


class _Listing:
    """Rows of one token; they grow by doubling. Half precision: the features are clipped to a few units."""

    def __init__(self, features: int) -> None:
        self.count = 0
        self.x = np.empty((_FIRST_ROOM, features), np.float16)
        self.starts = np.empty(_FIRST_ROOM, np.int64)
        self.labels = np.full(_FIRST_ROOM, -1, np.int8)
        self.weights = np.zeros(_FIRST_ROOM, np.float32)
        self.log_vol = np.full(_FIRST_ROOM, np.nan, np.float32)

    def add(self, start: int, row: NDArray[np.float32]) -> None:
        if self.count == len(self.starts):
            self._grow()
        self.x[self.count], self.starts[self.count] = row, start
        self.count += 1

    def label(self, matured: Matured) -> None:
        index = int(np.searchsorted(self.starts[: self.count], matured.start))
        if index < self.count and self.starts[index] == matured.start:
            self.labels[index], self.weights[index] = matured.outcome, matured.weight
            self.log_vol[index] = matured.log_vol

    def take_labels(self, series: LabelledSeries) -> None:
        n = min(self.count, len(series))
        self.labels[:n], self.log_vol[:n] = series.y[:n], series.log_vol[:n]
        self.weights[:n] = np.where(series.y[:n] >= 0, series.weight[:n], 0)

    def effective_labels(self, before: int) -> float:
        end = int(np.searchsorted(self.starts[: self.count], before))
        return float(self.weights[:end].sum())

    def _grow(self) -> None:
        room = len(self.starts)
        self.x = np.concatenate([self.x, np.empty_like(self.x)])
        self.starts = np.concatenate([self.starts, np.empty_like(self.starts)])
        self.labels = np.concatenate([self.labels, np.full(room, -1, np.int8)])
        self.weights = np.concatenate([self.weights, np.zeros(room, np.float32)])
        self.log_vol = np.concatenate([self.log_vol, np.full(room, np.nan, np.float32)])
