"""Bars and funding rates in Parquet files.

    <DIR>/<SYMBOL>/<interval>.parquet      interval: 1m 3m 5m 15m 30m 1h

| column                 | type   | meaning                                                          |
|------------------------|--------|------------------------------------------------------------------|
| start                  | int64  | open time of the bar, ms UTC, a multiple of the interval         |
| open, high, low, close | double | prices in quote coin, above zero                                 |
| volume                 | double | base coin, zero or more                                          |
| turnover               | double | quote coin, NaN where unknown; the column may be absent          |

Rows are sorted by `start`, each closed bar once. A missing bar is a gap: allowed, counted, never filled.

    <FUNDING DIR>/<SYMBOL>.parquet         ts (int64, ms UTC, settlement time), rate (double)

A file that breaks a rule is refused as a whole, with the first offending row: a bar that was "repaired" on
the way in cannot be told from a real one afterwards.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bot.core.errors import DataError, RuntimeFault
from bot.core.types import HOUR_MS, MINUTE_MS
from bot.market.bars import COLUMNS, BarTable

INTERVALS: Final = {
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
}
_NAMES = {interval: name for name, interval in INTERVALS.items()}
_FIRST_TIME = 1_230_768_000_000  # 2009-01-01, before any of these markets; earlier times are not milliseconds
_LAST_TIME = 4_102_444_800_000  # 2100-01-01
_TIME_LIMITS = "times are milliseconds since 1970, UTC (not seconds, microseconds or nanoseconds)"
_CLOSED_GAP = "remove the row (a gap is allowed) or download it again"


@dataclass(frozen=True, slots=True)
class FundingTable:
    """Settled funding rates, oldest first. ts: int64 (n,) ms UTC; rate: float64 (n,), share of notional."""

    symbol: str
    ts: NDArray[np.int64]
    rate: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ts)

    def before(self, moments: NDArray[np.int64]) -> NDArray[np.float64]:
        """The newest rate that was settled before each moment (ms), NaN before the first.

        Not at the moment itself: the exchange publishes a rate seconds after its settlement.
        """
        return np.concatenate(([np.nan], self.rate))[np.searchsorted(self.ts, moments, side="left")]


def read(path: Path) -> BarTable:
    """Every bar of one file; symbol and interval come from its path. Raises DataError."""
    interval = INTERVALS.get(path.stem)
    if interval is None:
        raise DataError(f"{path}: a bar file is named after its interval: {', '.join(INTERVALS)}")
    if not path.exists():
        raise DataError(f"{path}: no such file; {_what_is_there(path.parent)}")
    columns = _columns(
        path, {"start": pa.int64(), **dict.fromkeys(COLUMNS, pa.float64())}, optional="turnover"
    )
    table = BarTable(path.parent.name, interval, columns.pop("start"), **columns)
    check(table, path)
    return table


def write(directory: Path, table: BarTable) -> Path:
    """Write `<directory>/<symbol>/<interval>.parquet` whole or not at all; returns its path.

    Raises DataError when the bars break a rule of the format, RuntimeFault when the disk does not take them.
    """
    path = path_of(directory, table.symbol, table.interval)
    check(table, path)
    _write(path, {"start": table.start, **{name: getattr(table, name) for name in COLUMNS}})
    return path


def path_of(directory: Path, symbol: str, interval: int) -> Path:
    """Where the bars of a symbol are kept. Raises DataError for an interval that has no file name."""
    if interval not in _NAMES:
        raise DataError(f"{symbol}: no file name for bars of {interval} ms; use {', '.join(INTERVALS)}")
    return directory / symbol / f"{_NAMES[interval]}.parquet"


def find(directory: Path, symbol: str, decision_interval_ms: int) -> Path:
    """The coarsest file of `symbol` whose interval divides the decision interval; DataError if none does."""
    folder = directory / symbol
    usable = [name for name in intervals(folder) if decision_interval_ms % INTERVALS[name] == 0]
    if not usable:
        raise DataError(
            f"{folder}: no bars that make up decision bars of {decision_interval_ms // MINUTE_MS} minutes; "
            f"{_what_is_there(folder)}"
        )
    return folder / f"{usable[-1]}.parquet"


def intervals(folder: Path) -> list[str]:
    """Names of the intervals that a symbol's folder holds, finest first."""
    return [name for name in INTERVALS if (folder / f"{name}.parquet").is_file()]


def extent(path: Path) -> tuple[int, int, int]:
    """Rows of a bar file, first and last `start` (ms), without reading the rest and without checking it."""
    columns = _columns(path, {"start": pa.int64()})
    starts = columns["start"]
    return (len(starts), int(starts[0]), int(starts[-1])) if len(starts) else (0, 0, 0)


