"""Every switch does what it says, and our client comes through without a lost or doubled order."""

import asyncio
import hmac
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from yarl import URL

from bot.core.errors import UsageError
from bot.core.types import Side
from bot.exchange.bybit.environment import local
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import BookLost, Connected, Disconnected, Stream, StreamSettings
from bot.exchange.bybit.streams.raw import RawBook
from bot.exchange.bybit.trade_stream import TradeStream
from bot.exchange.bybit.wire.private import Executions, Orders
from bot.exchange.bybit.wire.public import Book as BookFrame
from bot.exchange.bybit.wire.public import Trades
from bot.exchange.local import streams
from bot.exchange.local.endpoints import ENDPOINTS
from bot.exchange.local.faults import Faults
from bot.exchange.local.launch import _serve
from bot.exchange.local.market_api import MARKET
from bot.exchange.local.statistics_api import STATISTICS
from bot.exchange.local.venue import Venue
from bot.exchange.local.world import World
from bot.market.book import Book, State
from bot.settings import Exchange
from tests.local_exchange import LocalExchange, local_exchange, two_symbols
from tests.test_local_own_client import CREDENTIALS, FAST, limit_order, market_order, streaming, until

CREATE, TOPIC = "/v5/order/create", "orderbook.50.BTCUSDT"


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange() as running:
        yield running


@pytest.fixture
async def rest(exchange: LocalExchange) -> AsyncIterator[Rest]:
    client = Rest(local(exchange.url), CREDENTIALS, limits=Limits(FAST), timeout=0.5)
    await client.measure_clock()
    yield client
    client.close()


async def placed(rest: Rest, link_id: str = "a") -> ExchangeError | None:
    try:
        async with asyncio.timeout(8):
            await rest.orders.create(limit_order(link_id))
    except ExchangeError as error:
        return error
    return None


# --- requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ack_lost", "server_error", "delay"])
async def test_an_answer_that_fails_after_the_order_was_taken(
    exchange: LocalExchange, rest: Rest, kind: str
) -> None:
    exchange.arm(kind, CREATE, count=1, ms=1_000)
    error = await placed(rest)
    assert error is not None
    assert error.kind is Kind.UNKNOWN
    found = await rest.orders.find("a", "BTCUSDT")
    assert found is not None
    assert found.order_status == "New"
    again = await placed(rest)
    assert again is not None
    assert again.code == 110072  # sending it again cannot double it
    assert len(exchange.account.open_orders) == 1


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("refuse", Kind.UNKNOWN),
        ("drop", Kind.UNKNOWN),
        ("bad_gateway", Kind.UNKNOWN),
        ("too_many_visits", Kind.RETRY),
        ("maintenance", Kind.UNKNOWN),
    ],
)
async def test_a_request_that_fails_before_the_order_was_taken(
    exchange: LocalExchange, rest: Rest, kind: str, verdict: Kind
) -> None:
    exchange.arm(kind, "*" if kind == "maintenance" else CREATE, count=None if kind == "maintenance" else 1)
    error = await placed(rest)
    assert error is not None
    assert error.kind is verdict
    assert not exchange.account.orders
    if kind == "maintenance":
        assert [item.state for item in await rest.market.system_status()] == ["ongoing"]
        exchange.do(exchange.venue.faults.clear)
    assert await rest.orders.find("a", "BTCUSDT") is None
    assert await placed(rest) is None
    assert len(exchange.account.open_orders) == 1


@pytest.mark.parametrize(
    ("kind", "options"), [("bad_timestamp", {"count": 1}), ("clock_skew", {"ms": 20_000})]
)
async def test_a_clock_that_disagrees_is_measured_again_and_the_order_arrives_once(
    exchange: LocalExchange, rest: Rest, kind: str, options: dict[str, Any]
) -> None:
    exchange.arm(kind, **options)
    error = await placed(rest)
    assert error is not None
    assert (error.kind, error.code) == (Kind.RETRY, 10002)
    assert not exchange.account.orders
    assert await placed(rest) is None
    assert len(exchange.account.open_orders) == 1


