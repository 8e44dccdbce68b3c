"""The raw features of one bar from a fixed amount of state per token: O(1) work, live and batch alike.

Sums slide over a ring of the last `SLOTS` bars and are recomputed from it each time it wraps, so rounding
errors cannot pile up. A gap forgets the ring: no return, sum or average reaches across it.

Everything that `advance` calls lives in this file: numba's cache notices a changed source file only for the
function that it stored, not for functions imported into it.
"""

import math
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

REVISION: Final = 1  # raise it when a formula changes: it is part of the features' version

SLOTS: Final = 128
LONG: Final = 96  # bars behind volatility, beta, correlation and the longest return; a day of 15-minute bars
SHORT: Final = 16
BAND: Final = 20
VOLUME_PERIOD: Final = 48
MIN_PAIRS: Final = 48  # returns of both markets below which correlation and beta are missing
MIN_SIGMA: Final = 1e-6  # per bar; a calmer market than this does not trade
DEAD: Final = 1e-9  # share of the usual volume that counts as none
QUIET: Final = 1e-3  # smallest volume ratio, so that its logarithm exists
FUNDING_SCALE: Final = 5e-4
AGE_DAYS: Final = 365.0

# Columns of a ring slot; a reference's return is NaN where it is missing.
CLOSE, LOG, RETURN, VOLUME, TRADED, FIRST_LOG, FIRST, SECOND = range(8)

# Sliding sums. "PAIR" sums run over bars where the first reference's return exists.
(
    R_LONG, RR_LONG, R_SHORT, RR_SHORT, V_LONG, V_SHORT, TRADED_LONG, SIGNED_SHORT, BAND_X, BAND_XX,
    PAIRS, PAIR_R, PAIR_RR, PAIR_Q, PAIR_QQ, PAIR_RQ, SECONDS, SECOND_Q, SECOND_QQ,
) = range(19)  # fmt: skip

# Recursive averages and other scalars that one bar hands to the next.
UP, DOWN, EMA_FAST, EMA_SLOW, MACD_SIGNAL, TRUE_RANGE, USUAL_VOLUME, ANCHOR, SECOND_LOG = range(9)

# Inputs of a bar, the rows of `columns`.
OPEN, HIGH, LOW, BAR_CLOSE, BAR_VOLUME, TURNOVER, FIRST_CLOSE, SECOND_CLOSE, FUNDING_RATE = range(9)
INPUTS: Final = 9

# Features in the order of spec.SPEC; a test compares the two.
(
    RETURN_1, RETURN_4, RETURN_16, RETURN_96, VOLATILITY, VOLATILITY_RATIO, RANGE, CLOSE_LOCATION, BODY,
    VOLUME_DEVIATION, VOLUME_RATIO, VWAP_LOCATION, VWAP_DISTANCE, OBV_SLOPE, RSI, MACD, BOLLINGER, ATR,
    FIRST_RETURN, SECOND_RETURN, CORRELATION, BETA, RESIDUAL, RELATIVE_STRENGTH, FUNDING, AGE, HOUR_SIN,
    HOUR_COS, REFERENCE_MISSING, TURNOVER_MISSING,
) = range(30)  # fmt: skip

TOKEN: Final = np.dtype(
    [
        ("last", "i8"),  # start of the last accepted bar, ms; 0 = none yet
        ("run", "i8"),  # accepted bars since the last gap
        ("launch", "i8"),  # ms
        ("averages", "f8", (9,)),
        ("sums", "f8", (19,)),
        ("ring", "f8", (SLOTS, 8)),
    ],
    align=True,
)

_MINUTES: Final = 1440
_SINE: Final = np.sin(2 * np.pi * np.arange(_MINUTES) / _MINUTES)


@njit(cache=True, error_model="numpy")
def mean_towards(average: float, value: float, count: int, period: int) -> float:
    """Wilder's average (1978): the mean of the first `period` values, then a share 1/period of each new one.

    count: values so far, this one included.
    """
    return average + (value - average) / min(count, period)


@njit(cache=True, error_model="numpy")
def ema(average: float, value: float, span: int) -> float:
    """Exponential average with weight 2 / (span + 1), seeded by the caller with the first value."""
    return average + 2.0 / (span + 1) * (value - average)


