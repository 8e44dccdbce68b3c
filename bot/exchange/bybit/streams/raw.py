"""Order book frames as they came, for a consumer that reads the bytes itself and checks the continuity."""

import re
from typing import Final

import msgspec

from bot.exchange.bybit import wire
from bot.exchange.bybit.wire import Message
from bot.exchange.bybit.wire.public import Book

_USUAL: Final = b'{"topic":"orderbook.'
_TOPIC_AT: Final = len(b'{"topic":"')
_LONGEST_TOPIC: Final = 64
_SNAPSHOT: Final = re.compile(rb'"type"\s*:\s*"snapshot"')


class RawBook(msgspec.Struct, frozen=True, gc=False):
    """One frame of an order book topic, not looked into."""

    topic: str
    payload: bytes

    @property
    def is_snapshot(self) -> bool:
        if b"\\" in self.payload:  # any character may be written as an escape
            message = wire.decode(self.payload)
            return isinstance(message, Book) and message.type == "snapshot"
        return _SNAPSHOT.search(self.payload) is not None


def decode_all_but_books(payload: bytes) -> Message | RawBook:
    """Like `wire.decode`, but leaves order books alone. Raises WireError for the others."""
    if payload.startswith(_USUAL) and b"\\" not in payload:
        end = payload.find(b'"', _TOPIC_AT, _TOPIC_AT + _LONGEST_TOPIC)
        if end > 0:
            return RawBook(payload[_TOPIC_AT:end].decode("ascii", "replace"), payload)
    message = wire.decode(payload)
    return RawBook(message.topic, payload) if isinstance(message, Book) else message
