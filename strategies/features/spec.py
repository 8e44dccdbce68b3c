"""What the features are: names, order, inputs, bounds and meaning. The model card stores `VERSION`.

docs/features.md is made from this table: python -m strategies.features.document
"""

import hashlib
from types import ModuleType
from typing import Final, NamedTuple

from bot.market import book_samples, trades
from strategies.features import kernel, normaliser
from strategies.features.kernel import LONG
from strategies.features.normaliser import CLIP, MIN_BARS


class Feature(NamedTuple):
    """One column of the feature table.

    inputs: what it is computed from: bars (of the token), first, second (reference market), book, trades,
        funding, launch, clock
    warm_up: bars since the last gap (this one included) from which it exists
    low, high: bounds of the value that the model sees, after normalisation
    normalised: by the token's own trailing median and MAD; otherwise the raw, bounded value is passed on
    bit: name of the feature that is 1 where this one, or another of its kind, is missing, which then is 0;
        "" = it may not be missing: a value that is not finite makes the row not ready. So does one out of
        the range of a feature that is passed on
    shown: whether a model may see it. A copy of another feature is for people only: it teaches nothing, and a
        network that learnt to split a weight between two copies errs where they differ.
    """

    name: str
    group: str
    inputs: str
    warm_up: int
    low: float
    high: float
    doc: str
    normalised: bool = True
    bit: str = ""
    shown: bool = True

    @property
    def maskable(self) -> bool:
        return bool(self.bit)


_SCALED: Final = LONG + 1  # sigma takes LONG returns


def _scaled(name: str, group: str, doc: str, inputs: str = "bars", bit: str = "") -> Feature:
    return Feature(name, group, inputs, _SCALED, -CLIP, CLIP, doc, bit=bit)


def _simple_return(bars: int) -> Feature:
    """Almost the log return, once normalised."""
    doc = f"price change over {bars} bars as a fraction / (sigma sqrt {bars})"
    return _scaled(f"simple_return_{bars}", "return", doc)._replace(shown=False)


def _first(name: str, doc: str) -> Feature:
    return _scaled(name, "reference", doc, "bars, first", "reference_missing")


def _second(name: str, doc: str, *, shown: bool) -> Feature:
    """With two sources, each is the other's only reference: the second's features copy the first's there."""
    return _scaled(name, "reference", doc, "bars, second", "reference_missing")._replace(shown=shown)


def _passed(name: str, group: str, inputs: str, low: float, high: float, doc: str, bit: str = "") -> Feature:
    return Feature(name, group, inputs, 1, low, high, doc, normalised=False, bit=bit)


def _book(name: str, doc: str) -> Feature:
    return _passed(name, "book", "book", -1.0, 1.0, doc, "book_missing")


def _bit(name: str, doc: str) -> Feature:
    return _passed(name, "missing", "", 0.0, 1.0, doc)


