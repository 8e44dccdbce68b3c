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

# Divisions by the same number become multiplications, and products may be fused with sums. Live and batch run
# the same machine code, so their bits stay equal.
compiled: Final = njit(cache=True, error_model="numpy", fastmath={"arcp", "contract"})

REVISION: Final = 2  # raise it when a formula changes: it is part of the features' version

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

# Columns of a ring slot. A reference's return counts where its weight is 1, else both are 0.
(
    CLOSE, LOG, RETURN, VOLUME, TRADED, FIRST_LOG, FIRST, FIRST_WEIGHT, SECOND_LOG, SECOND, SECOND_WEIGHT,
) = range(11)  # fmt: skip
SLOT: Final = 12  # one and a half cache lines

# Sliding sums. Those of a reference run over the bars where its return exists.
(
    R_LONG, RR_LONG, V_LONG, TRADED_LONG, R_SHORT, RR_SHORT, V_SHORT, SIGNED_SHORT, BAND_X, BAND_XX,
    FIRST_N, FIRST_R, FIRST_RR, FIRST_Q, FIRST_QQ, FIRST_RQ,
    SECOND_N, SECOND_R, SECOND_RR, SECOND_Q, SECOND_QQ, SECOND_RQ,
) = range(22)  # fmt: skip

# Recursive averages and other scalars that one bar hands to the next.
UP, DOWN, EMA_FAST, EMA_SLOW, MACD_SIGNAL, TRUE_RANGE, USUAL_VOLUME, ANCHOR = range(8)

# Inputs of a bar, the rows of `columns`: the OWN ones of a token, from SPREAD_BPS on as in
# MicrostructureSampled, then its references'. The logarithms of LOGGED are taken with `take_logs` before:
# numpy does eight at once.
(
    OPEN, HIGH, LOW, BAR_CLOSE, BAR_VOLUME, TURNOVER, FUNDING_RATE,
    SPREAD_BPS, LEVELS_5, LEVELS_10, LEVELS_50, MICROPRICE_BPS, FLOW, TAKERS, LARGE_SHARE,
    FIRST_CLOSE, SECOND_CLOSE,
) = range(17)  # fmt: skip
OWN: Final = 15
INPUTS: Final = 17
LOG_CLOSE, LOG_FIRST, LOG_SECOND, LOG_SPREAD = range(17, 21)
LOGGED: Final = (BAR_CLOSE, FIRST_CLOSE, SECOND_CLOSE, SPREAD_BPS)

# Features in the order of spec.SPEC; a test compares the two.
(
    RETURN_1, RETURN_4, RETURN_16, RETURN_96, SIMPLE_RETURN_16, SIMPLE_RETURN_96, VOLATILITY,
    VOLATILITY_RATIO, RANGE, CLOSE_LOCATION, BODY, VOLUME_DEVIATION, VOLUME_RATIO, VWAP_LOCATION,
    VWAP_DISTANCE, OBV_SLOPE, RSI, MACD, BOLLINGER, ATR, FIRST_RETURN, CORRELATION, BETA, RESIDUAL,
    RELATIVE_STRENGTH, SECOND_RETURN, SECOND_CORRELATION, SECOND_BETA, SECOND_STRENGTH, SPREAD, IMBALANCE_5,
    IMBALANCE_10, IMBALANCE_50, MICROPRICE, OFI, TRADE_IMBALANCE, LARGE_TRADES, FUNDING, AGE, HOUR_SIN,
    HOUR_COS, TURNOVER_MISSING, REFERENCE_MISSING, BOOK_MISSING, TRADES_MISSING, FUNDING_MISSING,
) = range(46)  # fmt: skip

TOKEN: Final = np.dtype(
    [
        ("last", "i8"),  # start of the last accepted bar, ms; 0 = none yet
        ("run", "i8"),  # accepted bars since the last gap
        ("launch", "i8"),  # ms
        ("averages", "f8", (8,)),
        ("sums", "f8", (22,)),
        ("ring", "f8", (SLOTS, SLOT)),
    ],
    align=True,
)

