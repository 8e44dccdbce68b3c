"""When a token's model is adapted again: on schedule, when its losses rise, when its features change.

An alarm is no verdict: it asks for an adaptation earlier than the schedule would, and the gates judge that
one like any other. A false alarm costs seconds of the adaptation process, nothing else.
"""

from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from bot.settings import Adaptation
from strategies.learning.evidence import BlockMean
from strategies.memory import TokenMemory

NEWEST: Final = 192  # rows at most that are compared with those that the model has learnt from
LEARNT: Final = 960  # of the latter
BLOCK: Final = 48  # rows that change sides together: a feature looks back over as many and more
THIN: Final = 4  # every so many rows are compared: neighbours are nearly equal
PERMUTATIONS: Final = 199
WARM: Final = 12  # observations before Page's test may speak

Floats = NDArray[np.float32]


class Cause(StrEnum):
    """Why a model is adapted."""

    FIRST = "first"
    SCHEDULE = "schedule"
    LOSS = "loss drift"
    FEATURES = "feature drift"

    @property
    def is_alarm(self) -> bool:
        return self in (Cause.LOSS, Cause.FEATURES)


class Due(NamedTuple):
    cause: Cause
    reason: str  # with figures, for people


class PageHinkley:
    """Has the mean of a stream risen? E. S. Page, Continuous Inspection Schemes, Biometrika 41 (1954).

    The running sum of x - mean - allowance, the mean of all observations so far, stays near its minimum while
    the mean does not rise; it speaks where it lies above it by more than `threshold`, and then begins anew.
    """

    def __init__(self, allowance: float, threshold: float) -> None:
        self._allowance = allowance
        self._threshold = threshold
        self._begin()

    def _begin(self) -> None:
        self._count, self._mean, self._sum, self._least = 0, 0.0, 0.0, float("inf")

    def rises(self, x: float) -> bool:
        """Whether this observation makes it so."""
        self._count += 1
        self._mean += (x - self._mean) / self._count
        self._sum += x - self._mean - self._allowance
        self._least = min(self._least, self._sum)
        if self._count < WARM or self._sum - self._least <= self._threshold:
            return False
        self._begin()
        return True


class Triggers:
    """Of one token. Pure: the permutations' seed is given.

    block: ms of one label horizon; losses are averaged over it, for labels overlap that long
    """

    def __init__(self, plan: Adaptation, block: int) -> None:
        self._plan = plan
        self._losses = BlockMean(block)
        self._test = PageHinkley(plan.drift_allowance, plan.drift_threshold)
        self._since = -1  # rows since the last adaptation; -1: there was none
        self._alarm: Due | None = None

    def score(self, start: int, loss: float, weight: float) -> None:
        """A label matured: what the watched model lost on it (nats), and the label's uniqueness."""
        mean = self._losses.add(start, loss, weight)
        if mean is not None and self._test.rises(mean):
            self._alarm = Due(Cause.LOSS, f"the log loss has risen, to {mean:.3f} nats at last")

    def due(self, memory: TokenMemory, seed: int) -> Due | None:
        """Asked once after each row. The alarm stays until an adaptation is begun."""
        plan = self._plan
        if self._since < 0:
            enough = len(memory) >= plan.first_bars
            return Due(Cause.FIRST, f"{plan.first_bars} rows are there") if enough else None
        self._since += 1
        if self._alarm is None and self._since % plan.drift_check_bars == 0:
            self._alarm = self._look(memory, seed)
        if self._alarm is not None and self._since >= plan.drift_bars:
            return self._alarm
        if self._since >= plan.every_bars:
            return Due(Cause.SCHEDULE, f"{self._since} bars since the last one")
        return None

    def begun(self) -> None:
        """An adaptation was asked for."""
        self._since, self._alarm = 0, None

    def _look(self, memory: TokenMemory, seed: int) -> Due | None:
        count = min(self._since, NEWEST)
        rows = memory.newest_rows(count + LEARNT)
        learnt = rows[:-count]
        p = block_permutation_p(learnt[::THIN], rows[-count::THIN], BLOCK // THIN, seed)
        if p > self._plan.drift_level:
            return None
        return Due(Cause.FEATURES, f"the features of {count} bars are not those learnt from: MMD p {p:.3f}")


def block_permutation_p(x: Floats, y: Floats, block: int, seed: int) -> float:
    """p-value of the unbiased MMD^2 between x (n, F) and y (m, F) under the kernel of median width.

    (1 + #{permuted >= observed}) / (1 + permutations), Gretton et al., JMLR 13 (2012). Blocks of `block`
    consecutive rows change sides as wholes; what is left over at the older end is not used. With few blocks
    there are few distinct permutations and no small p; 1 where a side has less than two blocks. It is
    `learning.two_sample.permutation_p_value` for the process that trades, which has no torch.
    """
    x, y = x[len(x) % block :], y[len(y) % block :]
    n, m = len(x), len(y)
    if min(n, m) < 2 * block:
        return 1.0
    distances = pdist(np.concatenate([x, y]).astype(np.float64), "sqeuclidean")
    kernel = squareform(np.exp(distances / (-2 * max(float(np.median(distances)), 1e-12))))  # diagonal 0
    rng, blocks = np.random.default_rng(seed), (n + m) // block
    of_blocks = kernel.reshape(blocks, block, blocks, block).sum(axis=(1, 3))
    in_x = np.zeros((1 + PERMUTATIONS, blocks))
    in_x[:, : n // block] = 1.0
    in_x[1:] = rng.permuted(in_x[1:], axis=1)
    to_x = in_x @ of_blocks
    xx, crossed = (to_x * in_x).sum(axis=1), (to_x * (1 - in_x)).sum(axis=1)
    yy = of_blocks.sum() - xx - 2 * crossed
    statistic = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * crossed / (n * m)
    least = statistic[0] - 1e-12 * abs(statistic[0])  # the same split again is no rounding error apart
    return float((1 + (statistic[1:] >= least).sum()) / (1 + PERMUTATIONS))
