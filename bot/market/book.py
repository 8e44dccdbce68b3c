"""The verified local order book of one symbol.

    book = Book("XPLUSDT", depth=50)
    if book.update(frame, received) is Outcome.LOST:
        ...  # unsubscribe, book.reset(), subscribe: only a new snapshot can repair it
    if book.state is State.LIVE and book.lag <= 3_000:
        features = book.features()

A book is live only while it is exactly what the exchange had at the newest message: `u` without a hole, `seq`
never backwards, bids below asks, no more levels than subscribed to, no audit failed. On any doubt it forgets
its levels and is stale until a snapshot replaces it. Nothing in a frame raises.
"""

import math
from enum import IntEnum, StrEnum
from functools import cache
from mmap import mmap
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError, UsageError
from bot.market import book_kernel as kernel
from bot.market.book_messages import Levels, RestBook, decode


class Outcome(IntEnum):
    """What became of a message."""

    APPLIED = kernel.APPLIED  # a delta changed the book
    REPLACED = kernel.REPLACED  # a snapshot became the book
    IGNORED = kernel.IGNORED  # a repetition, or a delta without a book
    LOST = kernel.LOST  # the book became stale; Health.reason says why
    REJECTED = kernel.REJECTED  # not an order-book message of this topic


class State(StrEnum):
    EMPTY = "empty"  # no snapshot since the subscription
    LIVE = "live"
    STALE = "stale"