# The bar in hand. A field of a record is handed on for nothing; for a row of an array, numba counts its
# references, with two atomic instructions each time.
SCRATCH: Final = np.dtype([("bar", "f8", (INPUTS + len(LOGGED),))], align=True)

_MASK: Final = SLOTS - 1
_DAY: Final = math.sqrt(LONG)
_OLD: Final = math.log1p(AGE_DAYS)
_MINUTES: Final = 1440
_SINE: Final = np.sin(2 * np.pi * np.arange(_MINUTES) / _MINUTES)


def take_logs(columns: NDArray[np.float64]) -> None:
    """Fill the last rows of (INPUTS + 4, n) inputs; NaN or infinite for what no price can be."""
    with np.errstate(all="ignore"):
        for row, source in enumerate(LOGGED, INPUTS):
            np.log(columns[source], out=columns[row])


@compiled
def mean_towards(average: float, value: float, count: int, period: int) -> float:
    """Wilder's average (1978): the mean of the first `period` values, then a share 1/period of each new one.

    count: values so far, this one included.
    """
    return average + (value - average) / min(count, period)


@compiled
def ema(average: float, value: float, span: int) -> float:
    """Exponential average with weight 2 / (span + 1), seeded by the caller with the first value."""
    return average + 2.0 / (span + 1) * (value - average)


@compiled
def variance(total: float, squares: float, count: float, ddof: int) -> float:
    """Variance from a sum and a sum of squares; never negative."""
    return max(squares - total * total / count, 0.0) / (count - ddof)


@compiled
def relative_strength_index(up: float, down: float) -> float:
    """RSI / 50 - 1, in [-1, 1]: -1 only falls, 1 only rises, 0 also when nothing moved."""
    both = up + down
    return (up - down) / both if both > 0.0 else 0.0


@compiled
def regression(
    n: float, y: float, yy: float, x: float, xx: float, yx: float, floor: float
) -> tuple[float, float, float]:
    """(slope, correlation, 1 / deviation of x) of y on x from their sums; deviation with ddof 1.

    NaN when x hardly varies: variance below `floor`
    """
    per_n = 1.0 / n
    spread = xx - x * x * per_n
    if not spread > floor * n:
        return math.nan, math.nan, math.nan
    shared = yx - y * x * per_n
    own = max(yy - y * y * per_n, 0.0)
    per_spread = 1.0 / spread
    correlation = shared / math.sqrt(own * spread) if own > 0.0 else 0.0
    return shared * per_spread, min(max(correlation, -1.0), 1.0), math.sqrt((n - 1.0) * per_spread)


@compiled
def _squash(x: float, scale: float) -> float:
    """x / (|x| + scale), within -1 and 1; an infinite x stays so, as a fault."""
    if math.isinf(x):
        return x
    reach = abs(x) + scale
    return x / reach if reach != 0.0 else 0.0


@compiled
def _forget(s: Any, close: float, log: float) -> None:
    """Start a new run with a flat, silent past at `close`: filling windows then need no special case."""
    s.run = 0
    s.sums[:] = 0.0
    s.averages[:] = 0.0
    s.averages[EMA_FAST] = close
    s.averages[EMA_SLOW] = close
    s.averages[ANCHOR] = close
    ring = s.ring
    ring[:] = 0.0
    for slot in range(SLOTS):
        ring[slot, CLOSE] = close
        ring[slot, LOG] = log
        ring[slot, FIRST_LOG] = math.nan
        ring[slot, SECOND_LOG] = math.nan


@compiled
def _signed(bar: NDArray[np.float64]) -> float:
    """Volume with the sign of the return."""
    r = bar[RETURN]
    side = (r > 0.0) - (r < 0.0)  # no branch, which would be mispredicted half of the time
    return float(bar[VOLUME] * side)


