"""Market data by REST: what the streams do not give, and the past."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any, Final

from bot.core.types import MINUTE_MS
from bot.exchange.bybit import endpoints
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.errors import UNREADABLE, ExchangeError, judged
from bot.exchange.bybit.requests import Params
from bot.exchange.bybit.rest.paging import pages
from bot.exchange.bybit.rest.transport import Transport
from bot.exchange.bybit.wire import Response, WireError
from bot.exchange.bybit.wire.instruments import InstrumentInfo
from bot.exchange.bybit.wire.market import BookSnapshot, FundingRate, KlineRow, PublicTrade
from bot.exchange.bybit.wire.public import Maintenance, TickerData

KLINE_PAGE: Final = 1_000
FUNDING_PAGE: Final = 200
_LISTED: Final = ("Trading", "PreLaunch")
ANY_STATUS: Final = (*_LISTED, "Delivering", "Closed")
_INTERVALS: Final = {1, 3, 5, 15, 30, 60, 120, 240, 360, 720}  # minutes


def interval_name(interval: int) -> str:
    """Bybit's name of a bar interval in ms. Raises ValueError for one that it does not have."""
    minutes, rest = divmod(interval, MINUTE_MS)
    if interval == 1_440 * MINUTE_MS:
        return "D"
    if rest or minutes not in _INTERVALS:
        raise ValueError(f"Bybit has no bars of {interval / MINUTE_MS:g} minutes")
    return str(minutes)


class MarketRest:
    """Public endpoints. Every method raises ExchangeError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._call = transport.call

    async def time_ms(self) -> float:
        """The exchange's time, ms UTC, to the microsecond."""
        response = await self._call(endpoints.TIME)
        return int(response.value.time_nano) / 1e6

    async def klines(
        self,
        symbol: str,
        interval: int,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int = 200,
        category: str = "linear",
    ) -> list[KlineRow]:
        """The newest bars that opened within [start, end] (ms), newest first, the open one included."""
        query: Params = {
            "category": category, "symbol": symbol, "interval": interval_name(interval),
            "start": start, "end": end, "limit": limit,
        }  # fmt: skip
        response = await self._call(endpoints.KLINE, query)
        rows: list[KlineRow] = response.value.rows
        return rows

    async def closed_klines(
        self, symbol: str, interval: int, start: int, end: int, *, category: str = "linear"
    ) -> AsyncIterator[list[KlineRow]]:
        """Closed bars that opened within [start, end) (ms), oldest first, in pages; empty pages are skipped.

        To resume a broken download, start at the open time that follows the last bar received.
        Raises WireError for bars that were not asked for.
        """
        start += -start % interval
        while start < end:
            last = min(start + (KLINE_PAGE - 1) * interval, end - 1)
            query: Params = {
                "category": category, "symbol": symbol, "interval": interval_name(interval),
                "start": start, "end": last, "limit": KLINE_PAGE,
            }  # fmt: skip
            response = await self._call(endpoints.KLINE, query)
            now = response.time or self._transport.clock.now_ms()
            rows = _closed(response.value.rows, start, last, interval, now)
            if rows:
                yield rows
            if last + interval > now:
                return  # what follows has not happened yet
            start += KLINE_PAGE * interval

    async def tickers(self, symbol: str | None = None, category: str = "linear") -> list[TickerData]:
        """Without a symbol all of them, but for those that cannot be read."""
        response = await self._call(endpoints.TICKERS, {"category": category, "symbol": symbol})
        if symbol:
            _require_whole(response, endpoints.TICKERS)
        tickers: list[TickerData] = response.value.tickers
        return tickers

    async def order_book(self, symbol: str, depth: int = 50, category: str = "linear") -> BookSnapshot:
        """A snapshot to compare with. Its update id cannot be joined with the streams of depth 50 or 200."""
        query: Params = {"category": category, "symbol": symbol, "limit": depth}
        response = await self._call(endpoints.ORDERBOOK, query)
        book: BookSnapshot = response.value
        return book

    async def recent_trades(
        self, symbol: str, limit: int = 500, category: str = "linear"
    ) -> list[PublicTrade]:
        """Newest first."""
        query: Params = {"category": category, "symbol": symbol, "limit": limit}
        response = await self._call(endpoints.RECENT_TRADES, query)
        trades: list[PublicTrade] = response.value.trades
        return trades

    async def instruments(
        self, category: str = "linear", statuses: Sequence[str] = _LISTED, symbol: str | None = None
    ) -> list[InstrumentInfo]:
        """All instruments in these states, or one. By itself Bybit names only those that trade already.

        Of all, those that cannot be read are left out; one that is asked for by name is an error then.
        """
        found: list[InstrumentInfo] = []
        for status in statuses:
            query: Params = {"category": category, "status": status, "limit": 1_000, "symbol": symbol}
            async for page in pages(self._transport, endpoints.INSTRUMENTS, query):
                if symbol:
                    _require_whole(page, endpoints.INSTRUMENTS)
                found += page.value.instruments
        return found

    async def funding_rates(
        self, symbol: str, start: int, end: int, category: str = "linear"
    ) -> list[FundingRate]:
        """Rates settled within [start, end] (ms), oldest first."""
        found: dict[int, FundingRate] = {}
        while start <= end:
            query: Params = {
                "category": category, "symbol": symbol,
                "startTime": start, "endTime": end, "limit": FUNDING_PAGE,
            }  # fmt: skip
            response = await self._call(endpoints.FUNDING, query)
            page = [rate for rate in response.value.rates if start <= rate.ts <= end]
            found.update((rate.ts, rate) for rate in page)
            if len(response.value.rates) < FUNDING_PAGE or not page:
                break
            end = min(rate.ts for rate in page) - 1
        return [found[ts] for ts in sorted(found)]

    async def system_status(self) -> list[Maintenance]:
        response = await self._call(endpoints.SYSTEM_STATUS)
        status: list[Maintenance] = response.value.status
        return status


def _require_whole(response: Response[Any], endpoint: Endpoint) -> None:
    """Raises ExchangeError when a row could not be read."""
    if response.unreadable:
        raise ExchangeError(judged(UNREADABLE, write=False), path=endpoint.path, text=response.unreadable)


def _closed(rows: list[KlineRow], start: int, last: int, interval: int, now: int) -> list[KlineRow]:
    """The closed bars of a page, oldest first. Raises WireError for bars that were not asked for."""
    rows = sorted(rows, key=lambda row: row.start)
    for row in rows:
        if row.start % interval or not start <= row.start <= last:
            raise WireError(f"kline: a bar at {row.start}, asked for {start} to {last}")
    for row, following in pairwise(rows):
        if following.start == row.start:
            raise WireError(f"kline: two bars at {row.start}")
    return [row for row in rows if row.start + interval <= now]
