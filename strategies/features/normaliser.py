"""Per-token trailing robust z-scores: (value - median) / (1.4826 MAD), clipped to +-CLIP.

The statistics of a row come from bars at or before it. Of each feature, every STRIDE-th complete row enters a
sorted window of WINDOW values (STRIDE x WINDOW bars) and refreshes its statistics; in between they stand. The
features take turns, so that no bar does the work of four. While a token is young, its statistics are shrunk
towards the source markets' with weight n / (n + PRIOR_SAMPLES), n being the samples so far.

1.4826 makes the MAD of a normal distribution its standard deviation (Rousseeuw & Croux 1993).
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bot.core.errors import DataError

STRIDE: Final = 4
WINDOW: Final = 168
MIN_SAMPLES: Final = 24
MIN_BARS: Final = STRIDE * MIN_SAMPLES  # complete rows until every feature has that many
PRIOR_SAMPLES: Final = (
    8.0  # few: a token's own level, of volatility above all, is soon better than the sources'
)
MIN_SCALE: Final = 0.02  # features are of order one; a feature that hardly moves must not be blown up
CLIP: Final = 6.0
NORMAL_MAD: Final = 1.4826


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """Robust location and scale of the source markets' raw features.

    location, scale: float64 (COUNT,), 0 and 1 for features that are passed on; until: start (ms) of the last
    bar that they have seen
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    until: int = 0


def state_type(features: int) -> np.dtype[np.void]:
    """State of one token whose model normalises `features` of its columns."""
    return np.dtype(
        [
            ("seen", "i8"),  # complete rows so far
            ("refused", "i8"),  # rows that were not fit for use although the token was warm
            ("until", "i8"),  # start of the last bar in the statistics, ms
            ("samples", "i8", (features,)),  # ever taken
            ("centre", "f8", (features,)),
            ("per_scale", "f8", (features,)),
            ("lower", "i8", (features,)),  # values below the median among the half that is nearest to it
            ("ordered", "f4", (features, WINDOW)),
            ("recent", "f4", (WINDOW, features)),  # in order of arrival, to know which one leaves
        ],
        align=True,
    )


@njit(cache=True, error_model="numpy")
def _exchange(ordered: NDArray[np.float32], leaving: float, coming: float) -> None:
    """Take `leaving` out of a sorted window and put `coming` in, without a branch, many values at a time.

    Without `leaving`, the k-th value is o[k] where that is smaller, else o[k + 1]; with `coming`, it is then
    the middle one of it, the one before and `coming`.
    """
    last = len(ordered) - 1
    before = np.float32(-math.inf)
    for k in range(last):
        here, after = ordered[k], ordered[k + 1]
        low = before if before < leaving else here
        high = here if here < leaving else after
        low = low if low > coming else coming
        ordered[k] = low if low < high else high
        before = here
    ordered[last] = max(before if before < leaving else ordered[last], coming)


@njit(cache=True, error_model="numpy")
def enter(
    ordered: NDArray[np.float32],
    recent: NDArray[np.float32],
    samples: int,
    value: float,
) -> int:
    """Let `value` into a sorted window, the oldest out if it is full; the window's new size.

    recent: its values in order of arrival
    """
    window = len(recent)
    newest = samples % window
    leaving = recent[newest]
    recent[newest] = value
    coming = recent[newest]  # as precise as the window
    if samples >= window:
        _exchange(ordered, leaving, coming)
        return window
    k = samples
    while k > 0 and ordered[k - 1] > coming:
        ordered[k] = ordered[k - 1]
        k -= 1
    ordered[k] = coming
    return samples + 1


@njit(cache=True, error_model="numpy")
def _nearest_below(ordered: NDArray[np.float32], size: int, centre: float, count: int, guess: int) -> int:
    """How many of the `count` values nearest to the median lie below it; distances grow outwards.

    guess: where to look first. One value more or less moves the answer by a step or two.
    """
    below = size // 2
    least, most = max(0, count - (size - below)), min(below, count)
    last = below + count - 1
    low = min(max(guess, least), most)
    while low < most and centre - ordered[below - 1 - low] < ordered[last - low] - centre:
        low += 1
    while low > least and not centre - ordered[below - low] < ordered[last - low + 1] - centre:
        low -= 1
    return low


@njit(cache=True, error_model="numpy")
def median_and_mad(ordered: NDArray[np.float32], size: int, guess: int) -> tuple[float, float, int]:
    """Median and median absolute deviation of the first `size` sorted values.

    guess: the third result of the call before, one value ago; any other costs time only
    """
    below = size // 2
    centre = float(ordered[below])
    if size % 2 == 0:
        centre = (centre + ordered[below - 1]) / 2.0
    count = (size + 1) // 2
    lower = _nearest_below(ordered, size, centre, count, guess)
    upper = count - lower
    mad = 0.0  # distance of the count-th nearest: the last one taken on either side
    if lower > 0:
        mad = centre - ordered[below - lower]
    if upper > 0:
        mad = max(mad, ordered[below + upper - 1] - centre)
    if size % 2 == 0:  # the mean with the next one, further out on either side
        following = math.inf
        if lower < below:
            following = centre - ordered[below - lower - 1]
        if upper < size - below:
            following = min(following, ordered[below + upper] - centre)
        mad = (mad + following) / 2.0
    return centre, mad, lower


