"""Order-book messages from JSON in any legal rendering: from the stream, and from REST for audits.

    {"topic": "orderbook.50.BTCUSDT", "type": "delta", "ts": 1731035685345,
     "data": {"s": "BTCUSDT", "b": [["75848.62", "0.014895"], ["75837.13", "0"]], "a": [],
              "u": 2876701, "seq": 47474967823}, "cts": 1731035685342}

REST (`/v5/market/orderbook`) has the content of `data`, `ts` and `cts` in its `result`. Numbers may be
strings or numbers; keys may come in any order and unknown ones are skipped.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from bot.core.errors import DataError

Levels = list[tuple[float, float]]  # price and size, best first
Counter = Annotated[int, Meta(ge=1, lt=2**62)]
Milliseconds = Annotated[int, Meta(ge=0, lt=2**62)]


class _Data(Struct, gc=False):
    s: str
    b: Levels
    a: Levels
    u: Counter
    seq: Annotated[int, Meta(ge=0, lt=2**62)]


class _Message(Struct, gc=False):
    topic: str
    type: Literal["snapshot", "delta"]
    ts: Milliseconds
    data: _Data
    cts: Milliseconds | None = None


class RestBook(Struct, frozen=True):
    """The `result` of an order-book request. Its `u` belongs to another depth; `seq` is comparable."""

    s: str
    b: Levels
    a: Levels
    seq: int


class BookMessage(NamedTuple):
    """A stream message.

    header: 1 for a snapshot else 0, `u`, `seq`, time of the matching engine (ms).
    bids, asks: float64 (n, 2), price and size, still to be checked.
    """

    topic: str
    symbol: str
    header: tuple[int, int, int, int]
    bids: NDArray[np.float64]
    asks: NDArray[np.float64]


_decode: Final = msgspec.json.Decoder(_Message, strict=False).decode


def decode(frame: bytes) -> BookMessage | None:
    """The order-book message in `frame`; None if it isn't one."""
    try:
        message = _decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    data = message.data
    time = message.ts if message.cts is None else message.cts
    header = (int(message.type == "snapshot"), data.u, data.seq, time)
    return BookMessage(message.topic, data.s, header, _levels(data.b), _levels(data.a))


def _levels(levels: Levels) -> NDArray[np.float64]:
    return np.array(levels, np.float64).reshape(-1, 2)


def rest_book(response: Mapping[str, object]) -> RestBook:
    """The book in the answer to an order-book request, given with its envelope.

    Raises DataError if it isn't one.
    """
    try:
        return msgspec.convert(response.get("result"), RestBook, strict=False)
    except msgspec.ValidationError as error:
        code = response.get("retCode")
        raise DataError(f"Not an order book from REST (retCode {code}): {error}. Ask again.") from error
