"""A market from bar files (format: `bot.storage.barfiles`): tokens list themselves with their first bar.

    <DIR>/<SYMBOL>/<interval>.parquet   the coarsest interval that divides the decision interval is used
    <DIR>/instruments.json              optional filters (`bot.exchange.recorded_instruments`)
    <FUNDING DIR>/<SYMBOL>.parquet      optional funding rates

A token that was recorded before the run begins lists itself with its first bar inside the run. One whose
bars end before the run does, or whose `days_per_token` are over, is delisted at the close of its last bar:
`InstrumentDelisted` then means "the recorded window ends", so that nobody holds what has no price. Sources
are not listed; their bars and funding begin `warmup_days` before the run, and the run ends with the first
source that ends.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError, UsageError
from bot.core.events import BarClosed, Event, FundingRatePublished, InstrumentDelisted, InstrumentListed
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS, Instrument
from bot.exchange import recorded_instruments
from bot.market.bars import COLUMNS, BarTable
from bot.settings import Costs
from bot.storage import barfiles

SPREAD_RANGE_SHARE: Final = 0.05  # of the previous bar's range: spreads widen with volatility
MAX_HALF_SPREAD: Final = 0.1
_CHUNK_MS = 7 * DAY_MS
_LISTING, _BAR, _FUNDING, _DELISTING = range(4)  # order at equal times; a rate is published after its bar
_Scheduled = tuple[int, int, int, Event]  # ts, kind, rank of the symbol


class Recording(NamedTuple):
    """What a directory holds of one symbol; times are bar opens, ms UTC."""

    symbol: str
    interval: str
    rows: int
    first: int
    last: int


def discover(
    directory: Path, sources: Sequence[str] = (), decision_interval_ms: int = 15 * MINUTE_MS
) -> list[Recording]:
    """The tokens that a run over `directory` could trade, by their first bar. Raises DataError."""
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory of bar files")
    found = []
    for folder in sorted(directory.iterdir()):
        names = barfiles.intervals(folder)
        if folder.name not in sources and any(
            decision_interval_ms % barfiles.INTERVALS[name] == 0 for name in names
        ):
            path = barfiles.find(directory, folder.name, decision_interval_ms)
            found.append(Recording(folder.name, path.stem, *barfiles.extent(path)))
    return sorted(found, key=lambda recording: (recording.first, recording.symbol))


class RecordedMarket:
    """Satisfies `bot.exchange.market.HistoricalMarket`."""

    simulated = False

    def __init__(
        self,
        directory: Path,
        sources: Sequence[str],
        tokens: Sequence[str],
        *,
        decision_interval_ms: int,
        costs: Costs,
        start: int | None = None,
        end: int | None = None,
        warmup_days: int = 8,
        funding_directory: Path | None = None,
        days_per_token: int | None = None,
    ) -> None:
        """Reads every file at once. `start` and `end` in ms UTC; without them the run spans the tokens' bars.

        Raises UsageError for a choice that leaves nothing to run, DataError for files that break the format
        or sources that do not cover the run.
        """
        if both := sorted(set(sources) & set(tokens)):
            raise UsageError(f"{', '.join(both)}: a source cannot be a token of the same run")
        if not (sources and tokens):
            raise UsageError(
                f"{directory}: no bars of a {'token' if sources else 'source'} there, and a run needs one of "
                "each at least; files are SYMBOL/15m.parquet and so on (README, 'Your own data')"
            )
        self._sources = {name: _read(directory, name, decision_interval_ms) for name in sources}
        recorded = {name: _read(directory, name, decision_interval_ms) for name in sorted(set(tokens))}
        self._directory = directory
        self._funding_directory = funding_directory
        self._decision_interval = decision_interval_ms
        self.start = _begin(recorded, start, decision_interval_ms)
        self._tokens = _windows(recorded, self.start, end, days_per_token)
        wanted_end = max(map(_close, self._tokens.values()))
        self._tokens = _covered(self._tokens, self._sources)
        self.end = max(map(_close, self._tokens.values()))
        self._series = [
            *(table.between(self.start - warmup_days * DAY_MS, self.end) for table in self._sources.values()),
            *self._tokens.values(),
        ]
        self._funding = _read_funding(funding_directory, [*self._sources, *self._tokens])
        self._filters = recorded_instruments.load(directory)
        self._launches = {name: int(table.start[0]) for name, table in recorded.items()}
        self._spreads = {
            name: _SpreadGrid(table, costs.half_spread) for name, table in (self._sources | recorded).items()
        }
        self.title = (
            f"{directory.name}: {len(self._tokens)} recorded tokens, {_day(self.start)} to {_day(self.end)}"
        )
        self.notes = self._notes(recorded, wanted_end)

    def history(self, symbol: str) -> BarTable:
        """Every bar of a source that closed at or before `start`. Raises DataError when there is none."""
        table = self._sources[symbol]
        past = table.between(int(table.start[0]), self.start)
        if not len(past):
            raise DataError(
                f"{symbol}: no bars before the run begins ({_day(self.start)}); its file begins "
                f"{_day(int(table.start[0]))}: add older bars or start later"
            )
        return past

    def earlier(self, most: int, days: int) -> list[BarTable]:
        """The first `days` days of the `most` newest tokens that are no part of the run, up to `start`."""
        found = discover(self._directory, tuple(self._sources), self._decision_interval)
        before = [one for one in found if one.first < self.start and one.symbol not in self._tokens]
        tables = [_read(self._directory, one.symbol, self._decision_interval) for one in before[-most:]]
        return [
            table.between(int(table.start[0]), min(int(table.start[0]) + days * DAY_MS, self.start))
            for table in tables
        ]

    def events(self) -> Iterator[Event]:
        """The run in `ts` order; at equal `ts`: listings, sources' bars, tokens' bars by name, funding,
        delistings. Weekly pieces are sorted at a time, so memory stays near that of the tables."""
        scheduled = self._scheduled()
        done = 0
        first = min(int(table.start[0]) for table in self._series if len(table))
        for low in range(first, self.end, _CHUNK_MS):
            high = min(low + _CHUNK_MS, self.end)
            bars = self._bars_closing(low, high)
            position = 0
            while done < len(scheduled) and scheduled[done][0] <= high:
                ts, kind, _, event = scheduled[done]
                while position < len(bars) and (bars[position].ts, _BAR) < (ts, kind):
                    yield bars[position]
                    position += 1
                yield event
                done += 1
            yield from bars[position:]

    def half_spread(self, symbol: str, start: int) -> float:
        """The configured half spread, widened by the range of the bar before `start`; at most 10 %."""
        return self._spreads[symbol].at(start)

    def _scheduled(self) -> list[_Scheduled]:
        """Everything but bars, in order."""
        scheduled: list[_Scheduled] = []
        for rank, table in enumerate(self._series):
            name = table.symbol
            if not len(table):
                continue
            opened, closed = int(table.start[0]), _close(table)
            if name in self._tokens:
                listing = InstrumentListed(opened, opened, self._instrument(name))
                scheduled.append((opened, _LISTING, rank, listing))
                if closed <= self.end - self._decision_interval:
                    gone = InstrumentDelisted(closed, closed, name, "its recorded bars end")
                    scheduled.append((closed, _DELISTING, rank, gone))
            if name in self._funding:
                rates = self._funding[name]
                inside = (rates.ts > opened) & (rates.ts <= closed)
                for ts, rate in zip(rates.ts[inside].tolist(), rates.rate[inside].tolist(), strict=True):
                    scheduled.append((ts, _FUNDING, rank, FundingRatePublished(ts, ts, name, rate)))
        return sorted(scheduled, key=lambda item: item[:3])

    def _instrument(self, name: str) -> Instrument:
        filters = self._filters.get(name) or recorded_instruments.infer(float(self._tokens[name].close[0]))
        steps = np.diff(self._funding[name].ts) if name in self._funding else np.empty(0)
        interval = int(np.median(steps)) if len(steps) else 8 * HOUR_MS
        return filters.instrument(name, self._launches[name], interval)

    def _bars_closing(self, low: int, high: int) -> list[BarClosed]:
        """Bars of all symbols that closed after `low` and not after `high`, in the order of events."""
        parts, ranks = [], []
        for rank, table in enumerate(self._series):
            limits = np.array([low, high]) - table.interval
            first, end = np.searchsorted(table.start, limits, side="right").tolist()
            if first < end:
                parts.append(table.rows(slice(first, end)))
                ranks.append(np.full(end - first, rank))
        if not parts:
            return []
        ts = np.concatenate([part.start + part.interval for part in parts])
        order = np.lexsort((np.concatenate(ranks), ts))
        owners = [self._series[rank] for rank in np.concatenate(ranks)[order].tolist()]
        merged = (np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS)
        columns = [column[order].tolist() for column in merged]
        return [
            BarClosed(end, end, owner.symbol, end - owner.interval, owner.interval, *values)
            for owner, end, *values in zip(owners, ts[order].tolist(), *columns, strict=True)
        ]

    def _notes(self, recorded: Iterable[str], wanted_end: int) -> tuple[str, ...]:
        dropped = ", ".join(sorted(set(recorded) - self._tokens.keys()))
        gaps = {table.symbol: barfiles.missing_bars(table) for table in self._series}
        missing = ", ".join(f"{name} {count}" for name, count in gaps.items() if count)
        inferred = len(self._tokens.keys() - self._filters.keys())
        unfunded = len(self._tokens.keys() - self._funding.keys())
        notes = {
            f"the run ends {_day(self.end)}, with the sources": self.end < wanted_end,
            f"no bars in the run: {dropped}": dropped,
            f"missing bars: {missing}": missing,
            f"instrument filters inferred for {_counted(inferred)}": inferred,
            f"funding rates from {self._funding_directory}": self._funding,
            f"no funding rates for {_counted(unfunded)}: costs.default_funding is charged": unfunded,
        }
        return tuple(text for text, holds in notes.items() if holds)


class _SpreadGrid:
    """The half spread of every slot of the bar grid, from the newest bar that closed by the slot's open."""

    def __init__(self, table: BarTable, floor: float) -> None:
        self._first, self._interval = int(table.start[0]), table.interval
        wide = np.clip(SPREAD_RANGE_SHARE * (table.high - table.low) / table.open, floor, MAX_HALF_SPREAD)
        slots = (table.start - table.start[0]) // table.interval + 1
        source = np.zeros(slots[-1] + 1, dtype=np.int64)
        source[slots] = np.arange(1, len(table) + 1)
        newest = np.maximum.accumulate(source)  # across a gap the last bar before it counts
        self._values: NDArray[np.float64] = np.concatenate(([floor], wide))[newest]

    def at(self, start: int) -> float:
        slot = (start - self._first) // self._interval
        return float(self._values[min(max(slot, 0), len(self._values) - 1)])