async def test_the_streams_may_tell_a_fill_before_the_answer_comes(
    exchange: LocalExchange, rest: Rest
) -> None:
    exchange.arm("fill_before_ack", CREATE, count=1, ms=200)
    async with streaming(local(exchange.url).private_url, rest, "order", credentials=CREDENTIALS) as stream:
        await until(stream, Connected)
        answer = asyncio.create_task(rest.orders.create(market_order("a")))
        orders = await until(stream, Orders)
        assert not answer.done()
        assert (orders.data[0].order_link_id, orders.data[0].order_status) == ("a", "Filled")
        assert (await answer).order_id == orders.data[0].order_id


async def test_a_hidden_order_is_alive_and_nothing_speaks_of_it_before_its_time(
    exchange: LocalExchange, rest: Rest
) -> None:
    async with streaming(local(exchange.url).private_url, rest, "order", credentials=CREDENTIALS) as stream:
        await until(stream, Connected)
        exchange.arm("hidden", CREATE, count=1, ms=60_000)
        await rest.orders.create(market_order("a"))
        await rest.orders.create(market_order("b"))
        exchange.advance(1_000)
        assert [order.order_link_id for order in (await until(stream, Orders)).data] == ["b"]
        assert await rest.orders.find("a", "BTCUSDT") is None
        assert {item.order_link_id for item in await rest.orders.executions(symbol="BTCUSDT")} == {"b"}
        (position,) = await rest.account.positions(symbol="BTCUSDT")
        assert position.size == Decimal("0.02")
        exchange.do(exchange.venue._hidden.clear)  # its time has come
        exchange.advance(100)
        assert (await until(stream, Orders)).data[0].order_link_id == "a"
        assert {item.order_link_id for item in await rest.orders.executions(symbol="BTCUSDT")} == {"a", "b"}


@asynccontextmanager
async def order_entry(exchange: LocalExchange, rest: Rest) -> AsyncIterator[TradeStream]:
    notices: asyncio.Queue[Any] = asyncio.Queue()
    stream = TradeStream(
        local(exchange.url), CREDENTIALS, clock=rest.clock, limits=rest.limits, on_notice=notices.put_nowait,
        resync=rest.measure_clock,
    )  # fmt: skip
    running = asyncio.create_task(stream.run())
    try:
        async with asyncio.timeout(10):
            await notices.get()
            yield stream
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_order_entry_by_websocket_loses_its_acknowledgement(
    exchange: LocalExchange, rest: Rest
) -> None:
    async with order_entry(exchange, rest) as stream:
        exchange.arm("ack_lost", "order.create", count=1)
        with pytest.raises(ExchangeError) as caught:
            await stream.create(limit_order("a"))
    assert caught.value.kind is Kind.UNKNOWN
    found = await rest.orders.find("a", "BTCUSDT")
    assert found is not None


async def test_order_entry_by_websocket_measures_a_clock_that_disagrees_again(
    exchange: LocalExchange, rest: Rest
) -> None:
    async with order_entry(exchange, rest) as stream:
        exchange.arm("clock_skew", ms=20_000)
        with pytest.raises(ExchangeError) as caught:
            await stream.create(limit_order("a"))
        assert (caught.value.kind, caught.value.code) == (Kind.RETRY, 10002)
        assert not exchange.account.orders
        await stream.create(limit_order("a"))
        assert len(exchange.account.open_orders) == 1


# --- streams ----------------------------------------------------------------------------------------------


async def follow(stream: Stream, book: Book, exchange: LocalExchange, rest: Rest) -> list[str]:
    """Feed the book until it equals the exchange's; what was lost on the way, by reason."""
    lost: list[str] = []
    async with asyncio.timeout(10):
        while True:
            expected = await rest.market.order_book("BTCUSDT", 50)
            if (book.bids(), book.asks()) == (expected.bids, expected.asks):
                return lost
            exchange.advance(100)
            await asyncio.sleep(0.01)
            for delivery in await stream.take():
                if isinstance(delivery.message, BookLost):
                    lost.append(delivery.message.reason)
                elif isinstance(delivery.message, RawBook):
                    book.update(delivery.message.payload, 1)
                    if book.state is State.STALE:
                        stream.renew(TOPIC, book.health(1).reason)


