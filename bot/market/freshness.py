"""How long each feed of one symbol has been silent, against its deadline, and how late its news comes."""

from collections.abc import Mapping
from typing import Final

from bot.core.types import MINUTE_MS, Feed

# A quiet token trades and quotes rarely, so silence says little; a ticker is pushed all the time.
DEADLINES: Final[Mapping[Feed, int]] = {
    Feed.BOOK: MINUTE_MS,
    Feed.TRADES: 30 * MINUTE_MS,
    Feed.TICKER: MINUTE_MS,
}
# A message takes a tenth of a second. One that takes so long waited in a queue, the exchange's or ours: what
# it says has passed, though it comes all the time. Our clock is within half a second of the exchange's.
LATE_MS: Final = 3_000


class Freshness:
    """Feeds without a deadline are not watched. Times: ms UTC."""

    def __init__(self, deadlines: Mapping[Feed, int] = DEADLINES) -> None:
        self._deadlines = dict(deadlines)
        self._heard: dict[Feed, int] = {}

    def heard(self, feed: Feed, received: int) -> None:
        self._heard[feed] = max(received, self._heard.get(feed, received))

    def lost(self, feed: Feed) -> None:
        """Disconnected: stale until it is heard again."""
        self._heard.pop(feed, None)

    def age(self, feed: Feed, now: int) -> int | None:
        """None before the first message."""
        heard = self._heard.get(feed)
        return None if heard is None else now - heard

    def stale(self, now: int) -> list[Feed]:
        """Feeds past their deadline, or not heard at all."""
        heard = self._heard
        return [
            feed for feed, limit in self._deadlines.items() if feed not in heard or now - heard[feed] > limit
        ]
