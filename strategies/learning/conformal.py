"""Adaptive conformal sets of two classes: which directions a token's past does not let us rule out.

Gibbs & Candès, Adaptive Conformal Inference Under Distribution Shift, NeurIPS 2021. A set holds each class
whose P is no lower than was common for what then happened; its level moves after each miss or hit, so that in
the long run sets hold what happens as often as asked, whatever the market does. Only a set of one direction
is an opinion; as a veto it can forbid a trade and never suggest one.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final

RATE: Final = 0.02  # how far one label of full weight moves the level
KEPT: Final = 1_000  # newest labels that the quantile is taken over


class AdaptiveConformal:
    """misses: share of labels that may lie outside their set."""

    def __init__(self, misses: float) -> None:
        self._asked = self._level = misses
        self._scores: deque[float] = deque()
        self._ordered: list[float] = []

    @property
    def level(self) -> float:
        """Share of misses that is aimed at now: higher after too few of them, lower after too many."""
        return self._level

    def observe(self, p_up: float, outcome: int, weight: float) -> None:
        """A label matured; p_up was said before it was known. weight: its uniqueness."""
        score = _score(p_up, outcome)
        missed = score > self._threshold
        self._level += RATE * weight * (self._asked - missed)
        self._scores.append(score)
        insort(self._ordered, score)
        if len(self._scores) > KEPT:
            del self._ordered[bisect_left(self._ordered, self._scores.popleft())]

    def directions(self, p_up: float) -> frozenset[int]:
        """Those of {0 down, 1 up} that are not ruled out: both when little is known, none if neither fits."""
        return frozenset(outcome for outcome in (0, 1) if _score(p_up, outcome) <= self._threshold)

    def is_opinion(self, p_up: float) -> bool:
        """Whether the set holds the likelier direction alone."""
        return self.directions(p_up) == {int(p_up >= 0.5)}

    @property
    def _threshold(self) -> float:
        """The score that a share 1 - level of the kept ones does not exceed, one more label to come."""
        n = len(self._ordered)
        rank = math.ceil((n + 1) * (1 - self._level))
        if rank > n:
            return math.inf
        return self._ordered[rank - 1] if rank > 0 else -math.inf


def _score(p_up: float, outcome: int) -> float:
    """How unexpected an outcome is."""
    return 1 - p_up if outcome else p_up
