"""Features: textbook indicators, causal, scale-free, and the same live as in batch."""

import hashlib
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.events import MicrostructureSampled
from bot.core.records import Readiness
from bot.market import book_samples, trades
from bot.market.bars import COLUMNS, BarTable
from strategies.features import inputs, kernel, normaliser, spec
from strategies.features.document import page
from strategies.features.normaliser import MIN_SAMPLES, NORMAL_MAD, PRIOR_SAMPLES, STRIDE, SourceStatistics
from strategies.features.pipeline import (
    FeatureBank,
    FeatureTable,
    RawTable,
    batch,
    fit_source_statistics,
    raw_batch,
)
from strategies.features.spec import COUNT, NAMES, RAW_WARM_UP, SPEC, VERSION, WARM_UP

ORACLES = Path(__file__).parent / "oracles"
STEP = 900_000
FIRST_BAR = 1_735_689_600_000 // STEP  # 2025-01-01 00:00 UTC
SIZE = 700

Prices = NDArray[np.float64]


def random_table(symbol: str, seed: int, n: int = SIZE) -> BarTable:
    rng = np.random.default_rng(seed)
    move = rng.standard_t(4, n) * 0.003 * np.exp(0.5 * np.sin(np.arange(n) / 60))
    close = 3 * np.exp(np.cumsum(move))
    opened = np.concatenate([[3.0], close[:-1]])
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.002, n)))
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 0.002, n)))
    volume = rng.gamma(1.5, 400, n) * (1 + 100 * np.abs(move))
    price = low + rng.random(n) * (high - low)
    start = (np.arange(n, dtype=np.int64) + FIRST_BAR) * STEP
    return BarTable(symbol, STEP, start, opened, high, low, close, volume, volume * price)


