"""What a data directory holds: every file of bars and funding rates, read and checked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.types import HOUR_MS
from bot.storage import barfiles

FUNDING_FOLDER: Final = "funding"
_LONGEST_FUNDING: Final = 8 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Finding:
    """One file. `first` and `last` are the times of its rows (ms UTC); `fault` is "" for a good file."""

    path: Path
    rows: int = 0
    first: int = 0
    last: int = 0
    gaps: int = 0
    missing: int = 0  # bars that the gaps leave out
    longest_gap: int = 0  # ms
    fault: str = ""


def survey(directory: Path) -> Iterator[Finding]:
    """Every Parquet file, by path. Raises DataError when there is none.

    Bars lie in a folder for each symbol; funding rates in `funding/`, or directly in the directory when it
    is itself one of funding rates.
    """
    paths = sorted([*directory.glob("*.parquet"), *directory.glob("*/*.parquet")])
    if not paths:
        raise DataError(f"{directory}: no <SYMBOL>/<interval>.parquet and no funding/<SYMBOL>.parquet there")
    for path in paths:
        is_funding = path.parent in (directory, directory / FUNDING_FOLDER)
        yield _checked(path, _funding if is_funding else _bars)


def _checked(path: Path, look: Callable[[Path], Finding]) -> Finding:
    try:
        return look(path)
    except DataError as error:
        return Finding(path, fault=str(error))


def _bars(path: Path) -> Finding:
    table = barfiles.read(path)
    holes = np.diff(table.start)
    holes = holes[holes > table.interval]
    missing = int((holes // table.interval - 1).sum())
    return _finding(path, table.start, holes - table.interval, missing)


def _funding(path: Path) -> Finding:
    times = barfiles.read_funding(path).ts
    steps = np.diff(times)
    return _finding(path, times, steps[steps > _LONGEST_FUNDING], 0)


def _finding(path: Path, times: NDArray[np.int64], holes: NDArray[np.int64], missing: int) -> Finding:
    longest = int(holes.max()) if len(holes) else 0
    return Finding(path, len(times), int(times[0]), int(times[-1]), len(holes), missing, longest)