@pytest.mark.parametrize("kind", ["gap", "crossed_book", "drop", "duplicate", "reorder", "delay"])
async def test_a_disturbed_book_is_right_again(exchange: LocalExchange, rest: Rest, kind: str) -> None:
    book = Book("BTCUSDT", 50)
    async with streaming(local(exchange.url).public_url(), rest, TOPIC, raw_books=True) as stream:
        await follow(stream, book, exchange, rest)
        exchange.arm(kind, TOPIC, count=1, ms=50)
        exchange.move("BTCUSDT", 1.002)
        exchange.move("BTCUSDT", 1.002)
        lost = await follow(stream, book, exchange, rest)
        assert exchange.venue.faults.struck[kind] == 1
        assert bool(lost) == (kind != "duplicate")


@pytest.mark.parametrize("ends", ["by its count", "by a clear"])
async def test_a_reordered_frame_comes_although_the_fault_is_over(
    exchange: LocalExchange, rest: Rest, ends: str
) -> None:
    topic = "publicTrade.BTCUSDT"
    async with streaming(local(exchange.url).public_url(), rest, topic) as stream:
        await until(stream, Connected)
        exchange.arm("reorder", topic, count=1 if ends == "by its count" else None, ms=50)
        await rest.orders.create(market_order("a", Side.SELL))  # the only trade that there will be
        assert exchange.do(lambda: exchange.venue.faults.struck["reorder"]) == 1
        exchange.do(exchange.venue.faults.clear)
        assert (await until(stream, Trades)).data[0].side is Side.SELL


async def test_a_reordered_frame_follows_the_next_one_when_its_fault_struck_for_the_last_time(
    exchange: LocalExchange, rest: Rest
) -> None:
    topic = "publicTrade.BTCUSDT"
    async with streaming(local(exchange.url).public_url(), rest, topic) as stream:
        await until(stream, Connected)
        exchange.arm("reorder", topic, count=1, ms=60_000)
        for link_id, side in (("a", Side.SELL), ("b", Side.BUY)):
            await rest.orders.create(market_order(link_id, side))
        assert [(await until(stream, Trades)).data[0].side for _ in range(2)] == [Side.BUY, Side.SELL]


async def test_after_a_restart_the_stream_comes_back_and_books_begin_with_one(
    exchange: LocalExchange, rest: Rest
) -> None:
    async with streaming(local(exchange.url).public_url(), rest, TOPIC) as stream:
        await until(stream, BookFrame)
        exchange.arm("restart", ms=100)
        await until(stream, Disconnected)
        frame = await until(stream, BookFrame)
        assert (frame.type, frame.data.update_id) == ("snapshot", 1)


async def test_a_restart_keeps_finished_orders_in_the_history_only(
    exchange: LocalExchange, rest: Rest
) -> None:
    await rest.orders.create(market_order("a", Side.BUY))
    assert [order.order_status for order in await rest.orders.open_orders(link_id="a")] == ["Filled"]
    exchange.advance(1)
    exchange.arm("restart", ms=0)
    assert await rest.orders.open_orders(link_id="a") == []
    found = await rest.orders.find("a", "BTCUSDT")
    assert found is not None
    assert found.order_status == "Filled"


def test_a_fault_ends_in_its_time_though_nobody_asks_for_anything() -> None:
    now = 1_000.0
    faults = Faults(1, lambda: now)
    faults.arm("gap", lasts_ms=500)
    assert faults.strike("gap", TOPIC)
    now = 1_500.0
    assert faults.strike("gap", TOPIC) is None


async def test_private_topics_of_other_categories_are_silent(exchange: LocalExchange, rest: Rest) -> None:
    url = local(exchange.url).private_url
    topics = ("order.inverse", "execution.spot", "order.linear")
    async with streaming(url, rest, *topics, credentials=CREDENTIALS) as stream:
        await until(stream, Connected)
        await rest.orders.create(market_order("a", Side.BUY))
        told = await until(stream, Orders | Executions)  # type: ignore[arg-type]
        assert told.topic == "order.linear"
        await rest.orders.create(market_order("b", Side.SELL))
        assert (await until(stream, Orders | Executions)).topic == "order.linear"  # type: ignore[arg-type]


async def test_a_half_open_connection_is_noticed_and_replaced(exchange: LocalExchange, rest: Rest) -> None:
    settings = StreamSettings(
        open_s=1.0, answer_s=0.5, ping_s=0.1, read_deadline_s=0.3, close_s=0.05, look_s=0.01
    )
    async with streaming(local(exchange.url).public_url(), rest, TOPIC, settings=settings) as stream:
        await until(stream, BookFrame)
        exchange.arm("half_open", "public", lasts_ms=400)
        await until(stream, Disconnected)
        await until(stream, BookFrame)


