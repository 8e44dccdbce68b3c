"""Bars from a hidden path: what a stranger to the hidden state gets to see."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
from scipy.special import expit

from bot.exchange.simulated.process import (
    FLOW,
    RANGE,
    VOLUME,
    VWAP,
    WICK,
    Array,
    Path,
    Streams,
    autoregression,
)

STEPS: Final = 6  # of the path inside a bar
WICKS: Final = 0.5  # both wicks beyond the inner path together, in sigma of the bar
WICK_TILT: Final = 1.5  # log ratio of the lower to the upper one, per unit of the wick sensor
RANGE_TILT: Final = 0.4  # log size of the inner path's detours, per unit of the range sensor
VWAP_TILT: Final = 0.7  # of the average price, in sigma, per unit of the vwap sensor
VOLUME_TILT: Final = 0.9  # log volume per unit of the volume sensor
FLOW_TILT: Final = 0.9  # log volume per sigma of the bar's return, per unit of the flow sensor
VOLUME_OF_MOVE: Final = 0.3  # log volume per sigma of the bar's absolute return
VOLUME_NOISE: Final = ((0.25, 4.0), (0.20, 0.05))  # (standard deviation, half-life in hours) of log volume
LARGEST: Final = 3.0  # sensors and returns act on shapes and volumes up to this many units


@dataclass(frozen=True, slots=True)
class Grid:
    """Price tick and quantity step of the instrument."""

    tick: Decimal
    step: Decimal


@dataclass(frozen=True, slots=True)
class Tape:
    """Columns of the bars, float64 (n,) each, on the grid; `open` is the previous close."""

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    turnover: Array


def print_bars(
    streams: Streams,
    path: Path,
    first_price: float,
    trend: Array,
    usual_turnover: Array,
    grid: Grid,
    bar_hours: float,
) -> Tape:
    """The bars of `path`.

    trend: (n + 1,) known drift of the log price, at each bar's open and at the last close
    usual_turnover: (n,) quote coin per bar when nothing happens
    """
    sigma = path.sigma
    moves = sigma * path.returns + np.diff(trend)
    log_price = np.log(first_price) + np.concatenate([np.zeros(1), np.cumsum(moves)])
    sensors = np.clip(path.sensors, -LARGEST, LARGEST)
    inner = _inner_path(streams, moves / sigma, np.exp(RANGE_TILT * sensors[RANGE]))
    below = np.minimum(inner.min(axis=1), 0) - WICKS * expit(WICK_TILT * sensors[WICK])
    above = np.maximum(inner.max(axis=1), 0) + WICKS * expit(-WICK_TILT * sensors[WICK])
    close = _on_grid(np.exp(log_price), grid.tick)
    opened, close = close[:-1], close[1:]
    high = np.maximum(_on_grid(np.exp(log_price[:-1] + sigma * above), grid.tick), np.maximum(opened, close))
    low = np.minimum(_on_grid(np.exp(log_price[:-1] + sigma * below), grid.tick), np.minimum(opened, close))
    average = np.clip(inner.mean(axis=1) + VWAP_TILT * sensors[VWAP], below, above)
    vwap = np.exp(log_price[:-1] + sigma * average)
    volume = _on_grid(_turnover(streams, path, sensors, usual_turnover, bar_hours) / vwap, grid.step)
    return Tape(opened, high, low, close, volume, np.clip(vwap, low, high) * volume)


def _inner_path(streams: Streams, moves: Array, detour: Array) -> Array:
    """Prices inside each bar as log returns from its open in sigma, (n, STEPS): bridges to the moves (n,)."""
    steps = streams("inner path").standard_normal((len(moves), STEPS))
    walk = np.cumsum(steps / np.sqrt(STEPS), axis=1)
    share = np.arange(1, STEPS + 1) / STEPS
    bridge = detour[:, None] * (walk - share * walk[:, -1:])
    inner: Array = bridge + share * moves[:, None]
    return inner


def _turnover(streams: Streams, path: Path, sensors: Array, usual: Array, bar_hours: float) -> Array:
    move = np.clip(path.returns, -LARGEST, LARGEST)
    log_volume = VOLUME_TILT * sensors[VOLUME] + FLOW_TILT * sensors[FLOW] * move
    log_volume += VOLUME_OF_MOVE * np.abs(move)
    for number, (deviation, half_life) in enumerate(VOLUME_NOISE):
        log_volume += deviation * autoregression(streams(f"volume{number}"), len(move), half_life, bar_hours)
    turnover: Array = usual * np.exp(log_volume)
    return turnover


def _on_grid(value: Array, step: Decimal) -> Array:
    """The nearest multiples of `step`, at least one step, as the floats closest to the decimal numbers."""
    inverse = float(1 / step)
    return np.maximum(np.round(value * inverse), 1.0) / inverse
