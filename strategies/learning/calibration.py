"""From logits to probabilities that mean what they say.

Guo et al., On Calibration of Modern Neural Networks (ICML 2017). 0.65 is no confidence before this step.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from strategies.learning.conformal import AdaptiveConformal

Floats = NDArray[np.float64]

MAX_LOG_TEMPERATURE = 3.0
REFIT_EVERY = 16  # labels
KEPT_LABELS = 2_000
MISSES = 0.35  # of the conformal sets: they hold the outcome as often as a trade's confidence asks, 0.65
RIDGE = 1.0  # prior precision of intercept and log slope: keeps separable data finite


def negative_log_likelihood(logit: Floats, y: Floats, weight: Floats | None = None) -> float:
    """Mean cross-entropy in nats of P(up) = expit(logit)."""
    return float(np.average(np.logaddexp(0, logit) - y * logit, weights=weight))


def fit_temperature(logit: Floats, y: Floats, weight: Floats | None = None) -> float:
    """T > 0 that minimises the likelihood loss of logit / T; logit, y (0 or 1), weight: (n,).

    1 without labels. Two-class logits enter as their difference.
    """
    if not len(logit) or (weight is not None and not weight.sum() > 0):
        return 1.0
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(logit * np.exp(-log_t), y, weight),
        bounds=(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(np.exp(found.x))


def reliability(p_up: Floats, y: Floats, bins: int = 10) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """(mean confidence, accuracy, count) of the bins of equal width over max(p, 1 - p); NaN where empty."""
    confidence = np.maximum(p_up, 1 - p_up)
    right = ((p_up > 0.5) == (y > 0.5)).astype(np.float64)
    number = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        return (
            np.bincount(number, confidence, bins) / count,
            np.bincount(number, right, bins) / count,
            count,
        )


def expected_calibration_error(p_up: Floats, y: Floats, bins: int = 10) -> float:
    """Mean over the predictions of |confidence - accuracy| of their bin."""
    confidence, accuracy, count = reliability(p_up, y, bins)
    return float(np.nansum(count * np.abs(confidence - accuracy)) / count.sum())


class Calibrator:
    """P(up) of one arm for one token: temperature and intercept learnt from its matured labels.

    logit P = b + logit / T. With n effective labels, log T is (n log T_token + n0 log T_card) / (n + n0) and
    b is b_token n / (n + n0): a young token is calibrated like the source, and the token's class prior
    (the largest single shift of new listings) becomes a component of its own, apart from the ordering.
    """

    def __init__(self, temperature: float, pseudo_labels: float = 100.0) -> None:
        self.temperature = temperature
        self.intercept = 0.0
        self.conformal = AdaptiveConformal(MISSES)
        self._card_temperature = temperature
        self._pseudo_labels = pseudo_labels
        self._labels = np.empty((0, 3))
        self._newest: list[tuple[float, int, float]] = []  # not fitted yet

    def p_up(self, logit: float) -> float:
        return float(self.p_of(np.float64(logit)))

    def p_of(self, logit: Floats | np.float64) -> Floats:
        """P(up) of many logits, (n,)."""
        return np.asarray(expit(self.intercept + logit / self.temperature))

    def observe(self, logit: float, outcome: int, weight: float) -> None:
        """A label matured. logit: what the model had said; weight: the label's uniqueness."""
        self.conformal.observe(self.p_up(logit), outcome, weight)
        self._newest.append((logit, outcome, weight))
        if len(self._newest) == REFIT_EVERY:
            self._labels = np.concatenate([self._labels, self._newest])[-KEPT_LABELS:]
            self._newest = []
            self.fit(*self._labels.T)

    def fit(self, logit: Floats, y: Floats, weight: Floats | None = None) -> None:
        """Learn from these labels (n,) and from nothing else."""
        weight = np.ones(len(y)) if weight is None else weight
        labels = float(weight.sum())
        trust = labels / (labels + self._pseudo_labels)
        intercept, slope = fit_line(logit / self._card_temperature, y, weight)
        self.intercept = trust * intercept
        self.temperature = float(self._card_temperature * np.exp(-trust * np.log(slope)))


def fit_line(
    score: Floats,
    y: Floats,
    weight: Floats,
    start: tuple[float, float] = (0.0, 1.0),
    tolerance: float = 1e-9,
) -> tuple[float, float]:
    """(intercept b, slope a > 0) of the logistic regression of y on `score`, slightly pulled to (0, 1).

    score, y (0 or 1), weight: (n,). Newton's method in (b, log a) from `start`, until no step is larger than
    `tolerance`; the prior and damped steps keep it finite for any data.
    """
    b, log_a = start[0], float(np.log(start[1]))
    for _ in range(25):
        scaled = score * np.exp(log_a)
        p = expit(b + scaled)
        error, spread = weight * (p - y), weight * p * (1 - p)
        gradient = np.array([error.sum() + RIDGE * b, error @ scaled + RIDGE * log_a])
        # Fisher information instead of the Hessian: positive whatever the data
        cross = spread @ scaled
        information = np.array([[spread.sum() + RIDGE, cross], [cross, spread @ scaled**2 + RIDGE]])
        step = np.clip(np.linalg.solve(information, gradient), -1.0, 1.0)
        b, log_a = (
            b - float(step[0]),
            float(np.clip(log_a - step[1], -MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)),
        )
        if np.abs(step).max() < tolerance:
            break
    return b, float(np.exp(log_a))
