"""Mutated real messages by a real socket: the stream stays up, counts them all, and no book is ever wrong."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import pytest

from bot.core.commands import RenewBook
from bot.core.types import MINUTE_MS
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.market_watch import MarketWatch
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import BadFrames, BookLost, Delivery, RawBook, Stream
from bot.exchange.bybit.wire.public import Ticker, Trades
from bot.market.book import Book, Health, Outcome, State
from tests.book_frames import PlainBook
from tests.bybit_fixtures import needs_fixtures, samples
from tests.bybit_server import CREDENTIALS, StreamServer, trade_frame
from tests.test_bybit_streams import QUICK
from tests.test_bybit_wire_fuzz import mutated

DEPTH, SYMBOLS = 50, ("BTCUSDT", "WEMIXUSDT")
TOPICS = [f"orderbook.{DEPTH}.{symbol}" for symbol in SYMBOLS]
BATCH = 50  # mutated messages, then the books are mended
MENDING_MS = 20_000  # of the market's time between batches: longer than between two requests for a snapshot


class Exchange(StreamServer):
    """Sends real books: the numbers continue, the levels are the captured ones."""

    def __init__(self) -> None:
        super().__init__()
        pushes = [frame for frame in map(_parsed, samples()) if isinstance(frame, dict) and "topic" in frame]
        self.books = {(frame["topic"], frame.get("type")): frame for frame in pushes}
        small = [frame for frame in self.books.values() if len(str(frame)) < 20_000]
        self.others = [json.dumps(frame).encode() for frame in small]

    def book(self, topic: str, kind: str) -> bytes:
        update = self.update_ids[topic] + 1
        self.update_ids[topic] = update
        frame = self.books[topic, kind]
        return json.dumps({**frame, "data": {**frame["data"], "u": update, "seq": update}}).encode()

    async def push_book(self, topic: str, kind: str = "delta", *, skip: int = 0) -> None:
        await self.push(self.book(topic, kind))


def _parsed(sample: Any) -> Any:
    try:
        return None if sample.path else json.loads(sample.payload)
    except ValueError:
        return None


class Watch:
    """The market as the bot keeps it, beside the plainest books, frame by frame."""

    def __init__(self, stream: Stream, rest: Rest) -> None:
        self._stream = stream
        self._clock = rest.clock
        self._watch = MarketWatch(stream, rest.market, rest.clock, lambda _: None, 15 * MINUTE_MS)
        self._ahead = 0
        self._plain = {symbol: PlainBook(DEPTH) for symbol in SYMBOLS}
        self.outcomes: Counter[Outcome] = Counter()
        self.heard: Counter[type] = Counter()
        for symbol in SYMBOLS:
            self._watch.follow(symbol)

    def book(self, symbol: str) -> Book:
        return self._watch._state[symbol].book

    @property
    def is_well(self) -> bool:
        return all(self.book(symbol).state is State.LIVE for symbol in SYMBOLS)

    def mend(self) -> None:
        """What the bot does once a second, with less patience."""
        self._ahead += MENDING_MS
        for command in self._watch._state.tick(self._clock.now_ms() + self._ahead)[1]:
            if isinstance(command, RenewBook):
                self._stream.renew(command.topic, command.reason)

    def hear(self, delivery: Delivery) -> None:
        message = delivery.message
        self.heard[type(message)] += 1
        if isinstance(message, RawBook) and message.topic in TOPICS:
            symbol = message.topic.rpartition(".")[2]
            book = self.book(symbol)
            before = book.health(0)
            self._watch.hear(delivery)
            outcome = _outcome(before, book.health(0))
            self.outcomes[outcome] += 1
            if outcome is Outcome.REJECTED:  # nobody knows what it would have changed
                self._plain[symbol].lose()
                assert book.state is State.STALE
            else:
                self._compare(message, outcome)
            return
        self._watch.hear(delivery)
        if isinstance(message, BookLost):
            self._plain[message.topic.rpartition(".")[2]] = PlainBook(DEPTH)

    def _compare(self, message: RawBook, outcome: Outcome) -> None:
        """What was taken was well-formed, and did what the protocol says."""
        content = json.loads(message.payload.decode(errors="replace"), strict=False)
        symbol = content["data"]["s"]
        assert message.topic == content["topic"] == f"orderbook.{DEPTH}.{symbol}"
        for name in ("u", "seq"):
            content["data"][name] = int(content["data"][name])
        book, plain = self.book(symbol), self._plain[symbol]
        assert plain.update(content) == outcome.name.lower(), message.payload
        levels = sorted(plain.sides["b"].items(), reverse=True), sorted(plain.sides["a"].items())
        assert (book.bids(), book.asks()) == levels, message.payload


def _outcome(before: Health, after: Health) -> Outcome:
    """What became of one message, by the counters."""
    if after.rejected > before.rejected:
        return Outcome.REJECTED
    if after.ignored > before.ignored:
        return Outcome.IGNORED
    if after.snapshots > before.snapshots and after.state is State.LIVE:
        return Outcome.REPLACED
    return Outcome.APPLIED if after.state is State.LIVE else Outcome.LOST


async def storm(count: int, seed: int) -> Watch:
    """Mutated messages, every other one a book's, each book's followed by the true next delta."""
    rng = random.Random(seed)
    async with Exchange() as server:
        rest = Rest(server.environment, CREDENTIALS)
        stream = Stream(server.url, clock=ExchangeClock(), settings=QUICK, raw_books=True)
        watch = Watch(stream, rest)
        running = asyncio.create_task(stream.run())
        try:
            async with asyncio.timeout(60 + count / 100):
                for number in range(count // BATCH + 1):
                    while not watch.is_well:
                        for delivery in await stream.take():
                            watch.hear(delivery)
                    if number < count // BATCH:
                        await _batch(server, rng)
                    await _drain(server, stream, watch, number)
                    watch.mend()
                while not watch.is_well:  # the last word is a right book
                    for delivery in await stream.take():
                        watch.hear(delivery)
            assert stream.connected
            assert not stream.traffic.lost  # one connection, from beginning to end
            assert stream.traffic.frames > count
            came, known = stream.counts()
            assert came == known
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            rest.close()
    return watch


async def _batch(server: Exchange, rng: random.Random) -> None:
    for _ in range(BATCH):
        topic, other = rng.choice(TOPICS), rng.choice(server.others)
        is_book = rng.random() < 0.5
        kind = "delta" if rng.random() < 0.8 else "snapshot"
        await server.push(mutated(server.book(topic, kind) if is_book else other, other, rng))
        if is_book:
            await server.push_book(topic)


async def _drain(server: Exchange, stream: Stream, watch: Watch, number: int) -> None:
    """Everything that was sent before this trade has been heard after it."""
    last = f"sent-{number}"
    await server.push(trade_frame("BTCUSDT", last))  # type: ignore[arg-type]
    while True:
        for delivery in await stream.take():
            watch.hear(delivery)
            message = delivery.message
            if isinstance(message, Trades) and message.data and message.data[-1].id == last:
                return


def _check(watch: Watch) -> None:
    """Every way out was taken: this has not passed for want of a case."""
    assert not set(Outcome) - watch.outcomes.keys(), watch.outcomes
    assert {Trades, Ticker, BadFrames, BookLost} <= watch.heard.keys(), watch.heard


@needs_fixtures
async def test_two_thousand_mutated_messages_leave_stream_and_books_right() -> None:
    _check(await storm(2_000, seed=1))


@needs_fixtures
@pytest.mark.slow
async def test_a_hundred_thousand_mutated_messages_leave_stream_and_books_right() -> None:
    _check(await storm(100_000, seed=2))
