"""Candles of one symbol: bars of the past, one-minute candles of what is traded here, and sums of both."""

from bisect import bisect_left
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np

from bot.core.types import DAY_MS, MINUTE_MS
from bot.exchange.local.contract import Contract
from bot.exchange.local.market import Print
from bot.market.bars import BarTable

INTERVALS: Final = ("1", "3", "5", "15", "30", "60", "120", "240", "360", "720", "D", "W", "M")
_MONDAY: Final = 4 * DAY_MS  # 1970-01-05


class Candle(NamedTuple):
    """Prices in ticks, volume in lots, turnover in ticks x lots."""

    start: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int


def open_time(interval: str, ts: int) -> int:
    """When the candle of this interval that holds `ts` opened, ms UTC."""
    if interval == "M":
        day = datetime.fromtimestamp(ts / 1000, UTC)
        return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp() * 1000)
    if interval == "W":
        return (ts - _MONDAY) // (7 * DAY_MS) * (7 * DAY_MS) + _MONDAY
    length = DAY_MS if interval == "D" else int(interval) * MINUTE_MS
    return ts // length * length


def close_time(interval: str, start: int) -> int:
    """When the candle that opened at `start` closes: the open of the next one."""
    if interval == "M":
        return open_time("M", start + 32 * DAY_MS)
    if interval == "W":
        return start + 7 * DAY_MS
    return start + (DAY_MS if interval == "D" else int(interval) * MINUTE_MS)


class Candles:
    """`advance` closes candles by the clock: one without a trade stands at the last price."""

    def __init__(self, past: list[Candle], price: int, now: int) -> None:
        """`past`: candles of any one interval, oldest first; only read, so that it may be shared."""
        self._past = past
        self._rows: list[Candle] = []  # ours, one minute each
        if past:
            price = past[-1].close
        self._open = Candle(now // MINUTE_MS * MINUTE_MS, price, price, price, price, 0, 0)

    @property
    def current(self) -> Candle:
        """The open minute."""
        return self._open

    def add(self, trade: Print) -> None:
        self.advance(trade.ts)
        start, opened, high, low, _, volume, turnover = self._open
        self._open = Candle(
            start,
            opened,
            max(high, trade.price),
            min(low, trade.price),
            trade.price,
            volume + trade.lots,
            turnover + trade.lots * trade.price,
        )

    def move(self, price: int, now: int) -> None:
        """A price without a trade (mark or index)."""
        self.advance(now)
        self._open = self._open._replace(
            high=max(self._open.high, price), low=min(self._open.low, price), close=price
        )

    def advance(self, now: int) -> None:
        minute = now // MINUTE_MS * MINUTE_MS
        while self._open.start < minute:
            close = self._open.close
            self._rows.append(self._open)
            self._open = Candle(self._open.start + MINUTE_MS, close, close, close, close, 0, 0)

    def select(self, interval: str, first: int | None, last: int | None, limit: int) -> list[Candle]:
        """At most `limit` candles that opened in [first, last], newest first, the open one included.

        The newest of them; but the oldest when only `first` is given: Bybit counts on from a bare start.
        """
        if first is not None and last is None:
            return self._following(interval, first, limit)
        found: list[Candle] = []
        newest = self._open.start if last is None else min(last, self._open.start)
        start, earliest = open_time(interval, newest), open_time(interval, self.begin)
        while len(found) < limit and start >= max(earliest, first or 0):
            candle = self.at(interval, start)
            if candle is not None:
                found.append(candle)
            start = open_time(interval, start - 1)
        return found

    def _following(self, interval: str, first: int, limit: int) -> list[Candle]:
        """The oldest `limit` candles since `first`, newest first."""
        found: list[Candle] = []
        start = open_time(interval, min(max(first, self.begin), self._open.start + MINUTE_MS))
        if start < first:
            start = close_time(interval, start)
        while len(found) < limit and start <= self._open.start:
            candle = self.at(interval, start)
            if candle is not None:
                found.append(candle)
            start = close_time(interval, start)
        return found[::-1]

    def at(self, interval: str, start: int) -> Candle | None:
        """The candle that opened at `start`, as far as it goes; None where there is nothing."""
        return _sum(start, self.between(start, close_time(interval, start)))

    @property
    def begin(self) -> int:
        """Open time of the oldest candle."""
        rows = self._past or self._rows
        return rows[0].start if rows else self._open.start

    def between(self, start: int, end: int) -> list[Candle]:
        """The smallest candles that opened in [start, end), oldest first, the open one included."""
        found = []
        for rows in (self._past, self._rows, [self._open]):
            low = bisect_left(rows, start, key=_start)
            found += rows[low : bisect_left(rows, end, low, key=_start)]
        return found


_start = attrgetter("start")


def _sum(start: int, parts: list[Candle]) -> Candle | None:
    if not parts:
        return None
    return Candle(
        start,
        parts[0].open,
        max(row.high for row in parts),
        min(row.low for row in parts),
        parts[-1].close,
        sum(row.volume for row in parts),
        sum(row.turnover for row in parts),
    )


def past(contract: Contract, bars: BarTable) -> list[Candle]:
    """The bars of a table on the grid of the contract."""
    tick, step = float(contract.tick), float(contract.step)
    prices = [np.maximum(1, np.rint(getattr(bars, name) / tick)).astype(np.int64).tolist()
              for name in ("open", "high", "low", "close")]  # fmt: skip
    volume = np.rint(bars.volume / step).astype(np.int64).tolist()
    turnover = np.where(np.isnan(bars.turnover), bars.close * bars.volume, bars.turnover)
    scaled = np.rint(turnover / (tick * step)).astype(np.int64).tolist()
    return [Candle(*row) for row in zip(bars.start.tolist(), *prices, volume, scaled, strict=True)]


def texts(candle: Candle, contract: Contract) -> list[str]:
    """Open, high, low, close, volume, turnover as Bybit writes them."""
    prices = [contract.price_text(price) for price in candle[1:5]]
    turnover: Decimal = contract.unit * candle.turnover
    return [*prices, contract.quantity_text(candle.volume), format(turnover.normalize(), "f")]