async def test_a_slow_reader_delays_but_loses_nothing(exchange: LocalExchange, rest: Rest) -> None:
    async with streaming(local(exchange.url).public_url(), rest, "publicTrade.BTCUSDT") as stream:
        await until(stream, Connected)
        exchange.arm("slow_reader", "public", ms=200)
        stream.subscribe(TOPIC)
        await until(stream, BookFrame)
        await rest.orders.create(market_order("a", Side.SELL))
        trades = await until(stream, Trades)
        assert trades.data[0].side is Side.SELL


# --- the switchboard itself -------------------------------------------------------------------------------


async def test_the_switches_are_reachable_by_http(exchange: LocalExchange) -> None:
    async with aiohttp.ClientSession(exchange.url) as session:
        async with session.post("/admin/faults", json={"kind": "bad_gateway", "count": 1}) as answer:
            assert [fault["kind"] for fault in (await answer.json())["armed"]] == ["bad_gateway"]
        async with session.get("/v5/market/time") as answer:
            assert answer.status == 502
        async with session.get("/v5/market/time") as answer:
            assert answer.status == 200
        async with session.post("/admin/faults", json={"kind": "earthquake"}) as answer:
            assert answer.status == 400
            assert "ack_lost" in (await answer.json())["error"]
        async with session.post("/admin/move", json={"symbol": "BTCUSDT", "factor": 1.01}) as answer:
            assert answer.status == 200
        async with session.post("/admin/advance", json={"ms": 200}) as answer:
            now = (await answer.json())["now"]
        async with session.get("/v5/market/tickers?category=linear&symbol=BTCUSDT") as answer:
            [ticker] = (await answer.json())["result"]["list"]
        assert Decimal(ticker["markPrice"]) == Decimal("60600.0")
        assert now == exchange.venue.world.now
        async with session.delete("/admin/faults") as answer:
            assert (await answer.json())["armed"] == []


@pytest.mark.parametrize(
    ("what", "body", "told"),
    [
        ("faults", {}, "`kind`"),
        ("faults", {"kind": "drop", "probability": "abc"}, "$.probability"),
        ("faults", {"kind": "drop", "probability": 1.5}, "$.probability"),
        ("faults", {"kind": "drop", "target": 5}, "$.target"),
        ("faults", {"kind": "drop", "count": 0}, "$.count"),
        ("faults", {"kind": "delay", "ms": -1}, "ms below 0"),
        ("faults", {"kind": "delay", "ms": 10**30}, "$.ms"),
        ("faults", {"kind": "delay", "lasts_ms": "long"}, "$.lasts_ms"),
        ("faults", {"kind": "delay", "wait": 1}, "wait"),
        ("move", {"symbol": "NOPE", "factor": 1.1}, "NOPE is not listed; BTCUSDT, ETHUSDT are"),
        ("move", {"symbol": ["BTCUSDT"], "factor": 1.1}, "$.symbol"),
        ("delist", {"symbol": "NOPE"}, "NOPE is not listed"),
        ("delist", {"symbol": "BTCUSDT", "in_ms": "soon"}, "$.in_ms"),
        ("list", {"symbol": "NEWUSDT"}, "`price`"),
        ("advance", {"ms": -1}, "$.ms"),
    ],
)  # fmt: skip
async def test_a_switch_with_a_wrong_body_is_refused_and_changes_nothing(
    exchange: LocalExchange, what: str, body: dict[str, Any], told: str
) -> None:
    async with aiohttp.ClientSession(exchange.url) as session:
        async with session.post(f"/admin/{what}", json=body) as answer:
            assert answer.status == 400
            assert told in (await answer.json())["error"]
        assert exchange.venue.faults.armed == []
        async with session.get("/v5/market/time") as answer:
            assert answer.status == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", 0, -1, 1e-300, 1e300])
