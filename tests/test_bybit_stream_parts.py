"""The parts of a stream on their own: queue, order book continuity, freshness, backoff, subscriptions."""

import asyncio
import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.exchange.bybit import wire
from bot.exchange.bybit.streams import Backoff, ConnectionBudget, Disconnected, shards
from bot.exchange.bybit.streams.continuity import BookTrack, Verdict
from bot.exchange.bybit.streams.freshness import Freshness
from bot.exchange.bybit.streams.inbox import Delivery, Inbox
from bot.exchange.bybit.streams.notices import Notice
from bot.exchange.bybit.streams.raw import RawBook, decode_all_but_books
from bot.exchange.bybit.streams.subscriptions import chunks, subscribe
from bot.exchange.bybit.wire.control import Reply
from bot.exchange.bybit.wire.public import Book, BookData, Klines
from tests.bybit_fixtures import DIRECTORY, needs_fixtures, samples

TOPIC = "orderbook.50.XUSDT"


def book(update: int, kind: Any = "delta", symbol: str = "XUSDT") -> Book:
    return Book(
        topic=TOPIC,
        type=kind,
        ts=1,
        data=BookData(symbol=symbol, bids=[], asks=[], update_id=update, sequence=update),
    )


def delivery(number: int = 0) -> Delivery:
    return Delivery(number, Klines(topic="kline.5.XUSDT", ts=number, data=[]))


# --- order book continuity --------------------------------------------------------------------------------


def test_a_book_begins_with_a_snapshot_and_goes_on_without_gaps() -> None:
    track = BookTrack(TOPIC)
    assert track.judge(book(5)) is Verdict.WAITING
    assert track.judge(book(6, "snapshot")) is Verdict.GOOD
    assert track.judge(book(7)) is Verdict.GOOD
    assert track.judge(book(7)) is Verdict.REPEATED
    assert track.judge(book(9)) is Verdict.GAP
    assert track.judge(book(8, symbol="YUSDT")) is Verdict.FOREIGN
    track.lose()
    assert track.judge(book(8, symbol="YUSDT")) is Verdict.WAITING  # lost once, told once


def test_a_snapshot_replaces_the_book_even_with_a_smaller_update_id() -> None:
    track = BookTrack(TOPIC)
    track.judge(book(900, "snapshot"))
    assert track.judge(book(1, "snapshot")) is Verdict.GOOD  # the service was restarted
    assert track.judge(book(2)) is Verdict.GOOD


def test_a_lost_book_waits_for_a_snapshot() -> None:
    track = BookTrack(TOPIC)
    track.judge(book(1, "snapshot"))
    track.lose()
    assert track.judge(book(2)) is Verdict.WAITING
    assert track.epoch == 1


def test_depth_one_repeats_its_snapshots() -> None:
    track = BookTrack("orderbook.1.XUSDT")
    assert [track.judge(book(7, "snapshot")) for _ in range(3)] == [Verdict.GOOD] * 3


@needs_fixtures
def test_a_real_capture_of_the_exchange_has_no_gap() -> None:
    frames = [wire.decode(s.payload) for s in samples() if s.name.startswith("capture-orderbook-500")]
    assert len(frames) == 50
    track = BookTrack("orderbook.500.XRPUSDT")
    assert {track.judge(frame) for frame in frames if isinstance(frame, Book)} == {Verdict.GOOD}
    assert DIRECTORY.is_dir()


# --- inbox ------------------------------------------------------------------------------------------------


def accounted(inbox: Inbox) -> int:
    return inbox.delivered + inbox.waiting + inbox.discarded.total()


async def test_what_came_in_comes_out_in_order() -> None:
    inbox = Inbox(10)
    for number in range(5):
        assert inbox.put(delivery(number))
    assert [d.received for d in await inbox.take(3)] == [0, 1, 2]
    assert [d.received for d in await inbox.take()] == [3, 4]
    assert (inbox.offered, inbox.delivered, inbox.waiting) == (5, 5, 0)


async def test_books_give_way_before_the_inbox_is_full() -> None:
    inbox, track = Inbox(8), BookTrack(TOPIC)
    assert [inbox.put_book(delivery(), track) for _ in range(8)] == [True] * 6 + [False] * 2
    assert inbox.put(delivery())
    assert inbox.put(delivery())
    assert not inbox.put(delivery())
    assert inbox.offered == accounted(inbox) == 10


