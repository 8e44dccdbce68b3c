"""Markets of the kinds of strategies.learning.controls by other laws: heavy tails, mechanisms that are not
linear, few and many sensors. What a transfer says of them must be as sane.

Latent series follow autoregressions with Student-t shocks (3 degrees of freedom, no fourth moment). What
decides the label is a mean of the deciding latent's last bars, of its tanh, or of its product with a second
latent. Its normal score u gives P(up) = expit(5 u), so that every mechanism is as easy for who knows it.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import expit, ndtri
from scipy.stats import rankdata

Floats = NDArray[np.float64]

MECHANISMS: Final = ("linear", "tanh", "product")
KINDS: Final = ("covariate", "none", "reversed", "irrelevant", "random_walk", "label_shift", "blind")
SHIFTED: Final = ("covariate", "reversed", "irrelevant", "blind")
SHARPNESS: Final = 5.0
DEGREES: Final = 3.0
RECENT: Final = 6  # bars that decide


class Part(NamedTuple):
    x: NDArray[np.float32]
    y: NDArray[np.int64]


class Task(NamedTuple):
    source: Part
    target: Part
    matured: Part
    test: Part


class World:
    """One draw of directions. sensors >= 2; half of them are quiet in the source."""

    def __init__(self, seed: int, mechanism: str, bars: int, sensors: int) -> None:
        self.seed, self.mechanism, self.bars, self.sensors = seed, mechanism, bars, sensors
        self.loud = max(1, sensors // 2) if mechanism != "product" else max(2, sensors // 2)
        rng = np.random.default_rng([seed, 77])
        self._axes = np.linalg.qr(rng.standard_normal((sensors, sensors)))[0]
        self._gain = np.exp(rng.normal(0.0, 0.2, sensors))
        quiet = np.arange(sensors) >= self.loud
        self._noise = np.where(quiet, np.exp(rng.normal(0.7, 0.3, sensors)), 0.0)
        self._offset = np.where(quiet, rng.normal(0.0, 2.5, sensors), 0.0)

    def task(self, kind: str, source: int, target: int, matured: int, test: int) -> Task:
        law = "random_walk" if kind == "random_walk" else "none"
        stream = self.part(kind, target + test, 2)
        before = Part(stream.x[:target], stream.y[:target])
        return Task(
            self.part(law, source, 1),
            before,
            Part(before.x[-matured:], before.y[-matured:]),
            Part(stream.x[target:], stream.y[target:]),
        )

    def part(self, kind: str, n: int, number: int) -> Part:
        rng = np.random.default_rng([self.seed, 78, number])
        drawn = 4 * n if kind == "label_shift" else n
        latent = latents(rng, drawn, self.bars, self.sensors)
        y = self._labels(rng, latent, kind)
        if kind == "label_shift":
            ups = int(0.8 * n)
            chosen = rng.permutation(np.r_[np.flatnonzero(y)[:ups], np.flatnonzero(y == 0)[: n - ups]])
            latent, y = latent[chosen], y[chosen]
        readings = latent * np.where(np.arange(self.sensors) < self.loud, 1.0, 0.04)
        if kind in SHIFTED:
            own = latents(rng, n, self.bars, self.sensors)
            readings = readings * self._gain + self._noise * own + self._offset
        if kind == "blind":  # the deciding sensor is drowned
            readings[..., 0] = 0.3 * readings[..., 0] + latents(rng, n, self.bars, 1)[..., 0]
        return Part((readings @ self._axes).astype(np.float32), y)

    def _labels(self, rng: np.random.Generator, latent: Floats, kind: str) -> NDArray[np.int64]:
        if kind == "random_walk":
            return rng.integers(0, 2, len(latent))
        if kind == "irrelevant":  # something that no sensor shows
            latent = latents(rng, len(latent), self.bars, self.sensors)
        recent = latent[:, -RECENT:]
        decides = {
            "linear": recent[..., 0],
            "tanh": np.tanh(2 * recent[..., 0]),
            "product": recent[..., 0] * recent[..., min(1, self.sensors - 1)],
        }[self.mechanism].mean(axis=1)
        u = ndtri((rankdata(decides) - 0.5) / len(decides))
        up = rng.random(len(u)) < expit(SHARPNESS * u)
        return np.asarray(~up if kind == "reversed" else up, np.int64)


def latents(rng: np.random.Generator, n: int, bars: int, columns: int) -> Floats:
    """(n, bars, columns) of about unit variance."""
    shocks = rng.standard_t(DEGREES, (n, bars + 20, columns)) / np.sqrt(DEGREES / (DEGREES - 2))
    series = lfilter([np.sqrt(1 - 0.7**2)], [1.0, -0.7], shocks, axis=1)
    return np.asarray(series[:, 20:])
