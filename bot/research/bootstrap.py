"""Intervals by resampling whole UTC days, because one crash touches every label and trade of its day."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from bot.core.types import DAY_MS

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A statistic with its 95 % interval; the limits are NaN where the data allow none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def percentile_interval(value: float, replicates: Floats) -> Estimate:
    """95 % percentile interval of bootstrap `replicates` (B,); those that are not finite are left out."""
    usable = replicates[np.isfinite(replicates)]
    if len(usable) < max(2, len(replicates) // 2):
        return Estimate(value)
    low, high = np.quantile(usable, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def between(values: Sequence[float]) -> Estimate:
    """The mean of independent `values` with Student's interval of it."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Estimate(mean)
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half)


def resampled(values: Floats, draws: int, seed: int) -> Floats:
    """`values` (n,) drawn with replacement -> (draws, n)."""
    index = np.random.default_rng(seed).integers(0, max(len(values), 1), (draws, len(values)))
    return values[index]


@dataclass(frozen=True, slots=True)
class ClusterBootstrap:
    """How often each cluster is drawn in each resample.

    cluster: int (n,) the cluster of each row, 0..C-1; counts: float64 (B, C).
    """

    cluster: NDArray[np.intp]
    counts: Floats

    @classmethod
    def by_day(cls, ts: NDArray[np.int64], draws: int = 1000, seed: int = 0) -> Self:
        """Clusters are the UTC days of `ts` (ms). Fewer than 3 days give no resamples, hence no intervals."""
        days, cluster = np.unique(ts // DAY_MS, return_inverse=True)
        if len(days) < 3:
            return cls(cluster, np.zeros((0, len(days))))
        share = np.full(len(days), 1 / len(days))
        counts = np.random.default_rng(seed).multinomial(len(days), share, draws)
        return cls(cluster, counts.astype(np.float64))

    @property
    def clusters(self) -> int:
        return int(self.counts.shape[1])

    def totals(self, rows: Floats) -> Floats:
        """Sums within each cluster: rows (n,) or (n, k) -> (C,) or (C, k)."""
        result = np.zeros((self.clusters, *rows.shape[1:]))
        np.add.at(result, self.cluster, rows)
        return result

    def ratio(self, numerator: Floats, denominator: Floats) -> Estimate:
        """sum(numerator) / sum(denominator) over rows (n,); a mean when the denominator is 1."""
        upper, lower = self.totals(numerator), self.totals(denominator)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(upper.sum() / lower.sum()) if len(upper) else math.nan
            return percentile_interval(value, (self.counts @ upper) / (self.counts @ lower))

    def mean(self, rows: Floats) -> Estimate:
        return self.ratio(rows, np.ones(len(rows)))
