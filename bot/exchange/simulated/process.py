"""The hidden state of one simulated symbol: pressure, nuisance, volatility, and the returns they drive.

With φ = the decay of the pressure f over one bar and standard normal, independent w, e:

    f[t] = φ f[t-1] + sqrt(1 - φ²) w[t]
    x[t] = d (b f[t-1] - k w[t]) + sqrt(1 - b² - k²) e[t]          k = b φ / sqrt(1 - φ²)
    log return[t] = σ[t] x[t] + jumps + the listing's trend

d is +1 (shared mechanism), -1 (reversed) or 0 (none; then x = e), and may change its sign once. This is the
predictive system of Pástor and Stambaugh (2009) with the correlation of innovations -k chosen so that
Cov(x[t+1], x[t]) = 0: demand that lifts the price is used up. Past returns alone therefore predict nothing,
x has unit variance, and the only way to f is through the bars' sensors (`Sensing`). The noise e and the
pressure of a symbol may be partly the market's.

Every random array has a generator of its own, keyed by seed, symbol and purpose, and is filled forwards in
time: a longer run extends the path and changes nothing of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import expit, ndtr

Array = NDArray[np.float64]

PRESSURE_HALF_LIFE: Final = 2.0  # hours
NUISANCE_HALF_LIFE: Final = 1.0
VISIBLE: Final = 0.95  # share of the variance of what all sensors see that is pressure; the rest is rumour
BURST_FLOOR: Final = 0.4  # of the AR(1) behind the nuisance, above which a burst is on
BURST_SLOPE: Final = 6.0  # how sharply it goes on and off
SENSOR_NOISE_HALF_LIFE: Final = 1.0
SIGNAL: Final = 0.72  # correlation of the pressure with the return of the next two hours
SIGNAL_HOURS: Final = 2.0
JUMPS_PER_DAY: Final = 0.4
JUMP_SIZE: Final = 3.0  # standard deviation of a jump in units of the quarter-hour volatility
QUARTER_HOUR: Final = 0.25  # hours; the unit in which volatilities are stated

# (standard deviation, half-life in hours) of the parts of the log volatility
COMMON_VOLATILITY: Final = (0.30, 24.0)
OWN_VOLATILITY: Final = ((0.20, 8.0), (0.15, 1.0))
SEASON: Final = 0.20  # of the log volatility, over the day
BUSIEST_HOUR: Final = 15.0  # UTC


@dataclass(frozen=True, slots=True)
class Sensing:
    """How the hidden factors show in a market's bars: sensor = loading * u(f) + nuisance g + own noise.

    The sensors are, in this order: wick asymmetry, where in the bar the volume traded, volume, volume of
    up-moves against down-moves, range. Each is scaled to unit variance, then by `scale`, shifted by `shift`.
    """

    pressure: tuple[float, float, float, float, float]
    nuisance: tuple[tuple[float, float, float, float, float], ...]
    noise: tuple[float, float, float, float, float]
    shift: float = 0.0


WICK, VWAP, VOLUME, FLOW, RANGE = range(5)
SENSORS: Final = 5


@dataclass(frozen=True, slots=True)
class Dynamics:
    """What distinguishes one symbol's price process from another's.

    direction: +1, -1 or 0: the sign with which its pressure drives its price
    volatility: standard deviation of a quarter-hour log return
    coupling, pressure_coupling: correlation of its noise and of its pressure with the market's
    turns_after: age in hours from which on the direction is the opposite
    """

    volatility: float
    direction: int = 1
    coupling: float = 0.0
    pressure_coupling: float = 0.0
    turns_after: float = math.inf

    def directions(self, age: Array) -> NDArray[np.int64]:
        """At each `age` in hours."""
        return np.where(age < self.turns_after, self.direction, -self.direction)


@dataclass(frozen=True, slots=True)
class Factor:
    """What all symbols share, on the market's whole time axis; float64 (n,) each."""

    noise: Array
    pressure_innovation: Array
    log_volatility: Array

    @classmethod
    def draw(cls, streams: "Streams", count: int, bar_hours: float) -> Self:
        deviation, half_life = COMMON_VOLATILITY
        return cls(
            noise=streams("noise").standard_normal(count),
            pressure_innovation=streams("pressure").standard_normal(count),
            log_volatility=deviation * autoregression(streams("volatility"), count, half_life, bar_hours),
        )

    def since(self, index: int) -> Self:
        return type(self)(self.noise[index:], self.pressure_innovation[index:], self.log_volatility[index:])