class Audit(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"  # not comparable: the stream had no message at the `seq` of the REST book


class Features(NamedTuple):
    """Of the book after the last message; NaN where unknown (stale, or a side is missing).

    Sizes in base coin, spread in basis points of mid, imbalances in [-1, 1], depths in quote coin within the
    book's band around mid. `ofi`: base coin, summed since `take_ofi`. Formulas: `book_kernel`. A loop that
    needs few of them at every message reads `Book.live_features` (an array that each message rewrites, in
    this order) instead.
    """

    bid: float
    bid_size: float
    ask: float
    ask_size: float
    spread_bps: float
    microprice: float
    imbalance_5: float
    imbalance_10: float
    imbalance_50: float
    ofi: float
    bid_depth: float
    ask_depth: float


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How far a book can be trusted. `receipt_age`: ms since the last message
    that changed it, None before one; `lag` as in `Book`."""

    symbol: str
    state: State
    reason: str  # why it is not live, for people
    lag: int
    receipt_age: int | None
    updates: int
    snapshots: int
    ignored: int
    rejected: int
    gaps: int
    crossings: int
    overfull: int
    disorders: int
    unknown_deletes: int
    audits_passed: int
    audits_failed: int
    audits_skipped: int


_OUTCOMES: Final = tuple(Outcome)
_STATES: Final = tuple(State)
_REASONS: Final = {
    kernel.GAP: "gap: update {offender} came after {u}",
    kernel.CROSSED: "best bid not below best ask after update {offender}",
    kernel.OVERFULL: "more than {depth} levels on a side after update {offender}",
    kernel.DISORDER: "out of order: update {offender} came after {u}",
    kernel.AUDIT: "differs from the REST book at update {offender}",
    kernel.UNREADABLE: "a message after update {offender} could not be read",
}


@cache
def _compile() -> None:
    """Compiles the kernels, or loads them from the cache, now rather than at the first message.

    Closes them to other argument types afterwards: the parser relies on the NUL behind a `bytes` object,
    which a memoryview doesn't have.
    """
    memory = np.zeros(kernel.STATE.itemsize, np.uint8)
    none = np.zeros((0, 2))
    kernel.update(b"", memory, 0)
    kernel.apply(memory, none, none, (1, 1, 0, 0), 0)
    kernel.lose(memory, kernel.AUDIT)
    kernel.reset(memory)
    for entry in (kernel.update, kernel.apply, kernel.lose, kernel.reset):
        entry.disable_compile()


class Book:
    """Order book of the topic `orderbook.{depth}.{symbol}` in fixed memory, whatever comes.

    depth: levels a side subscribed to, 1 to 1000. band_bps: distance from mid up to which `Features` sums
    notional. Raises UsageError for a depth or a symbol that can't be.
    """

    def __init__(self, symbol: str, depth: int = 50, band_bps: float = 10.0) -> None:
        if not 1 <= depth <= kernel.MAX_DEPTH:
            raise UsageError(f"An order book has 1 to {kernel.MAX_DEPTH} levels a side, not {depth}.")
        _compile()
        self.symbol = symbol
        self.depth = depth
        self.topic = f"orderbook.{depth}.{symbol}"
        # Anonymous pages cost nothing until touched: a book of 50 levels uses a third of its room for 1000.
        self._memory = np.frombuffer(mmap(-1, kernel.STATE.itemsize), np.uint8)
        self._row = self._memory.view(kernel.STATE)[0]
        self.live_features: Final[NDArray[np.float64]] = self._row["features"]
        self._row["depth"] = depth
        self._row["band"] = band_bps / 1e4
        self._expect("head", b'{"topic":' + msgspec.json.encode(self.topic) + b',"type":"')
        self._expect("middle", b',"data":{"s":' + msgspec.json.encode(symbol) + b',"b":[')
        self.odd_frame = b""  # the newest that the fast parser left to the general one
        self._rejected = 0
        self._audits = dict.fromkeys(Audit, 0)
        self.reset()

    def _expect(self, part: str, text: bytes) -> None:
        if len(text) > len(self._row[part]):
            raise UsageError(f"{self.symbol!r} is too long for a symbol.")
        self._row[part][: len(text)] = np.frombuffer(text, np.uint8)
        self._row[f"{part}_length"] = len(text)

    def update(self, frame: bytes, received: int) -> Outcome:
        """Take one message of the stream, received at `received` (ms UTC)."""
        outcome = kernel.update(frame, self._memory, received)
        if outcome == kernel.OTHER_LAYOUT:
            return self.update_any_layout(frame, received)
        return _OUTCOMES[outcome]

    def update_any_layout(self, frame: bytes, received: int) -> Outcome:
        """The general way of `update`, without assumptions about how the JSON is written; same result."""
        self.odd_frame = frame
        message = decode(frame)
        outcome = Outcome.REJECTED
        if message is not None and message.topic == self.topic and message.symbol == self.symbol:
            outcome = _OUTCOMES[
                kernel.apply(self._memory, message.bids, message.asks, message.header, received)
            ]
        self._rejected += outcome is Outcome.REJECTED
        return outcome

    def distrust(self) -> None:
        """A message of the topic was REJECTED: what it changed is unknown, so the book is stale."""
        if self.state is not State.STALE:
            kernel.lose(self._memory, kernel.UNREADABLE)

    def reset(self) -> None:
        """Forget the book for a new subscription; the counters stay."""
        kernel.reset(self._memory)

    @property
    def state(self) -> State:
        return _STATES[int(self._row["condition"])]

    @property
    def seq(self) -> int:
        """The exchange's cross sequence number of the newest message; -1 before one."""
        return int(self._row["seq"])

    @property
    def lag(self) -> int:
        """How long the newest delta was on its way from the matching engine to us, ms; 0 after a snapshot."""
        return int(self._row["lag"])

    @property
    def mid(self) -> float:
        """NaN unless the book is live and has both sides."""
        return float(self.live_features[kernel.BID] + self.live_features[kernel.ASK]) / 2

    def features(self) -> Features:
        return Features(*self.live_features.tolist())

    def take_ofi(self) -> float:
        """The order-flow imbalance since it was last taken (or the book was lost)."""
        ofi = float(self.live_features[kernel.OFI])
        self.live_features[kernel.OFI] = 0.0
        return ofi

    def bids(self, limit: int = kernel.MAX_DEPTH) -> Levels:
        """(price, size), highest price first."""
        return [(-key, size) for key, size in self._side(0, limit)]

    def asks(self, limit: int = kernel.MAX_DEPTH) -> Levels:
        """(price, size), lowest price first."""
        return self._side(1, limit)

    def _side(self, side: int, limit: int) -> Levels:
        count = min(limit, int(self._row["count"][side]))
        keys, sizes = self._row["key"][side, :count], self._row["size"][side, :count]
        return list(zip(keys.tolist(), sizes.tolist(), strict=True))

    def audit(self, rest: RestBook, limit: int) -> Audit:
        """Compare with a REST book of `limit` levels a side; a difference makes this book stale.

        Only equal `seq` can be compared: all levels if it is that of the newest message, the best ones if it
        is that of one of the last few. Raises DataError if the REST book is another symbol's.
        """
        if rest.s != self.symbol:
            raise DataError(f"The REST book is of {rest.s}, not of {self.symbol}: ask for the right one.")
        equal = self._equals(rest, min(limit, self.depth))
        verdict = Audit.SKIPPED if equal is None else Audit.PASSED if equal else Audit.FAILED
        self._audits[verdict] += 1
        if verdict is Audit.FAILED:
            kernel.lose(self._memory, kernel.AUDIT)
        return verdict

    def _equals(self, rest: RestBook, limit: int) -> bool | None:
        if self.state is not State.LIVE:
            return None
        if rest.seq == self.seq:
            return self.bids(limit) == rest.b[:limit] and self.asks(limit) == rest.a[:limit]
        past = np.flatnonzero(self._row["past_seq"] == rest.seq)
        if len(past) != 1:
            return None
        best = [value for side in (rest.b, rest.a) for value in (side[0] if side else (math.nan, math.nan))]
        return np.array_equal(self._row["past_top"][past[0]], best, equal_nan=True)

    def health(self, now: int) -> Health:
        """For risk and the dashboard; `now` in ms UTC."""
        row = self._row
        lost = row["lost"].tolist()
        began = row["snapshots"] > 0
        return Health(
            symbol=self.symbol,
            state=self.state,
            reason=self._reason(),
            lag=self.lag,
            receipt_age=now - int(row["received"]) if began else None,
            updates=int(row["updates"]),
            snapshots=int(row["snapshots"]),
            ignored=int(row["ignored"]),
            rejected=self._rejected,
            gaps=lost[kernel.GAP],
            crossings=lost[kernel.CROSSED],
            overfull=lost[kernel.OVERFULL],
            disorders=lost[kernel.DISORDER],
            unknown_deletes=int(row["unknown_deletes"]),
            audits_passed=self._audits[Audit.PASSED],
            audits_failed=self._audits[Audit.FAILED],
            audits_skipped=self._audits[Audit.SKIPPED],
        )

    def _reason(self) -> str:
        if self.state is State.EMPTY:
            return "no snapshot yet"
        if self.state is State.LIVE:
            return ""
        row = self._row
        return _REASONS[int(row["reason"])].format(offender=row["offender"], u=row["u"], depth=self.depth)