def _read(directory: Path, symbol: str, decision_interval_ms: int) -> BarTable:
    return barfiles.read(barfiles.find(directory, symbol, decision_interval_ms))


def _read_funding(directory: Path | None, symbols: Sequence[str]) -> dict[str, barfiles.FundingTable]:
    if directory is None:
        return {}
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory of funding rates; leave it out to do without")
    paths = {name: directory / f"{name}.parquet" for name in symbols}
    return {name: barfiles.read_funding(path) for name, path in paths.items() if path.exists()}


def _begin(tables: dict[str, BarTable], start: int | None, grid: int) -> int:
    """Start of the run on the decision grid: as asked for, or where the first token begins."""
    first = min(int(table.start[0]) for table in tables.values()) if start is None else start
    return first // grid * grid


def _windows(
    tables: dict[str, BarTable], start: int, end: int | None, days: int | None
) -> dict[str, BarTable]:
    """The bars of each token that take part; tokens without any are left out. Raises UsageError for none."""
    windows = {}
    for name, table in tables.items():
        window = table.between(start, end if end is not None else _close(table))
        if days is not None and len(window):
            window = window.between(start, int(window.start[0]) + days * DAY_MS)
        if len(window):
            windows[name] = window
    if not windows:
        first = min(int(table.start[0]) for table in tables.values())
        last = max(map(_close, tables.values()))
        raise UsageError(
            f"no token has bars in the run, which begins {_day(start)}; "
            f"the recorded bars lie between {_day(first)} and {_day(last)}"
        )
    return windows


def _covered(tokens: dict[str, BarTable], sources: dict[str, BarTable]) -> dict[str, BarTable]:
    """The windows as far as all sources go. Raises DataError when one ends before the first token begins."""
    first = min(int(table.start[0]) for table in tokens.values())
    for name, table in sources.items():
        if _close(table) <= first:
            raise DataError(
                f"{name}: the bars of the source end {_day(_close(table))}, before the first token begins "
                f"({_day(first)}); get newer bars of it or choose other tokens"
            )
    end = min(map(_close, sources.values()))
    cut = {name: table.between(int(table.start[0]), end) for name, table in tokens.items()}
    return {name: table for name, table in cut.items() if len(table)}


def _counted(tokens: int) -> str:
    return f"{tokens} token{'' if tokens == 1 else 's'}"


def _close(table: BarTable) -> int:
    return int(table.start[-1]) + table.interval


def _day(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M")