Streams = Callable[[str], np.random.Generator]


def streams_of(seed: int, owner: str) -> Streams:
    """A generator per purpose, independent of every other owner's and purpose's."""

    def stream(purpose: str) -> np.random.Generator:
        key = tuple(f"{owner}/{purpose}".encode())
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))

    return stream


@dataclass(frozen=True, slots=True)
class Path:
    """One symbol's hidden path; element i belongs to its bar i.

    pressure: (n,) f at the bar's close · returns: (n,) x, jumps included, in units of `sigma`
    sigma: (n,) standard deviation of the bar's log return · sensors: (SENSORS, n)
    """

    pressure: Array
    returns: Array
    sigma: Array
    sensors: Array


def decay(half_life: float, bar_hours: float) -> float:
    return float(0.5 ** (bar_hours / half_life))


def autoregression(random: np.random.Generator, count: int, half_life: float, bar_hours: float) -> Array:
    """Stationary Gaussian AR(1) of unit variance, (count,)."""
    return smooth(random.standard_normal(count), decay(half_life, bar_hours))


def smooth(innovations: Array, phi: float) -> Array:
    """AR(1) of unit variance from standard normal innovations; the first one is its stationary start."""
    scaled: Array = innovations * np.sqrt(1 - phi**2)
    scaled[:1] = innovations[:1]
    _accumulate(scaled, phi)
    return scaled


@njit(cache=True)
def _accumulate(values: Array, phi: float) -> None:
    """values[i] += phi values[i - 1]. scipy.signal does it too, and takes 60 MB to be imported."""
    for i in range(1, len(values)):
        values[i] += phi * values[i - 1]


def response(pressure: Array) -> Array:
    """u(f): what sensors see of the pressure, saturating and skewed, with mean 0 and variance 1.

    A two-humped marginal, unlike the Gaussian nuisance: a model that compares distributions can tell them
    apart, sign included. u = (tanh(SLOPE f + SKEW) - mean) / deviation by Gauss-Hermite quadrature.
    """
    standardised: Array = (np.tanh(_SLOPE * pressure + _SKEW) - _MEAN) / _DEVIATION
    return standardised


_SLOPE, _SKEW = 1.3, 0.4
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_MEAN = float(_WEIGHTS @ np.tanh(_SLOPE * _NODES + _SKEW))
_DEVIATION = float(np.sqrt(_WEIGHTS @ np.tanh(_SLOPE * _NODES + _SKEW) ** 2 - _MEAN**2))


def draw_path(
    streams: Streams,
    dynamics: Dynamics,
    sensing: Sensing,
    factor: Factor,
    hour_of_day: Array,
    extra_log_volatility: Array,
    bar_hours: float,
) -> Path:
    """The path of one symbol; the factor and `hour_of_day` (n,) begin at its first bar."""
    count = len(hour_of_day)
    phi = decay(PRESSURE_HALF_LIFE, bar_hours)
    directions = dynamics.directions(bar_hours * np.arange(count, dtype=np.float64))
    own, share = streams("pressure").standard_normal(count), dynamics.pressure_coupling
    innovation = share * factor.pressure_innovation + np.sqrt(1 - share**2) * own
    pressure = smooth(innovation, phi)
    own, share = streams("noise").standard_normal(count), dynamics.coupling
    noise = share * factor.noise + np.sqrt(1 - share**2) * own
    return Path(
        pressure=pressure,
        returns=_returns(directions, pressure, innovation, noise, phi, bar_hours)
        + _jumps(streams, count, bar_hours),
        sigma=_sigma(streams, dynamics, factor, hour_of_day, bar_hours) * np.exp(extra_log_volatility),
        sensors=_sensors(streams, sensing, response(_appearance(streams, pressure, phi)), bar_hours),
    )


def _returns(
    direction: NDArray[np.int64], f: Array, w: Array, e: Array, phi: float, bar_hours: float
) -> Array:
    if not direction.any():
        return e
    b = drift(bar_hours)
    k = b * phi / np.sqrt(1 - phi**2)
    before = np.concatenate([np.zeros(1), f[:-1]])
    x: Array = direction * (b * before - k * w) + np.sqrt(1 - b**2 - k**2) * e
    return x


