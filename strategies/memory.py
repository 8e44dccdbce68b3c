"""The newest ready rows of one token with their labels: what adaptation learns from. Bounded."""

import numpy as np
from numpy.typing import NDArray


class TokenMemory:
    """Keeps at least the newest `capacity` rows. Labels arrive later, when they have matured."""

    def __init__(self, features: int, capacity: int) -> None:
        self._capacity = capacity
        self._rows = np.empty((2 * capacity, features), np.float32)
        self._starts = np.empty(2 * capacity, np.int64)
        self._labels = np.full(2 * capacity, -1, np.int8)
        self._weights = np.zeros(2 * capacity, np.float32)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, self._capacity)

    def add(self, start: int, row: NDArray[np.float32]) -> None:
        """The row of the bar that opened at `start` (ms), later than all before."""
        if self._count == 2 * self._capacity:
            self._keep_newest()
        index = self._count
        self._rows[index], self._starts[index] = row, start
        self._labels[index], self._weights[index] = -1, 0.0
        self._count += 1

    def label(self, start: int, outcome: int, weight: float) -> None:
        """The label of the bar at `start` has matured; one that is no longer kept is ignored."""
        index = int(np.searchsorted(self._starts[: self._count], start))
        if index < self._count and self._starts[index] == start:
            self._labels[index], self._weights[index] = outcome, weight

    def newest(
        self, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int8], NDArray[np.float32]]:
        """Copies of rows (n, F), starts, labels (-1 = not matured) and weights, oldest first."""
        part = slice(max(0, self._count - min(count, self._capacity)), self._count)
        return (
            self._rows[part].copy(),
            self._starts[part].copy(),
            self._labels[part].copy(),
            self._weights[part].copy(),
        )

    def newest_rows(self, count: int) -> NDArray[np.float32]:
        """A view of the newest rows alone, at most `count`, oldest first."""
        return self._rows[max(0, self._count - min(count, self._capacity)) : self._count]

    def newest_unbroken(self, count: int, interval: int) -> NDArray[np.float32]:
        """The newest rows after the last gap, at most `count` of them."""
        first = max(0, self._count - count)
        starts = self._starts[first : self._count]
        breaks = np.flatnonzero(np.diff(starts) != interval)
        if len(breaks):
            first += int(breaks[-1]) + 1
        return self._rows[first : self._count].copy()

    def _keep_newest(self) -> None:
        kept = slice(self._count - self._capacity, self._count)
        for column in (self._rows, self._starts, self._labels, self._weights):
            column[: self._capacity] = column[kept].copy()
        self._count = self._capacity
