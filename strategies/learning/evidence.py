"""Evidence that can be looked at after every label: sequential tests by betting.

Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024); Ville's
inequality gives P(the e-value ever reaches 1/a) <= a when the null holds, however often it is looked at.
"""

import math
from collections import deque

import numpy as np

BOUND = 1.0  # log-loss gains of a block are cut to +-BOUND nats, so that a bet can never ruin
STAKES = np.linspace(0.05, 0.95, 10)  # a mixture of bets: none has to be chosen in advance


class SequentialTest:
    """e-process against "the expected value of the next observation, given the past, is at most 0".

    Observations lie in [-1, 1]. The wealth of a gambler who stakes the share s of it on each observation x
    grows by 1 + s x; the e-value is the mean wealth over STAKES.
    """

    def __init__(self) -> None:
        self._log_wealth = np.zeros(len(STAKES))

    def add(self, x: float) -> None:
        self._log_wealth += np.log1p(STAKES * x)

    @property
    def e_value(self) -> float:
        return float(np.exp(np.minimum(self._log_wealth, 700.0)).mean())


class PairedScores:
    """Gains of one forecaster over another, label by label, tested on means of blocks of time.

    Labels overlap for as long as their horizon; means over blocks of that length or longer are all the
    evidence there is. A block counts when the first label of a later one arrives.

    block: ms; recent_blocks: how many of the newest blocks `recent` averages
    """

    def __init__(self, block: int, recent_blocks: int) -> None:
        self._block = block
        self._recent: deque[float] = deque(maxlen=recent_blocks)
        self.reset()
        self.effective_labels = 0.0

    def reset(self) -> None:
        """Forget the evidence, not how many labels have been seen."""
        self._test = SequentialTest()
        self._recent.clear()
        self._open = -1
        self._gain = self._weight = 0.0

    def add(self, start: int, gain: float, weight: float) -> None:
        """A label matured. start: ms of its decision bar, ascending; gain: nats; weight: its uniqueness."""
        block = start // self._block
        if block != self._open:
            self._close_block()
            self._open = block
        self._gain += gain * weight
        self._weight += weight
        self.effective_labels += weight

    def _close_block(self) -> None:
        if self._weight > 0:
            mean = min(max(self._gain / self._weight, -BOUND), BOUND)
            self._test.add(mean / BOUND)
            self._recent.append(mean)
        self._gain = self._weight = 0.0

    @property
    def e_value(self) -> float:
        return self._test.e_value

    @property
    def recent(self) -> float:
        """Mean gain of the newest blocks, nats; NaN until there are enough of them."""
        if len(self._recent) < (self._recent.maxlen or 0):
            return math.nan
        return sum(self._recent) / len(self._recent)
