"""What is learnt from a token's matured labels beside any ordering: its prior, and whom to believe.

Both walk forward: a decision at a row uses labels that were known at its close, never later ones.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

PSEUDO_LABELS: Final = 150.0  # effective labels at which a token's own prior counts as much as the pooled one
REFIT_EVERY: Final = 16  # rows
ENSEMBLE_RATE: Final = 1.0  # of the exponential weights, per nat of loss on one effective label
_CERTAIN: Final = 4.0  # most that an intercept may be
_INFORMATION: Final = 0.25  # of one label on an intercept, at even odds


def intercepts(score: Floats, y: Floats, weight: Floats, known: NDArray[np.int64], pooled: Floats) -> Floats:
    """(n,) b of P(up) = expit(b + score), from the labels known at each row.

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


def mixture(p: Floats, y: Floats, weight: Floats, known: NDArray[np.int64]) -> Floats:
    """(n,) mean of the arms' probabilities p (arms, n), weighted by their losses on matured labels.

    Exponential weights (Vovk 1990; Freund & Schapire 1997): w_a ~ exp(-rate x summed loss), a label counting
    its uniqueness; all arms alike at the beginning.
    """
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    loss = -(y * np.log(clipped) + (1 - y) * np.log1p(-clipped)) * weight
    summed = np.concatenate([np.zeros((len(p), 1)), np.cumsum(loss, axis=1)], axis=1)[:, known]
    belief = np.exp(-ENSEMBLE_RATE * (summed - summed.min(axis=0)))
    return np.asarray((belief * p).sum(axis=0) / belief.sum(axis=0))