@compiled
def _slide(sums: NDArray[np.float64], ring: NDArray[np.float64], slot: int, anchor: float) -> None:
    """Let the bar in `slot` into the sums and the ones that leave their windows out."""
    new, old = ring[slot], ring[(slot - LONG) & _MASK]
    r, gone, q, p, q_gone, p_gone = new[RETURN], old[RETURN], new[FIRST], new[SECOND], old[FIRST], old[SECOND]
    v, w, v_gone, w_gone = new[FIRST_WEIGHT], new[SECOND_WEIGHT], old[FIRST_WEIGHT], old[SECOND_WEIGHT]
    rr, rr_gone = r * r, gone * gone
    sums[R_LONG] += r - gone
    sums[RR_LONG] += rr - rr_gone
    sums[V_LONG] += new[VOLUME] - old[VOLUME]
    sums[TRADED_LONG] += new[TRADED] - old[TRADED]
    sums[FIRST_N] += v - v_gone
    sums[FIRST_R] += v * r - v_gone * gone
    sums[FIRST_RR] += v * rr - v_gone * rr_gone
    sums[FIRST_Q] += q - q_gone
    sums[FIRST_QQ] += q * q - q_gone * q_gone
    sums[FIRST_RQ] += r * q - gone * q_gone
    sums[SECOND_N] += w - w_gone
    sums[SECOND_R] += w * r - w_gone * gone
    sums[SECOND_RR] += w * rr - w_gone * rr_gone
    sums[SECOND_Q] += p - p_gone
    sums[SECOND_QQ] += p * p - p_gone * p_gone
    sums[SECOND_RQ] += r * p - gone * p_gone
    left = ring[(slot - SHORT) & _MASK]
    sums[R_SHORT] += r - left[RETURN]
    sums[RR_SHORT] += rr - left[RETURN] * left[RETURN]
    sums[V_SHORT] += new[VOLUME] - left[VOLUME]
    sums[SIGNED_SHORT] += _signed(new) - _signed(left)
    x, x_gone = new[CLOSE] - anchor, ring[(slot - BAND) & _MASK, CLOSE] - anchor
    sums[BAND_X] += x - x_gone
    sums[BAND_XX] += x * x - x_gone * x_gone


@compiled
def _recompute(s: Any, slot: int) -> None:
    """The sums afresh from the ring that ends at `slot`, prices measured from its close."""
    sums, ring = s.sums, s.ring
    sums[:] = 0.0
    anchor = ring[slot, CLOSE]
    s.averages[ANCHOR] = anchor
    for age in range(LONG):
        bar = ring[(slot - age) & _MASK]
        r, q, p, v, w = bar[RETURN], bar[FIRST], bar[SECOND], bar[FIRST_WEIGHT], bar[SECOND_WEIGHT]
        for k, value in enumerate((r, r * r, bar[VOLUME], bar[TRADED])):
            sums[R_LONG + k] += value
            if age < SHORT:
                sums[R_SHORT + k] += value if k < 3 else _signed(bar)
        for k, value in enumerate((v, v * r, v * (r * r), q, q * q, r * q)):
            sums[FIRST_N + k] += value
        for k, value in enumerate((w, w * r, w * (r * r), p, p * p, r * p)):
            sums[SECOND_N + k] += value
        if age < BAND:
            sums[BAND_X] += bar[CLOSE] - anchor
            sums[BAND_XX] += (bar[CLOSE] - anchor) * (bar[CLOSE] - anchor)


@compiled
def _average(s: Any, high: float, low: float, close: float, previous: float, volume: float) -> None:
    """Advance the recursive averages; `s.run` already counts this bar."""
    a = s.averages
    a[USUAL_VOLUME] = mean_towards(a[USUAL_VOLUME], volume, s.run, VOLUME_PERIOD)
    moves = s.run - 1
    if moves == 0:
        return
    change = close - previous
    a[UP] = mean_towards(a[UP], 0.5 * (abs(change) + change), moves, 14)
    a[DOWN] = mean_towards(a[DOWN], 0.5 * (abs(change) - change), moves, 14)
    reach = max(high, previous) - min(low, previous)
    a[TRUE_RANGE] = mean_towards(a[TRUE_RANGE], reach, moves, 14)
    a[EMA_FAST] = ema(a[EMA_FAST], close, 12)
    a[EMA_SLOW] = ema(a[EMA_SLOW], close, 26)
    a[MACD_SIGNAL] = ema(a[MACD_SIGNAL], a[EMA_FAST] - a[EMA_SLOW], 9)


