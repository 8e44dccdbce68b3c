"""Evidence that can be looked at after every label: sequential tests by betting.

Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024). Ville's
inequality gives P(the e-value ever reaches 1/a) <= a when the null holds, however often it is looked at.
"""

import math
from collections import deque

import numpy as np

BLOCKS = 3  # of one label horizon each, in one observation of the test
BOUND = 1 / 3  # nats; mean gains are cut to +-BOUND, so that no bet can ruin
LEAST_BLOCKS = 10  # behind an interval
NORMAL = 1.96
STAKES = np.linspace(0.05, 0.95, 10)  # a mixture of bets: none has to be chosen in advance


class SequentialTest:
    """e-process against "the expected value of the next observation, given the past, is at most 0".

    Observations lie in [-1, 1]. The wealth of a gambler who stakes the share s of it on each observation x
    grows by 1 + s x; the e-value is the mean wealth over STAKES.
    """

    def __init__(self) -> None:
        self._log_wealth = np.zeros(len(STAKES))
        self.e_value = 1.0

    def add(self, x: float) -> None:
        self._log_wealth += np.log1p(STAKES * x)
        self.e_value = float(np.exp(np.minimum(self._log_wealth, 700.0)).mean())


class PairedScores:
    """Gains of one forecaster over another, label by label, tested on means of blocks of time.

    Labels overlap for as long as their horizon. Neighbouring blocks of one horizon share half of their
    prices, and a test that takes them for news errs about twice as often as it says; BLOCKS of them together
    keep its word (tests/test_evidence.py). A block counts when the first label of a later one arrives.

    block: ms, at least the label's horizon; recent_blocks: how many of the newest blocks `recent` averages
    """

    def __init__(self, block: int, recent_blocks: int) -> None:
        self._block = block
        self._recent: deque[float] = deque(maxlen=recent_blocks)
        self.effective_labels = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget the evidence, not how many labels have been seen."""
        self._test = SequentialTest()
        self.most = 0.0  # the largest e-value so far, which is what Ville's inequality speaks of
        self.labels = 0.0
        self.blocks = 0
        self._mean = self._squares = 0.0  # of the blocks (Welford 1962)
        self._recent.clear()
        self._short = BlockMean(self._block)
        self._long = BlockMean(BLOCKS * self._block)

    def add(self, start: int, gain: float, weight: float) -> None:
        """A label matured. start: ms of its decision bar, ascending; gain: nats; weight: its uniqueness."""
        recent = self._short.add(start, gain, weight)
        if recent is not None:
            self._recent.append(recent)
        observed = self._long.add(start, gain, weight)
        if observed is not None:
            self._test.add(min(max(observed / BOUND, -1.0), 1.0))
            self.most = max(self.most, self.e_value)
            self.blocks += 1
            beyond = observed - self._mean
            self._mean += beyond / self.blocks
            self._squares += beyond * (observed - self._mean)
        self.labels += weight
        self.effective_labels += weight

    @property
    def e_value(self) -> float:
        """Evidence that the expected gain is above 0."""
        return self._test.e_value

    @property
    def interval(self) -> tuple[float, float, float]:
        """(mean gain of the blocks, its limits of 95 % for who looks once); NaN while there are too few."""
        n = self.blocks
        if n < LEAST_BLOCKS:
            return self._mean if n else math.nan, math.nan, math.nan
        half = NORMAL * math.sqrt(self._squares / (n - 1) / n)
        return self._mean, self._mean - half, self._mean + half

    @property
    def recent(self) -> float:
        """Mean gain of the newest blocks, nats; NaN until there are enough of them."""
        if len(self._recent) < (self._recent.maxlen or 0):
            return math.nan
        return sum(self._recent) / len(self._recent)


class BlockMean:
    """Weighted means over intervals of `length` ms, each handed out when a later interval begins."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._open = -1
        self._sum = self._weight = 0.0

    def add(self, time: int, value: float, weight: float) -> float | None:
        """The mean of the interval that this value has closed, if it did."""
        closed = None
        if time // self._length != self._open:
            closed = self._sum / self._weight if self._weight > 0 else None
            self._open, self._sum, self._weight = time // self._length, 0.0, 0.0
        self._sum += value * weight
        self._weight += weight
        return closed