async def test_messages_of_a_lost_book_are_not_delivered_but_counted() -> None:
    inbox, track = Inbox(10), BookTrack(TOPIC)
    inbox.put_book(delivery(1), track)
    inbox.put(delivery(2))
    track.lose()
    inbox.put_book(delivery(3), track)
    assert [d.received for d in await inbox.take()] == [2, 3]
    assert inbox.discarded == {"of a lost book": 1}
    assert inbox.offered == accounted(inbox)


async def test_a_message_that_must_not_be_lost_waits_for_room() -> None:
    inbox = Inbox(1)
    inbox.put(delivery(1))
    waiting = asyncio.create_task(inbox.put_when_possible(delivery(2)))
    await asyncio.sleep(0)
    assert (inbox.waiting, waiting.done()) == (2, False)
    assert [d.received for d in await inbox.take()] == [1]
    assert [d.received for d in await inbox.take()] == [2]
    await waiting


async def test_a_message_that_waited_when_its_connection_was_lost_is_counted() -> None:
    inbox = Inbox(1)
    inbox.put(delivery(1))
    waiting = asyncio.create_task(inbox.put_when_possible(delivery(2)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert inbox.offered == accounted(inbox) == 2


async def test_notices_always_fit_and_are_not_counted_as_messages() -> None:
    inbox = Inbox(1)
    inbox.put(delivery(1))
    inbox.put_notice(2, Disconnected("gone", 1.0))
    assert inbox.offered == accounted(inbox) == 1
    assert [type(d.message) for d in await inbox.take()] == [Klines, Disconnected]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["book", "other", "notice", "lose", "take", "discard"]), max_size=80))
def test_every_message_is_accounted_for_whatever_happens(steps: list[str]) -> None:
    async def live() -> None:
        inbox, track, put_when_possible = Inbox(8), BookTrack(TOPIC), 0
        for step in steps:
            if step == "book" and not inbox.put_book(delivery(), track):
                track.lose()
            elif step == "other":
                put_when_possible += inbox.put(delivery())
            elif step == "notice":
                inbox.put_notice(0, Notice())
            elif step == "lose":
                track.lose()
            elif step == "discard":
                inbox.discard("repeated")
            elif step == "take" and inbox.waiting:
                taking = asyncio.ensure_future(inbox.take(3))
                await asyncio.sleep(0)
                taking.cancel()
            assert inbox.offered == accounted(inbox)

    asyncio.run(live())


# --- freshness --------------------------------------------------------------------------------------------


def test_a_topic_is_stale_after_its_own_deadline_and_told_once() -> None:
    watch = Freshness({"orderbook.1.": 3.0, "orderbook.": 10.0})
    watch.watch(["orderbook.1.A", "orderbook.50.A", "publicTrade.A"], now=0.0)
    assert watch.newly_stale(3.0) == []
    assert watch.newly_stale(4.0) == [("orderbook.1.A", 4.0)]
    assert watch.newly_stale(11.0) == [("orderbook.50.A", 11.0)]
    assert watch.is_stale("orderbook.1.A")
    assert not watch.is_stale("publicTrade.A")


def test_a_message_makes_a_stale_topic_fresh_once() -> None:
    watch = Freshness({"kline.": 5.0})
    watch.watch(["kline.5.A"], now=0.0)
    watch.newly_stale(6.0)
    assert watch.heard("kline.5.A", 7.0)
    assert not watch.heard("kline.5.A", 8.0)
    assert not watch.is_stale("kline.5.A")


def test_a_topic_that_stays_silent_is_woken_ever_more_rarely() -> None:
    watch = Freshness({"kline.": 1.0})
    watch.watch(["kline.5.A"], now=0.0)
    watch.newly_stale(2.0)
    woken = [now for now in range(2, 40) if watch.to_wake(float(now))]
    assert woken == [2, 4, 8, 16, 32]


def test_the_connection_is_at_fault_only_when_every_topic_is_silent_in_spite_of_waking() -> None:
    watch = Freshness({"kline.": 1.0})
    watch.watch(["kline.5.A", "kline.5.B"], now=0.0)
    watch.heard("kline.5.B", 5.0)
    for now in (2.0, 4.0, 5.5):
        watch.newly_stale(now)
        watch.to_wake(now)
    assert not watch.dead
    for now in (8.0, 20.0):
        watch.newly_stale(now)
        watch.to_wake(now)
    assert watch.dead
    watch.restart(21.0)
    assert not watch.dead
    assert watch.is_stale("kline.5.A")  # until it speaks


def test_nothing_to_watch_is_never_dead() -> None:
    assert not Freshness({}).dead


# --- backoff and budget -----------------------------------------------------------------------------------