@pytest.mark.parametrize(("what", "name"), [("move", "factor"), ("list", "price")])
async def test_a_price_that_no_market_could_have_is_refused_and_the_market_goes_on(
    exchange: LocalExchange, what: str, name: str, number: float | str
) -> None:
    async with aiohttp.ClientSession(exchange.url) as session:
        body = {"symbol": "BTCUSDT" if what == "move" else "NEWUSDT", name: number}
        async with session.post(f"/admin/{what}", json=body) as answer:
            assert answer.status == 400
            assert name in (await answer.json())["error"]
        exchange.advance(200)
        assert list(exchange.venue.world.listed) == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_moves_add_up_and_the_market_lives_at_both_ends(exchange: LocalExchange, factor: float) -> None:
    body = {"symbol": "BTCUSDT", "factor": factor}
    for _ in range(2):
        exchange.do(lambda: exchange.server.admin("POST", "move", body))
        exchange.advance(300)
    with pytest.raises(UsageError, match="factor"):
        exchange.do(lambda: exchange.server.admin("POST", "move", body))


async def test_an_exchange_whose_clock_has_failed_ends_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = int(time.time() * 1000)
    venue = Venue(World(two_symbols(now), 1, now))

    def broken(_: int) -> None:
        raise ArithmeticError("the clock is broken")

    monkeypatch.setattr(venue.world, "step", broken)
    async with asyncio.timeout(5):
        with pytest.raises(ArithmeticError, match="the clock is broken"):
            await _serve(venue, Exchange(port=0))


@pytest.mark.parametrize(
    "frame",
    ["", "{", "[]", "null", '"x"', "{}", '{"op":1}', '{"op":"subscribe"}', '{"op":"auth","args":[1]}',
     '{"op":"subscribe","args":[null,{}]}', '{"op":"order.create","args":[[]]}', '{"op":"ping","req_id":{}}',
     "\x00" * 50, "[" * 100_000, '{"op":"subscribe","args":["' + "x" * 30_000 + '"]}'],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v5/public/linear", "/v5/private", "/v5/trade"])
async def test_nonsense_is_answered_and_the_socket_stays_open(
    exchange: LocalExchange, path: str, frame: str
) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(exchange.url + path) as socket:
        await socket.send_str(frame)
        await socket.send_str('{"op":"ping"}')
        async with asyncio.timeout(5):
            answers = [json.loads((await socket.receive()).data) for _ in range(2)]
        assert answers[0] != answers[1] or frame == '{"op":"ping","req_id":{}}'


async def test_each_stream_says_pong_in_its_own_way(exchange: LocalExchange) -> None:
    async with aiohttp.ClientSession() as session:
        for path, name in (
            ("public/linear", "op"),
            ("public/option", "args"),
            ("private", "args"),
            ("trade", "data"),
        ):
            async with session.ws_connect(f"{exchange.url}/v5/{path}?max_active_time=1m") as socket:
                await socket.send_json({"op": "ping"})
                assert name in (said := await socket.receive_json())
                assert said["op"] == ("ping" if path == "public/linear" else "pong")


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [("", 600), ("30s", 30), ("2m", 120), ("1s", 30), ("99m", 600), ("m", 600), ("٣s", 30)],
)
def test_a_connection_may_choose_how_long_it_may_be_silent(wanted: str, seconds: float) -> None:
    assert streams.active_time(wanted) == seconds


async def test_a_listener_may_be_silent_as_long_as_there_is_something_to_hear(
    exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "IDLE_S", 0.05)
    now = SimpleNamespace(monotonic=lambda: 0.0)  # each frame is of this very moment
    with monkeypatch.context() as hearing:
        hearing.setattr(streams, "time", now)
        session = aiohttp.ClientSession()
        socket = await session.ws_connect(f"{exchange.url}/v5/public/linear")
        await asyncio.sleep(0.2)
        assert (await ask(socket))["ret_msg"] == "pong"
    async with asyncio.timeout(10):  # nothing is said any more
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    await session.close()


async def test_a_symbol_that_is_listed_by_hand_lives(exchange: LocalExchange) -> None:
    question = "category=linear&symbol=NEWUSDT&interval=1"
    async with aiohttp.ClientSession(exchange.url) as session:

        async def told(path: str) -> Any:
            async with session.get(f"/v5/market/{path}?{question}") as answer:
                return (await answer.json())["result"]["list"]

        body = {"symbol": "NEWUSDT", "price": 2, "in_ms": 1_000}
        for status in (200, 400):  # once
            async with session.post("/admin/list", json=body) as answer:
                assert answer.status == status
        assert await told("kline") == []
        exchange.advance(10_000)
        assert float((await told("kline"))[0][5]) > 0
        before = float((await told("tickers"))[0]["lastPrice"])
        exchange.do(lambda: exchange.server.admin("POST", "move", {"symbol": "NEWUSDT", "factor": 0.9}))
        exchange.advance(100)
        assert float((await told("tickers"))[0]["lastPrice"]) < 0.95 * before


