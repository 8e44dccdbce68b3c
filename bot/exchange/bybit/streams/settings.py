"""Deadlines and sizes of a stream. The defaults fit Bybit; tests shorten them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

# Seconds of silence, by the beginning of the topic, after which data is stale. Books of quiet tokens may
# pause for long, but depth 1 repeats every 3 s; trades and private topics may rightly be silent for ever.
FRESHNESS: Final[Mapping[str, float]] = MappingProxyType(
    {"orderbook.1.": 10.0, "orderbook.": 60.0, "tickers.": 60.0, "kline.": 90.0}
)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Seconds, unless the name says otherwise."""

    open_s: float = 10.0
    answer_s: float = 5.0  # to auth, subscribe and unsubscribe
    ping_s: float = 20.0
    read_deadline_s: float = 30.0  # pongs count: a connection is never silent for longer than `ping_s`
    close_s: float = 1.0
    look_s: float = 1.0  # how often deadlines are looked at
    steady_s: float = 30.0  # a connection that lived this long resets the backoff
    patience_s: float = 30.0  # after a 403, and at most after a login that is refused again and again
    snapshot_s: float = 3.0  # after a subscription, until a book's snapshot must be there
    renew_pause_s: float = 0.5  # between rounds of resubscribing single topics
    bad_frames_pause_s: float = 10.0
    capacity: int = 20_000  # messages between the socket and the consumer
    frame_bytes: int = 4 * 2**20
    args_per_request: int = 100  # spot: 10
    characters_per_connection: int = 21_000
    freshness: Mapping[str, float] = field(default_factory=lambda: FRESHNESS)