def test_the_ceiling_of_the_wait_doubles_and_the_wait_is_uniform_below_it() -> None:
    waits = [[Backoff(0.5, 30.0, random.Random(seed)).next() for _ in range(1)] for seed in range(400)]
    assert 0 <= min(waits)[0] < max(waits)[0] <= 0.5
    many = []
    for seed in range(400):
        backoff = Backoff(0.5, 30.0, random.Random(seed))
        many.append([backoff.next() for _ in range(9)])
    for attempt, ceiling in enumerate([0.5, 1, 2, 4, 8, 16, 30, 30, 30]):
        column = [waits[attempt] for waits in many]
        assert 0.95 * ceiling < max(column) <= ceiling
        assert sum(column) / len(column) == pytest.approx(ceiling / 2, rel=0.1)


def test_after_a_success_the_first_wait_is_short_again() -> None:
    backoff = Backoff(0.5, 30.0, random.Random(1))
    for _ in range(50):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.5


async def test_no_five_minutes_see_more_connections_than_the_budget() -> None:
    now = 0.0
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    budget = ConnectionBudget(400, 300.0, monotonic=lambda: now, sleep=sleep)
    for _ in range(1_300):
        await budget.take()
        taken.append(now)
    assert taken[299] == 0.0
    assert max(later - earlier for earlier, later in itertools.pairwise(taken)) < 3.0  # never a long silence
    assert all(later - earlier > 299.999 for earlier, later in zip(taken, taken[400:], strict=False))


# --- subscriptions ----------------------------------------------------------------------------------------


def test_chunks_keep_the_order_and_the_size() -> None:
    assert list(chunks("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]


def test_topics_are_spread_over_connections_by_their_length() -> None:
    topics = [f"orderbook.50.TOKEN{n}USDT" for n in range(3_000)]
    parts = shards(topics, 21_000)
    assert [topic for part in parts for topic in part] == topics
    assert all(sum(len(topic) + 3 for topic in part) <= 21_000 for part in parts)
    assert len(parts) <= 5


class Exchange:
    """Accepts requests of good topics; refuses any request with a bad one."""

    def __init__(self, bad: set[str], text: str) -> None:
        self.bad, self.text = bad, text
        self.subscribed: list[str] = []
        self.requests = 0

    async def ask(self, op: str, topics: list[str]) -> Reply:
        self.requests += 1
        refused = [topic for topic in topics if topic in self.bad]
        if refused:
            return Reply(op=op, success=False, stream_text=self.text.format(refused[0]))
        self.subscribed += topics
        return Reply(op=op, success=True)


@pytest.mark.parametrize(
    "text", ["error:handler not found,topic:{}", "Invalid symbol :[{}]", "Invalid topic: {}", "sorry"]
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_exactly_the_bad_topics_are_rejected_and_every_good_one_is_subscribed_once(
    text: str, data: st.DataObject
) -> None:
    topics = [f"tickers.A{n}" for n in range(data.draw(st.integers(1, 40)))]
    bad = set(data.draw(st.lists(st.sampled_from(topics), unique=True)))
    exchange = Exchange(bad, text)
    rejected = asyncio.run(subscribe(exchange.ask, topics, 10))
    assert set(rejected) == bad
    assert sorted(exchange.subscribed) == sorted(set(topics) - bad)
    assert exchange.requests <= 4 + 8 * len(bad)


async def test_a_topic_that_is_subscribed_already_is_no_trouble() -> None:
    exchange = Exchange({"b"}, "error:already subscribed,topic:{}")
    assert await subscribe(exchange.ask, ["a", "b", "c"], 10) == {}
    assert exchange.subscribed == ["a", "c"]


async def test_options_name_their_bad_topics_and_subscribe_the_rest() -> None:
    async def ask(op: str, topics: list[str]) -> Reply:
        return Reply(success=True, type="COMMAND_RESP", data={"failTopics": ["b"], "successTopics": ["a"]})

    assert await subscribe(ask, ["a", "b"], 10) == {"b": "refused"}


def test_a_book_frame_with_escapes_is_what_it_says() -> None:
    """Any character of a JSON string may be written as an escape."""
    data = b'{"s":"BTCUSDT","b":[],"a":[],"u":1,"seq":1}'
    plain = b'{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":1,"data":' + data + b"}"
    escaped = plain.replace(b"BTCUSDT", rb"\u0042TCUSDT").replace(b"snapshot", rb"snap\u0073hot")
    for payload in (plain, escaped):
        frame = decode_all_but_books(payload)
        assert isinstance(frame, RawBook)
        assert (frame.topic, frame.is_snapshot) == ("orderbook.50.BTCUSDT", True)