@njit(cache=True, error_model="numpy")
def variance(total: float, squares: float, count: float, ddof: int) -> float:
    """Variance from a sum and a sum of squares; never negative."""
    return max(squares - total * total / count, 0.0) / (count - ddof)


@njit(cache=True, error_model="numpy")
def relative_strength_index(up: float, down: float) -> float:
    """RSI / 50 - 1, in [-1, 1]: -1 only falls, 1 only rises, 0 also when nothing moved."""
    both = up + down
    return (up - down) / both if both > 0.0 else 0.0


@njit(cache=True, error_model="numpy")
def regression(
    n: float, y: float, yy: float, x: float, xx: float, yx: float, floor: float
) -> tuple[float, float]:
    """(slope, correlation) of y on x from their sums; NaN when x hardly varies (variance below `floor`)."""
    spread = xx - x * x / n
    if not spread > floor * n:
        return math.nan, math.nan
    shared = yx - y * x / n
    own = max(yy - y * y / n, 0.0)
    correlation = shared / math.sqrt(own * spread) if own > 0.0 else 0.0
    return shared / spread, min(max(correlation, -1.0), 1.0)


@njit(cache=True, error_model="numpy")
def _forget(s: Any, close: float) -> None:
    """Start a new run with a flat, silent past at `close`: filling windows then need no special case."""
    s.run = 0
    s.sums[:] = 0.0
    s.averages[:] = 0.0
    s.averages[EMA_FAST] = close
    s.averages[EMA_SLOW] = close
    s.averages[ANCHOR] = close
    s.averages[SECOND_LOG] = math.nan
    ring = s.ring
    for slot in range(SLOTS):
        ring[slot, CLOSE] = close
        ring[slot, LOG] = math.log(close)
        ring[slot, RETURN] = 0.0
        ring[slot, VOLUME] = 0.0
        ring[slot, TRADED] = 0.0
        ring[slot, FIRST_LOG] = math.nan
        ring[slot, FIRST] = math.nan
        ring[slot, SECOND] = math.nan


@njit(cache=True, error_model="numpy")
def _count_long(sums: NDArray[np.float64], bar: NDArray[np.float64], sign: float) -> None:
    r, q, second = bar[RETURN], bar[FIRST], bar[SECOND]
    sums[R_LONG] += sign * r
    sums[RR_LONG] += sign * (r * r)
    sums[V_LONG] += sign * bar[VOLUME]
    sums[TRADED_LONG] += sign * bar[TRADED]
    if not math.isnan(q):
        sums[PAIRS] += sign
        sums[PAIR_R] += sign * r
        sums[PAIR_RR] += sign * (r * r)
        sums[PAIR_Q] += sign * q
        sums[PAIR_QQ] += sign * (q * q)
        sums[PAIR_RQ] += sign * (r * q)
    if not math.isnan(second):
        sums[SECONDS] += sign
        sums[SECOND_Q] += sign * second
        sums[SECOND_QQ] += sign * (second * second)


@njit(cache=True, error_model="numpy")
def _count_short(sums: NDArray[np.float64], bar: NDArray[np.float64], sign: float) -> None:
    r, volume = bar[RETURN], bar[VOLUME]
    sums[R_SHORT] += sign * r
    sums[RR_SHORT] += sign * (r * r)
    sums[V_SHORT] += sign * volume
    if r > 0.0:
        sums[SIGNED_SHORT] += sign * volume
    elif r < 0.0:
        sums[SIGNED_SHORT] -= sign * volume


@njit(cache=True, error_model="numpy")
def _count_band(sums: NDArray[np.float64], x: float, sign: float) -> None:
    sums[BAND_X] += sign * x
    sums[BAND_XX] += sign * (x * x)


@njit(cache=True, error_model="numpy")
def _recompute(s: Any, slot: int) -> None:
    """The sums afresh from the ring that ends at `slot`, prices measured from its close."""
    sums, ring = s.sums, s.ring
    sums[:] = 0.0
    anchor = ring[slot, CLOSE]
    s.averages[ANCHOR] = anchor
    for age in range(LONG):
        bar = ring[(slot - age) & (SLOTS - 1)]
        _count_long(sums, bar, 1.0)
        if age < SHORT:
            _count_short(sums, bar, 1.0)
        if age < BAND:
            _count_band(sums, bar[CLOSE] - anchor, 1.0)