async def test_a_question_with_a_body_is_forbidden(exchange: LocalExchange) -> None:
    async with aiohttp.ClientSession(exchange.url) as session:
        for raw, status in ((b"{}", 403), (None, 200)):
            async with session.get("/v5/market/time", data=raw) as answer:
                assert answer.status == status
        body = b'{"category":' + b"[" * 100_000
        async with session.post(CREATE, data=body, headers=signed(body)) as answer:
            assert (await answer.json())["retCode"] == 10001


async def test_one_bad_topic_rejects_the_whole_request(exchange: LocalExchange) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{exchange.url}/v5/public/linear") as socket:
            await socket.send_json(
                {"op": "subscribe", "req_id": "1", "args": [TOPIC, "orderbook.500.BTCUSDT"]}
            )
            assert await socket.receive_json() == {
                "success": False, "ret_msg": "error:handler not found,topic:orderbook.500.BTCUSDT",
                "conn_id": (await ask(socket))["conn_id"], "req_id": "1", "op": "subscribe",
            }  # fmt: skip
        assert not exchange.do(lambda: list(exchange.venue.hub._topics))


async def test_order_entry_remembers_the_last_request_ids(
    exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "REMEMBERED", 2)
    expires = int(time.time() * 1000) + 10_000
    sign = hmac.new(CREDENTIALS.secret.encode(), f"GET/realtime{expires}".encode(), "sha256").hexdigest()
    codes = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{exchange.url}/v5/trade") as socket,
    ):
        await socket.send_json({"op": "auth", "args": [CREDENTIALS.key, expires, sign]})
        assert (await socket.receive_json())["retCode"] == 0
        for identity in ("a", "b", "b", "c", "a"):
            header = {"X-BAPI-TIMESTAMP": str(int(time.time() * 1000))}
            order = {"category": "linear", "symbol": "NOPEUSDT"}
            await socket.send_json(
                {"op": "order.create", "reqId": identity, "header": header, "args": [order]}
            )
            codes.append((await socket.receive_json())["retCode"])
    assert codes == [10001, 10001, 20006, 10001, 10001]


async def ask(socket: aiohttp.ClientWebSocketResponse) -> Any:
    await socket.send_json({"op": "ping"})
    return await socket.receive_json()


def signed(raw: bytes) -> dict[str, str]:
    stamp = str(int(time.time() * 1000))
    origin = f"{stamp}{CREDENTIALS.key}5000".encode() + raw
    return {
        "X-BAPI-API-KEY": CREDENTIALS.key, "X-BAPI-TIMESTAMP": stamp, "X-BAPI-RECV-WINDOW": "5000",
        "X-BAPI-SIGN": hmac.new(CREDENTIALS.secret.encode(), origin, "sha256").hexdigest(),
    }  # fmt: skip


async def test_a_refused_order_takes_of_the_limit_and_says_what_is_left(exchange: LocalExchange) -> None:
    raw = b'{"category":"linear","symbol":"NOPEUSDT"}'
    left = []
    async with aiohttp.ClientSession(exchange.url) as session:
        for _ in range(2):
            async with session.post(CREATE, data=raw, headers=signed(raw)) as answer:
                assert (await answer.json())["retCode"] == 10001
                assert answer.headers["X-Bapi-Limit"] == "200"
                left.append(int(answer.headers["X-Bapi-Limit-Status"]))
    assert left == [199, 198]


# --- nonsense by REST -------------------------------------------------------------------------------------