# sigma: standard deviation of the last 96 log returns; one step = sigma x close
SPEC: Final[tuple[Feature, ...]] = (
    _scaled("return_1", "return", "log return of the bar / sigma"),
    _scaled("return_4", "return", "log return of 4 bars / (sigma sqrt 4)"),
    _scaled("return_16", "return", "log return of 16 bars / (sigma sqrt 16)"),
    _scaled("return_96", "return", "log return of 96 bars / (sigma sqrt 96)"),
    _simple_return(16),
    _simple_return(96),
    _scaled("volatility", "volatility", "log sigma"),
    _scaled("volatility_ratio", "volatility", "log of sigma over 16 bars / sigma"),
    _scaled("range", "bar", "high - low, in steps"),
    _scaled("close_location", "bar", "where the bar closed in its range: -1 low, 1 high"),
    _scaled("body", "bar", "close - open, in ranges; close_location - body is the wicks' asymmetry"),
    _scaled("volume_deviation", "volume", "log of volume / its trailing average"),
    _scaled("volume_ratio", "volume", "log of mean volume over 16 bars / over 96 bars"),
    _scaled(
        "vwap_location",
        "volume",
        "close - average price of the bar (turnover / volume), in ranges",
        bit="turnover_missing",
    ),
    _scaled("vwap_distance", "volume", "close over the VWAP of 96 bars - 1, / (sigma sqrt 96)"),
    _scaled("obv_slope", "volume", "change of on-balance volume / volume, 16 bars"),
    _scaled("rsi", "oscillator", "RSI 14 (Wilder) / 50 - 1"),
    _scaled("macd", "oscillator", "MACD 12/26/9 histogram, in steps"),
    _scaled("bollinger", "oscillator", "close - mean of 20 closes, / two standard deviations (ddof 0)"),
    _scaled("atr", "volatility", "average true range 14 (Wilder), in steps"),
    _first("first_return", "log return of the first reference (BTC) / its own sigma"),
    _first("correlation", "of log returns with the first reference, 96 bars"),
    _first("beta", "of log returns to the first reference, 96 bars"),
    _first("residual", "(return - beta x first reference's return) / sigma"),
    _first("relative_strength", "return_16 minus the first reference's, same units"),
    _second("second_return", "log return of the second reference (ETH) / its own sigma", shown=True),
    _second("second_correlation", "of log returns with the second reference, 96 bars", shown=False),
    _second("second_beta", "of log returns to the second reference, 96 bars", shown=False),
    _second("second_strength", "return_16 minus the second reference's, same units", shown=False),
    _scaled("spread", "book", "log of the mean bid-ask spread in basis points", "book", "book_missing"),
    _book("imbalance_5", "mean of (bids - asks) / both, sizes of the best 5 levels a side"),
    _book("imbalance_10", "the same of the best 10 levels"),
    _book("imbalance_50", "the same of the best 50 levels"),
    _scaled("microprice", "book", "mean of microprice / mid - 1, / sigma", "bars, book", "book_missing"),
    _passed(
        "ofi",
        "book",
        "bars, book",
        -1.0,
        1.0,
        "order-flow imbalance f of the best levels over the bar, f / (|f| + volume)",
        "book_missing",
    ),
    _passed(
        "trade_imbalance",
        "trades",
        "trades",
        -1.0,
        1.0,
        "(volume bought - sold by takers) / both",
        "trades_missing",
    ),
    _passed(
        "large_trades",
        "trades",
        "trades",
        0.0,
        1.0,
        "share of turnover in trades above the 95th percentile of earlier ones",
        "trades_missing",
    ),
    _passed(
        "funding",
        "funding",
        "funding",
        -1.0,
        1.0,
        "rate r in force, x / (1 + |x|) with x = r / 5 bp",
        "funding_missing",
    ),
    _passed("age", "token", "launch", 0.0, 1.0, "log(1 + days since launch) / log(366), 1 after a year"),
    _passed("hour_sin", "clock", "clock", -1.0, 1.0, "sine of the UTC time of day of the bar's close"),
    _passed("hour_cos", "clock", "clock", -1.0, 1.0, "cosine of the UTC time of day of the bar's close"),
    _bit("turnover_missing", "1 without turnover; a typical price stands in for the VWAP's"),
    _bit("reference_missing", "1 if any value of the group 'reference' is missing"),
    _bit("book_missing", "1 if any value of the group 'book' is missing"),
    _bit("trades_missing", "1 if any value of the group 'trades' is missing"),
    _bit("funding_missing", "1 if the funding rate is unknown"),
)

NAMES: Final = tuple(feature.name for feature in SPEC)
COUNT: Final = len(SPEC)
SHOWN: Final = tuple(feature.shown for feature in SPEC)
RAW_WARM_UP: Final = max(feature.warm_up for feature in SPEC)
WARM_UP: Final = RAW_WARM_UP - 1 + MIN_BARS  # bars from a token's first until its first ready row


def version() -> str:
    """Hash of all that decides a value: a model learnt what its features mean and is refused under another.

    It cannot see a formula; a test pins the values themselves and asks for a new kernel.REVISION.
    """
    parts = (
        [feature._replace(doc="") for feature in SPEC],
        _constants(kernel),
        _constants(normaliser),
        (book_samples.SAMPLE_MS, book_samples.LEAST_SHARE),
        (trades.RECENT, trades.FEWEST, trades.LARGE),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _constants(module: ModuleType) -> list[tuple[str, float]]:
    """The public numbers that a module declares one by one: none can be forgotten."""
    values = {name: getattr(module, name) for name in module.__annotations__ if not name.startswith("_")}
    return sorted((name, value) for name, value in values.items() if isinstance(value, int | float))


VERSION: Final = version()
