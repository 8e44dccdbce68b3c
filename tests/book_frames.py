"""Order-book frames as Bybit writes them, and the protocol's rules in their plainest form."""

import json
from typing import Any

from bot.market import book_kernel as kernel
from bot.market.book import Book, Outcome

SYMBOL = "XPLUSDT"
RECEIVED = 1_700_000_000_100


def message(
    kind: str, u: int, bids: Any = (), asks: Any = (), *, seq: int | None = None, depth: int = 50
) -> dict[str, Any]:
    """A message as Bybit writes it; levels are (price, size)."""
    return {
        "topic": f"orderbook.{depth}.{SYMBOL}",
        "type": kind,
        "ts": 1_700_000_000_002,
        "data": {
            "s": SYMBOL,
            "b": [[str(price), str(size)] for price, size in bids],
            "a": [[str(price), str(size)] for price, size in asks],
            "u": u,
            "seq": 10 * u if seq is None else seq,
        },
        "cts": 1_700_000_000_000,
    }


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def send(book: Book, *args: Any, **kwargs: Any) -> Outcome:
    return book.update(compact(message(*args, **kwargs, depth=book.depth)), RECEIVED)


def live_book(**kwargs: Any) -> Book:
    """Bids 100 x 5, 99 x 2, asks 101 x 7, 103 x 1 at update 7."""
    book = Book(SYMBOL, **kwargs)
    assert send(book, "snapshot", 7, [(100, 5), (99, 2)], [(101, 7), (103, 1)]) is Outcome.REPLACED
    return book


def state_of(book: Book) -> dict[str, bytes]:
    """Everything that a book remembers, bit for bit, but for the last message's scratch space."""
    row = book._row
    known = {name: row[name].tobytes() for name in kernel.STATE.names or () if not name.startswith("new_")}
    for name in ("key", "size"):  # what lies behind the last level is no level
        known[name] = b"".join(row[name][side, : row["count"][side]].tobytes() for side in (0, 1))
    return known


class PlainBook:
    """The rules of the protocol on two dictionaries, as slowly and plainly as possible."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.state, self.u, self.seq = "empty", 0, -1
        self.sides: dict[str, dict[float, float]] = {"b": {}, "a": {}}

    def update(self, content: dict[str, Any]) -> str:
        data, snapshot = content["data"], content["type"] == "snapshot"
        u, seq, known = data["u"], data["seq"], self.seq
        self.seq = max(seq, known)
        if self.state != "live" and (not snapshot or seq < known):
            return "ignored"
        if self.state == "live" and not snapshot:
            if u <= self.u and seq <= known:
                return "ignored"
            if u != self.u + 1:
                return self.lose()
        if seq < known:
            return self.lose()
        if snapshot:
            self.sides = {"b": {}, "a": {}}
        for name, levels in self.sides.items():
            levels |= {float(price): float(size) for price, size in data[name]}
            self.sides[name] = {price: size for price, size in levels.items() if size}
        bids, asks = self.sides["b"], self.sides["a"]
        if max(len(bids), len(asks)) > self.depth or (bids and asks and max(bids) >= min(asks)):
            return self.lose()
        self.state, self.u = "live", u
        return "replaced" if snapshot else "applied"

    def lose(self) -> str:
        self.state, self.sides = "stale", {"b": {}, "a": {}}
        return "lost"
