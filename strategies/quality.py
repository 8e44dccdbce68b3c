"""How good a token's predictions are, live: sums over matured labels, in memory that does not grow.

Counted is what the champion of the time had said, when its label is known. A label weighs as much as it is
unique. accuracy counts 0.5 for an undecided prediction; skill is 1 - log loss / that of the base rate; ECE
is the mean distance of confidence and accuracy over equal-width bins (Guo et al., On Calibration of Modern
Neural Networks, ICML 2017).
"""

import math
from bisect import bisect_left
from collections import deque
from typing import Final

import numpy as np

from bot.core.records import ROLLING, QualityMeasured
from bot.core.types import DAY_MS
from strategies.contest.arm import log_loss

DAYS: Final = 14  # of the rolling figures, the UTC day under way included
AGES: Final = ((3, "0-2"), (8, "3-7"), (15, "8-14"), (31, "15-30"), (61, "31-60"))  # days; up to, name
OLDER: Final = "older"
_EDGES: Final = (0.5, 0.6, 0.7, 0.8, 0.9)  # between the bins of confidence, each belongs to the one below
_BINS: Final = len(_EDGES) + 1


def age_group(age: int) -> str:
    """Of a token `age` ms after its launch."""
    return next((name for end, name in AGES if age < end * DAY_MS), OLDER)


class Tally:
    """Sums of some labels. weight is the effective number of labels."""

    def __init__(self) -> None:
        self._sums = np.zeros(4)  # weight, right, loss, loss of the base rate
        self._bins = np.zeros((_BINS, 3))  # weight, confidence, right

    def add(self, p_up: float, base: float, outcome: int, weight: float) -> None:
        """base: the base rate at the time of the prediction."""
        confidence = max(p_up, 1 - p_up)
        right = 0.5 if p_up == 0.5 else float((p_up > 0.5) == bool(outcome))
        self._sums += np.array([1.0, right, log_loss(p_up, outcome), log_loss(base, outcome)]) * weight
        self._bins[bisect_left(_EDGES, confidence)] += np.array([1.0, confidence, right]) * weight

    def merge(self, other: "Tally") -> None:
        self._sums += other._sums
        self._bins += other._bins

    @property
    def labels(self) -> float:
        return float(self._sums[0])

    @property
    def accuracy(self) -> float:
        """NaN without labels, as the others."""
        return float(self._sums[1] / self._sums[0]) if self.labels else math.nan

    @property
    def skill(self) -> float:
        return float(1 - self._sums[2] / self._sums[3]) if self.labels else math.nan

    @property
    def ece(self) -> float:
        gaps = np.abs(self._bins[:, 1] - self._bins[:, 2])
        return float(gaps.sum() / self.labels) if self.labels else math.nan

    @property
    def overconfidence(self) -> float:
        """Confidence beyond accuracy, summed as the ECE is, less what chance makes of it on average.

        In a bin of n labels the accuracy of a calibrated forecast of confidence c falls short of it by
        sqrt(c (1 - c) / (2 pi n)) on average. Who is right more often than it says does no harm.
        """
        if not self.labels:
            return math.nan
        weight, confidence, right = self._bins[self._bins[:, 0] > 0].T
        mean = confidence / weight
        chance = np.sqrt(mean * (1 - mean) * weight / (2 * math.pi)).sum()
        beyond = np.maximum(confidence - right, 0).sum()
        return max(0.0, float(beyond - chance) / self.labels)


class Quality:
    """Of one token: over the newest DAYS days, and over each age."""

    def __init__(self, symbol: str, launched: int) -> None:
        """launched: ms UTC"""
        self._symbol = symbol
        self._launched = launched
        self._days: deque[tuple[int, Tally]] = deque()  # day, labels that matured in it
        self._past = Tally()  # of all these days but the last
        self._ages: dict[str, Tally] = {}

    def add(
        self, ts: int, start: int, p_up: float, base: float, outcome: int, weight: float
    ) -> list[QualityMeasured]:
        """A label that matured at `ts` of the prediction at the bar `start` (ms); figures once a UTC day."""
        day = ts // DAY_MS
        out = []
        if self._days and self._days[-1][0] != day:
            out = self.measured(ts)
        if not self._days or self._days[-1][0] != day:
            self._days.append((day, Tally()))
            while self._days[0][0] <= day - DAYS:
                self._days.popleft()
            self._past = Tally()
            for _, tally in list(self._days)[:-1]:
                self._past.merge(tally)
        group = self._ages.setdefault(age_group(start - self._launched), Tally())
        for tally in (self._days[-1][1], group):
            tally.add(p_up, base, outcome, weight)
        return out

    @property
    def rolling(self) -> Tally:
        total = Tally()
        total.merge(self._past)
        if self._days:
            total.merge(self._days[-1][1])
        return total

    def of_age(self, group: str) -> Tally:
        return self._ages.get(group, Tally())

    def measured(self, ts: int) -> list[QualityMeasured]:
        """The figures so far: rolling, then by age, the youngest first."""
        found = {ROLLING: self.rolling, **self._ages}
        return [
            QualityMeasured(ts, self._symbol, name, tally.labels, tally.accuracy, tally.skill, tally.ece)
            for name, tally in found.items()
        ]