@njit(cache=True, error_model="numpy")
def _slide(s: Any, slot: int) -> None:
    """Let the bar in `slot` into the sums and the ones that left their windows out."""
    sums, ring = s.sums, s.ring
    anchor = s.averages[ANCHOR]
    _count_long(sums, ring[slot], 1.0)
    _count_long(sums, ring[(slot - LONG) & (SLOTS - 1)], -1.0)
    _count_short(sums, ring[slot], 1.0)
    _count_short(sums, ring[(slot - SHORT) & (SLOTS - 1)], -1.0)
    _count_band(sums, ring[slot, CLOSE] - anchor, 1.0)
    _count_band(sums, ring[(slot - BAND) & (SLOTS - 1), CLOSE] - anchor, -1.0)


@njit(cache=True, error_model="numpy")
def _log_or_nan(price: float) -> float:
    return math.log(price) if 0.0 < price < math.inf else math.nan


@njit(cache=True, error_model="numpy")
def _average(s: Any, high: float, low: float, close: float, previous: float, volume: float) -> None:
    """Advance the recursive averages; `s.run` already counts this bar."""
    a = s.averages
    a[USUAL_VOLUME] = mean_towards(a[USUAL_VOLUME], volume, s.run, VOLUME_PERIOD)
    moves = s.run - 1
    if moves == 0:
        return
    change = close - previous
    a[UP] = mean_towards(a[UP], max(change, 0.0), moves, 14)
    a[DOWN] = mean_towards(a[DOWN], max(-change, 0.0), moves, 14)
    reach = max(high, previous) - min(low, previous)
    a[TRUE_RANGE] = mean_towards(a[TRUE_RANGE], reach, moves, 14)
    a[EMA_FAST] = ema(a[EMA_FAST], close, 12)
    a[EMA_SLOW] = ema(a[EMA_SLOW], close, 26)
    a[MACD_SIGNAL] = ema(a[MACD_SIGNAL], a[EMA_FAST] - a[EMA_SLOW], 9)


@njit(cache=True, error_model="numpy")
def _vwap(high: float, low: float, close: float, volume: float, turnover: float) -> float:
    """Average price of the bar; the typical price where turnover or volume say nothing."""
    if volume > 0.0 and turnover > 0.0:  # also false for NaN
        return min(max(turnover / volume, low), high)
    return (high + low + close) / 3.0


@njit(cache=True, error_model="numpy")
def _push(s: Any, bar: NDArray[np.float64], vwap: float) -> int:
    """Take one bar into the state; the slot that holds it."""
    ring = s.ring
    slot = int(s.run & (SLOTS - 1))
    before = ring[(slot - 1) & (SLOTS - 1)]
    previous = before[CLOSE]
    close, volume = bar[BAR_CLOSE], bar[BAR_VOLUME]
    first_log, second_log = _log_or_nan(bar[FIRST_CLOSE]), _log_or_nan(bar[SECOND_CLOSE])
    row = ring[slot]  # its old bar left the longest window SLOTS - LONG bars ago
    row[CLOSE] = close
    row[LOG] = math.log(close)
    row[RETURN] = row[LOG] - before[LOG]
    row[VOLUME] = volume
    row[TRADED] = vwap * volume
    row[FIRST_LOG] = first_log
    row[FIRST] = first_log - before[FIRST_LOG]
    row[SECOND] = second_log - s.averages[SECOND_LOG]
    s.averages[SECOND_LOG] = second_log
    s.run += 1
    _average(s, bar[HIGH], bar[LOW], close, previous, volume)
    if slot == SLOTS - 1:
        _recompute(s, slot)
    else:
        _slide(s, slot)
    return slot