VALUES = (
    "", "0", "-1", "1e400", "NaN", "abc", "BTCUSDT", "linear", "Buy", "Limit", "99999999999999999999",
    "0.00001", "left%3A5", "\u0000", None, True, [], {}, 3.5, -7, 10**30,
)  # fmt: skip
FIELDS = [
    "category",
    "symbol",
    "side",
    "orderType",
    "qty",
    "price",
    "timeInForce",
    "orderLinkId",
    "orderId",
    "interval",
    "start",
    "end",
    "startTime",
    "endTime",
    "limit",
    "cursor",
    "triggerPrice",
    "triggerDirection",
    "positionIdx",
    "takeProfit",
    "stopLoss",
    "tpslMode",
    "buyLeverage",
    "sellLeverage",
    "mode",
    "request",
    "settleCoin",
    "coin",
    "accountType",
    "trailingStop",
    "slippageToleranceType",
    "slippageTolerance",
    "tpOrderType",
    "smpType",
    "setMarginMode",
    "openOnly",
    "orderFilter",
    "status",
    "baseCoin",
    "margin",
    "autoAddMargin",
    "intervalTime",
    "period",
]


async def test_whatever_is_asked_there_is_an_answer(exchange: LocalExchange) -> None:
    rng = random.Random(7)
    codes: set[int] = set()
    async with aiohttp.ClientSession(exchange.url) as session:
        for number in range(1_500):
            signed = list(ENDPOINTS.items())
            path, method = rng.choice(
                [(path, "GET") for path in (*MARKET, *STATISTICS)] + [(p, e.method) for p, e in signed]
            )
            params = {name: rng.choice(VALUES) for name in rng.sample(FIELDS, rng.randrange(12))}
            if number % 2:
                params |= {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit"}
                params |= {"qty": "0.01", "price": "59000"} if number % 4 == 1 else {}
            query = {name: str(value) for name, value in params.items()} if method == "GET" else {}
            raw = urlencode(query) if method == "GET" else json.dumps(params)
            stamp = str(int(time.time() * 1000))
            sign = hmac.new(
                CREDENTIALS.secret.encode(), f"{stamp}{CREDENTIALS.key}5000{raw}".encode(), "sha256"
            )
            headers = {
                "X-BAPI-API-KEY": CREDENTIALS.key, "X-BAPI-TIMESTAMP": stamp, "X-BAPI-RECV-WINDOW": "5000",
                "X-BAPI-SIGN": sign.hexdigest(),
            }  # fmt: skip
            url = URL(f"{path}?{raw}" if method == "GET" else path, encoded=True)
            body = None if method == "GET" else raw
            async with session.request(method, url, data=body, headers=headers) as answer:
                assert answer.status == 200, (path, params, await answer.text())
                codes.add((await answer.json())["retCode"])
    assert 0 in codes
    assert 10001 in codes
    assert codes <= {0, 10001, 10005, 10006, 110001, 110007, 110013, 110015, 110017, 110024, 110025, 110028,
                     110034, 110043, 110044, 110072, 110092, 110093, 110094, 34040,
                     10032, 100028, 131212}  # fmt: skip


@pytest.mark.parametrize("raw", [b"\xff\xfe", b'{"category":"linear","symbol":"\xe9"}'])
async def test_a_body_that_is_not_utf_8_is_refused(exchange: LocalExchange, raw: bytes) -> None:
    async with aiohttp.ClientSession(exchange.url) as session:
        async with session.post(CREATE, data=raw, headers=signed(raw)) as answer:
            assert (answer.status, (await answer.json())["retCode"]) == (200, 10001)
        async with session.post("/admin/move", data=raw) as answer:
            assert answer.status == 400


@pytest.mark.parametrize("interval", ["1", "W", "M"])
@pytest.mark.parametrize("end", [-1, -(10**15), -(10**30)])
async def test_candles_before_there_was_time_are_refused(
    exchange: LocalExchange, interval: str, end: int
) -> None:
    query = {"category": "linear", "symbol": "BTCUSDT", "interval": interval, "end": str(end)}
    async with (
        aiohttp.ClientSession(exchange.url) as session,
        session.get("/v5/market/kline", params=query) as answer,
    ):
        assert (answer.status, (await answer.json())["retCode"]) == (200, 10001)


@pytest.mark.parametrize(
    ("header", "code"), [("X-BAPI-SIGN", 10004), ("X-BAPI-TIMESTAMP", 10002), ("X-BAPI-RECV-WINDOW", 10002)]
)
async def test_a_header_beyond_ascii_is_refused(exchange: LocalExchange, header: str, code: int) -> None:
    headers = signed(b"") | {header: "\u00b2"}
    async with (
        aiohttp.ClientSession(exchange.url) as session,
        session.get("/v5/account/info", headers=headers) as answer,
    ):
        assert (answer.status, (await answer.json())["retCode"]) == (200, code)
