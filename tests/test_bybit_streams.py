"""A stream stays up whatever the exchange does, and never loses a message without saying so."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.environment import Credentials
from bot.exchange.bybit.streams import (
    Backoff,
    BadFrames,
    BookLost,
    Connected,
    ConnectionBudget,
    Delivery,
    Disconnected,
    LoginRefused,
    RawBook,
    Resynced,
    ResyncFailed,
    Stream,
    StreamSettings,
    TopicFresh,
    TopicRejected,
    TopicStale,
)
from bot.exchange.bybit.streams.connection import open_socket
from bot.exchange.bybit.wire.public import Book, Trades
from bot.market.book import Book as MarketBook
from bot.market.book import Outcome
from tests.bybit_server import CREDENTIALS, StreamServer, book_frame, trade_frame

BOOK, TRADE, TICKER = "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT", "tickers.BTCUSDT"
QUICK = StreamSettings(
    open_s=1.0, answer_s=1.0, ping_s=30.0, read_deadline_s=30.0, close_s=0.05, look_s=0.01, renew_pause_s=0.0,
    bad_frames_pause_s=0.0, freshness={},
)  # fmt: skip
T = TypeVar("T")


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[StreamServer]:
    async with StreamServer() as running:
        yield running


@asynccontextmanager
async def streaming(url: str, *topics: str, **options: Any) -> AsyncIterator[Stream]:
    defaults = {
        "settings": QUICK, "sleep": no_sleep, "clock": ExchangeClock(), "budget": ConnectionBudget(1_000_000),
    }  # fmt: skip
    stream = Stream(url, topics, **{**defaults, **options})
    running = asyncio.create_task(stream.run())
    try:
        async with asyncio.timeout(5):
            yield stream
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(
    stream: Stream, kind: type[T], condition: Callable[[T], bool] = lambda _: True
) -> tuple[T, list[Any]]:
    """The first message or notice of this kind, and everything before it."""
    before: list[Any] = []
    while True:
        for delivery in await stream.take(limit=1):
            if isinstance(delivery.message, kind) and condition(delivery.message):
                return delivery.message, before
            before.append(delivery.message)


async def eventually(condition: Callable[[], bool]) -> None:
    """For states that nobody announces; the test's own deadline ends it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def with_settings(**changes: Any) -> StreamSettings:
    values = {name: getattr(QUICK, name) for name in StreamSettings.__slots__}
    return StreamSettings(**{**values, **changes})


# --- connecting -------------------------------------------------------------------------------------------


async def test_data_arrives_typed_after_every_topic_was_acknowledged(server: StreamServer) -> None:
    async with streaming(server.url, BOOK, TRADE) as stream:
        connected, _ = await until(stream, Connected)
        assert connected.number == 1
        await server.push(trade_frame("BTCUSDT", 7))
        trades, _ = await until(stream, Trades)
        assert trades.data[0].price == 100.0
        assert server.topics() == [[BOOK, TRADE]]
        assert stream.is_good(BOOK)
        assert stream.is_good(TRADE)
        assert not stream.is_good("tickers.OTHER")


async def test_subscriptions_leave_in_requests_of_legal_size(server: StreamServer) -> None:
    topics = [f"tickers.A{n}USDT" for n in range(25)]
    async with streaming(server.url, *topics, settings=with_settings(args_per_request=10)) as stream:
        await until(stream, Connected)
    assert [len(request) for request in server.topics()] == [10, 10, 5]
    assert sum(server.topics(), []) == topics  # noqa: RUF017


async def test_a_private_stream_logs_in_before_it_subscribes(server: StreamServer) -> None:
    async with streaming(server.url, "order", "execution", credentials=CREDENTIALS) as stream:
        await until(stream, Connected)
    assert [frame["op"] for frame in server.seen] == ["auth", "subscribe"]


async def test_a_refused_login_is_told_and_tried_again_patiently(server: StreamServer) -> None:
    wrong = Credentials(CREDENTIALS.key, "guess")
    async with streaming(server.url, "order", credentials=wrong) as stream:
        waits = []
        for _ in range(60):  # the clock or the person may have mended it meanwhile
            refused, _ = await until(stream, LoginRefused)
            assert refused.reason == "Params Error (10003)"
            waits.append((await until(stream, Disconnected))[0].retry_in)
            assert not stream.connected
    assert waits[0] <= 1.0
    assert waits[1] <= 2.0
    assert 20.0 < max(waits) <= 30.0
    assert server.topics() == []


