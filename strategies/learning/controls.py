"""Synthetic markets whose right answer is known, as windows: what a transfer must mend, leave or refuse.

Hidden pressures (autoregressive factors) are mixed into sensors. The label is a noisy sign of what the first
pressure did lately, so that the best possible rule has a closed form. The source excites a few directions of
the sensor space only; a target market may shift, rescale, turn and add noise of its own in the others.

kind          what the target is                                            right answer
covariate     shifted, rescaled, turned, noisy in directions new to us      adapt
affine        every sensor has another gain and offset                      normalise or adapt
none          the source's own law                                          leave alone
reversed      covariate, and every label is the opposite                    refuse: only labels can tell
irrelevant    covariate, and another pressure makes the labels              refuse
random_walk   nothing predicts anything, in the source neither              say so
blind_sensor  the loudest sensors of the pressure lie, a new one shows it   do not promote over frozen
label_shift   80 % of the labels are up, what they look like is unchanged   do not promote over frozen
drifting      covariate, growing along the stream                           adapt to the newest
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.signal import lfilter
from scipy.special import expit
from scipy.stats import norm

from bot.core.errors import UsageError

Floats = NDArray[np.float64]

KINDS = (
    "covariate", "affine", "none", "reversed", "irrelevant", "random_walk", "blind_sensor", "label_shift",
    "drifting",
)  # fmt: skip
SHIFTED = ("covariate", "reversed", "irrelevant", "drifting")

MEMORY = (0.7, 0.85, 0.4, 0.6)  # autoregression of the pressures from bar to bar
LEVEL = (1.0, 1.4, 0.7, 0.5)  # their standard deviations
FADING = 0.8  # weight of a bar in the label relative to the next one
SHARPNESS = 6.0  # log odds of "up" per standard deviation of the recent pressure
LOUD = len(MEMORY)
QUIET = 0.05  # standard deviation of the source in every other direction
SHARE_UP = 0.8  # of label_shift


class Windows(NamedTuple):
    """x: float32 (n, T, F), in time order; y: int64 (n,), 0 = down, 1 = up."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


class Task(NamedTuple):
    """The arguments of one transfer, and the test's labels that it must not see."""

    source: Windows
    target: Windows
    matured: Windows
    test: Windows


class World:
    """One draw of directions, shared by a source and its targets. The same seed gives the same bits."""

    def __init__(self, seed: int, bars: int = 32, sensors: int = 12) -> None:
        """sensors: at least LOUD + 2, else UsageError."""
        if sensors < LOUD + 2:
            raise UsageError(f"{sensors} sensors; a world needs {LOUD + 2}")
        self.seed, self.bars, self.sensors = seed, bars, sensors
        rng = np.random.default_rng([seed, 0])
        self._axes = np.linalg.qr(rng.standard_normal((sensors, sensors)))[0]  # rows are directions
        self._offset = rng.normal(0.0, 3.0, sensors) * (np.arange(sensors) >= LOUD)
        self._gain = np.exp(rng.normal(0.0, 0.15, LOUD))
        self._noise = np.exp(rng.normal(np.log(2.5), 0.3, sensors - LOUD))
        self._turn = _small_rotation(rng, sensors, 0.35)
        self._affine = np.exp(rng.normal(0.0, 0.5, sensors)), rng.normal(0.0, 1.0, sensors)

    def task(
        self, kind: str, source: int = 4000, target: int = 2000, matured: int = 240, test: int = 2000
    ) -> Task:
        """Window counts in; the matured windows are the newest of the target's, the test follows them."""
        stream = self.windows(kind, target + test, 2)
        unlabelled = Windows(stream.x[:target], stream.y[:target])
        tested = Windows(stream.x[target:], stream.y[target:])
        newest = Windows(unlabelled.x[-matured:], unlabelled.y[-matured:])
        own = "random_walk" if kind == "random_walk" else "source"
        return Task(self.windows(own, source, 1), unlabelled, newest, tested)

    def windows(self, kind: str, n: int, part: int) -> Windows:
        """n windows of the kind ("source" or one of KINDS); different parts are independent draws."""
        rng = np.random.default_rng([self.seed, 1, part])
        drawn = 4 * n if kind == "label_shift" else n
        pressure = _pressures(rng, drawn, self.bars, MEMORY)
        y = _outcomes(rng, pressure, kind)
        if kind == "label_shift":
            chosen = _with_share(rng, y, n)
            pressure, y = pressure[chosen], y[chosen]
        quiet = QUIET * rng.standard_normal((n, self.bars, self.sensors - LOUD))
        readings = np.concatenate([pressure * LEVEL, quiet], axis=2)
        if kind in SHIFTED:
            self._shift(rng, readings, np.linspace(0.3, 1.5, n) if kind == "drifting" else np.ones(n))
        if kind == "blind_sensor":
            _blind(rng, readings)
        x = readings @ (self._turn @ self._axes if kind in SHIFTED else self._axes)
        if kind == "affine":
            x = x * self._affine[0] + self._affine[1]
        return Windows(x.astype(np.float32), y)

    def _shift(self, rng: np.random.Generator, readings: Floats, strength: Floats) -> None:
        """In place: other gains, and slow noise and offsets where the source is quiet."""
        strength = strength[:, None, None]
        n, bars, sensors = readings.shape
        readings[..., :LOUD] *= self._gain
        own = _pressures(rng, n, bars, (0.5,) * (sensors - LOUD))
        readings[..., LOUD:] += strength * self._noise * own
        readings += strength * self._offset