@njit(cache=True, error_model="numpy")
def _returns(s: Any, slot: int, sigma: float, out: NDArray[np.float64]) -> None:
    ring, sums = s.ring, s.sums
    log = ring[slot, LOG]
    out[RETURN_1] = ring[slot, RETURN] / sigma
    out[RETURN_4] = (log - ring[(slot - 4) & (SLOTS - 1), LOG]) / (2.0 * sigma)
    out[RETURN_16] = (log - ring[(slot - 16) & (SLOTS - 1), LOG]) / (4.0 * sigma)
    out[RETURN_96] = (log - ring[(slot - 96) & (SLOTS - 1), LOG]) / (math.sqrt(96.0) * sigma)
    out[VOLATILITY] = math.log(sigma)
    short = variance(sums[R_SHORT], sums[RR_SHORT], SHORT, 1)
    out[VOLATILITY_RATIO] = 0.5 * math.log(max(short / (sigma * sigma), QUIET))


@njit(cache=True, error_model="numpy")
def _bar_shape(bar: NDArray[np.float64], vwap: float, step: float, out: NDArray[np.float64]) -> None:
    """Where the bar opened, closed and traded within its range; `step` is one sigma as a price."""
    high, low, close = bar[HIGH], bar[LOW], bar[BAR_CLOSE]
    reach = high - low
    out[RANGE] = reach / step
    per_range = 1.0 / reach if reach > 0.0 else 0.0
    out[CLOSE_LOCATION] = ((close - low) - (high - close)) * per_range
    out[BODY] = (close - bar[OPEN]) * per_range
    unknown = math.isnan(bar[TURNOVER])  # from a typical price it would only repeat close_location
    out[VWAP_LOCATION] = math.nan if unknown else (close - vwap) * per_range
    out[TURNOVER_MISSING] = 1.0 if unknown else 0.0


@njit(cache=True, error_model="numpy")
def _activity(s: Any, close: float, volume: float, sigma: float, out: NDArray[np.float64]) -> None:
    """Volume against its own past. Sums below DEAD of the usual are rounding residue, that is, no volume."""
    sums, usual = s.sums, s.averages[USUAL_VOLUME]
    day, recent = sums[V_LONG], sums[V_SHORT]
    alive = day > DEAD * usual * LONG
    out[VOLUME_DEVIATION] = math.log(max(volume / usual, QUIET)) if alive else math.nan
    out[VWAP_DISTANCE] = (
        (close * day / sums[TRADED_LONG] - 1.0) / (math.sqrt(96.0) * sigma) if alive else math.nan
    )
    traded = recent > DEAD * day
    ratio = recent * LONG / (day * SHORT) if traded else 0.0
    out[VOLUME_RATIO] = math.log(max(ratio, QUIET))
    out[OBV_SLOPE] = min(max(sums[SIGNED_SHORT] / recent, -1.0), 1.0) if traded else 0.0


@njit(cache=True, error_model="numpy")
def _oscillators(s: Any, close: float, step: float, out: NDArray[np.float64]) -> None:
    sums, a = s.sums, s.averages
    out[RSI] = relative_strength_index(a[UP], a[DOWN])
    out[MACD] = (a[EMA_FAST] - a[EMA_SLOW] - a[MACD_SIGNAL]) / step
    deviation = math.sqrt(variance(sums[BAND_X], sums[BAND_XX], BAND, 0))
    middle = sums[BAND_X] / BAND + a[ANCHOR]
    out[BOLLINGER] = (close - middle) / (2.0 * max(deviation, 0.01 * step))
    out[ATR] = a[TRUE_RANGE] / step


@njit(cache=True, error_model="numpy")
def _references(s: Any, slot: int, sigma: float, out: NDArray[np.float64]) -> None:
    """Against the two reference markets; NaN where they, or enough of their past, are missing."""
    ring, sums = s.ring, s.sums
    floor = MIN_SIGMA * MIN_SIGMA
    pairs = sums[PAIRS]
    first, beta, correlation = math.nan, math.nan, math.nan
    q = ring[slot, FIRST]
    if pairs >= MIN_PAIRS:
        beta, correlation = regression(
            pairs, sums[PAIR_R], sums[PAIR_RR], sums[PAIR_Q], sums[PAIR_QQ], sums[PAIR_RQ], floor
        )
        first = q / math.sqrt(max(variance(sums[PAIR_Q], sums[PAIR_QQ], pairs, 1), floor))
    second = math.nan
    if sums[SECONDS] >= MIN_PAIRS:
        spread = variance(sums[SECOND_Q], sums[SECOND_QQ], sums[SECONDS], 1)
        second = ring[slot, SECOND] / math.sqrt(max(spread, floor))
    before = (slot - SHORT) & (SLOTS - 1)
    lead = (ring[slot, LOG] - ring[before, LOG]) - (ring[slot, FIRST_LOG] - ring[before, FIRST_LOG])
    out[FIRST_RETURN] = first
    out[SECOND_RETURN] = second
    out[CORRELATION] = correlation
    out[BETA] = beta
    out[RESIDUAL] = (ring[slot, RETURN] - beta * q) / sigma
    out[RELATIVE_STRENGTH] = lead / (4.0 * sigma)
    missing = math.isnan(first) or math.isnan(second) or math.isnan(lead) or math.isnan(beta)
    out[REFERENCE_MISSING] = 1.0 if missing else 0.0


