"""How good probabilities are, with intervals that respect the overlap of labels."""

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENT_SHARE = 0.1
RESAMPLES = 500


class Estimate(msgspec.Struct, frozen=True):
    """A value with its 95 % interval and the effective (uniqueness-weighted) number of labels behind it."""

    value: float
    low: float
    high: float
    n: float


def weighted_auc(score: Floats, y: Floats, weight: Floats) -> float:
    """Chance that an "up" scores above a "down", ties count half; NaN without both classes."""
    _, rank = np.unique(score, return_inverse=True)
    up = np.bincount(rank, weight * y)
    down = np.bincount(rank, weight * (1 - y))
    pairs = up.sum() * down.sum()
    return float((up * (np.cumsum(down) - down / 2)).sum() / pairs) if pairs > 0 else float("nan")


def measure(
    logit: Floats, y: Floats, weight: Floats, block: NDArray[np.int64], base_rate: float, seed: int
) -> dict[str, Estimate]:
    """accuracy, accuracy_confident (most confident tenth), auc, skill (1 - log loss / that of `base_rate`).

    logit, y (0 or 1), weight (uniqueness): (n,). block (n,): labels of one block of time are resampled
    together, over all symbols; blocks must be at least a label's horizon long (Künsch 1989). Their intervals
    are a little narrow: on random walks, that of the AUC held 0.5 in 87 of 100 runs.
    """
    right = ((logit > 0) == (y > 0.5)).astype(np.float64)
    confidence = np.abs(logit)
    confident = weight * (confidence >= np.quantile(confidence, 1 - CONFIDENT_SHARE))
    loss = np.logaddexp(0, logit) - y * logit
    base_loss = -np.log(np.where(y > 0.5, base_rate, 1 - base_rate))
    counts = _resampled_counts(block, seed)

    def estimate(statistic: Callable[[Floats], float], w: Floats) -> Estimate:
        draws = [statistic(w * multiplicity) for multiplicity in counts]
        low, high = np.nanquantile(draws, [0.025, 0.975])
        return Estimate(statistic(w), float(low), float(high), float(w.sum()))

    return {
        "accuracy": estimate(lambda w: _mean(right, w), weight),
        "accuracy_confident": estimate(lambda w: _mean(right, w), confident),
        "auc": estimate(lambda w: weighted_auc(logit, y, w), weight),
        "skill": estimate(lambda w: 1 - _mean(loss, w) / _mean(base_loss, w), weight),
    }


def _mean(values: Floats, weight: Floats) -> float:
    total = weight.sum()
    return float(values @ weight / total) if total > 0 else float("nan")


def _resampled_counts(block: NDArray[np.int64], seed: int) -> Floats:
    """(RESAMPLES, n): how often each label's block is drawn."""
    _, number = np.unique(block, return_inverse=True)
    blocks = int(number.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES)
    return drawn[:, number].astype(np.float64)
