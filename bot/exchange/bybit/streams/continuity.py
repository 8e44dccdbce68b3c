"""Whether a message continues its order book. `u` grows by exactly one with every delta."""

from enum import StrEnum

from bot.exchange.bybit.streams.raw import RawBook
from bot.exchange.bybit.wire.public import Book


class Verdict(StrEnum):
    GOOD = "good"
    WAITING = "waiting for a snapshot"
    REPEATED = "repeated"
    GAP = "gap in the update ids"
    FOREIGN = "data of another symbol"


class BookTrack:
    """The state of one order book topic. `epoch` grows whenever what is queued has become worthless."""

    __slots__ = ("asked", "epoch", "joined_by_consumer", "last", "symbol", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.asked = 0.0  # monotonic time of the last subscription, which a snapshot should answer
        self.symbol = topic.rpartition(".")[2]
        self.joined_by_consumer = topic.startswith("orderbook.full.")  # deltas only, to be joined with REST
        self.epoch = 0
        self.last: int | None = None  # update id; None until a snapshot comes

    def judge(self, book: Book) -> Verdict:
        """Follow the book. After GAP or FOREIGN only a snapshot continues it."""
        if book.data.symbol != self.symbol:
            return Verdict.WAITING if self.last is None else Verdict.FOREIGN
        update = book.data.update_id
        if book.type == "snapshot" or self.joined_by_consumer:
            self.last = update
            return Verdict.GOOD
        if self.last is None:
            return Verdict.WAITING
        if update == self.last + 1:
            self.last = update
            return Verdict.GOOD
        return Verdict.REPEATED if update <= self.last else Verdict.GAP

    def judge_raw(self, book: RawBook) -> Verdict:
        """Only that it begins with a snapshot; the consumer checks the rest."""
        if self.last is None:
            if not book.is_snapshot:
                return Verdict.WAITING
            self.last = 0
        return Verdict.GOOD

    def lose(self) -> None:
        self.last = None
        self.epoch += 1
