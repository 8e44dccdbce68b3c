"""Real bars on the live path: in whatever order they come, their features are those of the batch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bot.core.events import BarClosed
from bot.core.types import MINUTE_MS
from bot.exchange.bybit import wire
from bot.exchange.bybit.translate import bars_from_klines
from bot.exchange.bybit.wire.public import Klines
from bot.market.bars import COLUMNS, BarTable
from bot.market.candles import Candles
from bot.market.sequencer import BarSequencer
from strategies.features.pipeline import FeatureBank, batch
from tests.test_features import random_table

DATA = Path(__file__).parents[2] / "shared" / "data"
INTERVALS = {"15m": 15 * MINUTE_MS, "5m": 5 * MINUTE_MS}
GROUP = 16  # symbols whose bars are in memory at once
SAMPLE = [
    ("binance-usdm", "15m", ("XPLUSDT", "FARTCOINUSDT", "ETHUSDT", "ASTERUSDT")),
    ("bybit-linear", "5m", ("WIFUSDT", "COAIUSDT", "BTCUSDT")),
]


def read(venue: str, symbol: str, interval: str, limit: int | None = None) -> BarTable:
    path = DATA / "klines" / venue / symbol / f"{interval}.parquet"
    if not path.exists():
        pytest.skip("recorded bars are not beside this repository")
    frame = pd.read_parquet(path).iloc[:limit]
    columns = [frame[name].to_numpy(np.float64) for name in COLUMNS]
    return BarTable(symbol, INTERVALS[interval], frame["start"].to_numpy(np.int64), *columns)


def funding_of(venue: str, table: BarTable) -> NDArray[np.float64]:
    """The rate in force at each bar's close, NaN before the first and where none was recorded."""
    path = DATA / "funding" / venue / f"{table.symbol}.parquet"
    if not path.exists():
        return np.full(len(table), np.nan)
    frame = pd.read_parquet(path)
    at = np.searchsorted(frame["ts"].to_numpy(), table.start + table.interval, side="right") - 1
    return np.where(at >= 0, frame["rate"].to_numpy()[at], np.nan)


def assert_live_equals_batch(
    tables: Sequence[BarTable], first: BarTable, second: BarTable, funding: Sequence[NDArray[np.float64]]
) -> int:
    """All tables in one bank, moment by moment, the symbols of a moment in random order; rows compared."""
    rng = np.random.default_rng(len(tables))
    bank = FeatureBank()
    moments: dict[int, list[tuple[BarClosed, float, int, int]]] = {}
    for number, (table, rates) in enumerate(zip(tables, funding, strict=True)):
        bank.add(table.symbol, int(table.start[0]))
        for row, (bar, rate) in enumerate(zip(table.events(), rates.tolist(), strict=True)):
            moments.setdefault(bar.start, []).append((bar, rate, number, row))
    expected = [
        batch(table, first, second, rates, int(table.start[0]))
        for table, rates in zip(tables, funding, strict=True)
    ]
    live = [np.empty_like(one.x) for one in expected]
    firsts, seconds = ({bar.start: bar for bar in table.events()} for table in (first, second))
    for start in sorted(moments):
        moment = [moments[start][k] for k in rng.permutation(len(moments[start]))]
        bars, rates, numbers, places = zip(*moment, strict=True)
        rows = bank.update_many(bars, firsts.get(start), seconds.get(start), rates, [None] * len(bars))
        for row, number, place in zip(rows, numbers, places, strict=True):
            live[number][place] = row.x
    for mine, other in zip(live, expected, strict=True):
        np.testing.assert_array_equal(mine, other.x)
    return sum(int(one.ready.sum()) for one in expected)


@pytest.mark.parametrize(("venue", "interval", "symbols"), SAMPLE)
def test_live_features_equal_the_batch_on_real_bars(
    venue: str, interval: str, symbols: tuple[str, ...]
) -> None:
    tables = [read(venue, symbol, interval, 2500) for symbol in symbols]
    references = [read(venue, symbol, interval) for symbol in ("BTCUSDT", "ETHUSDT")]
    ready = assert_live_equals_batch(tables, *references, [funding_of(venue, table) for table in tables])
    assert ready > 5_000