def _jumps(streams: Streams, count: int, bar_hours: float) -> Array:
    happens = streams("jumps").random(count) < _jump_rate(bar_hours)
    size: Array = _jump_deviation(bar_hours) * streams("jump sizes").standard_normal(count)
    return size * happens


def _jump_rate(bar_hours: float) -> float:
    return JUMPS_PER_DAY * bar_hours / 24


def _jump_deviation(bar_hours: float) -> float:
    return JUMP_SIZE * float(np.sqrt(QUARTER_HOUR / bar_hours))


def _sigma(streams: Streams, dynamics: Dynamics, factor: Factor, hour: Array, bar_hours: float) -> Array:
    log_volatility = factor.log_volatility + SEASON * np.cos(2 * np.pi * (hour - BUSIEST_HOUR) / 24)
    variance = COMMON_VOLATILITY[0] ** 2 + SEASON**2 / 2
    for number, (deviation, half_life) in enumerate(OWN_VOLATILITY):
        own = autoregression(streams(f"volatility{number}"), len(hour), half_life, bar_hours)
        log_volatility = log_volatility + deviation * own
        variance += deviation**2
    scale = dynamics.volatility * np.sqrt(bar_hours / QUARTER_HOUR)
    sigma: Array = scale * np.exp(log_volatility - variance)  # E[sigma²] = scale²
    return sigma


def _appearance(streams: Streams, pressure: Array, phi: float) -> Array:
    rumour = smooth(streams("rumour").standard_normal(len(pressure)), phi)
    appearance: Array = np.sqrt(VISIBLE) * pressure + np.sqrt(1 - VISIBLE) * rumour
    return appearance


def _sensors(streams: Streams, sensing: Sensing, visible: Array, bar_hours: float) -> Array:
    count = len(visible)
    bursts = [
        expit(
            BURST_SLOPE
            * (autoregression(streams(f"nuisance{n}"), count, NUISANCE_HALF_LIFE, bar_hours) - BURST_FLOOR)
        )
        for n in range(len(sensing.nuisance))
    ]
    rows = np.empty((SENSORS, count))
    for sensor in range(SENSORS):
        own = autoregression(streams(f"sensor{sensor}"), count, SENSOR_NOISE_HALF_LIFE, bar_hours)
        rows[sensor] = sensing.shift + sensing.pressure[sensor] * visible + sensing.noise[sensor] * own
        for loadings, burst in zip(sensing.nuisance, bursts, strict=True):
            rows[sensor] += loadings[sensor] * burst
    return rows


def drift(bar_hours: float) -> float:
    """b: mean of x per unit of pressure, such that Corr(f, sum of x over SIGNAL_HOURS) = SIGNAL."""
    bars = round(SIGNAL_HOURS / bar_hours)
    return float(SIGNAL * np.sqrt(bars) / _geometric(decay(PRESSURE_HALF_LIFE, bar_hours), bars))


def probability_up(
    pressure: Array, direction: NDArray[np.int64] | int, trend: Array, bars: int, bar_hours: float
) -> Array:
    """P(the sum of the next `bars` log returns > 0 | f), elementwise.

    x is white with unit variance and Cov(x[t+1+j], f[t]) = d b φ^j. Everything is jointly Gaussian, so with
    S = 1 + φ + ... + φ^(H-1) the sum over H bars, given f, has mean d b S f and variance H - (b S)² (H when
    d = 0). `trend` is a known drift over the horizon in units of sigma. A jump in the horizon, with
    probability q, adds J² to the variance. Volatility is independent of x and cancels as far as it is
    constant over the horizon. So p = (1-q) Φ(m/s) + q Φ(m/sqrt(s² + J²)).
    """
    reach = direction * drift(bar_hours) * _geometric(decay(PRESSURE_HALF_LIFE, bar_hours), bars)
    mean = reach * pressure + trend
    variance = bars - reach**2
    jump = 1 - (1 - _jump_rate(bar_hours)) ** bars
    calm: Array = ndtr(mean / np.sqrt(variance))
    jumpy: Array = ndtr(mean / np.sqrt(variance + _jump_deviation(bar_hours) ** 2))
    return (1 - jump) * calm + jump * jumpy


def _geometric(phi: float, count: int) -> float:
    return float((1 - phi**count) / (1 - phi))