def bayes_accuracy(kind: str) -> float:
    """Of the best rule: the expectation of max(P, 1 - P), P = expit(SHARPNESS u), u standard normal."""
    if kind == "random_walk":
        return 0.5
    if kind == "label_shift":
        return _bayes_under_label_shift()
    return _expected(lambda u: expit(SHARPNESS * abs(u)))


def _bayes_under_label_shift() -> float:
    """The classes are drawn again with other weights: P up = w_u p / (w_u p + w_d (1 - p))."""
    up, down = 2 * SHARE_UP, 2 * (1 - SHARE_UP)
    return _expected(lambda u: max(up * expit(SHARPNESS * u), down * expit(-SHARPNESS * u)))


def _expected(value: Callable[[float], float]) -> float:
    return float(quad(lambda u: value(u) * norm.pdf(u), -8, 8, points=[0], limit=200)[0])


def _pressures(rng: np.random.Generator, n: int, bars: int, memory: Sequence[float]) -> Floats:
    """(n, bars, len(memory)) stationary autoregressions of unit variance."""
    shocks = rng.standard_normal((n, bars, len(memory)))
    columns = []
    for column, a in enumerate(memory):
        shocks[:, 1:, column] *= np.sqrt(1 - a * a)
        columns.append(lfilter([1.0], [1.0, -a], shocks[..., column], axis=1))
    return np.stack(columns, axis=2)


def _recent(pressure: Floats, memory: float) -> Floats:
    """(n,) standardised weighted sum of one pressure (n, bars): what decides the label."""
    bars = pressure.shape[1]
    weight = FADING ** np.arange(bars - 1, -1, -1)
    covariance = memory ** np.abs(np.subtract.outer(np.arange(bars), np.arange(bars)))
    return np.asarray(pressure @ weight / np.sqrt(weight @ covariance @ weight))


def _outcomes(rng: np.random.Generator, pressure: Floats, kind: str) -> NDArray[np.int64]:
    if kind == "random_walk":
        return rng.integers(0, 2, len(pressure))
    which = 1 if kind == "irrelevant" else 0
    up = rng.random(len(pressure)) < expit(SHARPNESS * _recent(pressure[..., which], MEMORY[which]))
    return np.asarray(~up if kind == "reversed" else up, np.int64)


def _with_share(rng: np.random.Generator, y: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Numbers of n different rows of y, SHARE_UP of them up, in random order."""
    ups = int(rng.binomial(n, SHARE_UP))
    chosen = np.concatenate([np.flatnonzero(y)[:ups], np.flatnonzero(y == 0)[: n - ups]])
    return np.asarray(rng.permutation(chosen))


def _blind(rng: np.random.Generator, readings: Floats) -> None:
    """In place: the deciding reading is drowned in noise, and shows clearly where the source was quiet."""
    readings[..., LOUD] = readings[..., 0]
    drowned = _pressures(rng, len(readings), readings.shape[1], MEMORY[:1])[..., 0]
    readings[..., 0] = 0.45 * readings[..., 0] + 0.9 * drowned


def _small_rotation(rng: np.random.Generator, size: int, angle: float) -> Floats:
    """A random rotation that turns directions by about `angle` radians (Cayley transform)."""
    skew = rng.standard_normal((size, size))
    skew = (skew - skew.T) * angle / np.sqrt(8 * size)
    return np.asarray(np.linalg.solve(np.eye(size) + skew, np.eye(size) - skew))
