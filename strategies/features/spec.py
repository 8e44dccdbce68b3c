"""What the features are: names, order, bounds and meaning. The model card stores `VERSION`."""

import hashlib
from typing import Final, NamedTuple

from strategies.features.kernel import LONG, REVISION
from strategies.features.normaliser import CLIP, MIN_BARS, MIN_SCALE, PRIOR_SAMPLES, STRIDE, WINDOW


class Feature(NamedTuple):
    """One column of the feature table.

    warm_up: bars since the last gap (this one included) from which it exists
    low, high: bounds of the value that the model sees, after normalisation
    normalised: by the token's own trailing median and MAD; otherwise the raw, bounded value is passed on
    maskable: may be missing; then it is 0 and a missing-value bit is set. Any other missing value makes the
        row not ready.
    """

    name: str
    group: str
    warm_up: int
    low: float
    high: float
    doc: str
    normalised: bool = True
    maskable: bool = False


_SCALED: Final = LONG + 1  # sigma takes LONG returns


def _scaled(name: str, group: str, doc: str) -> Feature:
    return Feature(name, group, _SCALED, -CLIP, CLIP, doc)


def _maskable(name: str, group: str, doc: str) -> Feature:
    return Feature(name, group, _SCALED, -CLIP, CLIP, doc, maskable=True)


def _passed(name: str, group: str, low: float, high: float, doc: str) -> Feature:
    return Feature(name, group, 1, low, high, doc, normalised=False)


# sigma: standard deviation of the last 96 log returns; one step = sigma x close
SPEC: Final[tuple[Feature, ...]] = (
    _scaled("return_1", "return", "log return of the bar / sigma"),
    _scaled("return_4", "return", "log return of 4 bars / (sigma sqrt 4)"),
    _scaled("return_16", "return", "log return of 16 bars / (sigma sqrt 16)"),
    _scaled("return_96", "return", "log return of 96 bars / (sigma sqrt 96)"),
    _scaled("volatility", "volatility", "log sigma"),
    _scaled("volatility_ratio", "volatility", "log of sigma over 16 bars / sigma"),
    _scaled("range", "bar", "high - low, in steps"),
    _scaled("close_location", "bar", "where the bar closed in its range: -1 low, 1 high"),
    _scaled("body", "bar", "close - open, in ranges; close_location - body is the wicks' asymmetry"),
    _scaled("volume_deviation", "volume", "log of volume / its trailing average"),
    _scaled("volume_ratio", "volume", "log of mean volume over 16 bars / over 96 bars"),
    _maskable("vwap_location", "volume", "close - average price of the bar (turnover / volume), in ranges"),
    _scaled("vwap_distance", "volume", "close over the VWAP of 96 bars - 1, / (sigma sqrt 96)"),
    _scaled("obv_slope", "volume", "change of on-balance volume / volume, 16 bars"),
    _scaled("rsi", "oscillator", "RSI 14 (Wilder) / 50 - 1"),
    _scaled("macd", "oscillator", "MACD 12/26/9 histogram, in steps"),
    _scaled("bollinger", "oscillator", "close - mean of 20 closes, / two standard deviations (ddof 0)"),
    _scaled("atr", "volatility", "average true range 14 (Wilder), in steps"),
    _maskable("first_return", "reference", "log return of the first reference / its own sigma"),
    _maskable("second_return", "reference", "log return of the second reference / its own sigma"),
    _maskable("correlation", "reference", "of log returns with the first reference, 96 bars"),
    _maskable("beta", "reference", "of log returns to the first reference, 96 bars"),
    _maskable("residual", "reference", "(return - beta x first reference's return) / sigma"),
    _maskable("relative_strength", "reference", "return_16 minus the first reference's, same units"),
    _passed("funding", "funding", -1.0, 1.0, "rate r in force, x / (1 + |x|) with x = r / 5 bp"),
    _passed("age", "token", 0.0, 1.0, "log(1 + days since launch) / log(366), 1 after a year"),
    _passed("hour_sin", "clock", -1.0, 1.0, "sine of the UTC time of day of the bar's close"),
    _passed("hour_cos", "clock", -1.0, 1.0, "cosine of the UTC time of day of the bar's close"),
    _passed("reference_missing", "missing", 0.0, 1.0, "1 if any value of the group 'reference' is missing"),
    _passed("turnover_missing", "missing", 0.0, 1.0, "1 without turnover; a typical price stands in"),
)

NAMES: Final = tuple(feature.name for feature in SPEC)
COUNT: Final = len(SPEC)
RAW_WARM_UP: Final = max(feature.warm_up for feature in SPEC)
WARM_UP: Final = RAW_WARM_UP - 1 + MIN_BARS  # bars from a token's first until its first ready row
_PARTS: Final = (REVISION, SPEC, CLIP, MIN_BARS, MIN_SCALE, PRIOR_SAMPLES, STRIDE, WINDOW)
VERSION: Final = hashlib.sha256(repr(_PARTS).encode()).hexdigest()[:12]
