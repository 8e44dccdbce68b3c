"""The token's class prior as a component of its own, apart from the ordering.

Label shift is the largest single effect on new listings: one intercept per token, learnt from its matured
labels and shrunk to the pooled prior, is worth more there than any alignment. Each model is judged with and
without it; "frozen with the prior" is the fair rival.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

WINDOW_LABELS: Final = 20.0  # pseudo-labels of the pooled share, where labels do not overlap
PSEUDO_LABELS: Final = 150.0  # effective labels at which a token's own prior counts as much as the pooled one
REFIT_EVERY: Final = 16  # rows
_CERTAIN: Final = 4.0  # most that an intercept may be
_INFORMATION: Final = 0.25  # of one label on an intercept, at even odds


def share_up(y: Floats, weight: Floats, pooled: float, pseudo_labels: float = WINDOW_LABELS) -> float:
    """The token's share of "up": its labels and `pseudo_labels` more with the share `pooled`."""
    return float((weight @ y + pseudo_labels * pooled) / (weight.sum() + pseudo_labels))


def intercepts(score: Floats, y: Floats, weight: Floats, known: NDArray[np.int64], pooled: Floats) -> Floats:
    """(n,) b of P(up) = expit(b + score), walking forward: from the labels known at each row.

    score: log odds that were said of each row; y: 0 or 1; weight: uniqueness, 0 without a label; known (n,):
    how many leading rows' labels are known at each row; pooled (n,): where a token without labels begins.

    b maximises the likelihood of the labels with a normal prior around `pooled` that weighs PSEUDO_LABELS.
    """
    found = np.empty(len(score))
    b = float(pooled[0]) if len(pooled) else 0.0
    for begin in range(0, len(score), REFIT_EVERY):
        b = _fit(score[: known[begin]], y[: known[begin]], weight[: known[begin]], b, float(pooled[begin]))
        found[begin : begin + REFIT_EVERY] = b
    return found


def _fit(score: Floats, y: Floats, weight: Floats, b: float, pooled: float) -> float:
    """Newton's method from the last intercept: the labels of four hours move it little."""
    pull = PSEUDO_LABELS * _INFORMATION
    for _ in range(6):
        p = expit(b + score)
        gradient = float(weight @ (p - y)) + pull * (b - pooled)
        step = gradient / (float(weight @ (p * (1 - p))) + pull)
        b = float(np.clip(b - np.clip(step, -1.0, 1.0), -_CERTAIN, _CERTAIN))
        if abs(step) < 1e-6:
            break
    return b
