"""Bar and funding files: what is read back is what was written, and nothing doubtful gets in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import DataError, RuntimeFault
from bot.core.types import HOUR_MS, MINUTE_MS
from bot.market.bars import COLUMNS, BarTable
from bot.storage import barfiles

START = 1_735_689_600_000  # 2025-01-01 00:00 UTC
STEP = 15 * MINUTE_MS
RECORDED = Path(__file__).parents[2] / "shared" / "data"


def bars(count: int = 5, symbol: str = "ABCUSDT", interval: int = STEP) -> BarTable:
    opened = 100.0 + np.arange(count)
    return BarTable(
        symbol, interval, START + np.arange(count) * interval, opened, opened + 2, opened - 1, opened + 1,
        np.full(count, 10.0), np.full(count, np.nan),
    )  # fmt: skip


def write_columns(path: Path, **changes: Any) -> Path:
    """A valid 15m file with some columns changed, or left out when None; rules are not checked."""
    table = bars()
    columns = {"start": table.start, **{name: getattr(table, name) for name in COLUMNS}, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: values for name, values in columns.items() if values is not None}), path)
    return path


def spoiled(name: str, row: int, value: float) -> dict[str, Any]:
    values = getattr(bars(), name).copy()
    values[row] = value
    return {name: values}


def assert_equal(one: BarTable, other: BarTable) -> None:
    assert (one.symbol, one.interval) == (other.symbol, other.interval)
    for name in ("start", *COLUMNS):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            *[st.floats(1e-9, 1e9)] * 4,
            st.floats(0, 1e12),
            st.one_of(st.just(float("nan")), st.floats(0, 1e12)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_valid_bars_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    steps, *prices, volume, turnover = (np.array(column) for column in zip(*rows, strict=True))
    opened, close = prices[0], prices[1]
    table = BarTable(
        "ABCUSDT", STEP, START + np.cumsum(steps) * STEP,
        opened, np.maximum.reduce(prices), np.minimum.reduce(prices), close, volume, turnover,
    )  # fmt: skip
    path = barfiles.write(tmp_path_factory.mktemp("bars"), table)
    assert_equal(barfiles.read(path), table)
    assert barfiles.missing_bars(table) == steps[1:].sum() - (len(steps) - 1)
    assert barfiles.extent(path) == (len(table), table.start[0], table.start[-1])


def test_an_absent_turnover_column_and_null_turnover_read_as_unknown(tmp_path: Path) -> None:
    absent = barfiles.read(write_columns(tmp_path / "A" / "15m.parquet", turnover=None))
    assert np.isnan(absent.turnover).all()
    null = pa.array([1.0, None, 3.0, 4.0, 5.0], pa.float64())
    assert np.isnan(barfiles.read(write_columns(tmp_path / "B" / "15m.parquet", turnover=null)).turnover[1])


BROKEN_RULES = {
    "start must be unique": {"start": bars().start - np.array([0, 0, STEP, STEP, STEP])},
    "rows must be sorted by start": {"start": bars().start[[0, 1, 3, 2, 4]]},
    "start must be a multiple of 900000 ms": {"start": bars().start + np.array([0, 0, 60_000, 0, 0])},
    "start must lie between 2009 and 2100": {"start": bars().start // 1000},
    "open must be finite and above zero": spoiled("open", 2, 0.0),
    "high must be finite and above zero": spoiled("high", 2, np.inf),
    "low must be finite and above zero": spoiled("low", 2, -1.0),
    "close must be finite and above zero": spoiled("close", 2, np.nan),
    "volume must be finite and not negative": spoiled("volume", 2, -0.5),
    "turnover must be finite and not negative": spoiled("turnover", 2, np.inf),
    "high is below max(open, close)": spoiled("high", 2, 102.5),
    "low is above min(open, close)": spoiled("low", 2, 102.5),
}


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_a_broken_rule_names_the_file_the_rule_and_the_first_row(tmp_path: Path, rule: str) -> None:
    path = write_columns(tmp_path / "ABCUSDT" / "15m.parquet", **BROKEN_RULES[rule])
    with pytest.raises(DataError) as caught:
        barfiles.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert rule in message
    row = 0 if "2009" in rule else 3 if "sorted" in rule else 2
    assert f"row {row} from 0" in message
    if "2009" not in rule and "start" not in rule:
        assert "2025-01-01 00:30" in message


def test_the_number_of_further_offending_rows_is_told(tmp_path: Path) -> None:
    path = write_columns(tmp_path / "A" / "15m.parquet", volume=np.full(5, np.nan))
    with pytest.raises(DataError, match=r"row 0 from 0, .* \(and 4 more\)"):
        barfiles.read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"close": None, "low": None}, r"column\(s\) low, close missing"),
        ({"start": bars().start.astype(float)}, "column start is double, not int64"),
        ({"close": np.arange(1, 6)}, r"column close is int64, not double; .*astype\('float64'\)"),
        ({"start": pa.array([START, None, 3, 4, 5], pa.int64())}, r"start has no value in row 1"),
        ({"low": pa.array([1.0, 1.0, None, 1.0, 1.0])}, r"low has no value in row 2"),
    ],
)
def test_missing_columns_wrong_types_and_nulls_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        barfiles.read(write_columns(tmp_path / "A" / "15m.parquet", **changes))


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    path = write_columns(
        tmp_path / "A" / "15m.parquet",
        **{name: getattr(bars(0), name) for name in ("start", *COLUMNS)},
    )
    with pytest.raises(DataError, match="no rows"):
        barfiles.read(path)


@pytest.mark.parametrize("content", [b"", b"start,open\n1,2\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "15m.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        barfiles.read(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = barfiles.write(tmp_path, bars(1000))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        barfiles.read(path)


def test_a_missing_file_lists_the_intervals_that_exist(tmp_path: Path) -> None:
    barfiles.write(tmp_path, bars(interval=HOUR_MS))
    barfiles.write(tmp_path, bars(interval=MINUTE_MS))
    with pytest.raises(DataError, match="no such file; there are 1m, 1h"):
        barfiles.read(tmp_path / "ABCUSDT" / "15m.parquet")


def test_a_file_named_after_no_interval_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1m, 3m, 5m, 15m, 30m, 1h"):
        barfiles.read(tmp_path / "ABCUSDT" / "1d.parquet")


def test_find_takes_the_coarsest_interval_that_divides_the_decision_interval(tmp_path: Path) -> None:
    for minutes in (1, 5, 30):
        barfiles.write(tmp_path, bars(interval=minutes * MINUTE_MS))
    assert barfiles.find(tmp_path, "ABCUSDT", 15 * MINUTE_MS).name == "5m.parquet"
    assert barfiles.find(tmp_path, "ABCUSDT", HOUR_MS).name == "30m.parquet"


def test_find_tells_what_there_is_when_nothing_fits(tmp_path: Path) -> None:
    barfiles.write(tmp_path, bars(interval=HOUR_MS))
    with pytest.raises(DataError, match="decision bars of 15 minutes; there are 1h"):
        barfiles.find(tmp_path, "ABCUSDT", STEP)
    with pytest.raises(DataError, match="has bars of ABCUSDT"):
        barfiles.find(tmp_path, "XYZUSDT", STEP)
    with pytest.raises(DataError, match="is not a directory"):
        barfiles.find(tmp_path / "nowhere", "XYZUSDT", STEP)


def test_broken_bars_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="high is below"):
        barfiles.write(tmp_path, replace(bars(), high=bars().low))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_directory_is_a_fault_of_the_world(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeFault, match=r"cannot be written \(Not a directory\); free space or choose"):
        barfiles.write(tmp_path / "file", bars())


def test_the_rate_before_a_moment_is_not_the_one_that_is_settled_then() -> None:
    table = barfiles.FundingTable("A", np.array([100, 200]), np.array([1e-4, 2e-4]))
    np.testing.assert_array_equal(
        table.before(np.array([99, 100, 101, 200, 201])), [np.nan, np.nan, 1e-4, 1e-4, 2e-4]
    )


def write_funding(path: Path, ts: Any, rate: Any) -> Path:
    pq.write_table(pa.table({"ts": ts, "rate": rate}), path)
    return path


def test_funding_rates_come_back(tmp_path: Path) -> None:
    ts = START + 8 * HOUR_MS * np.arange(3)
    table = barfiles.read_funding(write_funding(tmp_path / "A.parquet", ts, np.array([1e-4, -2e-4, 0.0])))
    assert table.symbol == "A"
    assert table.ts.tolist() == ts.tolist()
    assert table.rate.tolist() == [1e-4, -2e-4, 0.0]


@pytest.mark.parametrize(
    ("ts", "rate", "message"),
    [
        ([START, START], [0.0, 0.0], "ts must be unique"),
        ([START, START - 1], [0.0, 0.0], "sorted by ts"),
        ([START // 1000, START], [0.0, 0.0], "ts must lie between 2009 and 2100"),
        ([START], [float("nan")], "rate must be a fraction"),
        ([START], [1.5], "rate must be a fraction"),
        ([float(START)], [0.0], "column ts is double"),
    ],
)
def test_doubtful_funding_rates_are_refused(tmp_path: Path, ts: Any, rate: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        barfiles.read_funding(write_funding(tmp_path / "A.parquet", ts, rate))


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded market data in {RECORDED}")
def test_every_recorded_file_is_accepted() -> None:
    paths = [path for path in RECORDED.glob("klines/*/*/*.parquet") if path.stem in barfiles.INTERVALS]
    tables = [barfiles.read(path) for path in paths]
    assert sum(len(table) for table in tables) > 1_000_000
    for path in RECORDED.glob("funding/*/*.parquet"):
        assert len(barfiles.read_funding(path))
