"""Triple-barrier labels (López de Prado 2018, ch. 3-4) that exist only once everything in them is known.

A decision at the close of bar t enters at the open of bar t+1. Barriers lie at entry x exp(+-k s sqrt(h)), s
being the volatility per bar at t; bars t+1 .. t+h are compared by high and low. The lower barrier is the
stop: touched in the same bar as the upper one, it counts. A bar that opens beyond a barrier exits at its
open. Without a touch the exit is the close of bar t+h.

A label matures at the close of bar t+h, also when a barrier was touched before, because its volatility target
needs the whole window. A missing bar, or one that is not sane, ends all open labels without an outcome;
repeated and older bars are ignored.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bot.core.events import BarClosed
from bot.market.bars import BarTable

MIN_VARIANCE: Final = 1e-16  # of a log return; the logarithm of a flat market's volatility exists

# What is kept of an open label.
AGE, ENTRY, UPPER, LOWER, SIDE, EXIT, TOUCH, SHARES, SQUARES = range(9)
FIELDS: Final = 9
VACANT: Final = -1.0

# Header row of the state: the last bar.
LAST_START, LAST_CLOSE = range(2)

# Output of a matured label.
RETURN, WEIGHT, LOG_VOLATILITY, TOUCHED_SIDE, TOUCHED_AT = range(5)
OUTPUTS: Final = 5


class Matured(NamedTuple):
    """The label of the decision bar that opened at `start`; times in ms.

    outcome: 1 if ret > 0, else 0; ret: exit / entry - 1; weight: average uniqueness over the bars from entry
    to exit; log_vol: log of the root mean square log return of bars t+1 .. t+h
    """

    start: int
    t_entry: int
    t_known: int
    outcome: int
    ret: float
    weight: float
    log_vol: float


class LabelTable(NamedTuple):
    """Labels of a bar table, by decision bar. outcome: int8 (n,), -1 = none; t_entry, t_known: int64 (n,) ms,
    of the label that the bar has or would have had.

    ret, weight, log_vol: float64 (n,), NaN where there is no label; side: int8 (n,) barrier touched, 1 upper,
    -1 lower, 0 none; touch: int64 (n,) bars from the decision bar to the exit, 0 where there is no label
    """

    outcome: NDArray[np.int8]
    t_entry: NDArray[np.int64]
    t_known: NDArray[np.int64]
    ret: NDArray[np.float64]
    weight: NDArray[np.float64]
    log_vol: NDArray[np.float64]
    side: NDArray[np.int8]
    touch: NDArray[np.int64]


def _new_state(horizon: int) -> NDArray[np.float64]:
    """Header and one row per label that can be open at once."""
    state = np.zeros((horizon + 1, FIELDS))
    state[1:, AGE] = VACANT
    return state


@njit(cache=True, error_model="numpy")
def _open_label(slots: NDArray[np.float64], width: float) -> None:
    for label in slots:
        if label[AGE] == VACANT:
            label[:] = 0.0
            label[UPPER], label[LOWER] = (
                math.exp(width),
                math.exp(-width),
            )  # times the entry, once it is known
            return


@njit(cache=True, error_model="numpy")
def _enter(label: NDArray[np.float64], entry: float) -> None:
    label[ENTRY] = entry
    label[UPPER] *= entry
    label[LOWER] *= entry


@njit(cache=True, error_model="numpy")
def _touch(label: NDArray[np.float64], bar: NDArray[np.float64]) -> None:
    """Close the label if this bar reaches a barrier; the stop first."""
    opened, high, low = bar[0], bar[1], bar[2]
    if low <= label[LOWER]:
        label[SIDE], label[EXIT] = -1.0, min(label[LOWER], opened)
    elif high >= label[UPPER]:
        label[SIDE], label[EXIT] = 1.0, max(label[UPPER], opened)
    else:
        return
    label[TOUCH] = label[AGE]


@njit(cache=True, error_model="numpy")
def _live_through(slots: NDArray[np.float64], bar: NDArray[np.float64], previous: float) -> None:
    """One bar in the life of every open label; those still in the market share it."""
    square = math.log(bar[3] / previous) ** 2
    concurrent = 0
    for label in slots:
        if label[AGE] == VACANT:
            continue
        label[AGE] += 1.0
        label[SQUARES] += square
        if label[ENTRY] == 0.0:
            _enter(label, bar[0])
        if label[TOUCH] == 0.0:
            concurrent += 1
            _touch(label, bar)
            if label[TOUCH] == 0.0:
                label[EXIT] = bar[3]
    for label in slots:
        alive = label[TOUCH] == 0.0 or label[TOUCH] == label[AGE]
        if label[AGE] != VACANT and alive:
            label[SHARES] += 1.0 / concurrent


@njit(cache=True, error_model="numpy")
def _mature(slots: NDArray[np.float64], horizon: int, out: NDArray[np.float64]) -> bool:
    """Take the label of age `horizon`, if there is one, out of its slot."""
    for label in slots:
        if label[AGE] == horizon:
            bars = label[TOUCH] if label[TOUCH] > 0.0 else label[AGE]
            out[RETURN] = label[EXIT] / label[ENTRY] - 1.0
            out[WEIGHT] = label[SHARES] / bars
            out[LOG_VOLATILITY] = 0.5 * math.log(max(label[SQUARES] / horizon, MIN_VARIANCE))
            out[TOUCHED_SIDE] = label[SIDE]
            out[TOUCHED_AT] = bars
            label[AGE] = VACANT
            return True
    return False


@njit(cache=True, error_model="numpy")
def _is_sane(bar: NDArray[np.float64]) -> bool:
    opened, high, low, close = bar[0], bar[1], bar[2], bar[3]
    inside = low <= opened <= high and low <= close <= high  # false with NaN, unlike min and max
    return bool(inside and low > 0.0 and high < math.inf)


@njit(cache=True, error_model="numpy")
def advance(
    state: NDArray[np.float64],
    starts: NDArray[np.int64],
    bars: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    interval: int,
    k: float,
    at_close: bool,  # noqa: FBT001 - a compiled function takes positions only
    out: NDArray[np.float64],
    matured: NDArray[np.bool_],
) -> None:
    """Take bars in order. A finite sigma > 0 opens a label with this bar as its decision bar.

    state: of _new_state; starts: (n,) ms; bars: (n, 4) open, high, low, close; at_close: enter at the close
    of the decision bar instead. out: (n, OUTPUTS) of the label that matured with bar i, if matured[i]; its
    decision bar is i - horizon.
    """
    slots = state[1:]
    horizon = len(slots)
    for i in range(len(starts)):
        matured[i] = False
        if starts[i] <= int(state[0, LAST_START]):
            continue
        bar = bars[i]
        sane = _is_sane(bar)
        if sane and starts[i] == int(state[0, LAST_START]) + interval:
            _live_through(slots, bar, state[0, LAST_CLOSE])
            matured[i] = _mature(slots, horizon, out[i])
        else:
            slots[:, AGE] = VACANT
        state[0, LAST_START] = starts[i] if sane else 0
        state[0, LAST_CLOSE] = bar[3]
        if sane and 0.0 < sigmas[i] < math.inf:
            _open_label(slots, k * sigmas[i] * math.sqrt(horizon))
            if at_close:
                for label in slots:
                    if label[AGE] == 0.0:
                        _enter(label, bar[3])


class Labeler:
    """Labels of one token as bars close. Memory is bounded by the horizon (bars)."""

    def __init__(self, horizon: int, k: float) -> None:
        self._horizon = horizon
        self._k = k
        self._state: NDArray[np.float64] = _new_state(horizon)
        self._start = np.zeros(1, np.int64)
        self._bar = np.zeros((1, 4))
        self._sigma = np.zeros(1)
        self._out: NDArray[Any] = np.zeros((1, OUTPUTS))
        self._matured = np.zeros(1, np.bool_)

    def update(self, bar: BarClosed, sigma: float | None) -> list[Matured]:
        """Labels that this bar matures: at most one. sigma: per bar; None opens no label for this bar."""
        self._start[0] = bar.start
        self._bar[0] = bar.open, bar.high, bar.low, bar.close
        self._sigma[0] = math.nan if sigma is None else sigma
        advance(
            self._state, self._start, self._bar, self._sigma, bar.interval, self._k, False,
            self._out, self._matured,
        )  # fmt: skip
        if not self._matured[0]:
            return []
        start = bar.start - self._horizon * bar.interval
        ret, weight, log_vol = self._out[0, :TOUCHED_SIDE].tolist()
        known = bar.start + bar.interval
        return [Matured(start, start + bar.interval, known, int(ret > 0.0), ret, weight, log_vol)]


def batch(
    table: BarTable, sigma: NDArray[np.float64], horizon: int, k: float, *, at_close: bool = False
) -> LabelTable:
    """Labels of a whole table, bit for bit those of `Labeler`. sigma: (n,) per bar, NaN opens no label.

    at_close: enter at the close of the decision bar instead of the next bar's open (textbook convention).
    """
    n = len(table)
    bars = np.column_stack([table.open, table.high, table.low, table.close])
    out, matured = np.full((n, OUTPUTS), np.nan), np.zeros(n, np.bool_)
    advance(_new_state(horizon), table.start, bars, sigma, table.interval, k, at_close, out, matured)
    at = np.flatnonzero(matured)
    values = np.full((n, OUTPUTS), np.nan)
    values[at - horizon] = out[at]
    known = np.zeros(n, np.bool_)
    known[at - horizon] = True
    ret = values[:, RETURN]
    return LabelTable(
        np.where(known, ret > 0.0, -1).astype(np.int8),
        table.start + table.interval,
        table.start + (horizon + 1) * table.interval,
        ret,
        values[:, WEIGHT],
        values[:, LOG_VOLATILITY],
        np.nan_to_num(values[:, TOUCHED_SIDE]).astype(np.int8),
        np.nan_to_num(values[:, TOUCHED_AT]).astype(np.int64),
    )
