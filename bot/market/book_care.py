"""Keeps one order book right: asks for a snapshot when it is lost and compares it with REST now and then."""

from typing import Final

from bot.core.commands import Command, FetchBook, RenewBook
from bot.core.types import MINUTE_MS
from bot.market.book import Audit, Book, State
from bot.market.book_messages import RestBook

AUDIT_MS: Final = 5 * MINUTE_MS
AUDIT_AGAIN_MS: Final = 10_000  # after one that could not be compared
SNAPSHOT_MS: Final = 3_000  # until a snapshot that was asked for is there, at most
SOON_MS: Final = 1_000  # between requests; twice as long each time that the book is soon lost again
LATER_MS: Final = 3_000
STEADY_MS: Final = 10_000  # a book that lived this long is asked for soon
LEVELS: Final = 50


class BookCare:
    """Pure: asked for commands now and then, told the answers. Times: ms UTC.

    audit_ms: between audits; the first is due `audit_ms` after the first look
    """

    def __init__(self, book: Book, audit_ms: int = AUDIT_MS) -> None:
        self._book = book
        self._audit_ms = audit_ms
        self._audit_due: int | None = None
        self._renewed = 0
        self._pause = SOON_MS
        self.renewals = 0  # snapshots asked for
        self._ahead: RestBook | None = None  # an audit whose moment our stream has not reached yet

    def commands(self, now: int) -> list[Command]:
        """What the driver should ask the exchange for."""
        book = self._book
        if self._audit_due is None:
            self._audit_due = now + self._audit_ms
            self._renewed = now if book.state is State.EMPTY else 0
        if book.state is not State.LIVE:
            self._ahead = None
            since = now - self._renewed
            if since < (SNAPSHOT_MS if book.state is State.EMPTY else self._pause):
                return []  # a snapshot is on its way, or the book has just been lost again
            self._pause = SOON_MS if since >= STEADY_MS else min(2 * self._pause, LATER_MS)
            self._renewed = now
            self.renewals += 1
            return [RenewBook(now, book.symbol, book.topic, book.health(now).reason)]
        if now < self._audit_due:
            return []
        self._audit_due = now + AUDIT_AGAIN_MS  # unless an answer says otherwise
        return [FetchBook(now, book.symbol, min(LEVELS, book.depth))]

    def renewed(self, now: int) -> None:
        """The subscription is new: the book waits for its snapshot."""
        self._book.reset()
        self._ahead = None
        self._renewed = now

    def answer(self, rest: RestBook, now: int) -> Audit | None:
        """Audit against a REST book; None while the stream is behind it: `catch_up` does it then."""
        if self._book.state is State.LIVE and rest.seq > self._book.seq:
            self._ahead = rest
            return None
        return self._audit(rest, now)

    def catch_up(self, now: int) -> Audit | None:
        """After every message: the audit that waits, once the stream has reached its moment."""
        if self._ahead is None or self._book.seq < self._ahead.seq:
            return None
        rest, self._ahead = self._ahead, None
        return self._audit(rest, now)

    def _audit(self, rest: RestBook, now: int) -> Audit:
        verdict = self._book.audit(rest, min(LEVELS, self._book.depth))
        if verdict is not Audit.SKIPPED:
            self._audit_due = now + self._audit_ms
        return verdict