def random_micro(seed: int, n: int = SIZE) -> Prices:
    """Book and trades of n bars in the order of MicrostructureSampled."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(-1, 1, (n, 5))
    spread, offset, flow = rng.gamma(4, 0.5, n), rng.normal(0, 0.2, n), rng.normal(0, 500, n)
    return np.column_stack([spread, shares[:, :3], offset, flow, shares[:, 3], np.abs(shares[:, 4])])


def sampled(table: BarTable, micro: Prices) -> list[MicrostructureSampled]:
    return [
        MicrostructureSampled(start + table.interval, start + table.interval, table.symbol, start, *row)
        for start, row in zip(table.start.tolist(), micro.tolist(), strict=True)
    ]


def without(table: BarTable, *missing: int) -> BarTable:
    keep = np.ones(len(table), bool)
    keep[list(missing)] = False
    return table.rows(keep)


@pytest.fixture(scope="module")
def token() -> BarTable:
    return random_table("NEWUSDT", 1)


@pytest.fixture(scope="module")
def btc() -> BarTable:
    return random_table("BTCUSDT", 2)


@pytest.fixture(scope="module")
def eth() -> BarTable:
    return random_table("ETHUSDT", 3)


@pytest.fixture(scope="module")
def micro() -> Prices:
    return random_micro(4)


@pytest.fixture(scope="module")
def raw(token: BarTable, btc: BarTable, eth: BarTable, micro: Prices) -> RawTable:
    return raw_batch(token, btc, eth, np.full(SIZE, 1e-4), micro=micro)


def column(table: RawTable, name: str) -> Prices:
    return table.values[:, NAMES.index(name)]


def live(
    table: BarTable,
    first: BarTable,
    second: BarTable,
    prior: SourceStatistics | None = None,
    funding: Prices | None = None,
    micro: Prices | None = None,
) -> FeatureTable:
    """The table bar by bar through FeatureBank.update."""
    bank = FeatureBank(prior)
    bank.add(table.symbol, int(table.start[0]))
    firsts = {bar.start: bar for bar in first.events()}
    seconds = {bar.start: bar for bar in second.events()}
    rates = np.full(len(table), np.nan) if funding is None else funding
    seen = [None] * len(table) if micro is None else sampled(table, micro)
    rows = []
    for bar, rate, book in zip(table.events(), rates.tolist(), seen, strict=True):
        rows.append(bank.update(bar, firsts.get(bar.start), seconds.get(bar.start), rate, book))
    return FeatureTable(
        table.start,
        np.stack([row.x for row in rows]),
        np.array([row.sigma for row in rows]),
        np.array([row.ready for row in rows]),
        np.array([row.until for row in rows]),
    )


def assert_same_bits(left: FeatureTable, right: FeatureTable) -> None:
    for mine, other in zip(left, right, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


# --- specification -----------------------------------------------------------------------------------------


def test_the_kernel_writes_the_features_in_the_order_of_the_specification() -> None:
    assert [getattr(kernel, name.upper()) for name in NAMES] == list(range(COUNT))


def test_a_new_token_is_ready_within_two_days_of_quarter_hours() -> None:
    assert max(feature.warm_up for feature in SPEC) == RAW_WARM_UP
    assert WARM_UP <= 192


def test_the_page_about_the_features_is_that_of_this_version() -> None:
    text = (Path(__file__).parents[1] / "docs" / "features.md").read_text()
    assert text == page(), "run: make docs"


def test_every_missing_bit_belongs_to_one_group_or_feature_and_every_group_has_its_inputs() -> None:
    bits = {feature.name for feature in SPEC if feature.group == "missing"}
    assert bits == {feature.bit for feature in SPEC if feature.bit}
    assert all(bool(feature.inputs) != (feature.group == "missing") for feature in SPEC)


def test_what_is_not_shown_to_a_model_copies_another_feature_where_models_learn(
    token: BarTable, btc: BarTable
) -> None:
    """In a source market with one reference, or within one per cent of the log return."""
    values = raw_batch(token, btc, btc).values[RAW_WARM_UP:]
    hidden = [feature.name for feature in SPEC if not feature.shown]
    assert len(hidden) == 5
    for name in hidden:
        others = [i for i, feature in enumerate(SPEC) if feature.shown and values[:, i].std() > 0]
        alike = [np.corrcoef(values[:, NAMES.index(name)], values[:, i])[0, 1] for i in others]
        assert np.nanmax(alike) > 0.99, name


@pytest.mark.parametrize(
    ("module", "name"),
    [(kernel, "REVISION"), (kernel, "LONG"), (kernel, "SHORT"), (kernel, "BAND"), (kernel, "VOLUME_PERIOD"),
     (kernel, "MIN_PAIRS"), (kernel, "FUNDING_SCALE"), (kernel, "QUIET"), (normaliser, "NORMAL_MAD"),
     (normaliser, "CLIP"), (normaliser, "PRIOR_SAMPLES"), (trades, "LARGE"), (trades, "RECENT"),
     (book_samples, "SAMPLE_MS"), (book_samples, "LEAST_SHARE")],
)  # fmt: skip
def test_another_constant_is_another_version(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    monkeypatch.setattr(module, name, getattr(module, name) + 1)
    assert spec.version() != VERSION


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"low": -5.0}, {"normalised": False}, {"bit": "book_missing"}]
)
def test_another_specification_is_another_version_but_other_words_are_not(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr(spec, "SPEC", (SPEC[0]._replace(**change), *SPEC[1:]))
    assert spec.version() != VERSION
    monkeypatch.setattr(spec, "SPEC", (SPEC[0]._replace(doc="the same, better said"), *SPEC[1:]))
    assert spec.version() == VERSION


def digest(values: Prices) -> str:
    """Of one weighted sum per feature, to six digits: the last bit of a logarithm may differ elsewhere."""
    weights = 1.5 + np.cos(np.arange(len(values)))
    sums = weights @ np.nan_to_num(values.astype(float), nan=7.0)
    return hashlib.sha256(" ".join(f"{value:.5e}" for value in sums + 1e-3).encode()).hexdigest()[:12]


def test_a_formula_does_not_change_without_a_new_version(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices
) -> None:
    """When a digest differs on purpose: raise kernel.REVISION, pretrain the shipped model, pin the three."""
    table, books, funding = without(token, 350), micro[1:].copy(), np.linspace(-1e-3, 1e-3, SIZE - 1)
    books[200:220] = np.nan
    launch = int(table.start[0])
    raw = raw_batch(table, without(btc, 600), eth, funding, launch, books)
    prior = fit_source_statistics([raw])
    seen = batch(table, without(btc, 600), eth, funding, launch, prior, books)
    assert (VERSION, digest(raw.values), digest(seen.x)) == ("5b7bb099790c", "b7002d31c812", "2821b5c04359")


def test_every_value_lies_within_the_bounds_of_the_specification(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices
) -> None:
    token, micro, funding = (
        replace(token, turnover=token.turnover.copy()),
        micro.copy(),
        np.linspace(-0.01, 0.01, SIZE),
    )
    token.turnover[400:410] = micro[420:430, 0] = micro[440:450, 6] = funding[460:470] = np.nan
    table = batch(token, without(btc, *range(300, 310)), eth, funding, int(token.start[0]), micro=micro)
    assert table.ready.sum() == SIZE - WARM_UP + 1
    assert table.x.dtype == np.float32
    for feature, values in zip(SPEC, table.x[table.ready].T, strict=True):
        assert feature.low <= values.min() <= values.max() <= feature.high, feature.name
        assert values.std() > 0, feature.name


# --- against oracles and independent implementations -------------------------------------------------------


def oracle() -> tuple[Any, RawTable]:
    """The oracle's 5-minute bars and our features of them."""
    data = np.load(ORACLES / "indicators.npz")
    bars = BarTable(
        "ORACLE",
        300_000,
        data["ts"],
        *(data[name] for name in COLUMNS[:-1]),
        np.full(len(data["ts"]), np.nan),
    )
    market = replace(bars, close=np.exp(np.cumsum(data["benchmark_log_return"])))
    return data, raw_batch(bars, market, market)


def test_rsi_macd_bollinger_and_atr_equal_the_oracle() -> None:
    data, ours = oracle()
    step = ours.sigma * data["close"]
    warm = slice(RAW_WARM_UP - 1, None)
    pairs = [
        (50 * column(ours, "rsi") + 50, data["rsi14_wilder"], 1e-6),
        (column(ours, "macd") * step, data["macd_hist_ewm"], 1e-6),
        ((column(ours, "bollinger") + 1) / 2, data["bb20_percent_b_ddof0"], 1e-6),
        (column(ours, "atr") * step, data["atr14_wilder"], 1e-6),
    ]
    for mine, theirs, tolerance in pairs:
        np.testing.assert_allclose(mine[warm], theirs[warm], rtol=tolerance, atol=1e-12)


