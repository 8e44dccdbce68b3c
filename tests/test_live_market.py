"""The live market tells what a recorded one would: each bar once, in order, listings, funding, trouble."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from bot.core.errors import UsageError
from bot.core.events import (
    BarClosed,
    EntriesAllowed,
    EntriesBlocked,
    FeedRefused,
    FramesUnreadable,
    FundingRatePublished,
    InstrumentDelisted,
    InstrumentListed,
    InstrumentStatusChanged,
    MarketHealthChanged,
    MarketHealthMeasured,
    MicrostructureSampled,
    TokenLeftOut,
)
from bot.core.types import HOUR_MS, MINUTE_MS, TradingStatus
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.live_market import LiveMarket, MarketSettings
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import Backoff
from bot.market.universe import Universe
from bot.settings import Universe as Limits
from tests.bybit_server import RestServer, StreamServer, envelope, hang
from tests.test_bybit_broker import QUICK, Heard, blocks
from tests.test_download import contract

SOURCES = ("BTCUSDT", "ETHUSDT")
QUICKLY = MarketSettings(
    grace=0.0, patience=0.5, give_up=0.3, late=1.0, look=0.02, instruments=0.05, funding=0.05
)
NEW = Universe(Limits(), days=1 / 24, most=2)


class Venue:
    """Instruments, klines and funding that the test changes; time runs as the test says."""

    def __init__(self, rest: RestServer, streams: StreamServer) -> None:
        self.rest, self.streams = rest, streams
        self.now = 1_750_000_040_000  # some seconds into a minute
        self.started = time.monotonic()
        self.listed = {name: contract(name) for name in SOURCES}
        self.omitted: set[str] = set()  # from the list of all instruments
        self.unanswered = 0  # the code with which questions for one instrument are refused
        self.holes: set[tuple[str, int]] = set()
        self.nonsense: set[tuple[str, int]] = set()  # bars that cannot be
        self.asked: list[tuple[str, int, int]] = []
        self.broken = False
        self.turnover: dict[str, float] = {}  # in 24 hours, where it is not 10 million
        self.spread: dict[str, float] = {}  # where it is not 2 bps
        self.level: dict[str, float] = {}  # notional of each side of the book, where it is not 10,000
        for path, act in (
            ("/v5/market/kline", self._klines),
            ("/v5/market/instruments-info", self._instruments),
            ("/v5/market/funding/history", self._funding),
            ("/v5/market/tickers", self._tickers),
            ("/v5/market/orderbook", self._book),
        ):
            rest.will_act(path, act)

    @property
    def minute(self) -> int:
        """Open of the minute that is under way."""
        return self.now // MINUTE_MS * MINUTE_MS

    async def close_bar(self, *symbols: str, start: int | None = None, close: str = "1") -> None:
        for symbol in symbols:
            opened = self.minute - MINUTE_MS if start is None else start
            data = {
                "start": opened, "end": opened + MINUTE_MS - 1, "interval": "1", "open": "1", "close": close,
                "high": "1", "low": close, "volume": "1", "turnover": "1", "confirm": True,
                "timestamp": self.now,
            }  # fmt: skip
            await self.streams.push(
                {"topic": f"kline.1.{symbol}", "type": "snapshot", "ts": self.now, "data": [data]}
            )

    async def _klines(self, request: web.Request) -> web.StreamResponse:
        if self.broken:
            return web.json_response(envelope({}, 10016, "busy", time=self.now))
        symbol = request.query["symbol"]
        start, end = int(request.query["start"]), int(request.query["end"])
        self.asked.append((symbol, start, end))
        opens = range(start + -start % MINUTE_MS, min(end, self.now) + 1, MINUTE_MS)
        rows = [
            [
                str(ts),
                "1",
                "0.5" if (symbol, ts) in self.nonsense else "1",
                *["1"] * 4,
            ]  # the second is the high
            for ts in reversed(opens)
            for high in ("0.5" if (symbol, ts) in self.nonsense else "1",)
            if (symbol, ts) not in self.holes
        ]
        return web.json_response(envelope({"symbol": symbol, "list": rows}, time=self.now))

    async def _instruments(self, request: web.Request) -> web.StreamResponse:
        status, symbol = request.query["status"], request.query.get("symbol")
        if symbol and self.unanswered:
            return web.json_response(envelope({}, self.unanswered, "no", time=self.now))
        found = [
            item
            for item in self.listed.values()
            if item["status"] == status and symbol in (None, item["symbol"])
            if symbol or item["symbol"] not in self.omitted
        ]
        return web.json_response(envelope({"category": "linear", "list": found}, time=self.now))

    async def _tickers(self, request: web.Request) -> web.StreamResponse:
        found = [
            {
                "symbol": name,
                "turnover24h": str(self.turnover.get(name, 1e7)),
                "bid1Price": "1",
                "ask1Price": str(1 + self.spread.get(name, 2e-4)),
            }
            for name in self.listed
        ]
        return web.json_response(envelope({"category": "linear", "list": found}, time=self.now))

    async def _book(self, request: web.Request) -> web.StreamResponse:
        name = request.query["symbol"]
        size = str(self.level.get(name, 1e4))
        book = {
            "s": name,
            "b": [["1", size], ["0.9", "1e9"]],
            "a": [["1.0002", size]],
            "ts": self.now,
            "u": 1,
        }
        return web.json_response(envelope(book, time=self.now))

    async def _funding(self, request: web.Request) -> web.StreamResponse:
        start, end = int(request.query["startTime"]), int(request.query["endTime"])
        times = range(start + -start % (8 * HOUR_MS), end + 1, 8 * HOUR_MS)
        rates = [
            {"symbol": request.query["symbol"], "fundingRate": "0.0001", "fundingRateTimestamp": str(ts)}
            for ts in times
        ]
        return web.json_response(envelope({"list": rates}, time=self.now))


class TestClock(ExchangeClock):
    __test__ = False

    def __init__(self, venue: Venue) -> None:
        super().__init__()
        self.venue = venue

    def now_ms(self) -> int:
        return self.venue.now


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with RestServer() as rest, StreamServer() as streams:
        yield Venue(rest, streams)


@asynccontextmanager
async def watching(
    venue: Venue,
    since: int | None = None,
    universe: Universe = NEW,
    held: Callable[[], Collection[str]] = frozenset,
    **changes: Any,
) -> AsyncIterator[tuple[LiveMarket, Heard]]:
    environment = replace(venue.rest.environment, public_streams=f"ws://127.0.0.1:{venue.streams.port}")
    rest, heard = Rest(environment, clock=TestClock(venue)), Heard()
    market = LiveMarket(
        environment, rest, SOURCES, universe, heard.emit, replace(QUICKLY, **changes),
        held=held, stream_settings=QUICK, backoff=lambda: Backoff(0.01, 0.05),
    )  # fmt: skip
    for item in await market.open():
        market.follow(item, venue.minute if since is None else since)
    running = asyncio.create_task(market.run())
    try:
        await venue.streams.until(lambda: bool(venue.streams.topics()))
        yield market, heard
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        rest.close()


def bars(heard: Heard) -> list[tuple[str, int]]:
    return [(event.symbol, event.start) for event in heard.of(BarClosed)]


async def test_confirmed_bars_are_told_together_and_sources_in_their_order(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        first = venue.minute
        venue.broken = True  # nothing can come from REST
        venue.now += MINUTE_MS
        await venue.close_bar("ETHUSDT", "BTCUSDT", "ETHUSDT")
        await heard.until(BarClosed, 2)
        assert bars(heard) == [("BTCUSDT", first), ("ETHUSDT", first)]


async def test_a_bar_that_does_not_come_is_asked_for(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        first = venue.minute
        venue.now += MINUTE_MS
        await venue.close_bar("BTCUSDT")
        await heard.until(BarClosed, 2)
        assert ("ETHUSDT", first, first + MINUTE_MS - 1) in venue.asked
        assert bars(heard) == [("BTCUSDT", first), ("ETHUSDT", first)]


async def test_what_happened_before_is_brought_first(venue: Venue) -> None:
    since = venue.minute - 3 * MINUTE_MS
    async with watching(venue, since) as (_, heard):
        assert heard.of(EntriesBlocked)[0].reason == "catching up with the present"
        await heard.until(BarClosed, 6)
        expected = [(name, since + n * MINUTE_MS) for n in range(3) for name in SOURCES]
        assert sorted(bars(heard)) == sorted(expected)


async def test_a_bar_that_the_exchange_does_not_have_is_a_gap(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        first = venue.minute
        venue.holes = {("ETHUSDT", first)}
        venue.now += MINUTE_MS
        await heard.until(BarClosed)
        venue.now += MINUTE_MS
        await heard.until(BarClosed, 3)
        assert ("ETHUSDT", first) not in bars(heard)
        assert ("ETHUSDT", first + MINUTE_MS) in bars(heard)


async def test_a_bar_that_cannot_be_is_a_gap_too_and_its_neighbours_are_told(venue: Venue) -> None:
    first = venue.minute - 3 * MINUTE_MS
    venue.nonsense = {("ETHUSDT", first + MINUTE_MS)}
    async with watching(venue, first) as (_, heard):
        await heard.until(EntriesAllowed)
        await heard.until(BarClosed, 5)
        told = {start for symbol, start in bars(heard) if symbol == "ETHUSDT"}
        assert told == {first, first + 2 * MINUTE_MS}


async def test_a_block_names_who_is_late_now(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        await heard.until(EntriesAllowed)
        venue.broken = True
        venue.now += 2 * MINUTE_MS
        first = (await heard.until(EntriesBlocked, 2))[-1]
        assert "bars of BTCUSDT" in first.reason
        for number in range(2):
            await venue.close_bar("BTCUSDT", start=venue.minute - (2 - number) * MINUTE_MS)
        while "bars of ETHUSDT" not in heard.of(EntriesBlocked)[-1].reason:
            await heard.until(EntriesBlocked, len(heard.of(EntriesBlocked)) + 1)


async def test_a_feed_that_is_late_blocks_entries_until_it_is_whole_again(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        await heard.until(EntriesAllowed)
        venue.broken = True
        venue.now += 2 * MINUTE_MS
        blocked = (await heard.until(EntriesBlocked, 2))[-1]
        assert "bars of BTCUSDT are" in blocked.reason
        assert blocked.cause == "feed"
        venue.broken = False
        await heard.until(EntriesAllowed, 2)
        assert len(bars(heard)) == 4


async def test_a_repair_that_gets_no_answer_does_not_hide_that_the_feed_is_late(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        await heard.until(EntriesAllowed)
        venue.rest.will_act("/v5/market/kline", hang)
        venue.rest._answers["/v5/market/kline"].popleft()
        venue.now += 2 * MINUTE_MS
        async with asyncio.timeout(3):  # REST gives up after 10 s
            await heard.until(EntriesBlocked, 2)


async def test_an_audit_that_gets_no_answer_does_not_hold_up_the_others(venue: Venue) -> None:
    """Health is judged in the same loop."""
    venue.rest.will_act("/v5/market/orderbook", hang)
    venue.rest._answers["/v5/market/orderbook"].popleft()

    def asked() -> list[str]:
        return sorted(seen.params["symbol"] for seen in venue.rest.seen if "orderbook" in seen.path)

    async with watching(venue):
        for symbol in SOURCES:
            await venue.streams.push_book(f"orderbook.50.{symbol}", "snapshot")
        async with asyncio.timeout(8):  # REST gives up after 10 s
            while len(asked()) < len(SOURCES):
                venue.now += MINUTE_MS
                await asyncio.sleep(0.2)
        venue.now += HOUR_MS
        await asyncio.sleep(1.5)  # more than one look
        assert asked() == sorted(SOURCES)


async def test_a_reconnect_loses_no_bar(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        first = venue.minute
        for session in list(venue.streams.sessions):
            session.transport.abort()
        venue.now += 2 * MINUTE_MS
        await heard.until(BarClosed, 4)
        assert sorted(bars(heard)) == sorted(
            (name, start) for start in (first, first + MINUTE_MS) for name in SOURCES
        )


async def test_a_new_listing_is_told_followed_and_told_when_it_ends(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        new = {**contract("NEWUSDT"), "launchTime": str(venue.minute), "status": "PreLaunch"}
        venue.listed["NEWUSDT"] = new
        await asyncio.sleep(0.2)
        assert len(heard.of(InstrumentListed)) == len(SOURCES)
        venue.listed["NEWUSDT"] = {**new, "status": "Trading"}
        listed = await heard.until(InstrumentListed, 3)
        assert listed[-1].instrument.symbol == "NEWUSDT"
        venue.now += MINUTE_MS
        await heard.until(BarClosed, 3)
        assert {symbol for symbol, _ in bars(heard)} == {*SOURCES, "NEWUSDT"}
        venue.listed["NEWUSDT"] = {**new, "status": "Trading", "deliveryTime": str(venue.now + HOUR_MS)}
        (gone,) = await heard.until(InstrumentDelisted)
        assert gone.symbol == "NEWUSDT"


async def test_a_list_that_lacks_a_contract_which_trades_does_not_end_it(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        venue.listed["NEWUSDT"] = {**contract("NEWUSDT"), "launchTime": str(venue.minute)}
        await heard.until(InstrumentListed, 3)
        venue.omitted = {"NEWUSDT"}
        await asyncio.sleep(0.2)
        venue.unanswered = 10016
        await asyncio.sleep(0.2)
        assert heard.of(InstrumentDelisted) == []
        venue.unanswered = 0
        venue.listed["NEWUSDT"]["status"] = "Delivering"
        await heard.until(InstrumentDelisted)
        (told,) = heard.of(InstrumentStatusChanged)
        assert (told.symbol, told.status) == ("NEWUSDT", TradingStatus.DELIVERING)


@pytest.mark.parametrize("code", [0, 10001])
async def test_a_contract_that_nobody_knows_any_more_is_over(venue: Venue, code: int) -> None:
    async with watching(venue) as (_, heard):
        venue.listed["NEWUSDT"] = {**contract("NEWUSDT"), "launchTime": str(venue.minute)}
        await heard.until(InstrumentListed, 3)
        venue.unanswered = code
        del venue.listed["NEWUSDT"]
        (gone,) = await heard.until(InstrumentDelisted)
        assert gone.symbol == "NEWUSDT"


async def test_a_contract_before_its_launch_is_watched_for_the_moment_when_it_trades(venue: Venue) -> None:
    async with watching(venue) as (market, heard):
        launch = venue.minute + MINUTE_MS
        new = {**contract("NEWUSDT"), "launchTime": str(launch), "status": "PreLaunch"}
        venue.listed["NEWUSDT"] = new
        (told,) = await heard.until(InstrumentStatusChanged)
        assert (told.symbol, told.status) == ("NEWUSDT", TradingStatus.PRE_LAUNCH)
        venue.now = launch - 10
        assert market._until_next_look() == pytest.approx(0.01)
        venue.now = launch
        venue.listed["NEWUSDT"] = {**new, "status": "Trading"}
        told = (await heard.until(InstrumentStatusChanged, 2))[-1]
        assert (told.symbol, told.status) == ("NEWUSDT", TradingStatus.TRADING)
        assert heard.of(InstrumentListed)[-1].instrument.symbol == "NEWUSDT"


async def test_a_followed_contract_that_does_not_trade_takes_no_entries_and_is_not_given_up(
    venue: Venue,
) -> None:
    async with watching(venue) as (_, heard):
        venue.listed["NEWUSDT"] = new = {**contract("NEWUSDT"), "launchTime": str(venue.minute)}
        await heard.until(InstrumentListed, 3)
        venue.listed["NEWUSDT"] = {**new, "status": "PreLaunch"}
        await heard.until(InstrumentStatusChanged)
        while not any("PreLaunch" in fault for fault in faults(heard, "NEWUSDT")):
            await heard.until(MarketHealthChanged, len(heard.of(MarketHealthChanged)) + 1)
        assert heard.of(InstrumentDelisted) == []


async def test_bars_that_were_given_up_are_a_fault_of_their_symbol(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        venue.holes = {("ETHUSDT", venue.minute)}
        venue.now += 2 * MINUTE_MS
        await heard.until(BarClosed, 3)
        while "bars are missing" not in faults(heard, "ETHUSDT"):
            await heard.until(MarketHealthChanged, len(heard.of(MarketHealthChanged)) + 1)
        assert "bars are missing" not in faults(heard, "BTCUSDT")


async def test_bars_that_come_late_or_with_other_values_are_counted(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        hole = venue.minute
        venue.holes = {("ETHUSDT", hole)}
        venue.now += 2 * MINUTE_MS
        await heard.until(BarClosed, 3)
        while "bars are missing" not in faults(heard, "ETHUSDT"):
            await heard.until(MarketHealthChanged, len(heard.of(MarketHealthChanged)) + 1)
        await venue.close_bar("ETHUSDT", start=hole)
        await venue.close_bar("BTCUSDT", start=hole, close="0.5")
        counted: set[tuple[str, int, int]] = set()
        while not counted >= {("ETHUSDT", 1, 0), ("BTCUSDT", 0, 1)}:
            venue.now += MINUTE_MS
            told = await heard.until(MarketHealthMeasured, len(heard.of(MarketHealthMeasured)) + 1)
            counted = {(one.symbol, one.bars_late, one.bars_corrected) for one in told}


async def test_messages_that_are_not_understood_are_counted(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        await venue.close_bar("BTCUSDT", start=venue.minute + 1)  # no bar opens there
        await venue.streams.push({"topic": "kline.1.BTCUSDT", "type": "snapshot", "data": 7})
        await heard.until(FramesUnreadable)
        venue.now += MINUTE_MS
        while not any(event.refused for event in heard.of(MarketHealthMeasured)):
            await heard.until(MarketHealthMeasured, len(heard.of(MarketHealthMeasured)) + 1)


async def test_changed_filters_are_told(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        lots = {**contract()["lotSizeFilter"], "maxMktOrderQty": "77"}
        venue.listed["ETHUSDT"] = {**contract("ETHUSDT"), "lotSizeFilter": lots}
        listed = await heard.until(InstrumentListed, 3)
        assert listed[-1].instrument.max_market_qty == 77


async def test_an_answer_without_the_sources_is_not_believed(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        kept, venue.listed = venue.listed, {}
        await asyncio.sleep(0.2)
        venue.listed = kept
        assert heard.of(InstrumentDelisted) == []


async def test_a_source_that_does_not_trade_hides_nobody_else_and_blocks_entries_while_it_lasts(
    venue: Venue,
) -> None:
    async with watching(venue) as (_, heard):
        venue.listed["ETHUSDT"]["status"] = "PreLaunch"
        young(venue, "NEWUSDT")
        assert (await heard.until(InstrumentListed, 3))[-1].instrument.symbol == "NEWUSDT"
        while "listings" not in blocks(heard):
            await heard.until(EntriesBlocked, len(heard.of(EntriesBlocked)) + 1)
        assert "ETHUSDT of market.sources cannot be traded" in blocks(heard)["listings"]
        venue.listed["ETHUSDT"]["status"] = "Trading"
        while "listings" in blocks(heard):
            await heard.until(EntriesAllowed, len(heard.of(EntriesAllowed)) + 1)
        assert heard.of(InstrumentDelisted) == []


async def test_looks_at_the_listings_that_keep_failing_block_entries(venue: Venue) -> None:
    async def busy(_: web.Request) -> web.StreamResponse:
        return web.json_response(envelope({}, 10001, "a parameter of a later Bybit", time=venue.now))

    async with watching(venue) as (_, heard):
        venue.rest.will_act("/v5/market/instruments-info", busy)
        venue.rest._answers["/v5/market/instruments-info"].popleft()
        while "listings" not in blocks(heard):
            await heard.until(EntriesBlocked, len(heard.of(EntriesBlocked)) + 1)
        assert "a parameter of a later Bybit" in blocks(heard)["listings"]


async def test_an_instrument_that_cannot_be_read_hides_nobody_else_and_is_not_given_up(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        young(venue, "OLDUSDT")
        await heard.until(InstrumentListed, 3)
        del venue.listed["OLDUSDT"]["priceFilter"]
        young(venue, "NEWUSDT")
        assert (await heard.until(InstrumentListed, 4))[-1].instrument.symbol == "NEWUSDT"
        while "listings" not in blocks(heard):
            await heard.until(EntriesBlocked, len(heard.of(EntriesBlocked)) + 1)
        assert "OLDUSDT" in blocks(heard)["listings"]
        assert heard.of(InstrumentDelisted) == []


async def test_funding_rates_are_told_once_when_they_are_settled(venue: Venue) -> None:
    venue.now = venue.now // (8 * HOUR_MS) * 8 * HOUR_MS + 1
    async with watching(venue) as (_, heard):
        await asyncio.sleep(0.2)
        assert heard.of(FundingRatePublished) == []
        venue.now += 8 * HOUR_MS
        told = await heard.until(FundingRatePublished, 2)
        await asyncio.sleep(0.2)
        assert len(heard.of(FundingRatePublished)) == 2
        assert told[0].ts == venue.now - 1


async def test_sources_must_exist(venue: Venue) -> None:
    del venue.listed["ETHUSDT"]
    with pytest.raises(UsageError, match="does not list ETHUSDT"):
        async with watching(venue):
            pass


def ticker_frame(symbol: str, now: int) -> dict[str, Any]:
    data = {"symbol": symbol, "lastPrice": "100", "markPrice": "100", "turnover24h": "1"}
    return {"topic": f"tickers.{symbol}", "type": "snapshot", "ts": now, "cs": 1, "data": data}


def faults(heard: Heard, symbol: str) -> tuple[str, ...]:
    told = [event for event in heard.of(MarketHealthChanged) if event.symbol == symbol]
    return told[-1].faults if told else ("nothing told yet",)


async def test_a_symbol_is_well_while_its_book_ticker_and_trades_are_heard(venue: Venue) -> None:
    async with watching(venue) as (_, heard):
        await heard.until(MarketHealthChanged)
        assert faults(heard, "BTCUSDT")
        for symbol in SOURCES:
            await venue.streams.push(ticker_frame(symbol, venue.now))
        while faults(heard, "BTCUSDT"):
            await heard.until(MarketHealthChanged, len(heard.of(MarketHealthChanged)) + 1)
        for session in list(venue.streams.sessions):
            session.transport.abort()
        while not faults(heard, "BTCUSDT"):
            await heard.until(MarketHealthChanged, len(heard.of(MarketHealthChanged)) + 1)


async def test_a_feed_that_the_exchange_refuses_and_frames_that_cannot_be_read_are_told(venue: Venue) -> None:
    venue.streams.unknown_topics = {"publicTrade.ETHUSDT"}
    async with watching(venue) as (_, heard):
        (refused,) = await heard.until(FeedRefused)
        assert refused.symbol == "ETHUSDT"
        assert refused.reason.startswith("the exchange refuses publicTrade.ETHUSDT: ")
        await venue.streams.push("{not json")
        (unreadable,) = await heard.until(FramesUnreadable)
        assert unreadable.count == 1


async def test_a_decision_bar_comes_behind_what_the_book_did_meanwhile(venue: Venue) -> None:
    async with watching(venue, decision_interval=MINUTE_MS) as (_, heard):
        venue.now += MINUTE_MS
        await heard.until(BarClosed, 2)
        kinds = [
            type(event) for event in heard.events if isinstance(event, BarClosed | MicrostructureSampled)
        ]
        assert kinds == [MicrostructureSampled, BarClosed] * 2


# --- who is followed ---------------------------------------------------------------------------------------


def young(venue: Venue, name: str, age: int = 10) -> None:
    """Listed `age` minutes ago."""
    venue.listed[name] = {**contract(name), "launchTime": str(venue.minute - age * MINUTE_MS)}


async def test_who_is_too_thin_or_finds_no_place_is_left_out_and_told_once(venue: Venue) -> None:
    for age, name in enumerate(("AUSDT", "BUSDT", "CUSDT", "POORUSDT", "WIDEUSDT", "DEEPUSDT")):
        young(venue, name, 10 + age)
    venue.turnover["POORUSDT"] = 1_000  # in an hour at most
    venue.spread["WIDEUSDT"] = 0.01
    venue.level["AUSDT"] = 20
    async with watching(venue) as (_, heard):
        assert [event.instrument.symbol for event in heard.of(InstrumentListed)] == [
            *SOURCES,
            "BUSDT",
            "CUSDT",
        ]
        told = {event.symbol: event.reason for event in (await heard.until(TokenLeftOut, 4))[:4]}
        assert told == {
            "AUSDT": "depth 20 < 250",
            "POORUSDT": "turnover of 24,000 a day < 1,000,000",
            "WIDEUSDT": "spread 0.995% > 0.500%",
            "DEEPUSDT": "all 2 places are taken",
        }
        venue.turnover["POORUSDT"] = 1_001  # another number is no news
        venue.level["AUSDT"] = 1e5  # newer, and liquid now; but nobody is driven out
        told = (await heard.until(TokenLeftOut, 5))[4:]
        assert [(event.symbol, event.reason) for event in told] == [("AUSDT", "all 2 places are taken")]
        await asyncio.sleep(0.3)
        assert len(heard.of(TokenLeftOut)) == 5
        assert heard.of(InstrumentDelisted) == []


async def test_who_grew_old_gives_its_place_to_a_new_one_but_not_what_is_held(venue: Venue) -> None:
    for name in ("HELDUSDT", "OLDUSDT"):
        young(venue, name)
    async with watching(venue, held=lambda: ("HELDUSDT",)) as (_, heard):
        await heard.until(InstrumentListed, 4)
        venue.now += HOUR_MS
        await asyncio.sleep(0.2)
        assert heard.of(InstrumentDelisted) == []
        for name in ("NEWUSDT", "TOOUSDT"):
            young(venue, name)
        (gone,) = await heard.until(InstrumentDelisted)
        assert (gone.symbol, gone.reason) == ("OLDUSDT", "its place goes to a newer token")
        listed = await heard.until(InstrumentListed, 5)
        assert listed[-1].instrument.symbol == "NEWUSDT"
        (told,) = await heard.until(TokenLeftOut)
        assert (told.symbol, told.reason) == ("TOOUSDT", "all 2 places are taken")


async def test_an_announced_end_needs_no_second_question(venue: Venue) -> None:
    """Delivering, too: that list is not asked for, but what says so in another one is believed."""
    for name in ("AUSDT", "BUSDT"):
        young(venue, name)
    async with watching(venue) as (_, heard):
        await heard.until(InstrumentListed, 4)
        venue.unanswered = 10016
        end = 1_750_089_600_000
        venue.listed["AUSDT"]["deliveryTime"] = str(end)
        (gone,) = await heard.until(InstrumentDelisted)
        assert (gone.symbol, gone.reason) == ("AUSDT", "delisting announced for 2025-06-16 16:00 UTC")
        venue.listed["BUSDT"]["status"] = "Delivering"
        venue.unanswered = 0
        gone = (await heard.until(InstrumentDelisted, 2))[-1]
        assert (gone.symbol, gone.reason) == ("BUSDT", "delisted: the exchange's status is Delivering")
        venue.listed["AUSDT"]["deliveryTime"] = "0"  # withdrawn: it is a token like any other
        listed = await heard.until(InstrumentListed, 5)
        assert listed[-1].instrument.symbol == "AUSDT"


async def test_tickers_that_do_not_come_keep_nobody_from_being_delisted(venue: Venue) -> None:
    young(venue, "NEWUSDT")
    async with watching(venue) as (_, heard):
        await heard.until(InstrumentListed, 3)

        async def busy(request: web.Request) -> web.StreamResponse:
            return web.json_response(envelope({}, 10016, "busy", time=venue.now))

        venue.rest.will_act("/v5/market/tickers", busy)
        venue.rest._answers["/v5/market/tickers"].popleft()
        del venue.listed["NEWUSDT"]
        await heard.until(InstrumentDelisted)
