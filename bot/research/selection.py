"""Comparing models or configurations: paired gains, and whether the best of many was only lucky."""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.research.bootstrap import ClusterBootstrap, Estimate

Floats = NDArray[np.float64]


def paired_gain(score: Floats, rival: Floats, bootstrap: ClusterBootstrap) -> Estimate:
    """Mean of `score - rival` over the same rows (n,), for example 1 where a prediction was right."""
    return bootstrap.mean(score - rival)


class McNemar(NamedTuple):
    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Exact two-sided test of equal accuracy on the same *independent* rows (McNemar 1947).

    Overlapping labels are not independent: thin them to one per horizon before.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    return McNemar(only_first, only_second, min(1.0, 2.0 * tail))


def overfitting_probability(returns: Floats, blocks: int = 8) -> float:
    """Share of splits in which the configuration that was best in sample is below the median out of sample.

    Combinatorially symmetric cross-validation (Bailey, Borwein, López de Prado & Zhu 2017) with the Sharpe
    ratio as the score. returns: (n, configurations), cut into an even number of consecutive blocks.
    """
    parts = np.array_split(returns, blocks)
    splits = list(itertools.combinations(range(blocks), blocks // 2))
    below = 0
    for inside in splits:
        seen = np.concatenate([parts[i] for i in inside])
        unseen = np.concatenate([parts[i] for i in range(blocks) if i not in inside])
        best = int(_scores(seen).argmax())
        scores = _scores(unseen)
        rank = int((scores <= scores[best]).sum())
        below += rank / (returns.shape[1] + 1) <= 0.5
    return below / len(splits)


def _scores(returns: Floats) -> Floats:
    return np.asarray(returns.mean(axis=0) / returns.std(axis=0, ddof=1))