def test_the_vwap_of_bars_without_turnover_equals_the_oracle() -> None:
    data, _ = oracle()
    bars = zip(*(data[name] for name in ("high", "low", "close", "volume")), strict=True)
    traded = np.array([kernel._vwap(*bar, math.nan) * bar[3] for bar in bars])
    for t in range(13, len(traded)):
        mean = traded[t - 13 : t + 1].sum() / data["volume"][t - 13 : t + 1].sum()
        assert mean == pytest.approx(data["vwap14_rolling_typical"][t], rel=1e-9)


def test_obv_slope_is_the_change_of_the_oracles_on_balance_volume() -> None:
    data, ours = oracle()
    total = np.convolve(data["volume"], np.ones(16))[: len(data["volume"])]
    expected = (data["obv_start0"][16:] - data["obv_start0"][:-16]) / total[16:]
    np.testing.assert_allclose(column(ours, "obv_slope")[96:], expected[80:], rtol=1e-9, atol=1e-12)


def test_volatility_beta_and_correlation_from_sums_equal_the_oracle() -> None:
    data, _ = oracle()
    r, q = data["log_return"], data["benchmark_log_return"]
    for t in range(60, len(r)):
        short = r[t - 19 : t + 1]
        deviation = math.sqrt(kernel.variance(short.sum(), short @ short, 20, 1))
        assert deviation == pytest.approx(data["realised_vol20_ddof1"][t], rel=1e-6)
        y, x = r[t - 59 : t + 1], q[t - 59 : t + 1]
        slope, correlation, per_deviation = kernel.regression(
            60, y.sum(), y @ y, x.sum(), x @ x, y @ x, 1e-12
        )
        assert slope == pytest.approx(data["beta60_ddof1"][t], rel=1e-6)
        assert correlation == pytest.approx(data["corr60"][t], rel=1e-6)
        assert 1 / per_deviation == pytest.approx(x.std(ddof=1), rel=1e-9)


def test_robust_z_scores_of_a_sliding_window_equal_the_oracle() -> None:
    data, _ = oracle()
    values, expected = data["log_return"], data["robust_z96"]
    ordered, recent = np.zeros(96), np.zeros(96)
    samples = lower = 0
    for value, z in zip(values, expected, strict=True):
        if math.isnan(value):
            continue
        size = normaliser.enter(ordered, recent, samples, value)
        samples += 1
        median, mad, lower = normaliser.median_and_mad(ordered, size, lower)
        if not math.isnan(z):
            assert (value - median) / (NORMAL_MAD * mad) == pytest.approx(z, rel=1e-6, abs=1e-9)


