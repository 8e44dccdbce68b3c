"""The token's class prior as a component of its own, apart from the ordering.

Label shift is the largest single effect on new listings: one intercept per token, learnt from its matured
labels and shrunk to the pooled prior, is worth more there than any alignment. Each model is judged with and
without it; "frozen with the prior" is the fair rival.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]

PSEUDO_LABELS = 20.0  # effective labels at which the token's own prior counts as much as the pooled one
CERTAIN = 8.0  # most log odds of a prior


class Prior(NamedTuple):
    """logit P(up) = intercept + score of the model; labels: effective ones behind it."""

    intercept: float
    labels: float

    def p_up(self, score: Floats) -> Floats:
        return np.asarray(expit(self.intercept + score))


def fit_prior(
    score: Floats,
    y: Floats,
    weight: Floats | None = None,
    pooled: float = 0.0,
    pseudo_labels: float = PSEUDO_LABELS,
) -> Prior:
    """The intercept that makes the mean P(up) equal the labels' share, shrunk to `pooled` log odds.

    score (n,): log odds of the model; y (n,): 0 or 1; weight (n,): uniqueness. The likelihood is that of a
    logistic regression whose slope is held at 1; its intercept is shrunk by n / (n + pseudo_labels).
    """
    weight = np.ones(len(y)) if weight is None else weight.astype(np.float64)
    labels = float(weight.sum())
    if not labels > 0:
        return Prior(pooled, 0.0)
    # half a label of either class keeps a single class finite
    share = (float(weight @ y) + 0.5) / (labels + 1)
    low, high = -CERTAIN - np.abs(score).max(), CERTAIN + np.abs(score).max()
    for _ in range(60):
        middle = (low + high) / 2
        over = float(np.average(expit(middle + score), weights=weight)) > share
        low, high = (low, middle) if over else (middle, high)
    trust = labels / (labels + pseudo_labels)
    return Prior(float(pooled + trust * (np.clip(low, -CERTAIN, CERTAIN) - pooled)), labels)


def share_up(y: Floats, weight: Floats, pooled: float, pseudo_labels: float = PSEUDO_LABELS) -> float:
    """The token's share of "up": its labels and `pseudo_labels` more with the share `pooled`."""
    return float((weight @ y + pseudo_labels * pooled) / (weight.sum() + pseudo_labels))


def log_odds(share: float) -> float:
    return float(logit(share))
