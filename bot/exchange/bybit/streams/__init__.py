"""Bybit's WebSocket streams, on our own small client."""

from bot.exchange.bybit.streams.backoff import Backoff, ConnectionBudget
from bot.exchange.bybit.streams.inbox import Delivery
from bot.exchange.bybit.streams.notices import (
    BadFrames,
    BookLost,
    Connected,
    Disconnected,
    LoginRefused,
    Notice,
    Resynced,
    ResyncFailed,
    TopicFresh,
    TopicRejected,
    TopicStale,
)
from bot.exchange.bybit.streams.raw import RawBook
from bot.exchange.bybit.streams.settings import StreamSettings
from bot.exchange.bybit.streams.stream import Stream
from bot.exchange.bybit.streams.subscriptions import shards

__all__ = [
    "Backoff",
    "BadFrames",
    "BookLost",
    "Connected",
    "ConnectionBudget",
    "Delivery",
    "Disconnected",
    "LoginRefused",
    "Notice",
    "RawBook",
    "ResyncFailed",
    "Resynced",
    "Stream",
    "StreamSettings",
    "TopicFresh",
    "TopicRejected",
    "TopicStale",
    "shards",
]
