"""Bars and funding rates from Bybit into files, oldest first, so that what is there is always a good file.

An interrupted download loses nothing: what arrived is written on the way out (and every few seconds before),
and the next one asks only for what the file lacks.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import UsageError
from bot.core.types import DAY_MS, HOUR_MS
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.rest.market import MarketRest
from bot.exchange.bybit.translate import bar_from_row
from bot.exchange.bybit.wire import WireError
from bot.exchange.bybit.wire.instruments import InstrumentInfo
from bot.exchange.bybit.wire.market import FundingRate, KlineRow
from bot.market.bars import BarTable
from bot.storage import barfiles
from bot.storage.barfiles import FundingTable

SAVE_SECONDS: Final = 20.0  # the most that a killed process loses
_FUNDING_WINDOW: Final = 60 * DAY_MS
_LONGEST_STEP: Final = 8 * HOUR_MS  # between two settlements; a symbol's interval may change
Advanced = Callable[[int], None]  # told the ms of market time that a page has covered


def missing_ranges(starts: NDArray[np.int64], interval: int, since: int, until: int) -> list[tuple[int, int]]:
    """What of [since, until) has no bar: [first open, end) pairs on the grid, oldest first, in ms."""
    since += -since % interval
    inside = starts[(starts >= since) & (starts < until)]
    edges = np.concatenate(([since - interval], inside, [max(until, since)]))
    return [
        (int(before) + interval, int(after))
        for before, after in pairwise(edges)
        if after - before > interval and before + interval < until
    ]


async def contracts(market: MarketRest, symbols: Sequence[str]) -> list[InstrumentInfo]:
    """The USDT perpetuals of these names, delisted ones included, in this order.

    Raises UsageError for names that the exchange does not know, with the nearest ones that it does.
    """
    known = {info.symbol: info for info in await market.instruments()}
    for symbol in symbols:
        if symbol not in known:
            with suppress(ExchangeError):  # not every status can be asked for everywhere
                ended = await market.instruments(statuses=("Delivering", "Closed"), symbol=symbol)
                known.update((info.symbol, info) for info in ended)
    if unknown := [symbol for symbol in symbols if symbol not in known]:
        near = sorted({close for name in unknown for close in get_close_matches(name, known)})
        hint = f"; did you mean {', '.join(near)}?" if near else "; `bot instruments` lists what there is"
        raise UsageError(f"the exchange does not list {', '.join(unknown)}{hint}")
    return [known[symbol] for symbol in symbols]


class BarDownload:
    """The bars of one symbol and interval within [since, until) (ms), into one file of `directory`."""

    def __init__(
        self, market: MarketRest, directory: Path, symbol: str, interval: int, since: int, until: int
    ) -> None:
        """Raises DataError when the file that is there breaks a rule of the format."""
        self.path = barfiles.path_of(directory, symbol, interval)
        self._market = market
        self._directory = directory
        self._parts = [barfiles.read(self.path)] if self.path.exists() else []
        self._unsaved = self.refused = 0
        self._symbol, self._interval = symbol, interval
        starts = self._parts[0].start if self._parts else np.empty(0, np.int64)
        self.ranges = missing_ranges(starts, interval, since, until)

    @property
    def span(self) -> int:
        """ms of market time to ask for."""
        return sum(end - first for first, end in self.ranges)

    async def run(self, advanced: Advanced) -> BarTable | None:
        """Fetch what is missing; the whole file as it was read back, None when there are no bars at all.

        A bar that cannot be is left out, as if the exchange had none, and counted in `refused`. Raises
        ExchangeError, and WireError for an answer that cannot be; what came before is kept.
        """
        try:
            for first, end in self.ranges:
                await self._fetch(first, end, advanced)
        finally:
            self._save()
        return barfiles.read(self.path) if self.path.exists() else None

    async def _fetch(self, first: int, end: int, advanced: Advanced) -> None:
        saved, position = time.monotonic(), first
        async for rows in self._market.closed_klines(self._symbol, self._interval, first, end):
            good = [row for row in rows if _can_be(self._symbol, self._interval, row)]
            self.refused += len(rows) - len(good)
            if good:
                self._parts.append(table_of(self._symbol, self._interval, good))
                self._unsaved += len(good)
            reached = rows[-1].start + self._interval
            advanced(reached - position)
            position = reached
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        advanced(end - position)

    def _save(self) -> None:
        if self._unsaved:
            self._parts = [_joined(self._parts)]
            barfiles.write(self._directory, self._parts[0])
            self._unsaved = 0


class FundingDownload:
    """The funding rates of one symbol within [since, until) (ms), into `<directory>/<SYMBOL>.parquet`."""

    def __init__(
        self, market: MarketRest, directory: Path, symbol: str, since: int, until: int, step: int
    ) -> None:
        """`step`: the funding interval in ms. Raises DataError for a file that breaks a rule."""
        self.path = directory / f"{symbol}.parquet"
        self._market, self._symbol = market, symbol
        known = barfiles.read_funding(self.path) if self.path.exists() else None
        self._rates = dict(zip(known.ts.tolist(), known.rate.tolist(), strict=True)) if known else {}
        settled = sorted(ts for ts in self._rates if since <= ts < until)
        longest = max(step, _LONGEST_STEP)
        edges = [since - 1, *settled, until]
        self.ranges = [
            (before + 1, after)
            for before, after in pairwise(edges)
            if after - before > (step if after == until else longest)
        ]

    @property
    def span(self) -> int:
        """ms of market time to ask for."""
        return sum(end - first for first, end in self.ranges)

    async def run(self, advanced: Advanced) -> FundingTable | None:
        """As `BarDownload.run`."""
        known = len(self._rates)
        try:
            for first, end in self.ranges:
                for low in range(first, end, _FUNDING_WINDOW):
                    high = min(low + _FUNDING_WINDOW, end)
                    self._keep(await self._market.funding_rates(self._symbol, low, high - 1))
                    advanced(high - low)
        finally:
            if len(self._rates) > known:
                barfiles.write_funding(self.path.parent, self._table())
        return barfiles.read_funding(self.path) if self.path.exists() else None

    def _keep(self, rates: Sequence[FundingRate]) -> None:
        self._rates.update((rate.ts, rate.rate) for rate in rates)

    def _table(self) -> FundingTable:
        times = sorted(self._rates)
        return FundingTable(
            self._symbol, np.array(times, np.int64), np.array([self._rates[ts] for ts in times], np.float64)
        )


def _can_be(symbol: str, interval: int, row: KlineRow) -> bool:
    try:
        bar_from_row(symbol, interval, row, row.start + interval)
    except WireError:
        return False
    return True


def table_of(symbol: str, interval: int, rows: Sequence[KlineRow]) -> BarTable:
    """Bars as columns, in the order of the rows."""
    columns = np.array([_values(row) for row in rows], np.float64).T
    starts = np.array([row.start for row in rows], np.int64)
    return BarTable(symbol, interval, starts, *columns)


def _values(row: KlineRow) -> tuple[float, ...]:
    return row.open, row.high, row.low, row.close, row.volume, row.turnover


def _joined(parts: Sequence[BarTable]) -> BarTable:
    """One table of several without a bar in common, oldest first."""
    names = [field.name for field in fields(BarTable) if field.name not in ("symbol", "interval")]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    order = np.argsort(columns["start"], kind="stable")
    return BarTable(
        parts[0].symbol, parts[0].interval, **{name: column[order] for name, column in columns.items()}
    )