@njit(cache=True, error_model="numpy")
def _surroundings(closed: int, launch: int, funding: float, out: NDArray[np.float64]) -> None:
    """Funding, age and time of day at the close of the bar (ms)."""
    rate = funding / FUNDING_SCALE
    out[FUNDING] = rate / (1.0 + abs(rate))
    days = max(closed - launch, 0) / 86_400_000.0
    out[AGE] = math.log1p(days) / math.log1p(AGE_DAYS) if days < AGE_DAYS else 1.0
    minute = closed // 60_000 % _MINUTES
    out[HOUR_SIN] = _SINE[minute]
    out[HOUR_COS] = _SINE[(minute + _MINUTES // 4) % _MINUTES]


@njit(cache=True, error_model="numpy")
def _is_sane(bar: NDArray[np.float64]) -> bool:
    high, low = bar[HIGH], bar[LOW]
    inside = low <= bar[OPEN] <= high and low <= bar[BAR_CLOSE] <= high  # false with NaN, unlike min and max
    return bool(inside and low > 0.0 and high < math.inf and 0.0 <= bar[BAR_VOLUME] < math.inf)


@njit(cache=True, error_model="numpy")
def advance(
    states: Any,
    tokens: NDArray[np.int64],
    starts: NDArray[np.int64],
    interval: int,
    columns: NDArray[np.float64],
    raw: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    runs: NDArray[np.int64],
) -> None:
    """Take bars in order, each into the state of its token, and write its raw features.

    states: TOKEN records; tokens: (n,) which record; starts: (n,) ms; columns: (INPUTS, n), NaN = missing
    raw: (n, COUNT) out; sigmas: (n,) out, stdev of the last LONG log returns, NaN while fewer are there
    runs: (n,) out, bars since the last gap, 0 = refused (not after the last one, or not a sane bar)

    Missing references and turnover leave NaN in their features; a constant price leaves NaN in all that
    sigma scales.
    """
    bar = np.empty(INPUTS)
    for i in range(len(tokens)):
        s = states[tokens[i]]
        out = raw[i]
        runs[i] = 0
        sigmas[i] = math.nan
        for k in range(INPUTS):
            bar[k] = columns[k, i]
        if starts[i] <= s.last or not _is_sane(bar):
            out[:] = math.nan
            continue
        if starts[i] != s.last + interval:
            _forget(s, bar[BAR_CLOSE])
        s.last = starts[i]
        vwap = _vwap(bar[HIGH], bar[LOW], bar[BAR_CLOSE], bar[BAR_VOLUME], bar[TURNOVER])
        slot = _push(s, bar, vwap)
        runs[i] = s.run
        sigma = math.sqrt(variance(s.sums[R_LONG], s.sums[RR_LONG], LONG, 1))
        if sigma < MIN_SIGMA:
            sigma = math.nan
        if s.run > LONG:
            sigmas[i] = sigma
        step = sigma * bar[BAR_CLOSE]
        _returns(s, slot, sigma, out)
        _bar_shape(bar, vwap, step, out)
        _activity(s, bar[BAR_CLOSE], bar[BAR_VOLUME], sigma, out)
        _oscillators(s, bar[BAR_CLOSE], step, out)
        _references(s, slot, sigma, out)
        _surroundings(starts[i] + interval, s.launch, bar[FUNDING_RATE], out)