@pytest.mark.slow
@pytest.mark.parametrize("interval", INTERVALS)
def test_live_features_equal_the_batch_on_every_real_series(interval: str) -> None:
    found = sorted((DATA / "klines").glob(f"*/*/{interval}.parquet"))
    if not found:
        pytest.skip("recorded bars are not beside this repository")
    ready = 0
    for venue in sorted({path.parts[-3] for path in found}):
        symbols = [path.parts[-2] for path in found if path.parts[-3] == venue]
        first = read(venue, "BTCUSDT", interval)
        second = read(venue, "ETHUSDT" if "ETHUSDT" in symbols else "BTCUSDT", interval)
        for begin in range(0, len(symbols), GROUP):
            tables = [read(venue, symbol, interval) for symbol in symbols[begin : begin + GROUP]]
            ready += assert_live_equals_batch(
                tables, first, second, [funding_of(venue, table) for table in tables]
            )
    assert ready > 1_000_000


# --- from messages of the exchange to features --------------------------------------------------------------

STEP = 5 * MINUTE_MS
DECISION = 3 * STEP


def fine(symbol: str, seed: int, n: int) -> BarTable:
    table = random_table(symbol, seed, n)
    start = table.start[0] + np.arange(n, dtype=np.int64) * STEP
    return BarTable(symbol, STEP, start, *(getattr(table, name) for name in COLUMNS))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_bars_that_come_late_twice_or_by_repair_give_the_features_of_the_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = fine("NEWUSDT", seed, 3 * 260)
    every = list(table.events())
    order = np.argsort(np.arange(len(every)) + rng.integers(0, 12, len(every)), kind="stable")
    arrivals = [every[k] for k in order if rng.random() >= 0.05]
    arrivals = [bar for bar in arrivals for _ in range(1 + (rng.random() < 0.1))]
    sequencer, candles, bank = BarSequencer(STEP, ()), Candles("NEWUSDT", DECISION), FeatureBank()
    sequencer.follow("NEWUSDT", every[0].start)
    bank.add("NEWUSDT", 0)
    rows = []

    def use(offered: BarClosed) -> None:
        sequencer.offer(offered)
        for bar in sequencer.ready():
            whole = candles.update(bar)
            if whole is not None:
                rows.append(bank.update(whole, None, None).x)

    now = every[0].ts
    for bar in [*arrivals, every[-1]]:
        use(bar)
        now = max(now, bar.ts)
        if rng.random() < 0.2 or bar is every[-1]:
            while lacking := sequencer.lacking(now):
                for missing in every:
                    if lacking[0][1] <= missing.start < lacking[0][2]:
                        use(missing)
    expected = batch(table.resampled(DECISION), *(table.rows(slice(0, 0)),) * 2)
    np.testing.assert_array_equal(np.stack(rows), expected.x)
    assert expected.ready.any()


def push(bar: BarClosed, *, confirm: bool, factor: float = 1.0) -> bytes:
    values = {name: repr(getattr(bar, name) * factor) for name in COLUMNS}
    candle: dict[str, Any] = {"start": bar.start, "end": bar.ts - 1, "interval": "15", "confirm": confirm}
    topic = f"kline.15.{bar.symbol}"
    return json.dumps(
        {"topic": topic, "type": "snapshot", "ts": bar.ts, "data": [{**candle, **values}]}
    ).encode()


def test_open_candles_never_reach_a_feature() -> None:
    table = random_table("NEWUSDT", 3, 250)
    sequencer, bank = BarSequencer(table.interval, ()), FeatureBank()
    sequencer.follow("NEWUSDT", int(table.start[0]))
    bank.add("NEWUSDT", 0)
    rows = []
    for bar in table.events():
        poisoned = [push(bar, confirm=False, factor=factor) for factor in (0.1, 10.0, 1000.0)]
        for frame in [*poisoned, push(bar, confirm=True), poisoned[0]]:
            message = wire.decode(frame)
            assert isinstance(message, Klines)
            for closed in bars_from_klines(message, bar.ts):
                sequencer.offer(closed)
            rows += [bank.update(one, None, None).x for one in sequencer.ready()]
    none = table.rows(slice(0, 0))
    np.testing.assert_array_equal(np.stack(rows), batch(table, none, none).x)