def test_oscillators_equal_talib_on_random_bars(token: BarTable, raw: RawTable) -> None:
    step = raw.sigma * token.close
    warm = slice(300, None)  # past the difference in the seeds of the averages
    _, _, histogram = talib.MACD(token.close, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(token.close, 20, 2, 2)
    expected = {
        "rsi": talib.RSI(token.close, 14) / 50 - 1,
        "macd": histogram / step,
        "atr": talib.ATR(token.high, token.low, token.close, 14) / step,
        "bollinger": (token.close - middle) / ((upper - lower) / 2),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(column(raw, name)[warm], values[warm], rtol=1e-6, atol=1e-9, err_msg=name)


def test_windowed_features_equal_pandas_on_random_bars(
    token: BarTable, btc: BarTable, eth: BarTable, raw: RawTable
) -> None:
    close, volume = pd.Series(token.close), pd.Series(token.volume)
    log = np.log(close)
    r, q, p = log.diff(), np.log(pd.Series(btc.close)).diff(), np.log(pd.Series(eth.close)).diff()
    sigma = r.rolling(96).std()
    total = volume.rolling(96).sum()
    beta = r.rolling(96).cov(q) / q.rolling(96).var()
    expected = {
        "return_1": r / sigma,
        "return_4": log.diff(4) / (2 * sigma),
        "return_16": log.diff(16) / (4 * sigma),
        "return_96": log.diff(96) / (math.sqrt(96) * sigma),
        "volatility": np.log(sigma),
        "volatility_ratio": np.log(r.rolling(16).std() / sigma),
        "range": (token.high - token.low) / (sigma * close),
        "volume_ratio": np.log(volume.rolling(16).mean() / volume.rolling(96).mean()),
        "vwap_distance": (close / (pd.Series(token.turnover).rolling(96).sum() / total) - 1)
        / (math.sqrt(96) * sigma),
        "first_return": q / q.rolling(96).std(),
        "second_return": p / p.rolling(96).std(),
        "correlation": r.rolling(96).corr(q),
        "beta": beta,
        "residual": (r - beta * q) / sigma,
        "relative_strength": (r - q).rolling(16).sum() / (4 * sigma),
        "second_correlation": r.rolling(96).corr(p),
        "second_beta": r.rolling(96).cov(p) / p.rolling(96).var(),
        "second_strength": (r - p).rolling(16).sum() / (4 * sigma),
        "simple_return_16": close.pct_change(16) / (4 * sigma),
        "simple_return_96": close.pct_change(96) / (math.sqrt(96) * sigma),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(
            column(raw, name)[96:], values.to_numpy()[96:], rtol=1e-8, atol=1e-9, err_msg=name
        )
    np.testing.assert_allclose(raw.sigma[96:], sigma.to_numpy()[96:], rtol=1e-9)


def test_features_of_one_bar_say_where_it_opened_closed_and_traded() -> None:
    table = random_table("NEWUSDT", 5, 120)
    shape = {"open": 10.0, "high": 14.0, "low": 8.0, "close": 12.0, "volume": 5.0, "turnover": 55.0}
    for name, value in shape.items():
        getattr(table, name)[-1] = value
    last = raw_batch(table, table, table, np.full(120, 5e-4), int(table.start[-1]) + STEP - 86_400_000)
    row = dict(zip(NAMES, last.values[-1], strict=True))
    assert row["close_location"] == pytest.approx(((12 - 8) - (14 - 12)) / 6)
    assert row["body"] == pytest.approx(2 / 6)
    assert row["vwap_location"] == pytest.approx((12 - 11) / 6)
    assert row["funding"] == pytest.approx(0.5)
    assert row["age"] == pytest.approx(math.log(2) / math.log(366))
    hours = 120 * STEP / 3_600_000 % 24
    assert row["hour_sin"] == pytest.approx(math.sin(2 * math.pi * hours / 24))
    assert row["hour_cos"] == pytest.approx(math.cos(2 * math.pi * hours / 24))


def test_volume_deviation_is_measured_from_a_mean_that_turns_into_an_exponential_average(
    token: BarTable, raw: RawTable
) -> None:
    averages = [token.volume[0]]
    for count, volume in enumerate(token.volume[1:], 2):
        averages.append(averages[-1] + (volume - averages[-1]) / min(count, 48))
    assert averages[47] == pytest.approx(token.volume[:48].mean())
    expected = np.log(token.volume / averages)
    np.testing.assert_allclose(column(raw, "volume_deviation")[96:], expected[96:], rtol=1e-9, atol=1e-9)


def test_rounding_errors_do_not_pile_up_after_an_extreme_bar(btc: BarTable) -> None:
    table = random_table("NEWUSDT", 8, 2000)
    first = random_table("BTCUSDT", 9, 2000)
    for name in COLUMNS:
        getattr(table, name)[200] *= 1e9 if name in ("volume", "turnover") else 50.0
    after, fresh = raw_batch(table, first, first), raw_batch(table.rows(slice(1400, None)), first, first)
    recursive = [NAMES.index(name) for name in ("rsi", "macd", "atr", "volume_deviation")]
    compared = [i for i in range(COUNT) if i not in recursive]
    np.testing.assert_allclose(
        after.values[1600:, compared], fresh.values[200:, compared], rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize(("price", "size"), [(1024.0, 1.0), (1 / 4096, 8.0), (1.0, 1 / 64)])
def test_features_do_not_depend_on_the_units_of_price_and_volume(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices, raw: RawTable, price: float, size: float
) -> None:
    factors = {"volume": size, "turnover": size * price}
    rescaled = replace(token, **{name: getattr(token, name) * factors.get(name, price) for name in COLUMNS})
    books = micro * np.array([1, 1, 1, 1, 1, size, 1, 1])  # order flow is in base coin
    after = raw_batch(rescaled, btc, eth, np.full(SIZE, 1e-4), micro=books)
    np.testing.assert_allclose(after.values[96:], raw.values[96:], rtol=1e-7, atol=1e-9)


# --- live equals batch -------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.003, 0.05]), st.booleans())
def test_live_features_equal_the_batch_bit_for_bit(seed: int, missing: float, shrunk: bool) -> None:
    rng = np.random.default_rng(seed)
    n = 600
    table = random_table("NEWUSDT", seed, n)
    table.turnover[rng.random(n) < 0.1] = np.nan
    table.volume[rng.random(n) < 0.05] = 0.0
    table.close[rng.random(n) < missing / 10] = np.nan
    table = table.rows(rng.random(n) >= missing / 5)
    first, second = (random_table(name, seed + 1, n).rows(rng.random(n) >= missing) for name in ("B", "E"))
    funding = rng.normal(0, 3e-4, len(table))
    funding[rng.random(len(table)) < missing] = np.nan
    micro = random_micro(seed, len(table))
    micro[rng.random(len(table)) < missing] = np.nan
    micro[rng.random(micro.shape) < missing / 5] = np.inf
    prior = SourceStatistics(rng.normal(0, 1, COUNT), rng.uniform(0.5, 2, COUNT)) if shrunk else None
    expected = batch(table, first, second, funding, int(table.start[0]), prior, micro)
    assert_same_bits(live(table, first, second, prior, funding, micro), expected)


def test_many_tokens_in_one_call_equal_one_call_each(btc: BarTable, eth: BarTable) -> None:
    tables = [random_table(f"T{i}USDT", 10 + i, 230) for i in range(9)]
    together, apart = FeatureBank(), FeatureBank()
    for table in tables:
        together.add(table.symbol, 0)
        apart.add(table.symbol, 0)
    every = zip(*(table.events() for table in tables), btc.rows(slice(0, 230)).events(), strict=True)
    for *bars, reference in every:
        seen = [None, *(sampled(tables[0].rows(slice(0, 1)), random_micro(5, 1)) * 8)]
        books = [
            book and msgspec.structs.replace(book, start=bar.start)
            for book, bar in zip(seen, bars, strict=True)
        ]
        rows = together.update_many(bars, reference, None, [1e-4] * 9, books)
        for row, bar, book in zip(rows, bars, books, strict=True):
            single = apart.update(bar, reference, None, 1e-4, book)
            np.testing.assert_array_equal(row.x, single.x)
            np.testing.assert_equal(msgspec.structs.astuple(row)[1:], msgspec.structs.astuple(single)[1:])
    assert single.ready


def test_no_bars_give_no_rows() -> None:
    assert FeatureBank().update_many([], None, None, [], []) == []


def test_a_table_replayed_into_a_bank_is_continued_live(
    token: BarTable, btc: BarTable, eth: BarTable
) -> None:
    bank = FeatureBank()
    bank.add(token.symbol, 0)
    bank.replay(token.rows(slice(0, 400)), btc, eth)
    rest = slice(400, SIZE)
    rows = [
        bank.update(bar, first, second).x
        for bar, first, second in zip(*(t.rows(rest).events() for t in (token, btc, eth)), strict=True)
    ]
    np.testing.assert_array_equal(np.stack(rows), batch(token, btc, eth).x[rest])


def test_a_copy_of_the_bank_lives_its_own_life(token: BarTable, btc: BarTable, eth: BarTable) -> None:
    bank = FeatureBank()
    bank.add(token.symbol, 0)
    bank.replay(token.rows(slice(0, 500)), btc, eth)
    twin = bank.copy()
    rest = token.rows(slice(500, 600))
    first = twin.replay(rest, btc, eth)
    assert_same_bits(bank.replay(rest, btc, eth), first)


# --- causality ---------------------------------------------------------------------------------------------

CUT = 450


def rewritten(table: BarTable) -> BarTable:
    other = random_table(table.symbol, 77)
    before = np.arange(SIZE) < CUT
    return replace(
        table, **{name: np.where(before, getattr(table, name), getattr(other, name)) for name in COLUMNS}
    )


def tenfold(table: BarTable) -> BarTable:
    factor = np.where(np.arange(SIZE) < CUT, 1.0, 10.0)
    return replace(table, **{name: getattr(table, name) * factor for name in COLUMNS})


def dropped(table: BarTable) -> BarTable:
    return table.rows(slice(0, CUT))


def garbled(table: BarTable) -> BarTable:
    factor = np.where(np.arange(SIZE) < CUT, 1.0, np.nan)
    return replace(table, **{name: getattr(table, name) * factor for name in COLUMNS})


@pytest.mark.parametrize("change", [rewritten, tenfold, dropped, garbled])
@pytest.mark.parametrize("of", ["token", "references", "surroundings"])
def test_no_feature_changes_when_the_future_does(
    monkeypatch: pytest.MonkeyPatch,
    token: BarTable,
    btc: BarTable,
    eth: BarTable,
    micro: Prices,
    raw: RawTable,
    change: Callable[[BarTable], BarTable],
    of: str,
) -> None:
    monkeypatch.setattr(inputs, "CHUNK", 97)  # the future is also in chunks of its own
    references = [change(btc), change(eth)] if of == "references" else [btc, eth]
    table = change(token) if of == "token" else token
    funding, books = np.full(SIZE, 1e-4), micro
    if of == "surroundings":
        factor = {rewritten: -0.5, tenfold: 10.0, dropped: np.nan, garbled: np.inf}[change]
        funding, books = funding.copy(), micro.copy()
        funding[CUT:] *= factor
        books[CUT:] *= factor
    past, rows = slice(0, CUT), slice(0, len(table))
    changed = raw_batch(table, *references, funding[rows], micro=books[rows])
    np.testing.assert_array_equal(changed.values[past], raw.values[past])
    ours = batch(table, *references, funding[rows], micro=books[rows])
    theirs = batch(token, btc, eth, np.full(SIZE, 1e-4), micro=micro)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine[past], other[past])


@pytest.mark.parametrize(
    "name", [feature.name for feature in SPEC if feature.group not in ("clock", "token", "missing")]
)
def test_the_causality_probe_would_see_a_feature_that_looks_ahead(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices, raw: RawTable, name: str
) -> None:
    """Every feature answers to the bar itself: had it read one bar ahead, the probe above had fired."""
    funding = np.where(np.arange(SIZE) < CUT, 1e-4, 1e-3)
    books = np.where(np.arange(SIZE)[:, None] < CUT, micro, random_micro(78))
    after = raw_batch(rewritten(token), rewritten(btc), rewritten(eth), funding, micro=books)
    rows = slice(CUT, CUT + 2)
    assert (column(after, name)[rows] != column(raw, name)[rows]).any()


def test_statistics_never_come_from_a_bar_after_the_row(
    token: BarTable, btc: BarTable, eth: BarTable
) -> None:
    table = batch(without(token, 300), btc, eth)
    assert (table.until <= table.starts).all()
    assert (table.until[table.ready] == table.starts[table.ready]).all()
    assert (table.until[: RAW_WARM_UP - 1] == 0).all()


# --- gaps, missing and bad values --------------------------------------------------------------------------


def test_no_return_crosses_a_gap(btc: BarTable, eth: BarTable) -> None:
    table = random_table("NEWUSDT", 4)
    for name in ("open", "high", "low", "close"):
        getattr(table, name)[400:] *= 100.0
    whole, cut = raw_batch(without(table, 399), btc, eth), raw_batch(table.rows(slice(400, None)), btc, eth)
    np.testing.assert_array_equal(whole.values[399:], cut.values)
    assert whole.runs[398:401].tolist() == [399, 1, 2]
    assert np.isnan(whole.sigma[399 : 399 + RAW_WARM_UP - 1]).all()


def test_after_a_gap_readiness_starts_again_with_the_statistics_kept(
    token: BarTable, btc: BarTable, eth: BarTable
) -> None:
    table = batch(without(token, 400), btc, eth)
    assert table.ready[WARM_UP - 1 : 400].all()
    assert not table.ready[400 : 400 + RAW_WARM_UP - 1].any()
    assert table.ready[400 + RAW_WARM_UP - 1 :].all()


def test_have_counts_up_to_need_and_readiness_follows(token: BarTable, btc: BarTable) -> None:
    bank = FeatureBank()
    bank.add(token.symbol, 0)
    rows = [bank.update(bar, None, None, 0.0) for bar in without(token, 300).events()]
    assert all(row.need == WARM_UP for row in rows)
    assert [row.have for row in rows[:300]] == [min(i + 1, WARM_UP) for i in range(300)]
    assert [row.have for row in rows[300:]] == [
        min(WARM_UP - RAW_WARM_UP + 1 + i, WARM_UP) for i in range(SIZE - 301)
    ]
    assert all(row.ready == (row.have == row.need) for row in rows)


def test_readiness_reads_as_a_sentence() -> None:
    assert str(Readiness(0, "XPLUSDT", 312, 480)) == "XPLUSDT: 312 of 480 bars"
    assert str(Readiness(0, "XPLUSDT", 480, 480, 1)) == "XPLUSDT: 480 of 480 bars, 1 refused"


def test_missing_references_are_masked_and_said_so(token: BarTable, btc: BarTable, eth: BarTable) -> None:
    table = batch(token, without(btc, 500), eth)
    reference = [i for i, feature in enumerate(SPEC) if feature.group == "reference"]
    bit = table.x[:, NAMES.index("reference_missing")]
    first = NAMES.index("first_return")
    assert bit[498:503].tolist() == [0, 0, 1, 1, 0]  # the bar itself and the return after it
    assert table.x[500:502, first].tolist() == [0, 0]
    assert table.x[500:502, NAMES.index("beta")].all()
    assert table.ready[500:502].all()
    without_any = batch(token, dropped(btc).rows(slice(0, 0)), eth.rows(slice(0, 0)))
    assert (without_any.x[:, reference] == 0).all()
    assert without_any.ready[WARM_UP:].all()


def test_unknown_turnover_is_masked_said_so_and_replaced_by_the_typical_price_in_the_vwap(
    token: BarTable, btc: BarTable, eth: BarTable
) -> None:
    unknown = replace(token, turnover=np.full(SIZE, np.nan))
    typical = (token.high + token.low + token.close) / 3
    known = replace(token, turnover=token.volume * typical)
    mine, other = raw_batch(unknown, btc, eth), raw_batch(known, btc, eth)
    for name, values, expected in zip(NAMES, mine.values[96:].T, other.values[96:].T, strict=True):
        if name != "vwap_location":
            np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-9, err_msg=name)
    assert np.isnan(column(mine, "vwap_location")).all()
    table = batch(unknown, btc, eth)
    assert table.ready[WARM_UP:].all()
    assert table.x[WARM_UP:, NAMES.index("turnover_missing")].all()
    assert not batch(known, btc, eth).x[:, NAMES.index("turnover_missing")].any()
    assert not table.x[:, NAMES.index("vwap_location")].any()


def poison(name: str, value: float) -> Callable[[BarTable], BarTable]:
    def apply(table: BarTable) -> BarTable:
        values = getattr(table, name).copy()
        values[500] = value
        return replace(table, **{name: values})

    return apply


@pytest.mark.parametrize(
    "damage",
    [poison("close", np.nan), poison("high", np.inf), poison("low", 0.0), poison("volume", np.nan),
     poison("volume", -1.0), poison("open", 1e9)],
    ids=["nan close", "infinite high", "zero low", "nan volume", "negative volume", "open above high"],
)  # fmt: skip
def test_a_bar_that_cannot_be_is_refused_counted_and_treated_as_missing(
    token: BarTable, btc: BarTable, eth: BarTable, damage: Callable[[BarTable], BarTable]
) -> None:
    bank = FeatureBank()
    bank.add(token.symbol, 0)
    table = bank.replay(damage(token), btc, eth)
    assert bank.refused(token.symbol) == 1
    assert not table.ready[500]
    expected = batch(without(token, 500), btc, eth)
    for mine, other in zip(table, expected, strict=True):
        np.testing.assert_array_equal(mine[501:], other[500:])


@pytest.mark.parametrize(
    ("group", "bit"), [("book", "book_missing"), ("trades", "trades_missing"), ("funding", "funding_missing")]
)
def test_a_group_that_is_absent_is_masked_and_said_so(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices, group: str, bit: str
) -> None:
    known, funding = micro.copy(), np.full(SIZE, 1e-4)
    gone = slice(500, 510)
    {"book": known[:, :6], "trades": known[:, 6:], "funding": funding}[group][gone] = np.nan
    table = batch(token, btc, eth, funding, micro=known)
    columns = [i for i, feature in enumerate(SPEC) if feature.group == group]
    bits = [i for i, feature in enumerate(SPEC) if feature.group == "missing"]
    assert table.ready[WARM_UP - 1 :].all()
    assert not table.x[gone][:, columns].any()
    assert table.x[WARM_UP:, NAMES.index(bit)].nonzero()[0].tolist() == list(
        range(500 - WARM_UP, 510 - WARM_UP)
    )
    assert not table.x[:, [i for i in bits if NAMES[i] != bit]].any()


def test_with_bars_alone_everything_else_is_masked_and_constant(
    token: BarTable, btc: BarTable, eth: BarTable
) -> None:
    table = batch(token, btc, eth)
    for feature, values in zip(SPEC, table.x[table.ready].T, strict=True):
        if feature.group in ("book", "trades", "funding"):
            assert not values.any(), feature.name
            assert table.x[table.ready][:, NAMES.index(feature.bit)].all()


def test_a_value_without_statistics_of_its_own_yet_counts_as_missing(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices
) -> None:
    late = micro.copy()
    late[:500] = np.nan
    table = batch(token, btc, eth, micro=late)
    bit = table.x[:, NAMES.index("book_missing")]
    assert bit[WARM_UP:500].all()
    known = 500 + MIN_SAMPLES * STRIDE
    assert bit[500 : known - STRIDE].all()
    assert not bit[known:].any()
    assert table.x[known:, NAMES.index("spread")].any()


@pytest.mark.parametrize("where", [*range(8), "funding"])
def test_a_value_that_is_not_finite_makes_only_this_token_unready_for_this_bar(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices, where: int | str
) -> None:
    bank = FeatureBank()
    bank.add(token.symbol, 0)
    funding, books = np.full(SIZE, 1e-4), micro.copy()
    if isinstance(where, int):
        books[500, where] = np.inf
    else:
        funding[500] = np.inf
    table = bank.replay(token, btc, eth, funding, books)
    assert table.ready[499:502].tolist() == [True, False, True]
    assert not table.x[500].any()
    assert np.isfinite(table.sigma[500])
    assert bank.refused(token.symbol) == 1


@pytest.mark.parametrize(("where", "value"), [(1, 1.01), (3, -1.01), (6, 2.0), (7, -0.01)])
def test_a_value_that_is_passed_on_but_out_of_its_range_is_refused_and_counted(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices, where: int, value: float
) -> None:
    bank, books = FeatureBank(), micro.copy()
    bank.add(token.symbol, 0)
    books[499, where], books[500, where] = np.clip(value, 0, 1), value
    table = bank.replay(token, btc, eth, np.full(SIZE, 1e-4), books)
    assert table.ready[499:502].tolist() == [True, False, True]
    assert bank.refused(token.symbol) == 1


def test_microstructure_follows_its_formulas(raw: RawTable, token: BarTable, micro: Prices) -> None:
    rows = slice(RAW_WARM_UP, None)
    expected = {
        "spread": np.log(micro[:, 0]),
        "imbalance_5": micro[:, 1],
        "imbalance_10": micro[:, 2],
        "imbalance_50": micro[:, 3],
        "microprice": micro[:, 4] / 1e4 / raw.sigma,
        "ofi": micro[:, 5] / (np.abs(micro[:, 5]) + token.volume),
        "trade_imbalance": micro[:, 6],
        "large_trades": micro[:, 7],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(column(raw, name)[rows], values[rows], rtol=1e-12, err_msg=name)


def test_microstructure_of_another_bar_counts_as_missing(token: BarTable, micro: Prices) -> None:
    bank, masked = FeatureBank(), FeatureBank()
    for each in (bank, masked):
        each.add(token.symbol, 0)
    books = sampled(token, micro)
    for bar, book in zip(token.rows(slice(1, 300)).events(), books, strict=False):
        row = bank.update(bar, None, None, 0.0, book)
        np.testing.assert_array_equal(row.x, masked.update(bar, None, None, 0.0).x)
    assert row.ready


def test_a_market_that_stands_still_is_not_ready(btc: BarTable, eth: BarTable) -> None:
    flat = np.full(400, 2.0)
    table = BarTable("NEWUSDT", STEP, btc.start[:400], flat, flat, flat, flat, flat, flat)
    silent = replace(random_table("NEWUSDT", 6, 400), volume=np.zeros(400))
    assert not batch(table, btc, eth).ready.any()
    assert not batch(silent, btc, eth).ready.any()


def test_repeated_and_older_bars_change_nothing(token: BarTable) -> None:
    bank, clean = FeatureBank(), FeatureBank()
    for each in (bank, clean):
        each.add(token.symbol, 0)
    before = None
    for bar in token.rows(slice(0, 250)).events():
        row = bank.update(bar, None, None, 0.0)
        np.testing.assert_array_equal(row.x, clean.update(bar, None, None, 0.0).x)
        for old in (bar, before):
            assert old is None or not bank.update(old, None, None, 0.0).ready
        before = bar
    assert bank.refused(token.symbol) == 250 + 249
    assert clean.refused(token.symbol) == 0


def test_a_token_that_is_listed_again_is_a_new_one(token: BarTable, btc: BarTable, eth: BarTable) -> None:
    bank = FeatureBank()
    for symbol in ("NEWUSDT", "BTCUSDT"):
        bank.add(symbol, 0)
    bank.replay(token, btc, eth)
    bank.remove("NEWUSDT")
    assert "NEWUSDT" not in bank
    bank.replay(btc, eth, eth)
    bank.add("NEWUSDT", int(token.start[0]))
    assert_same_bits(bank.replay(token, btc, eth), batch(token, btc, eth, launch_time=int(token.start[0])))


def test_memory_stays_that_of_the_tokens_that_are_listed_now() -> None:
    bank = FeatureBank()
    for symbol in ("AUSDT", "BUSDT"):
        bank.add(symbol, 0)
    size = len(pickle.dumps(bank))
    for number in range(100):
        bank.add(f"{number:04}USDT", 0)
        bank.remove(f"{number:04}USDT")
    assert len(pickle.dumps(bank)) == pytest.approx(size, abs=1000)


def test_a_reference_bar_of_another_time_counts_as_missing(token: BarTable, btc: BarTable) -> None:
    bank, masked = FeatureBank(), FeatureBank()
    for each in (bank, masked):
        each.add(token.symbol, 0)
    late = next(btc.events())
    for bar in token.rows(slice(1, 300)).events():
        row = bank.update(bar, late, late, 0.0)
        np.testing.assert_array_equal(row.x, masked.update(bar, None, None, 0.0).x)
    assert row.ready


# --- normalisation -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_the_sliding_window_gives_the_median_and_mad_of_its_last_values(
    values: list[int], width: int
) -> None:
    ordered, recent, lower = np.zeros(width), np.zeros(width), 0
    for samples, value in enumerate(values):
        size = normaliser.enter(ordered, recent, samples, value)
        last = np.array(values[max(0, samples + 1 - width) : samples + 1], float)
        median, mad, lower = normaliser.median_and_mad(ordered, size, lower)
        assert size == len(last)
        assert median == np.median(last)
        assert mad == np.median(np.abs(last - np.median(last)))


def test_normalised_features_are_robust_z_scores_of_the_tokens_own_past(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices, raw: RawTable
) -> None:
    table = batch(token, btc, eth, np.full(SIZE, 1e-4), micro=micro)
    normalised = [i for i, feature in enumerate(SPEC) if feature.normalised]
    share = math.ceil(len(normalised) / STRIDE)
    for position, feature in enumerate(normalised):
        turn = position // share
        for row in (WARM_UP - 1, 333, SIZE - 1):
            past = np.arange(RAW_WARM_UP - 1, row + 1)
            past = past[(past - (RAW_WARM_UP - 1)) % STRIDE == turn]
            values = raw.values[past, feature].astype(np.float32).astype(float)
            median = np.median(values)
            scale = max(NORMAL_MAD * np.median(np.abs(values - median)), normaliser.MIN_SCALE)
            z = np.clip((raw.values[row, feature] - median) / scale, -6, 6)
            assert table.x[row, feature] == pytest.approx(z, rel=1e-5, abs=1e-6)


def test_bounded_features_pass_through(
    token: BarTable, btc: BarTable, eth: BarTable, micro: Prices, raw: RawTable
) -> None:
    table = batch(token, btc, eth, np.full(SIZE, 1e-4), micro=micro)
    passed = [i for i, feature in enumerate(SPEC) if not feature.normalised]
    np.testing.assert_array_equal(
        table.x[WARM_UP - 1 :, passed], raw.values[WARM_UP - 1 :, passed].astype(np.float32)
    )


def test_a_young_tokens_statistics_are_shrunk_towards_the_sources_and_less_with_age(
    token: BarTable, btc: BarTable, eth: BarTable, raw: RawTable
) -> None:
    prior = SourceStatistics(np.full(COUNT, 2.0), np.full(COUNT, 3.0))
    table = batch(token, btc, eth, prior=prior)
    feature = NAMES.index("return_1")  # the first of its turn: sampled with the first complete row
    for row in (WARM_UP - 1, 400, SIZE - 1):
        past = np.arange(RAW_WARM_UP - 1, row + 1, STRIDE)
        values = raw.values[past, feature]
        own = len(past) / (len(past) + PRIOR_SAMPLES)
        centre = own * np.median(values) + (1 - own) * 2.0
        scale = own * NORMAL_MAD * np.median(np.abs(values - np.median(values))) + (1 - own) * 3.0
        assert table.x[row, feature] == pytest.approx((raw.values[row, feature] - centre) / scale, rel=1e-4)


def test_source_statistics_are_the_median_and_mad_of_the_warm_rows_with_their_last_bar(
    raw: RawTable, btc: BarTable, eth: BarTable
) -> None:
    other = raw_batch(btc, eth, eth)
    statistics = fit_source_statistics([raw, other])
    pooled = np.concatenate([raw.values[RAW_WARM_UP - 1 :], other.values[RAW_WARM_UP - 1 :]])
    for i, feature in enumerate(SPEC):
        values = pooled[:, i][np.isfinite(pooled[:, i])]
        median = np.median(values) if feature.normalised else 0.0
        assert statistics.location[i] == pytest.approx(median)
    assert statistics.until == raw.starts[-1]
    assert batch(btc, eth, eth, prior=statistics).ready.any()


def test_too_short_a_source_history_is_an_error_that_says_so(token: BarTable, btc: BarTable) -> None:
    short = raw_batch(token.rows(slice(0, RAW_WARM_UP + MIN_SAMPLES - 2)), btc, btc)
    with pytest.raises(DataError, match="longer history"):
        fit_source_statistics([short])
    with pytest.raises(DataError, match="longer history"):
        fit_source_statistics([])


def test_sources_without_turnover_still_have_statistics(token: BarTable, btc: BarTable) -> None:
    statistics = fit_source_statistics([raw_batch(replace(token, turnover=np.full(SIZE, np.nan)), btc, btc)])
    vwap = NAMES.index("vwap_location")
    assert (statistics.location[vwap], statistics.scale[vwap]) == (0.0, 1.0)


def test_statistics_of_another_version_are_an_error() -> None:
    with pytest.raises(DataError, match="pretrain the model again"):
        FeatureBank(SourceStatistics(np.zeros(3), np.ones(3)))