@njit(cache=True, error_model="numpy")
def _sample(
    s: Any,
    raw: NDArray[np.float64],
    i: int,
    columns: NDArray[np.int64],
    location: NDArray[np.float64],
    scale: NDArray[np.float64],
    prior: float,
) -> None:
    share = -(-len(columns) // STRIDE)  # neighbours in memory take the same turn
    first = s.seen % STRIDE * share
    for f in range(first, min(first + share, len(columns))):
        value = raw[i, columns[f]]
        if not np.isfinite(value):
            continue
        size = enter(s.ordered[f], s.recent[:, f], s.samples[f], value)
        s.samples[f] += 1
        centre, mad, s.lower[f] = median_and_mad(s.ordered[f], size, s.lower[f])
        own = s.samples[f] / (s.samples[f] + prior)
        s.centre[f] = own * centre + (1.0 - own) * location[columns[f]]
        s.per_scale[f] = 1.0 / max(own * (NORMAL_MAD * mad) + (1.0 - own) * scale[columns[f]], MIN_SCALE)


@njit(cache=True, error_model="numpy")
def _is_complete(
    raw: NDArray[np.float64],
    i: int,
    bits: NDArray[np.int64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
) -> bool:
    """NaN says that an input is missing, which some features may; a value out of its range is a fault."""
    complete = True
    for f in range(len(bits)):
        value = raw[i, f]
        complete = complete and (least[f] <= value <= most[f] or (bits[f] >= 0 and np.isnan(value)))
    return complete


@njit(cache=True, error_model="numpy")
def _scores(
    s: Any,
    raw: NDArray[np.float64],
    i: int,
    columns: NDArray[np.int64],
    bits: NDArray[np.int64],
    x: NDArray[np.float32],
) -> None:
    """What the model sees. A value that is missing, or has no statistics yet, is 0 and sets its bit."""
    for f in range(len(bits)):
        x[i, f] = raw[i, f]
    for k in range(len(columns)):
        f = columns[k]
        score = (raw[i, f] - s.centre[k]) * s.per_scale[k]
        known = s.samples[k] >= MIN_SAMPLES and np.isfinite(score)
        x[i, f] = min(max(score, -CLIP), CLIP) if known else math.nan
    for f in range(len(bits)):
        if bits[f] >= 0 and np.isnan(x[i, f]):
            x[i, f] = 0.0
            x[i, bits[f]] = 1.0


@njit(cache=True, error_model="numpy")
def _have(run: int, seen: int, warm_up: int) -> int:
    """Bars towards readiness, out of warm_up - 1 + MIN_BARS; statistics survive a gap, the run does not."""
    if seen >= MIN_BARS:
        return min(run, warm_up) - 1 + MIN_BARS
    return min(run, warm_up - 1) + seen


@njit(cache=True, error_model="numpy")
def normalise(
    states: Any,
    tokens: NDArray[np.int64],
    starts: NDArray[np.int64],
    runs: NDArray[np.int64],
    raw: NDArray[np.float64],
    columns: NDArray[np.int64],
    bits: NDArray[np.int64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
    location: NDArray[np.float64],
    scale: NDArray[np.float64],
    prior: float,
    warm_up: int,
    x: NDArray[np.float32],
    have: NDArray[np.int64],
    ready: NDArray[np.bool_],
    until: NDArray[np.int64],
) -> None:
    """Turn raw rows, in order, into what the model sees.

    states: state_type records; raw: (n, COUNT)
    tokens, starts (ms), runs: (n,) as of kernel.advance
    columns: which to normalise; bits: (COUNT,) where the missing bit of each is, -1 = may not be missing
    least, most: (COUNT,) finite bounds of the raw values; beyond them a row is refused
    location, scale: (COUNT,) and prior: shrinkage, 0 = none
    x: (n, COUNT) out, zeros where not ready; have: bars towards readiness; until: last bar in the statistics
    """
    for i in range(len(tokens)):
        s = states[tokens[i]]
        warm = runs[i] >= warm_up
        complete = warm and _is_complete(raw, i, bits, least, most)
        if complete:
            _sample(s, raw, i, columns, location, scale, prior)
            s.until = starts[i]
            s.seen += 1
        elif warm or runs[i] == 0:
            s.refused += 1
        ready[i] = complete and s.seen >= MIN_BARS
        if ready[i]:
            _scores(s, raw, i, columns, bits, x)
        else:
            for f in range(len(bits)):
                x[i, f] = 0.0
        have[i] = _have(runs[i], s.seen, warm_up)
        until[i] = s.until


def robust_statistics(
    rows: NDArray[np.float64], columns: NDArray[np.int64], maskable: NDArray[np.bool_], until: int = 0
) -> SourceStatistics:
    """Median and scaled MAD of raw rows (n, COUNT) in `columns`; missing values are left out.

    A maskable column that is (almost) always missing keeps location 0 and scale 1. Raises DataError when
    another one has fewer than MIN_SAMPLES values.
    """
    location, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    for column in columns:
        values = rows[:, column]
        values = values[np.isfinite(values)]
        if len(values) < MIN_SAMPLES and maskable[column]:
            continue
        if len(values) < MIN_SAMPLES:
            raise DataError(
                f"the source history yields {len(values)} complete feature rows, {MIN_SAMPLES} are needed: "
                "use a longer history"
            )
        location[column] = np.median(values)
        scale[column] = max(NORMAL_MAD * np.median(np.abs(values - location[column])), MIN_SCALE)
    return SourceStatistics(location, scale, until)