def missing_bars(table: BarTable) -> int:
    """Bars that the gaps of a table leave out."""
    return int((table.start[-1] - table.start[0]) // table.interval) + 1 - len(table) if len(table) else 0


def read_funding(path: Path) -> FundingTable:
    """Every funding rate of `<SYMBOL>.parquet`, as strict as `read`."""
    if not path.exists():
        raise DataError(
            f"{path}: no such file; funding rates are optional: leave the directory out to do without"
        )
    columns = _columns(path, {"ts": pa.int64(), "rate": pa.float64()})
    table = FundingTable(path.stem, columns["ts"], columns["rate"])
    check_funding(table, path)
    return table


def write_funding(directory: Path, table: FundingTable) -> Path:
    """Write `<directory>/<symbol>.parquet` whole or not at all; raises as `write` does."""
    path = directory / f"{table.symbol}.parquet"
    check_funding(table, path)
    _write(path, {"ts": table.ts, "rate": table.rate})
    return path


def check_funding(table: FundingTable, path: Path) -> None:
    """As `check`, for funding rates."""
    rules = _Rules(path, {"ts": table.ts, "rate": table.rate}, "ts")
    rules.require_times(table.ts)
    rules.require(
        np.abs(table.rate) < 1, "rate must be a fraction between -1 and 1", "0.01 % is written 0.0001"
    )


def check(table: BarTable, path: Path) -> None:
    """Raises DataError that names `path`, the first rule that is broken and the first row that does it."""
    columns = {"start": table.start, **{name: getattr(table, name) for name in COLUMNS}}
    rules = _Rules(path, columns, "start")
    rules.require_times(table.start)
    rules.require(
        table.start % table.interval == 0,
        f"start must be a multiple of {table.interval} ms ({path.stem})",
        "start is the bar's open time in UTC; another interval belongs into a file of that name",
    )
    for name in ("open", "high", "low", "close"):
        price = columns[name]
        rules.require((price > 0) & (price < np.inf), f"{name} must be finite and above zero", _CLOSED_GAP)
    volume, turnover = table.volume, table.turnover
    rules.require((volume >= 0) & (volume < np.inf), "volume must be finite and not negative", _CLOSED_GAP)
    rules.require(
        np.isnan(turnover) | ((turnover >= 0) & (turnover < np.inf)),
        "turnover must be finite and not negative, or NaN",
        "write NaN where it is unknown",
    )
    rules.require(
        table.high >= np.maximum(table.open, table.close), "high is below max(open, close)", _CLOSED_GAP
    )
    rules.require(
        table.low <= np.minimum(table.open, table.close), "low is above min(open, close)", _CLOSED_GAP
    )


class _Rules:
    """States a rule about all rows of a file and reports the first row that breaks it."""

    def __init__(self, path: Path, columns: dict[str, NDArray[Any]], time: str) -> None:
        self._path, self._columns, self._time = path, columns, time
        if not len(columns[time]):
            raise DataError(f"{path}: the file has no rows; remove it or download the data again")

    def require(self, holds: NDArray[np.bool_], rule: str, advice: str) -> None:
        if holds.all():
            return
        row = int(np.argmin(holds))
        more = len(holds) - int(holds.sum()) - 1
        values = ", ".join(f"{name}={column[row]!s}" for name, column in self._columns.items())
        time = str(np.datetime64(int(self._columns[self._time][row]), "ms")).replace("T", " ")
        others = f" (and {more} more)" if more else ""
        raise DataError(f"{self._path}: {rule}\n  row {row} from 0, {time} UTC{others}: {values}\n  {advice}")

    def require_times(self, times: NDArray[np.int64]) -> None:
        name = self._time
        plausible = (times >= _FIRST_TIME) & (times < _LAST_TIME)
        self.require(plausible, f"{name} must lie between 2009 and 2100", _TIME_LIMITS)
        later = np.diff(times, prepend=times[:1] - 1)
        self.require(later >= 0, f"rows must be sorted by {name}", f"sort the file by {name}")
        self.require(
            later > 0, f"{name} must be unique", "keep one row of each; check that both downloads agree"
        )


def _write(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), unfinished)
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise RuntimeFault(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another directory"
        ) from None


def _columns(path: Path, types: dict[str, pa.DataType], optional: str = "") -> dict[str, NDArray[Any]]:
    """The named columns of a Parquet file as arrays; the optional one is NaN where it is absent or null."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            present = [name for name in types if schema.names.count(name) == 1]
            missing = [name for name in types if name not in present and name != optional]
            if missing:
                raise DataError(
                    f"{path}: column(s) {', '.join(missing)} missing or there twice; "
                    f"the file has {', '.join(schema.names) or 'none'}; rename or add them"
                )
            for name in present:
                _check_type(path, schema.field(name), types[name])
            table = file.read(columns=present)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: not a readable Parquet file ({reason}); delete it and download or write it again"
        ) from None
    for name in present:
        if name != optional and table.column(name).null_count:
            row = table.column(name).to_pylist().index(None)
            raise DataError(f"{path}: {name} has no value in row {row} (from 0); {_CLOSED_GAP}")
    columns = {name: table.column(name).to_numpy() for name in present}
    if optional and optional not in columns:
        columns[optional] = np.full(table.num_rows, np.nan)
    return columns


def _check_type(path: Path, field: pa.Field, expected: pa.DataType) -> None:
    if field.type != expected:
        name = "float64" if expected == pa.float64() else str(expected)
        how = f".astype('{name}')"
        if pa.types.is_timestamp(field.type):  # whose numbers may count seconds, micro- or nanoseconds
            how = ".astype('datetime64[ms, UTC]').astype('int64')"
        raise DataError(
            f"{path}: column {field.name} is {field.type}, not {expected}; convert it, e.g. {how}"
        )


def _what_is_there(folder: Path) -> str:
    """What a person who asked for a missing file could have instead."""
    if names := intervals(folder):
        return f"there are {', '.join(names)}"
    if folder.is_dir():
        return f"bar files are named {', '.join(f'{name}.parquet' for name in INTERVALS)}"
    if not folder.parent.is_dir():
        return f"{folder.parent} is not a directory"
    symbols = sorted(entry.name for entry in folder.parent.iterdir() if intervals(entry))
    if not symbols:
        return f"{folder.parent} holds no <SYMBOL>/<interval>.parquet"
    return f"{folder.parent} has bars of {', '.join(symbols[:8])}" + (", …" if len(symbols) > 8 else "")
