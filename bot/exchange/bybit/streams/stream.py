"""A public or private stream that stays up: subscribed, fresh, and in step with its consumer."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NoReturn

from bot.exchange.bybit import wire
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.environment import Credentials
from bot.exchange.bybit.streams.backoff import Backoff, ConnectionBudget
from bot.exchange.bybit.streams.connection import Connection, ConnectionLost, OpenSocket, Traffic, open_socket
from bot.exchange.bybit.streams.continuity import BookTrack, Verdict
from bot.exchange.bybit.streams.freshness import Freshness
from bot.exchange.bybit.streams.inbox import Delivery, Inbox
from bot.exchange.bybit.streams.link import Link
from bot.exchange.bybit.streams.notices import (
    BadFrames,
    BookLost,
    Connected,
    Disconnected,
    Notice,
    Resynced,
    ResyncFailed,
    TopicFresh,
    TopicRejected,
    TopicStale,
)
from bot.exchange.bybit.streams.raw import RawBook, decode_all_but_books
from bot.exchange.bybit.streams.settings import StreamSettings
from bot.exchange.bybit.streams.subscriptions import shards, subscribe, unsubscribe
from bot.exchange.bybit.wire import Pushed, WireError
from bot.exchange.bybit.wire.control import Reply
from bot.exchange.bybit.wire.public import Book

_BOOKS: Final = "orderbook."
Resync = Callable[[], Awaitable[object]]


class Stream:
    """One connection's worth of topics. `run` keeps it alive; `take` gives what arrived.

    Order book topics arrive as a snapshot followed by deltas without a gap; when that cannot be kept up
    (a gap, a lagging consumer, a reconnect) a `BookLost` comes first and a new snapshot follows.
    """

    def __init__(
        self,
        url: str,
        topics: Iterable[str] = (),
        *,
        clock: ExchangeClock,
        credentials: Credentials | None = None,
        resync: Resync | None = None,
        budget: ConnectionBudget | None = None,
        backoff: Backoff | None = None,
        settings: StreamSettings | None = None,
        opener: OpenSocket = open_socket,
        raw_books: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`resync` is awaited after every (re)connection: it asks by REST for what the stream has missed.

        With `raw_books` order book frames arrive as `RawBook`: the consumer reads them, checks their
        continuity and asks for a new snapshot with `renew`.
        """
        self.settings = settings or StreamSettings()
        self.rejected: dict[str, str] = {}  # topic to reason
        self._topics = dict.fromkeys(topics)
        self._require_room(self._topics)
        self._clock = clock
        self._resync = resync
        self._sleep = sleep
        self._inbox = Inbox(self.settings.capacity)
        self._freshness = Freshness(self.settings.freshness)
        self._books: dict[str, BookTrack] = {}
        self._lagging: set[str] = set()
        self._active: set[str] = set()  # subscribed on this connection
        self._to_renew: set[str] = set()
        self._to_drop: set[str] = set()
        self._work = asyncio.Event()
        self._bad_frames = 0
        self._bad_frames_told = float("-inf")
        self._link = Link(
            url, self._session, dialect="req_id", receive=self._receive, tell=self._tell,
            on_bad_frame=self._on_bad_frame, clock=clock, credentials=credentials,
            budget=budget or ConnectionBudget(), backoff=backoff or Backoff(rng=random.Random()),
            settings=self.settings, decode=decode_all_but_books if raw_books else wire.decode,
            opener=opener, sleep=sleep,
        )  # fmt: skip

    async def run(self) -> NoReturn:
        """Until cancelled."""
        await self._link.run()

    async def take(self, limit: int = 1_000) -> list[Delivery]:
        """What has arrived, oldest first, at least one."""
        taken = await self._inbox.take(limit)
        if self._lagging and self._inbox.is_low:
            self._renew(self._lagging)
            self._lagging = set()
        return taken

    def subscribe(self, *topics: str) -> None:
        """Want these too, or try a rejected one again; takes effect at once when connected."""
        new = [topic for topic in topics if topic not in self._topics or topic in self.rejected]
        self._require_room({**self._topics, **dict.fromkeys(new)})
        self._topics.update(dict.fromkeys(new))
        self._renew(new)

    def unsubscribe(self, *topics: str) -> None:
        for topic in topics:
            self._topics.pop(topic, None)
            self._books.pop(topic, None)
            self.rejected.pop(topic, None)
        self._freshness.forget(topics)
        self._to_drop.update(topics)
        self._work.set()

    def renew(self, topic: str, reason: str) -> None:
        """The consumer found this topic's book wrong (crossed, unlike REST): ask for a new snapshot."""
        if topic in self._topics and topic not in self._to_renew:
            self._lose_book(self._books.setdefault(topic, BookTrack(topic)), reason)

    def is_good(self, topic: str) -> bool:
        """Whether data of this topic may be relied upon now."""
        if not self.connected or topic not in self._topics or topic in self.rejected:
            return False
        book = self._books.get(topic)
        return not self._freshness.is_stale(topic) and (book is None or book.last is not None)

    @property
    def connected(self) -> bool:
        return self._link.connection is not None

    @property
    def traffic(self) -> Traffic:
        return self._link.traffic

    @property
    def inbox(self) -> Inbox:
        """For its counts."""
        return self._inbox

    def counts(self) -> tuple[int, int]:
        """Frames that came in, and frames accounted for. They are equal, always."""
        traffic, inbox = self._link.traffic, self._inbox
        known = inbox.delivered + inbox.waiting + inbox.discarded.total()
        return traffic.frames, traffic.control + traffic.invalid + traffic.unknown + known

    # --- while connected ----------------------------------------------------------------------------------

    async def _session(self, connection: Connection) -> NoReturn:
        async def ask(op: str, topics: list[str]) -> Reply:
            return await connection.request(op, list(topics))

        for left_over in (self._active, self._to_renew, self._to_drop, self._lagging):
            left_over.clear()
        self._freshness.restart(time.monotonic())
        await self._subscribe(ask, list(self._topics))
        self._tell(Connected(self._link.connections))
        resyncing = asyncio.ensure_future(self._resync_until_done())
        try:
            while True:
                await self._renew_and_drop(ask)
                self._look_at_freshness()
                await self._work_or_time()
        finally:
            resyncing.cancel()
            await asyncio.gather(resyncing, return_exceptions=True)

    async def _subscribe(self, ask: Callable[[str, list[str]], Awaitable[Reply]], topics: list[str]) -> None:
        for topic in topics:
            self.rejected.pop(topic, None)
        self._freshness.watch(topics, time.monotonic())
        refused = await subscribe(ask, topics, self.settings.args_per_request)
        for topic, reason in refused.items():
            self.rejected[topic] = reason
            self._tell(TopicRejected(topic, reason))
        self._freshness.forget(refused)
        accepted = set(topics) - refused.keys()
        self._active |= accepted
        now = time.monotonic()
        for topic in accepted:
            if topic.startswith(_BOOKS):
                self._books.setdefault(topic, BookTrack(topic)).asked = now

    async def _renew_and_drop(self, ask: Callable[[str, list[str]], Awaitable[Reply]]) -> None:
        """Subscribe anew what needs a new snapshot, give up what is not wanted any more."""
        size = self.settings.args_per_request
        dropped, self._to_drop = self._to_drop - self._topics.keys(), set()
        renewed = [topic for topic in self._to_renew if topic in self._topics]
        self._to_renew = set()
        if leaving := sorted(self._active & (dropped | set(renewed))):
            await unsubscribe(ask, leaving, size)
            self._active.difference_update(leaving)
        if renewed:
            await self._subscribe(ask, renewed)

    async def _work_or_time(self) -> None:
        await asyncio.sleep(self.settings.renew_pause_s)
        try:
            async with asyncio.timeout(self.settings.look_s):
                await self._work.wait()
        except TimeoutError:
            pass
        self._work.clear()

    def _look_at_freshness(self) -> None:
        now = time.monotonic()
        for topic, silent in self._freshness.newly_stale(now):
            self._tell(TopicStale(topic, silent))
        self._renew(self._freshness.to_wake(now))
        self._renew(
            topic
            for topic, track in self._books.items()
            if track.last is None
            and topic in self._active - self._lagging
            and not track.joined_by_consumer
            and now - track.asked > self.settings.snapshot_s
        )
        if self._freshness.dead:
            raise ConnectionLost("no topic speaks any more")

    async def _resync_until_done(self) -> None:
        if self._resync is None:
            return
        backoff = Backoff(base=1.0)
        while True:
            try:
                await self._resync()
            except Exception as error:  # whatever it is, what was missed is still missing
                self._tell(ResyncFailed(f"{type(error).__name__}: {error}"))
                await self._sleep(backoff.next())
            else:
                self._tell(Resynced())
                return

    # --- what arrives -------------------------------------------------------------------------------------

    def _receive(self, message: Pushed | RawBook) -> Awaitable[None] | None:
        topic = message.topic
        if isinstance(message, Book | RawBook):
            self._receive_book(message)
            return None
        if self._freshness.heard(topic, time.monotonic()):
            self._tell(TopicFresh(topic))
        delivery = Delivery(self._clock.now_ms(), message)
        return None if self._inbox.put(delivery) else self._inbox.put_when_possible(delivery)

    def _receive_book(self, book: Book | RawBook) -> None:
        track = self._books.get(book.topic)
        if track is None:
            if book.topic not in self._topics:
                self._inbox.discard("not wanted")  # left over from before an unsubscribe
                return
            track = self._books[book.topic] = BookTrack(book.topic)
        verdict = track.judge(book) if isinstance(book, Book) else track.judge_raw(book)
        if verdict is not Verdict.GOOD:
            self._inbox.discard(verdict)
            if verdict in (Verdict.GAP, Verdict.FOREIGN):
                self._lose_book(track, verdict)
            return
        if self._freshness.heard(book.topic, time.monotonic()):
            self._tell(TopicFresh(book.topic))
        if not self._inbox.put_book(Delivery(self._clock.now_ms(), book), track):
            self._lagging.add(book.topic)
            self._lose_book(track, "the consumer lags", renew=False)  # when it has caught up: see `take`

    def _lose_book(self, track: BookTrack, reason: str, *, renew: bool = True) -> None:
        track.lose()
        self._tell(BookLost(track.topic, reason))
        if renew:
            self._renew([track.topic])

    def _require_room(self, topics: Iterable[str]) -> None:
        limit = self.settings.characters_per_connection
        if len(shards(topics, limit)) > 1:
            raise ValueError(f"topics of more than {limit} characters: spread them with `shards`")

    def _renew(self, topics: Iterable[str]) -> None:
        self._to_renew.update(topics)
        if self._to_renew:
            self._work.set()

    def _on_bad_frame(self, error: WireError) -> None:
        self._bad_frames += 1
        now = time.monotonic()
        if now - self._bad_frames_told >= self.settings.bad_frames_pause_s:
            self._tell(BadFrames(self._bad_frames, str(error)))
            self._bad_frames, self._bad_frames_told = 0, now

    def _tell(self, notice: Notice) -> None:
        if isinstance(notice, Disconnected):
            for track in self._books.values():
                if track.last is not None:
                    track.lose()
        self._inbox.put_notice(self._clock.now_ms(), notice)
