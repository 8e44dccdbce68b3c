"""The bounded queue between a socket and its consumer, which never loses anything without saying so."""

import asyncio
from collections import Counter, deque
from typing import Final, NamedTuple

from bot.exchange.bybit.streams.continuity import BookTrack
from bot.exchange.bybit.streams.notices import Notice
from bot.exchange.bybit.streams.raw import RawBook
from bot.exchange.bybit.wire import Pushed

_BOOK_SHARE: Final = 0.75  # books give way first: they can be had again
_LOW_WATER: Final = 0.25


class Delivery(NamedTuple):
    """One message or notice; `received` is our receipt time on the exchange's clock, ms UTC."""

    received: int
    message: Pushed | RawBook | Notice


class _Entry(NamedTuple):
    delivery: Delivery
    track: BookTrack | None
    epoch: int


class Inbox:
    """Books that do not fit are given up (and later renewed); everything else waits for room.

    `offered` = `delivered` + `waiting` + the sum of `discarded`, always.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._books_up_to = max(1, int(capacity * _BOOK_SHARE))
        self._low_water = int(capacity * _LOW_WATER)
        self._entries: deque[_Entry] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._notices = 0  # among the entries
        self._held = 0  # messages that wait for room
        self.offered = 0
        self.delivered = 0
        self.discarded: Counter[str] = Counter()  # messages, by reason

    @property
    def waiting(self) -> int:
        """Messages in the queue and before it."""
        return len(self._entries) - self._notices + self._held

    @property
    def is_low(self) -> bool:
        """The consumer has caught up."""
        return len(self._entries) <= self._low_water

    def discard(self, reason: str) -> None:
        """Account for a message that is not worth queueing."""
        self.offered += 1
        self.discarded[reason] += 1

    def put_book(self, delivery: Delivery, track: BookTrack) -> bool:
        """False if there is no room for books; the message is accounted for as lagging."""
        if len(self._entries) >= self._books_up_to:
            self.discard("the consumer lags")
            return False
        self._append(_Entry(delivery, track, track.epoch))
        return True

    def put(self, delivery: Delivery) -> bool:
        """False, with nothing changed, if there is no room: then await `put_when_possible`."""
        if len(self._entries) >= self._capacity:
            return False
        self._append(_Entry(delivery, None, 0))
        return True

    async def put_when_possible(self, delivery: Delivery) -> None:
        """Cancelled while it waits, the message is lost with its connection, and counted."""
        self._held += 1
        try:
            while len(self._entries) >= self._capacity:
                self._room.clear()
                await self._room.wait()
        except asyncio.CancelledError:
            self.discard("connection lost while the consumer lagged")
            raise
        finally:
            self._held -= 1
        self.put(delivery)

    def put_notice(self, received: int, notice: Notice) -> None:
        """Notices always fit: there are few, and they tell of the trouble."""
        self._notices += 1
        self._entries.append(_Entry(Delivery(received, notice), None, 0))
        self._arrived.set()

    async def take(self, limit: int = 1_000) -> list[Delivery]:
        """At least one delivery, oldest first; up to `limit` of those that are there."""
        taken: list[Delivery] = []
        while not taken:
            while not self._entries:
                self._arrived.clear()
                await self._arrived.wait()
            while self._entries and len(taken) < limit:
                delivery, track, epoch = self._entries.popleft()
                if track is not None and track.epoch != epoch:
                    self.discarded["of a lost book"] += 1
                    continue
                if isinstance(delivery.message, Notice):
                    self._notices -= 1
                else:
                    self.delivered += 1
                taken.append(delivery)
            self._room.set()
        return taken

    def _append(self, entry: _Entry) -> None:
        self.offered += 1
        self._entries.append(entry)
        self._arrived.set()