async def test_no_log_of_the_connection_shows_the_secret(
    server: StreamServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with streaming(server.url, "order", credentials=CREDENTIALS) as stream:
        await until(stream, Connected)
        assert CREDENTIALS.secret not in caplog.text + repr(stream) + repr(stream.__dict__)


async def test_the_application_ping_leaves_again_and_again(server: StreamServer) -> None:
    async with streaming(server.url, TRADE, settings=with_settings(ping_s=0.01)) as stream:
        await server.until(lambda: _pings(server) >= 3)
        assert stream.connected


def _pings(server: StreamServer) -> int:
    return sum(frame["op"] == "ping" for frame in server.seen)


# --- bad topics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
async def test_one_bad_topic_is_put_aside_and_told_and_the_others_are_subscribed(
    server: StreamServer, named: bool
) -> None:
    topics = [f"tickers.A{n}USDT" for n in range(9)]
    server.unknown_topics = {topics[2], topics[7]}
    server.names_bad_topics = named
    async with streaming(server.url, *topics) as stream:
        _, before = await until(stream, Connected)
        assert {
            notice.topic for notice in before if isinstance(notice, TopicRejected)
        } == server.unknown_topics
        assert stream.rejected.keys() == server.unknown_topics
        assert [topic for topic in topics if stream.is_good(topic)] == [
            topic for topic in topics if topic not in server.unknown_topics
        ]


async def test_a_request_that_is_too_large_is_halved_until_it_fits(server: StreamServer) -> None:
    server.largest_request = 3
    topics = [f"tickers.A{n}USDT" for n in range(10)]
    async with streaming(server.url, *topics) as stream:
        await until(stream, Connected)
        assert stream.rejected == {}
    accepted = [request for request in server.topics() if len(request) <= 3]
    assert sorted(sum(accepted, [])) == sorted(topics)  # noqa: RUF017


async def test_a_rejected_topic_is_asked_for_again_after_a_reconnect(server: StreamServer) -> None:
    server.unknown_topics = {TICKER}
    async with streaming(server.url, TICKER, TRADE) as stream:
        await until(stream, Connected)
        server.unknown_topics = set()
        await server.sessions[0].close(1001)
        await until(stream, Connected)
        assert stream.is_good(TICKER)


async def test_a_rejected_topic_may_be_tried_again_when_it_has_launched(server: StreamServer) -> None:
    server.unknown_topics = {TICKER}
    async with streaming(server.url, TICKER, TRADE) as stream:
        await until(stream, Connected)
        assert not stream.is_good(TICKER)
        server.unknown_topics = set()
        stream.subscribe(TICKER)
        await server.until(lambda: server.topics()[-1] == [TICKER])
        await eventually(lambda: stream.is_good(TICKER))


def test_more_topics_than_a_connection_takes_are_refused_with_the_remedy() -> None:
    topics = [f"orderbook.50.TOKEN{n}USDT" for n in range(2_000)]
    with pytest.raises(ValueError, match="shards"):
        Stream("ws://127.0.0.1:1", topics, clock=ExchangeClock())


# --- what happens to connections --------------------------------------------------------------------------


async def test_after_a_clean_close_it_reconnects_and_subscribes_again(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Connected)
        await server.sessions[0].close(1001, "restart")
        lost, _ = await until(stream, Disconnected)
        connected, _ = await until(stream, Connected)
        assert lost.reason == "closed by the exchange (1001 restart)"
        assert connected.number == 2
        assert server.topics() == [[BOOK], [BOOK]]


async def test_after_a_reset_it_reconnects(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Connected)
        server.sessions[0].transport.abort()
        lost, _ = await until(stream, Disconnected)
        assert "without a close frame" in lost.reason
        assert (await until(stream, Connected))[0].number == 2


async def test_while_the_exchange_refuses_connections_it_keeps_trying(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Connected)
        await server.stop()
        for _ in range(20):
            await until(stream, Disconnected)
        await server.start()
        connected, before = await until(stream, Connected)
        assert connected.number > 20
        assert isinstance(before[-1], Book)


async def test_a_502_is_no_reason_to_give_up(server: StreamServer) -> None:
    server.status = 502
    async with streaming(server.url, BOOK) as stream:
        for _ in range(5):
            lost, _ = await until(stream, Disconnected)
            assert lost.reason == "HTTP 502"
        server.status = None
        await until(stream, Connected)


async def test_a_host_that_hangs_in_the_handshake_is_left() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    hanging = await asyncio.start_server(swallow, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
    async with streaming(url, BOOK, settings=with_settings(open_s=0.02)) as stream:
        lost, _ = await until(stream, Disconnected)
        assert lost.reason == "no answer in time"
    hanging.close()


async def test_a_silent_connection_is_left_after_the_read_deadline(server: StreamServer) -> None:
    server.silent_ops = {"ping"}
    settings = with_settings(ping_s=10.0, read_deadline_s=0.05)
    async with streaming(server.url, BOOK, settings=settings) as stream:
        await until(stream, Connected)
        lost, _ = await until(stream, Disconnected)
        assert lost.reason == "silent for 0.05 s"
        await until(stream, Connected)


async def test_pongs_keep_a_quiet_connection_alive(server: StreamServer) -> None:
    settings = with_settings(ping_s=0.02, read_deadline_s=0.4)
    async with streaming(server.url, "order", settings=settings) as stream:
        await until(stream, Connected)
        await server.until(lambda: _pings(server) >= 25)
        assert stream.traffic.lost.total() == 0


async def test_an_unanswered_subscribe_ends_the_connection(server: StreamServer) -> None:
    server.silent_ops = {"subscribe"}
    async with streaming(server.url, BOOK, settings=with_settings(answer_s=0.02)) as stream:
        lost, _ = await until(stream, Disconnected)
        assert lost.reason == "no answer in time"


async def test_a_thousand_refused_attempts_are_spread_out_and_end_in_a_connection(
    server: StreamServer,
) -> None:
    delays: list[float] = []
    refusals = 1_000

    async def record(delay: float) -> None:
        delays.append(delay)

    def refusing(url: str, settings: StreamSettings) -> Any:
        if len(delays) < refusals:
            raise ConnectionRefusedError
        return open_socket(url, settings)

    backoff = Backoff(0.5, 30.0, random.Random(1))
    async with streaming(server.url, TRADE, sleep=record, opener=refusing, backoff=backoff) as stream:
        connected, _ = await until(stream, Connected)
    assert connected.number == 1_001
    assert max(delays) <= 30.0
    assert delays[0] <= 0.5
    assert sum(delays[10:]) / len(delays[10:]) == pytest.approx(15.0, rel=0.1)  # full jitter below 30 s


async def test_an_attempt_without_an_answer_was_a_wait_already(server: StreamServer) -> None:
    server.silent_ops = {"subscribe"}
    async with streaming(
        server.url, TRADE, settings=with_settings(answer_s=0.05), backoff=Backoff(0.01, 0.01), sleep=no_sleep
    ) as stream:
        for _ in range(3):
            assert (await until(stream, Disconnected))[0].retry_in == 0.0


async def test_a_failure_of_our_own_does_not_end_the_stream_silently(server: StreamServer) -> None:
    failures = 2

    def broken(url: str, settings: StreamSettings) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise KeyError("bug")
        return open_socket(url, settings)

    async with streaming(server.url, TRADE, opener=broken) as stream:
        lost, _ = await until(stream, Disconnected)
        assert lost.reason == "failure in the client: KeyError: 'bug'"
        await until(stream, Connected)


# --- order books ------------------------------------------------------------------------------------------


def assert_contiguous(messages: list[Any]) -> int:
    """Every book message continues the one before, or is a snapshot after a loss. The number of books."""
    last, books = None, 0
    for message in messages:
        if isinstance(message, BookLost | Disconnected):
            last = None
        elif isinstance(message, Book):
            books += 1
            update = message.data.update_id
            assert message.type == "snapshot" or (last is not None and update == last + 1)
            last = update
    return books


async def test_a_gap_is_told_and_mended_with_a_new_snapshot(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Book)
        await server.push_book(BOOK)
        await server.push_book(BOOK, skip=1)
        await server.push_book(BOOK)
        lost, before = await until(stream, BookLost)
        assert lost.reason == "gap in the update ids"
        assert not stream.is_good(BOOK)
        mended, between = await until(stream, Book)
        assert mended.type == "snapshot"
        assert stream.is_good(BOOK)
        assert assert_contiguous([*before, lost, *between, mended]) <= 3
        assert stream.traffic.lost.total() == 0  # the connection was not at fault


async def test_repeated_updates_are_left_out_and_counted(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Book)
        await server.push_book(BOOK)
        await server.push(book_frame(BOOK, "delta", server.update_ids[BOOK]))
        await server.push_book(BOOK)
        await until(stream, Book)
        update, _ = await until(stream, Book)
        assert update.data.update_id == 1_002
        assert stream.inbox.discarded["repeated"] == 1


async def test_data_of_another_symbol_loses_the_book(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Book)
        frame = book_frame("orderbook.50.ETHUSDT", "delta", 1_001)
        await server.push({**frame, "topic": BOOK})
        lost, _ = await until(stream, BookLost)
        assert lost.reason == "data of another symbol"
        assert (await until(stream, Book))[0].type == "snapshot"


async def test_a_consumer_that_finds_a_book_wrong_gets_a_new_snapshot(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Book)
        stream.renew(BOOK, "crossed")
        lost, _ = await until(stream, BookLost)
        assert lost.reason == "crossed"
        assert (await until(stream, Book))[0].type == "snapshot"


async def test_a_lagging_consumer_loses_books_loudly_and_nothing_else(server: StreamServer) -> None:
    settings = with_settings(capacity=100)
    async with streaming(server.url, BOOK, TRADE, settings=settings) as stream:
        await server.until(lambda: bool(server.update_ids[BOOK]))
        for number in range(60):
            await server.push_book(BOOK)
            await server.push(trade_frame("BTCUSDT", number))
        await eventually(lambda: bool(stream.inbox.discarded))
        seen: list[Any] = []
        while not (seen and isinstance(seen[-1], Book) and BookLost in map(type, seen)):
            seen += [delivery.message for delivery in await stream.take(limit=1)]
        assert seen[-1].type == "snapshot"
        assert_contiguous(seen)
        seen += [d.message for d in await _rest(stream)]
        numbers = [int(trade.id) for m in seen if isinstance(m, Trades) for trade in m.data]
        assert numbers == list(range(60))
        assert stream.inbox.discarded["of a lost book"] > 0
        came_in, accounted = stream.counts()
        assert came_in == accounted


async def _rest(stream: Stream) -> list[Delivery]:
    found: list[Delivery] = []
    while stream.inbox.waiting:
        found += await stream.take()
    return found


async def test_a_full_inbox_holds_up_the_reading_and_loses_no_trade(server: StreamServer) -> None:
    settings = with_settings(capacity=10, read_deadline_s=0.02)
    async with streaming(server.url, TRADE, settings=settings) as stream:
        await until(stream, Connected)
        for number in range(200):
            await server.push(trade_frame("BTCUSDT", number))
        await asyncio.sleep(
            0.05
        )  # longer than the read deadline: being held up is not the exchange's silence
        assert stream.traffic.lost.total() == 0
        assert stream.inbox.waiting <= 11
        numbers: list[int] = []
        while len(numbers) < 200:
            for delivery in await stream.take(limit=3):
                assert isinstance(delivery.message, Trades)
                numbers.append(int(delivery.message.data[0].id))
        assert numbers == list(range(200))
        assert stream.counts()[0] == stream.counts()[1]


async def test_what_was_queued_before_a_reconnect_is_not_mixed_into_the_new_book(
    server: StreamServer,
) -> None:
    async with streaming(server.url, BOOK) as stream:
        await server.until(lambda: bool(server.update_ids[BOOK]))
        for _ in range(5):
            await server.push_book(BOOK)
        await server.sessions[0].close(1001)
        await server.until(lambda: len(server.topics()) == 2)
        _, seen = await until(stream, Connected, lambda notice: notice.number == 2)
        assert [type(message) for message in seen] == [Connected, Disconnected, Book]
        assert stream.inbox.discarded["of a lost book"] == 6


async def test_raw_books_feed_the_order_book_of_the_market_package(server: StreamServer) -> None:
    book = MarketBook("BTCUSDT", 50)
    async with streaming(server.url, BOOK, TRADE, raw_books=True) as stream:
        await until(stream, RawBook)
        await server.push(trade_frame("BTCUSDT", 1))
        await until(stream, Trades)  # everything else is typed
        await server.push_book(BOOK, skip=1)
        update, _ = await until(stream, RawBook)
        assert book.update(update.payload, 0) is Outcome.IGNORED  # it has seen no snapshot yet
        stream.renew(BOOK, "the consumer says so")
        await until(stream, BookLost)
        book.reset()
        assert not stream.is_good(BOOK)
        snapshot, _ = await until(stream, RawBook)
        assert stream.is_good(BOOK)
        assert book.update(snapshot.payload, 0) is Outcome.REPLACED
        await server.push_book(BOOK)
        assert book.update((await until(stream, RawBook))[0].payload, 0) is Outcome.APPLIED
        assert stream.counts()[0] == stream.counts()[1]


# --- bad frames, silence, changes -------------------------------------------------------------------------


async def test_bad_frames_are_counted_and_told_and_the_stream_goes_on(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Book)
        nonsense = book_frame(BOOK, "delta", 1_001)
        nonsense["data"]["b"] = [["nan", "1"]]
        from_a_client = '{"op": "subscribe", "args": []}'
        bad = [b"\xff\xfe", "{", "[]", '{"topic": "orderbook.50.BTCUSDT"}', from_a_client, nonsense]
        for frame in bad:
            await server.push(frame)
        await server.push_book(BOOK)
        await until(stream, Book)
        assert stream.traffic.invalid == len(bad)
        assert stream.traffic.lost.total() == 0
        assert stream.counts()[0] == stream.counts()[1]


async def test_a_bad_frame_is_told_with_its_reason(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Book)
        await server.push("{")
        notice, _ = await until(stream, BadFrames)
        assert (notice.count, notice.reason) == (1, "frame: Input data was truncated")


async def test_a_frame_of_enormous_size_costs_the_connection_and_no_more(server: StreamServer) -> None:
    async with streaming(server.url, BOOK, settings=with_settings(frame_bytes=2_000)) as stream:
        await until(stream, Connected)
        await server.push("x" * 10_000)
        await until(stream, Disconnected)
        await until(stream, Connected)


async def test_a_silent_topic_is_told_and_woken_up(server: StreamServer) -> None:
    settings = with_settings(freshness={"orderbook.": 0.05})
    async with streaming(server.url, BOOK, TRADE, settings=settings) as stream:
        await until(stream, Book)
        stale, _ = await until(stream, TopicStale)
        assert stale.topic == BOOK
        await until(stream, TopicFresh)  # being subscribed anew brings a snapshot
        assert (await until(stream, Book))[0].type == "snapshot"
        assert stream.is_good(BOOK)
        assert stream.traffic.lost.total() == 0


async def test_when_every_topic_stays_silent_the_connection_is_changed(server: StreamServer) -> None:
    server.snapshots = False
    settings = with_settings(freshness={"orderbook.": 0.02})
    async with streaming(server.url, BOOK, settings=settings) as stream:
        lost, before = await until(stream, Disconnected)
        assert lost.reason == "no topic speaks any more"
        assert TopicStale in map(type, before)
        assert not stream.is_good(BOOK)


async def test_every_connection_is_followed_by_a_resync(server: StreamServer) -> None:
    calls = 0

    async def resync() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("REST is away too")

    async with streaming(server.url, "order", resync=resync) as stream:
        await until(stream, Connected)
        failed, _ = await until(stream, ResyncFailed)
        assert failed.reason == "ConnectionError: REST is away too"
        await until(stream, Resynced)
        await server.sessions[0].close(1001)
        await until(stream, Connected)
        await until(stream, Resynced)
    assert calls == 3


async def test_topics_can_be_added_and_given_up_while_connected(server: StreamServer) -> None:
    async with streaming(server.url, BOOK) as stream:
        await until(stream, Connected)
        stream.subscribe(TRADE, BOOK)
        await server.until(lambda: server.topics() == [[BOOK], [TRADE]])
        stream.unsubscribe(BOOK)
        await server.until(lambda: server.topics("unsubscribe") == [[BOOK]])
        await server.sessions[0].close(1001)
        await server.until(lambda: len(server.topics()) == 3)
        assert server.topics()[-1] == [TRADE]


async def test_books_that_nobody_asked_for_are_counted_and_not_delivered(server: StreamServer) -> None:
    async with streaming(server.url, TRADE) as stream:
        await until(stream, Connected)
        for number in range(10):
            await server.push_book(f"orderbook.50.UNASKED{number}", "snapshot")
        await server.push(trade_frame("BTCUSDT", 1))
        _, before = await until(stream, Trades)
        assert before == []
        assert stream.inbox.discarded == {"not wanted": 10}
        assert stream.counts()[0] == stream.counts()[1]


async def test_a_topic_that_we_do_not_know_is_counted_and_not_delivered(server: StreamServer) -> None:
    async with streaming(server.url, TRADE) as stream:
        await until(stream, Connected)
        await server.push({"topic": "weather.BTCUSDT", "data": {}})
        await server.push(trade_frame("BTCUSDT", 1))
        _, before = await until(stream, Trades)
        assert before == []
        assert stream.traffic.unknown == 1
        assert stream.counts()[0] == stream.counts()[1]


async def test_a_snapshot_that_does_not_come_is_asked_for_again(server: StreamServer) -> None:
    server.snapshots = False
    impatient = replace(QUICK, snapshot_s=0.05)
    async with streaming(server.url, BOOK, settings=impatient) as stream:
        await server.until(lambda: len(server.topics()) >= 1)
        await server.push_book(BOOK)  # a delta: of no use without a snapshot
        await server.until(lambda: len(server.topics("unsubscribe")) >= 1)
        server.snapshots = True
        await until(stream, Book)
        assert stream.is_good(BOOK)
