"""How good predictions of direction were, on matured labels only.

A prediction `p` is the probability of "up", an outcome is 1 (up) or 0. Probabilities of exactly 0.5 take no
side and count as half right. Labels overlap and days move together, so every interval resamples UTC days.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.research.bootstrap import ClusterBootstrap, Estimate, percentile_interval

Floats = NDArray[np.float64]

BINS: Final = 10
_FLOOR: Final = 1e-6  # a forecast of exactly 0 or 1 would make one miss infinitely bad


def correctness(p: Floats, outcome: Floats) -> Floats:
    """1 right, 0 wrong, 0.5 undecided."""
    return np.where(p == 0.5, 0.5, (p > 0.5) == (outcome > 0.5))


def log_losses(p: Floats, outcome: Floats) -> Floats:
    """Negative log likelihood of each outcome, in nats."""
    clipped = np.clip(p, _FLOOR, 1.0 - _FLOOR)
    return -np.where(outcome > 0.5, np.log(clipped), np.log1p(-clipped))


def brier_scores(p: Floats, outcome: Floats) -> Floats:
    return (p - outcome) ** 2


def auc(p: Floats, outcome: Floats) -> float:
    """Probability that an up is ranked above a down, ties counting half; NaN with one class only."""
    every = np.zeros(len(p), np.intp)
    wins, ups, downs = _wins_between_clusters(p, outcome, every, min(len(p), 1))
    return float(wins.sum() / (ups.sum() * downs.sum())) if ups.sum() and downs.sum() else math.nan


def ece(p: Floats, outcome: Floats, bins: int = BINS) -> float:
    """Expected calibration error: mean |confidence - accuracy| over equal-width bins of the top class."""
    sums = _calibration_rows(p, outcome, bins).sum(axis=0)
    return float(_ece(sums, len(p))) if len(p) else math.nan


class Reliability(NamedTuple):
    """Forecast against frequency in equal-width bins of `p`; NaN where a bin is empty. All (bins,)."""

    forecast: Floats
    frequency: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]


def reliability(p: Floats, outcome: Floats, bootstrap: ClusterBootstrap, bins: int = BINS) -> Reliability:
    """The reliability diagram, the frequency of "up" with its interval in each bin."""
    bin_of = _bin(p, bins)
    n = np.bincount(bin_of, minlength=bins)
    rows = np.full((bins, 4), np.nan)
    for index in np.flatnonzero(n):
        inside = (bin_of == index).astype(np.float64)
        rows[index] = (p @ inside / n[index], *bootstrap.ratio(inside * outcome, inside))
    return Reliability(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], n)


def expanding_base_rate(
    outcome: Floats, weight: Floats, t_known: NDArray[np.int64], t_decision: NDArray[np.int64]
) -> Floats:
    """The share of ups that was known at each decision: the rival that knows nothing but the past labels.

    (1 + Σ weight · outcome) / (2 + Σ weight) over the labels with t_known <= t_decision; all arrays (n,),
    one token's labels in any order.
    """
    order = np.argsort(t_known, kind="stable")
    ups = np.concatenate(([0.0], np.cumsum((weight * outcome)[order])))
    all_ = np.concatenate(([0.0], np.cumsum(weight[order])))
    known = np.searchsorted(t_known[order], t_decision, side="right")
    return np.asarray((1.0 + ups[known]) / (2.0 + all_[known]))


class PredictionStatistics(NamedTuple):
    """One arm on one set of matured labels; fractions, not percent."""

    n: int
    effective_n: float  # sum of the uniqueness weights
    days: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    auc: Estimate
    log_loss: Estimate
    skill: Estimate  # 1 - log loss / log loss of the expanding base rate
    brier: Estimate
    ece: Estimate
    always_long: Estimate
    always_short: Estimate
    confident_n: int
    confident_accuracy: Estimate  # where max(p, 1 - p) reaches the threshold


def prediction_statistics(
    p: Floats,
    outcome: Floats,
    weight: Floats,
    base_rate: Floats,
    bootstrap: ClusterBootstrap,
    confidence: float = 0.65,
) -> PredictionStatistics:
    """Everything about one arm; all arrays (n,), `base_rate` as of each decision."""
    right = correctness(p, outcome)
    confident = (np.maximum(p, 1.0 - p) >= confidence).astype(np.float64)
    return PredictionStatistics(
        n=len(p),
        effective_n=float(weight.sum()),
        days=bootstrap.clusters,
        accuracy=bootstrap.mean(right),
        balanced_accuracy=_balanced_accuracy(right, outcome, bootstrap),
        auc=auc_estimate(p, outcome, bootstrap),
        log_loss=bootstrap.mean(log_losses(p, outcome)),
        skill=skill(p, outcome, base_rate, bootstrap),
        brier=bootstrap.mean(brier_scores(p, outcome)),
        ece=_ece_estimate(p, outcome, bootstrap),
        always_long=bootstrap.mean(outcome),
        always_short=bootstrap.mean(1.0 - outcome),
        confident_n=int(confident.sum()),
        confident_accuracy=bootstrap.ratio(right * confident, confident),
    )


def skill(p: Floats, outcome: Floats, base_rate: Floats, bootstrap: ClusterBootstrap) -> Estimate:
    """Log-loss skill over `base_rate`: 0 = no better, 1 = perfect, negative = worse."""
    ratio = bootstrap.ratio(log_losses(p, outcome), log_losses(base_rate, outcome))
    return Estimate(1.0 - ratio.value, 1.0 - ratio.high, 1.0 - ratio.low)


def auc_estimate(p: Floats, outcome: Floats, bootstrap: ClusterBootstrap) -> Estimate:
    """AUC with its interval. Pairs are counted once per pair of clusters: a resample is a quadratic form."""
    wins, ups, downs = _wins_between_clusters(p, outcome, bootstrap.cluster, bootstrap.clusters)
    counts = bootstrap.counts
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.float64(wins.sum()) / (ups.sum() * downs.sum()))
        replicates = ((counts @ wins) * counts).sum(axis=1) / ((counts @ ups) * (counts @ downs))
    return percentile_interval(value, replicates)


def _wins_between_clusters(
    p: Floats, outcome: Floats, cluster: NDArray[np.intp], clusters: int
) -> tuple[Floats, Floats, Floats]:
    """wins[c, d]: pairs of an up in c and a down in d that `p` orders rightly (C, C); ups, downs (C,)."""
    up = outcome > 0.5
    up_cluster = cluster[up]
    wins = np.zeros((clusters, clusters))
    for other in range(clusters):
        downs = np.sort(p[~up & (cluster == other)])
        below = np.searchsorted(downs, p[up], "left") + np.searchsorted(downs, p[up], "right")
        wins[:, other] = np.bincount(up_cluster, below / 2.0, clusters)
    return (
        wins,
        np.bincount(up_cluster, minlength=clusters).astype(np.float64),
        np.bincount(cluster[~up], minlength=clusters).astype(np.float64),
    )


def _balanced_accuracy(right: Floats, outcome: Floats, bootstrap: ClusterBootstrap) -> Estimate:
    """Mean of the accuracies on ups and on downs: 0.5 for any constant answer."""
    rows = np.stack((right * outcome, outcome, right * (1.0 - outcome), 1.0 - outcome), axis=1)
    totals = bootstrap.totals(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, *_ = _mean_recall(totals.sum(axis=0, keepdims=True))
        return percentile_interval(float(value), _mean_recall(bootstrap.counts @ totals))


def _mean_recall(sums: Floats) -> Floats:
    return np.asarray((sums[:, 0] / sums[:, 1] + sums[:, 2] / sums[:, 3]) / 2.0)


def _ece_estimate(p: Floats, outcome: Floats, bootstrap: ClusterBootstrap) -> Estimate:
    totals = bootstrap.totals(_calibration_rows(p, outcome, BINS))
    sizes = bootstrap.counts @ bootstrap.totals(np.ones(len(p)))
    return percentile_interval(ece(p, outcome), _ece(bootstrap.counts @ totals, sizes))


def _calibration_rows(p: Floats, outcome: Floats, bins: int) -> Floats:
    """(n, bins): confidence minus correctness in the column of the row's bin, 0 elsewhere."""
    confidence = np.maximum(p, 1.0 - p)
    rows = np.zeros((len(p), bins))
    rows[np.arange(len(p)), _bin(confidence, bins)] = confidence - correctness(p, outcome)
    return rows


def _ece(sums: Floats, n: Floats | int) -> Floats:
    """Sums (..., bins) of confidence minus correctness over n rows (...)."""
    return np.asarray(np.abs(sums).sum(axis=-1) / n)


def _bin(values: Floats, bins: int) -> NDArray[np.intp]:
    """Index of the equal-width bin in [0, 1]; an edge belongs to the bin below it."""
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.searchsorted(edges, values, side="left")