@compiled
def _vwap(high: float, low: float, close: float, volume: float, turnover: float) -> float:
    """Average price of the bar; the typical price where turnover or volume say nothing."""
    if volume > 0.0 and turnover > 0.0:  # also false for NaN
        return min(max(turnover / volume, low), high)
    return (high + low + close) / 3.0


@compiled
def _push(s: Any, bar: NDArray[np.float64], vwap: float) -> int:
    """Take one bar into the state; the slot that holds it."""
    ring = s.ring
    slot = int(s.run & _MASK)
    before = ring[(slot - 1) & _MASK]
    previous = before[CLOSE]
    close, volume = bar[BAR_CLOSE], bar[BAR_VOLUME]
    row = ring[slot]  # its old bar left the longest window SLOTS - LONG bars ago
    row[CLOSE] = close
    row[LOG] = bar[LOG_CLOSE]
    row[RETURN] = row[LOG] - before[LOG]
    row[VOLUME] = volume
    row[TRADED] = vwap * volume
    row[FIRST_LOG] = bar[LOG_FIRST]
    row[SECOND_LOG] = bar[LOG_SECOND]
    q, p = row[FIRST_LOG] - before[FIRST_LOG], row[SECOND_LOG] - before[SECOND_LOG]
    row[FIRST], row[FIRST_WEIGHT] = (q, 1.0) if math.isfinite(q) else (0.0, 0.0)
    row[SECOND], row[SECOND_WEIGHT] = (p, 1.0) if math.isfinite(p) else (0.0, 0.0)
    s.run += 1
    _average(s, bar[HIGH], bar[LOW], close, previous, volume)
    if slot == _MASK:
        _recompute(s, slot)
    else:
        _slide(s.sums, ring, slot, s.averages[ANCHOR])
    return slot


@compiled
def _returns(s: Any, slot: int, sigma: float, out: NDArray[np.float64], i: int) -> None:
    ring, sums = s.ring, s.sums
    log = ring[slot, LOG]
    per_sigma = 1.0 / sigma
    hours_ago, day_ago = ring[(slot - SHORT) & _MASK], ring[(slot - LONG) & _MASK]
    out[i, RETURN_1] = ring[slot, RETURN] * per_sigma
    out[i, RETURN_4] = (log - ring[(slot - 4) & _MASK, LOG]) * (per_sigma / 2.0)
    out[i, RETURN_16] = (log - hours_ago[LOG]) * (per_sigma / 4.0)
    out[i, RETURN_96] = (log - day_ago[LOG]) * (per_sigma / _DAY)
    out[i, SIMPLE_RETURN_16] = (ring[slot, CLOSE] / hours_ago[CLOSE] - 1.0) * (per_sigma / 4.0)
    out[i, SIMPLE_RETURN_96] = (ring[slot, CLOSE] / day_ago[CLOSE] - 1.0) * (per_sigma / _DAY)
    out[i, VOLATILITY] = math.log(sigma)
    short = variance(sums[R_SHORT], sums[RR_SHORT], SHORT, 1)
    out[i, VOLATILITY_RATIO] = 0.5 * math.log(max(short * (per_sigma * per_sigma), QUIET))


@compiled
def _bar_shape(bar: NDArray[np.float64], vwap: float, step: float, out: NDArray[np.float64], i: int) -> None:
    """Where the bar opened, closed and traded within its range; `step` is one sigma as a price."""
    high, low, close = bar[HIGH], bar[LOW], bar[BAR_CLOSE]
    reach = high - low
    out[i, RANGE] = reach / step
    per_range = 1.0 / reach if reach > 0.0 else 0.0
    out[i, CLOSE_LOCATION] = ((close - low) - (high - close)) * per_range
    out[i, BODY] = (close - bar[OPEN]) * per_range
    unknown = math.isnan(bar[TURNOVER])  # from a typical price it would only repeat close_location
    out[i, VWAP_LOCATION] = math.nan if unknown else (close - vwap) * per_range


