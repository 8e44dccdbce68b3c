"""Choosing between models without labels of the token: the source's risk, reweighted to the token's inputs.

Sugiyama, Krauledat & Müller, Importance Weighted Cross Validation, JMLR 8 (2007); You et al., Deep Embedded
Validation, ICML 2019. Both explode where the domains separate, so they refuse when few windows carry the
weight. A handful of matured labels is better than either.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError

Floats = NDArray[np.float64]

LEAST_EFFECTIVE: Final = 50.0


class Risk(NamedTuple):
    """iwcv: mean of weight x loss; dev: with the control variate eta (1 - mean weight); effective windows."""

    iwcv: float
    dev: float
    eta: float
    effective: float


def estimated_risk(weights: Floats, losses: Floats) -> Risk:
    """weights (n,): density ratio token / source of held-out source windows, mean about 1; losses (n,)."""
    weighted = weights * losses
    variance = float(np.var(weights, ddof=1))
    eta = -float(np.cov(weighted, weights, ddof=1)[0, 1]) / variance if variance > 0 else 0.0
    iwcv = float(weighted.mean())
    return Risk(iwcv, iwcv + eta * float(weights.mean()) - eta, eta, effective_windows(weights))


def effective_windows(weights: Floats) -> float:
    """(sum w)^2 / sum w^2 (Kish 1965)."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def density_ratio(train: tuple[Floats, Floats], source: Floats) -> Floats:
    """(n,) p_token / p_source at the rows of `source`, held out, from a classifier of the domains.

    train: (source, token) embeddings. Raises DataError when fewer than LEAST_EFFECTIVE rows carry the weight.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    ours, theirs = train
    scaler = StandardScaler().fit(np.concatenate(train))
    classifier = LogisticRegression(C=1.0, max_iter=1000)
    classifier.fit(scaler.transform(np.concatenate(train)), np.repeat([0, 1], [len(ours), len(theirs)]))
    p = classifier.predict_proba(scaler.transform(source))[:, 1].clip(1e-9, 1 - 1e-9)
    weights = np.asarray(len(ours) / len(theirs) * p / (1 - p))
    # ratios that are all nearly 0 are even and still carry nothing: their mean should be 1
    carried = effective_windows(weights) * min(1.0, float(weights.mean()))
    if carried < LEAST_EFFECTIVE:
        raise DataError(
            f"{carried:.0f} effective windows carry the weight, {LEAST_EFFECTIVE:.0f} are needed: "
            "the domains are too far apart for a choice without labels; wait for matured ones"
        )
    return weights
