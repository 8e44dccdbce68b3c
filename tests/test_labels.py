"""Triple-barrier labels: textbook values, no knowledge before its time, live equal to batch."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bot.market.bars import BarTable
from strategies.labels import Labeler, LabelTable, Matured, batch

ORACLES = Path(__file__).parent / "oracles"
REAL = Path(__file__).parents[2] / "shared" / "data" / "klines"
STEP = 900_000
HORIZON, K = 8, 1.0


def table_of(
    opened: NDArray[np.float64],
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
) -> BarTable:
    start = (np.arange(len(close), dtype=np.int64) + 2_000_000) * STEP
    nothing = np.zeros(len(close))
    return BarTable("AUSDT", STEP, start, opened, high, low, close, nothing, nothing)


def random_table(n: int, seed: int = 3) -> BarTable:
    rng = np.random.default_rng(seed)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    opened = np.concatenate([[1.0], close[:-1]]) * np.exp(rng.normal(0, 0.003, n))
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.006, n)))
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 0.006, n)))
    return table_of(opened, high, low, close)


def live(table: BarTable, sigma: NDArray[np.float64], horizon: int = HORIZON) -> list[Matured]:
    labeler = Labeler(horizon, K)
    return [
        label
        for bar, s in zip(table.events(), sigma.tolist(), strict=True)
        for label in labeler.update(bar, None if math.isnan(s) else s)
    ]


def rows(table: BarTable, labels: LabelTable) -> list[Matured]:
    columns = (table.start, labels.t_entry, labels.t_known, labels.outcome, labels.ret, labels.weight)
    listed = [column.tolist() for column in (*columns, labels.log_vol)]
    return [Matured(*row) for row in zip(*listed, strict=True) if row[3] >= 0]


def bars(*rows_: tuple[float, float, float, float]) -> BarTable:
    """A table from (open, high, low, close) rows."""
    return table_of(*np.array(rows_, float).T)


def only_first(n: int, sigma: float) -> NDArray[np.float64]:
    return np.array([sigma] + [math.nan] * (n - 1))


# --- textbook values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reference", "by_range"), [("label_close", False), ("label_high_low", True)])
def test_labels_equal_the_oracle(reference: str, by_range: bool) -> None:
    data = np.load(ORACLES / "labels.npz")
    close = data["close"]
    high, low = (data["high"], data["low"]) if by_range else (close, close)
    sigma = np.where(np.arange(len(close)) < len(close) - 12, data["vol50"], np.nan)
    labels = batch(table_of(close, high, low, close), sigma, 12, 1.5, at_close=True)
    np.testing.assert_array_equal(np.where(labels.outcome < 0, -9, labels.side), data[reference])


def test_touch_index_and_uniqueness_equal_the_oracle() -> None:
    data = np.load(ORACLES / "labels.npz")
    close = data["close"]
    sigma = np.where(np.arange(len(close)) < len(close) - 12, data["vol50"], np.nan)
    labels = batch(table_of(close, close, close, close), sigma, 12, 1.5, at_close=True)
    touch = np.where(labels.outcome < 0, -1, np.arange(len(close)) + labels.touch)
    np.testing.assert_array_equal(touch, data["touch_index"])
    np.testing.assert_allclose(labels.weight, data["uniqueness"], rtol=1e-12)


# --- the product's convention ------------------------------------------------------------------------------


def test_entry_is_the_next_bars_open_and_not_the_close_that_decided() -> None:
    table = bars((100, 100, 100, 100), (110, 110, 110, 110), (110, 110, 110, 110), (110, 111, 110, 111))
    (label,) = rows(table, batch(table, only_first(4, 0.1), 3, 1.0))
    assert label.t_entry == table.start[1]
    assert label.ret == pytest.approx(111 / 110 - 1)


def test_a_barrier_touched_on_the_way_decides_the_return() -> None:
    width = 0.01 * math.sqrt(2)
    table = bars((100, 100, 100, 100), (100, 102, 100, 100), (100, 100, 100, 100))
    labels = batch(table, only_first(3, 0.01), 2, 1.0)
    assert (labels.side[0], labels.touch[0], labels.outcome[0]) == (1, 1, 1)
    assert labels.ret[0] == pytest.approx(math.exp(width) - 1)


def test_both_barriers_touched_in_one_bar_count_as_the_stop() -> None:
    table = bars((100, 100, 100, 100), (100, 105, 95, 104), (104, 104, 104, 104))
    labels = batch(table, only_first(3, 0.01), 2, 1.0)
    assert (labels.side[0], labels.outcome[0]) == (-1, 0)
    assert labels.ret[0] == pytest.approx(math.exp(-0.01 * math.sqrt(2)) - 1)


def test_a_bar_that_opens_beyond_a_barrier_exits_at_its_open() -> None:
    table = bars((100, 100, 100, 100), (100, 100, 100, 100), (90, 91, 90, 91))
    labels = batch(table, only_first(3, 0.01), 2, 1.0)
    assert labels.ret[0] == pytest.approx(-0.1)


def test_without_a_touch_the_last_close_decides() -> None:
    table = bars((100, 100, 100, 100), (100, 101, 99, 100), (100, 101, 99, 99.5))
    labels = batch(table, only_first(3, 1.0), 2, 1.0)
    assert (labels.side[0], labels.touch[0], labels.outcome[0]) == (0, 2, 0)


def test_log_vol_is_that_of_the_bars_after_the_decision() -> None:
    table = random_table(40)
    labels = batch(table, np.full(40, 0.01), HORIZON, K)
    returns = np.diff(np.log(table.close))
    expected = [0.5 * np.log(np.mean(returns[t : t + HORIZON] ** 2)) for t in range(40 - HORIZON)]
    np.testing.assert_allclose(labels.log_vol[: 40 - HORIZON], expected, rtol=1e-12)


def test_a_flat_market_has_a_label_with_a_finite_log_vol() -> None:
    table = bars(*[(100, 100, 100, 100)] * 4)
    labels = batch(table, only_first(4, 0.01), 3, 1.0)
    assert labels.outcome[0] == 0
    assert math.isfinite(labels.log_vol[0])


def test_weight_is_the_average_uniqueness_of_the_bars_in_the_market() -> None:
    table = random_table(400)
    sigma = np.where(np.random.default_rng(0).random(400) < 0.7, 0.01, np.nan)
    labels = batch(table, sigma, HORIZON, K)
    known = labels.outcome >= 0
    alive = np.zeros((400, 400), bool)  # [label, bar]; labels that never mature are in the market too
    for t in np.flatnonzero(np.isfinite(sigma)):
        alive[t, t + 1 : t + 1 + (labels.touch[t] if known[t] else HORIZON)] = True
    concurrency = alive.sum(axis=0)
    inside = np.flatnonzero(known)[: -2 * HORIZON]
    expected = [np.mean(1 / concurrency[alive[t]]) for t in inside]
    np.testing.assert_allclose(labels.weight[inside], expected, rtol=1e-12)


# --- what cannot be known is not said ----------------------------------------------------------------------


def test_no_label_is_known_before_the_close_of_the_bar_that_decides_it() -> None:
    table = random_table(500)
    labels = batch(table, np.full(500, 0.01), HORIZON, K)
    known = labels.outcome >= 0
    touched_bar_close = table.start + (labels.touch + 1) * STEP
    assert (labels.t_known[known] >= touched_bar_close[known]).all()
    assert (labels.side[known] != 0).any()


def test_live_labels_arrive_exactly_when_they_are_known() -> None:
    table = random_table(100)
    labeler = Labeler(HORIZON, K)
    for bar in table.events():
        assert all(label.t_known == bar.ts for label in labeler.update(bar, 0.01))


@pytest.mark.parametrize("cut", [50, 51, 77, 120])
def test_a_poisoned_future_changes_no_matured_label(cut: int) -> None:
    table, sigma = random_table(200), np.full(200, 0.01)
    factor = np.where(np.arange(200) < cut, 1.0, 10.0)
    poisoned = replace(
        table, **{name: getattr(table, name) * factor for name in ("open", "high", "low", "close")}
    )
    now = table.start[cut]
    before = [label for label in live(table, sigma) if label.t_known <= now]
    assert before == [label for label in live(poisoned, sigma) if label.t_known <= now]
    assert before == live(table.rows(slice(0, cut)), sigma[:cut])
    assert len(before) == cut - HORIZON


def test_a_gap_inside_the_horizon_leaves_no_label() -> None:
    table, sigma = random_table(60), np.full(60, 0.01)
    kept = np.arange(60) != 30
    labels = batch(table.rows(kept), sigma[kept], HORIZON, K)
    ended = [int((start - table.start[0]) // STEP) for start in table.rows(kept).start[labels.outcome >= 0]]
    assert ended == [*range(30 - HORIZON), *range(31, 60 - HORIZON)]


def test_a_bar_with_impossible_prices_ends_open_labels_like_a_gap() -> None:
    table, sigma = random_table(60), np.full(60, 0.01)
    close = table.close.copy()
    close[30] = math.nan
    with_nan = batch(replace(table, close=close), sigma, HORIZON, K)
    assert np.flatnonzero(with_nan.outcome >= 0).tolist() == [*range(30 - HORIZON), *range(31, 60 - HORIZON)]


def test_repeated_and_older_bars_change_nothing() -> None:
    table = random_table(40)
    labeler, labels = Labeler(HORIZON, K), []
    before = None
    for bar in table.events():
        labels += labeler.update(bar, 0.01)
        for old in (bar, before):
            assert old is None or labeler.update(old, 0.01) == []
        before = bar
    assert labels == live(table, np.full(40, 0.01))


@pytest.mark.parametrize("sigma", [math.nan, 0.0, math.inf, -0.01])
def test_a_decision_bar_without_a_volatility_has_no_label(sigma: float) -> None:
    assert (batch(random_table(40), np.full(40, sigma), HORIZON, K).outcome == -1).all()


# --- live equals batch -------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=80),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
)
def test_live_labels_equal_the_batch_bit_for_bit(kept: list[bool], horizon: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = random_table(len(kept), seed).rows(np.array(kept) | (rng.random(len(kept)) < 0.8))
    sigma = np.where(rng.random(len(table)) < 0.8, rng.uniform(0.001, 0.02, len(table)), np.nan)
    assert live(table, sigma, horizon) == rows(table, batch(table, sigma, horizon, K))


@pytest.mark.parametrize("symbol", ["WIFUSDT", "FARTCOINUSDT"])
def test_live_labels_equal_the_batch_on_real_bars(symbol: str) -> None:
    path = REAL / "bybit-linear" / symbol / "5m.parquet"
    if not path.exists():
        pytest.skip("recorded bars are not beside this repository")
    frame = pd.read_parquet(path).iloc[:4000]
    columns = [frame[name].to_numpy() for name in ("open", "high", "low", "close", "volume", "turnover")]
    table = BarTable(symbol, 300_000, frame["start"].to_numpy(), *columns)
    sigma = np.full(len(table), 0.004)
    found = live(table, sigma)
    assert found == rows(table, batch(table, sigma, HORIZON, K))
    assert len(found) > 1000