@compiled
def _activity(s: Any, close: float, volume: float, sigma: float, out: NDArray[np.float64], i: int) -> None:
    """Volume against its own past. Sums below DEAD of the usual are rounding residue, that is, no volume."""
    sums, usual = s.sums, s.averages[USUAL_VOLUME]
    day, recent = sums[V_LONG], sums[V_SHORT]
    alive = day > DEAD * usual * LONG
    out[i, VOLUME_DEVIATION] = math.log(max(volume / usual, QUIET)) if alive else math.nan
    out[i, VWAP_DISTANCE] = (close * day / sums[TRADED_LONG] - 1.0) / (_DAY * sigma) if alive else math.nan
    traded = recent > DEAD * day
    ratio = recent * LONG / (day * SHORT) if traded else 0.0
    out[i, VOLUME_RATIO] = math.log(max(ratio, QUIET))
    out[i, OBV_SLOPE] = min(max(sums[SIGNED_SHORT] / recent, -1.0), 1.0) if traded else 0.0


@compiled
def _oscillators(s: Any, close: float, step: float, out: NDArray[np.float64], i: int) -> None:
    sums, a = s.sums, s.averages
    out[i, RSI] = relative_strength_index(a[UP], a[DOWN])
    out[i, MACD] = (a[EMA_FAST] - a[EMA_SLOW] - a[MACD_SIGNAL]) / step
    deviation = math.sqrt(variance(sums[BAND_X], sums[BAND_XX], BAND, 0))
    middle = sums[BAND_X] / BAND + a[ANCHOR]
    out[i, BOLLINGER] = (close - middle) / (2.0 * max(deviation, 0.01 * step))
    out[i, ATR] = a[TRUE_RANGE] / step


@compiled
def _reference(
    own: NDArray[np.float64], q: float, weight: float, n: float, floor: float
) -> tuple[float, float, float]:
    """(return, correlation, beta) of a reference; `own` are its sums from the return's on; NaN = missing."""
    if not n >= MIN_PAIRS:
        return math.nan, math.nan, math.nan
    beta, correlation, per_sigma = regression(n, own[0], own[1], own[2], own[3], own[4], floor)
    return q * per_sigma if weight > 0.0 else math.nan, correlation, beta


@compiled
def _references(s: Any, slot: int, sigma: float, out: NDArray[np.float64], i: int) -> None:
    """Against the two reference markets; NaN where they, or enough of their past, are missing."""
    ring, sums = s.ring, s.sums
    floor = MIN_SIGMA * MIN_SIGMA
    row, before = ring[slot], ring[(slot - SHORT) & _MASK]
    q, weight = row[FIRST], row[FIRST_WEIGHT]
    first, correlation, beta = _reference(sums[FIRST_R : FIRST_RQ + 1], q, weight, sums[FIRST_N], floor)
    out[i, FIRST_RETURN] = first
    out[i, CORRELATION] = correlation
    out[i, BETA] = beta
    per_sigma = 1.0 / sigma
    out[i, RESIDUAL] = (row[RETURN] - beta * q) * per_sigma if weight > 0.0 else math.nan
    p, weight = row[SECOND], row[SECOND_WEIGHT]
    second, correlation, beta = _reference(sums[SECOND_R : SECOND_RQ + 1], p, weight, sums[SECOND_N], floor)
    out[i, SECOND_RETURN] = second
    out[i, SECOND_CORRELATION] = correlation
    out[i, SECOND_BETA] = beta
    own, per_hours = row[LOG] - before[LOG], 0.25 * per_sigma
    out[i, RELATIVE_STRENGTH] = (own - (row[FIRST_LOG] - before[FIRST_LOG])) * per_hours
    out[i, SECOND_STRENGTH] = (own - (row[SECOND_LOG] - before[SECOND_LOG])) * per_hours


@compiled
def _microstructure(bar: NDArray[np.float64], sigma: float, out: NDArray[np.float64], i: int) -> None:
    """Book and trades of the bar; NaN where they were not seen, infinite where they cannot be."""
    out[i, SPREAD] = bar[LOG_SPREAD]
    out[i, IMBALANCE_5] = bar[LEVELS_5]
    out[i, IMBALANCE_10] = bar[LEVELS_10]
    out[i, IMBALANCE_50] = bar[LEVELS_50]
    out[i, MICROPRICE] = bar[MICROPRICE_BPS] / (1e4 * sigma)
    out[i, OFI] = _squash(bar[FLOW], bar[BAR_VOLUME])
    out[i, TRADE_IMBALANCE] = bar[TAKERS]
    out[i, LARGE_TRADES] = bar[LARGE_SHARE]


