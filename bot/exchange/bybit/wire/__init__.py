"""Bybit V5 messages: `decode` for a frame of a stream, `decode_response` for the answer of an endpoint."""

from bot.exchange.bybit.wire.codec import WireError, unknown
from bot.exchange.bybit.wire.response import Response, decode_response, response_of, response_of_reply
from bot.exchange.bybit.wire.stream import Message, Other, Pushed, decode

__all__ = [
    "Message",
    "Other",
    "Pushed",
    "Response",
    "WireError",
    "decode",
    "decode_response",
    "response_of",
    "response_of_reply",
    "unknown",
]
