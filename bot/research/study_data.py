"""What a study reads: bars become labelled feature rows once, and every job loads the rows that it needs.

A label here is the sign of the return from the next bar's open to the close `horizon` bars later, without
barriers. Features are those of the live path. Their source statistics come from bars before the study.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError, UsageError
from bot.core.types import DAY_MS
from bot.exchange.recorded import Recording, discover
from bot.market.bars import BarTable
from bot.settings import Model
from bot.storage import barfiles
from strategies import labels
from strategies.features import pipeline
from strategies.features.normaliser import SourceStatistics
from strategies.learning.dataset import LabelledSeries
from strategies.learning.files import write_atomically

NO_BARRIER: Final = 1e6  # barriers that many sigmas away are never touched
DEFAULT_HISTORY: Final = 0.6  # share of the sources' history that comes before the study
POOL_DAYS: Final = 180  # of an earlier listing: older, it is no new token any more
_ARRAYS: Final = ("starts", "x", "y", "weight", "log_vol", "t_known")


@dataclass(frozen=True, slots=True)
class Study:
    """What is studied; every result is a function of this and of the files.

    tokens: evaluated; listings: every token with its first decision bar (ms), in that order: what a
    pooled model may learn from, once known. since, until: ms, first bars of the tokens lie in [since, until).
    foundation: "name=place" of a pretrained forecaster, or empty.
    days: first and last day after the first bar that are evaluated, both included. interval: ms of a bar.
    """

    data: Path
    funding: Path | None
    output: Path
    sources: tuple[str, ...]
    tokens: tuple[str, ...]
    listings: tuple[tuple[str, int], ...]
    since: int
    until: int
    days: tuple[int, int]
    horizon: int
    interval: int
    seed: int
    taker_fee: float
    model: Model
    foundation: str = ""

    @property
    def embargo(self) -> int:
        """ms before a cut in which labels that have just matured are left out."""
        return self.horizon * self.interval // 4


def plan(
    data: Path,
    output: Path,
    sources: tuple[str, ...],
    *,
    funding: Path | None = None,
    tokens: tuple[str, ...] | None = None,
    since: int | None = None,
    until: int | None = None,
    days: tuple[int, int] = (3, 60),
    horizon: int = 16,
    interval: int = 15 * 60_000,
    seed: int = 1,
    taker_fee: float = 0.00055,
    model: Model | None = None,
    foundation: str = "",
) -> Study:
    """Choose the tokens: those with their first bar inside the range. Raises UsageError when none is left."""
    found = discover(data, sources, interval)
    spans = [barfiles.extent(barfiles.find(data, name, interval)) for name in sources]
    begin, end = max(first for _, first, _ in spans), min(last for _, _, last in spans)
    by_default = since is None
    if since is None:
        since = int(begin + DEFAULT_HISTORY * (end - begin)) // DAY_MS * DAY_MS
    until = end if until is None else until
    if since <= begin:
        raise UsageError("--since must lie after the first bars of the sources: a model learns from them")
    firsts = {one.symbol: first for one in found if (first := _first_bar(data, one, interval)) is not None}
    if refused := sorted(set(tokens or ()) - set(firsts)):
        raise UsageError(_why_not(data, refused[0], sources))
    inside = [
        one.symbol
        for one in found
        if since <= firsts.get(one.symbol, until) < until
        and (tokens is None or one.symbol in tokens)
        and one.last - one.first >= days[0] * DAY_MS
    ]
    if not inside:
        day = datetime.fromtimestamp(since / 1000, UTC).strftime("%Y-%m-%d")
        default = f"the default, after {DEFAULT_HISTORY:.0%} of the sources' history"
        raise UsageError(
            f"no token of {data} has its first bar from {day} on ({default if by_default else '--since'}) "
            f"and {days[0]} days of bars; choose an earlier --since"
        )
    listings = tuple(sorted(firsts.items(), key=lambda one: (one[1], one[0])))
    return Study(
        data, funding, output, sources, tuple(inside), listings, since, until, days, horizon, interval, seed,
        taker_fee, model or Model(), foundation,
    )  # fmt: skip


def _first_bar(data: Path, one: Recording, interval: int) -> int | None:
    """ms, open of the first decision bar, which days and cuts count from; None without a whole one."""
    if barfiles.INTERVALS[one.interval] == interval:
        return one.first
    whole = _decision_bars(data, one.symbol, interval).start
    return int(whole[0]) if len(whole) else None


def _why_not(data: Path, name: str, sources: tuple[str, ...]) -> str:
    if name in sources:
        return f"{name} is a source (market.sources), which no study judges; choose tokens"
    there = barfiles.intervals(data / name)
    if not there:
        return f"{name}: no bars in {data}"
    return f"{name}: its bars ({', '.join(there)}) make up no decision bar; choose another --interval"


def left_out(study: Study, wanted: tuple[str, ...]) -> list[str]:
    """Notes on the symbols that are not judged: those without decision bars, and others of `wanted`."""
    known = {*study.sources, *(symbol for symbol, _ in study.listings)}
    others = sorted({folder.name for folder in study.data.iterdir() if barfiles.intervals(folder)} - known)
    return [
        *(_why_not(study.data, name, study.sources) for name in others),
        *(
            f"{name}: its first bar is not in the range, or it has fewer than {study.days[0]} days of bars"
            for name in wanted
            if name not in study.tokens
        ),
    ]


def fingerprints(study: Study) -> dict[str, str]:
    """SHA-256 of each file that the study reads, by its name below the folder of bars or of funding rates."""
    symbols = (*study.sources, *(symbol for symbol, _ in study.listings))
    bars = [barfiles.find(study.data, name, study.interval) for name in symbols]
    read = {str(path.relative_to(study.data)): path for path in bars}
    if study.funding is not None:
        rates = [study.funding / f"{name}.parquet" for name in symbols]
        read |= {f"funding {path.name}": path for path in rates if path.exists()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in read.items()}


def cuts(study: Study) -> list[int]:
    """When the pooled models are fitted: at `since`, then at the first moment of every month."""
    last = study.until + (study.days[1] + 1) * DAY_MS
    moments, at = [study.since], datetime.fromtimestamp(study.since / 1000, UTC)
    while True:
        at = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
        if (moment := int(at.timestamp() * 1000)) >= last:
            return moments
        moments.append(moment)


def cut_before(study: Study, time: int) -> int:
    """The newest cut at or before `time`."""
    return max(cut for cut in cuts(study) if cut <= time)


@dataclass(frozen=True, slots=True)
class Market:
    """One symbol. series: its ready rows with all features; ret: float64 (n,) entry-to-exit return of each
    row's label, NaN without one; first: ms, its first bar; until: int64 (n,) start of the last bar that the
    row's normalisation has seen."""

    series: LabelledSeries
    ret: NDArray[np.float64]
    first: int
    until: NDArray[np.int64]

    def save(self, path: Path) -> None:
        arrays = {name: getattr(self.series, name) for name in _ARRAYS}
        buffer = BytesIO()
        np.savez(
            buffer,
            allow_pickle=False,
            header=np.array([self.series.step, self.first]),
            ret=self.ret,
            until=self.until,
            **arrays,
        )
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, study: Study, symbol: str) -> Self:
        """Raises DataError when `prepare` did not leave its rows."""
        path = _path(study, symbol)
        try:
            with np.load(path, allow_pickle=False) as file:
                step, first = (int(value) for value in file["header"])
                series = LabelledSeries(symbol, step, **{name: file[name] for name in _ARRAYS})
                return cls(series, file["ret"], first, file["until"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: not readable ({error}); delete it and start the study again") from None

    def pooled(self) -> LabelledSeries:
        """The rows of its first POOL_DAYS days."""
        end = int(np.searchsorted(self.series.starts, self.first + POOL_DAYS * DAY_MS))
        return self.series.rows(slice(0, end))

    def evaluated(self, study: Study) -> NDArray[np.bool_]:
        """(n,) rows of the evaluated days."""
        day = (self.series.starts - self.first) // DAY_MS
        return (day >= study.days[0]) & (day <= study.days[1])


def is_prepared(study: Study, symbol: str) -> bool:
    return _path(study, symbol).exists()


def prepare(study: Study, symbol: str) -> None:
    """Compute the symbol's rows."""
    references = _references(study.data, study.sources, study.interval)
    if symbol in study.sources:
        number = study.sources.index(symbol)
        table, others = references[number], _others(references, number)
    else:
        table, others = bars_of(study, symbol), (references[0], references[min(1, len(references) - 1)])
    _market(study, table, *others, source_statistics(study)).save(_path(study, symbol))


def _market(
    study: Study, table: BarTable, first: BarTable, second: BarTable, statistics: SourceStatistics
) -> Market:
    launch = 0 if table.symbol in study.sources else int(table.start[0])
    features = pipeline.batch(
        table, first, second, _funding(study, table), launch_time=launch, prior=statistics
    )
    outcomes = labels.batch(table, features.sigma, study.horizon, NO_BARRIER)
    ready = features.ready
    series = LabelledSeries(
        symbol=table.symbol,
        step=table.interval,
        starts=features.starts[ready],
        x=features.x[ready],
        y=outcomes.outcome[ready],
        weight=np.nan_to_num(outcomes.weight[ready]).astype(np.float32),
        log_vol=outcomes.log_vol[ready].astype(np.float32),
        t_known=outcomes.t_known[ready],
    )
    return Market(series, outcomes.ret[ready], int(table.start[0]), features.until[ready])


def source_statistics(study: Study) -> SourceStatistics:
    """Location and scale of the sources' raw features before the study."""
    return _statistics(study.data, study.sources, study.interval, study.since)


@cache
def _statistics(data: Path, sources: tuple[str, ...], interval: int, since: int) -> SourceStatistics:
    references = _references(data, sources, interval)
    raw = []
    for number, table in enumerate(references):
        before = table.between(int(table.start[0]), since)
        raw.append(pipeline.raw_batch(before, *_others(references, number)))
    return pipeline.fit_source_statistics(raw)


@cache
def _references(data: Path, sources: tuple[str, ...], interval: int) -> tuple[BarTable, ...]:
    """The sources' decision bars, read once in each process: every symbol's rows refer to them."""
    return tuple(_decision_bars(data, name, interval) for name in sources)


def _others(references: Sequence[BarTable], number: int) -> tuple[BarTable, BarTable]:
    """The first two other sources; a market never refers to itself, unless it is alone."""
    others = [table for index, table in enumerate(references) if index != number] or references
    return others[0], others[min(1, len(others) - 1)]


def bars_of(study: Study, symbol: str) -> BarTable:
    """The symbol's decision bars."""
    return _decision_bars(study.data, symbol, study.interval)


def _decision_bars(data: Path, symbol: str, interval: int) -> BarTable:
    return barfiles.read(barfiles.find(data, symbol, interval)).resampled(interval)


def _funding(study: Study, table: BarTable) -> NDArray[np.float64] | None:
    """The rate known at each bar's close; None where there is no file."""
    path = None if study.funding is None else study.funding / f"{table.symbol}.parquet"
    if path is None or not path.exists():
        return None
    return barfiles.read_funding(path).before(table.start + table.interval)


def _path(study: Study, symbol: str) -> Path:
    return study.output / "rows" / f"{symbol}.npz"
