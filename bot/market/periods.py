"""Bounded history: one accumulator per span of time."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Periods(Generic[T]):
    """A ring of the newest `keep` spans of `span` ms, each with its own accumulator that `new` makes.

    A span begins when something of it, or of a later one in the same slot, is asked for with `at`.
    """

    def __init__(self, span: int, keep: int, new: Callable[[], T]) -> None:
        self.span = span
        self._new = new
        self._starts = [-1] * keep
        self._values = [new() for _ in range(keep)]

    def at(self, time: int) -> T | None:
        """The accumulator of the span that holds `time` (ms); None for one that has been overwritten."""
        start = time - time % self.span
        slot = start // self.span % len(self._starts)
        if self._starts[slot] < start:
            self._starts[slot] = start
            self._values[slot] = self._new()
        return self._values[slot] if self._starts[slot] == start else None

    def get(self, start: int) -> T | None:
        """The accumulator of the span that began at `start`; None if there is none."""
        slot = start // self.span % len(self._starts)
        return self._values[slot] if self._starts[slot] == start else None