@compiled
def _surroundings(closed: int, launch: int, funding: float, out: NDArray[np.float64], i: int) -> None:
    """Funding, age and time of day at the close of the bar (ms)."""
    out[i, FUNDING] = _squash(funding, FUNDING_SCALE)
    days = max(closed - launch, 0) / 86_400_000.0
    out[i, AGE] = math.log1p(days) / _OLD if days < AGE_DAYS else 1.0
    minute = closed // 60_000 % _MINUTES
    out[i, HOUR_SIN] = _SINE[minute]
    out[i, HOUR_COS] = _SINE[(minute + _MINUTES // 4) % _MINUTES]


@compiled
def _is_sane(bar: NDArray[np.float64]) -> bool:
    high, low = bar[HIGH], bar[LOW]
    inside = low <= bar[OPEN] <= high and low <= bar[BAR_CLOSE] <= high  # false with NaN, unlike min and max
    return bool(inside and low > 0.0 and high < math.inf and 0.0 <= bar[BAR_VOLUME] < math.inf)


@compiled
def _features(s: Any, bar: NDArray[np.float64], closed: int, out: NDArray[np.float64], i: int) -> float:
    """Take a sane bar that closed at `closed` (ms); sigma."""
    vwap = _vwap(bar[HIGH], bar[LOW], bar[BAR_CLOSE], bar[BAR_VOLUME], bar[TURNOVER])
    slot = _push(s, bar, vwap)
    sigma = math.sqrt(variance(s.sums[R_LONG], s.sums[RR_LONG], LONG, 1))
    if sigma < MIN_SIGMA:
        sigma = math.nan
    step = sigma * bar[BAR_CLOSE]
    _returns(s, slot, sigma, out, i)
    _bar_shape(bar, vwap, step, out, i)
    _activity(s, bar[BAR_CLOSE], bar[BAR_VOLUME], sigma, out, i)
    _oscillators(s, bar[BAR_CLOSE], step, out, i)
    _references(s, slot, sigma, out, i)
    _microstructure(bar, sigma, out, i)
    _surroundings(closed, s.launch, bar[FUNDING_RATE], out, i)
    for k in range(TURNOVER_MISSING, out.shape[1]):
        out[i, k] = 0.0
    return sigma


@compiled
def advance(
    states: Any,
    scratch: Any,
    tokens: NDArray[np.int64],
    starts: NDArray[np.int64],
    interval: int,
    columns: NDArray[np.float64],
    raw: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    runs: NDArray[np.int64],
) -> None:
    """Take bars in order, each into the state of its token, and write its raw features.

    states: TOKEN records; scratch: one SCRATCH record; tokens: (n,) which state; starts: (n,) ms
    columns: (INPUTS + 4, n) after take_logs, NaN = missing; raw: (n, COUNT) out
    sigmas: (n,) out, stdev of the last LONG log returns, NaN while fewer are there
    runs: (n,) out, bars since the last gap, 0 = refused (not after the last one, or not a sane bar)

    Missing inputs leave NaN in their features, whose missing bits are set with the normalisation; a constant
    price leaves NaN in all that sigma scales.
    """
    bar = scratch[0].bar
    for i in range(len(tokens)):
        s = states[tokens[i]]
        for k in range(len(bar)):
            bar[k] = columns[k, i]
        runs[i] = 0
        sigmas[i] = math.nan
        if starts[i] <= s.last or not _is_sane(bar):
            for k in range(raw.shape[1]):
                raw[i, k] = math.nan
        else:
            if starts[i] != s.last + interval:
                _forget(s, bar[BAR_CLOSE], bar[LOG_CLOSE])
            s.last = starts[i]
            sigma = _features(s, bar, starts[i] + interval, raw, i)
            runs[i] = s.run
            if s.run > LONG:
                sigmas[i] = sigma
