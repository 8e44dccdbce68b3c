"""The newest ticker of one symbol."""

import math
from dataclasses import dataclass, fields
from typing import Final

from bot.core.events import TickerChanged

# Stops and liquidations go by the mark price; a market this far from it is broken, or being pushed.
FAR_FROM_MARK: Final = 0.03
FAR_FROM_INDEX: Final = 0.10  # new contracts on coins that hardly trade elsewhere do have premiums


@dataclass(slots=True)
class Ticker:
    """As far as known; NaN (0 for the time) = unknown. Units as in TickerChanged."""

    last_price: float = math.nan
    mark_price: float = math.nan
    index_price: float = math.nan
    funding_rate: float = math.nan
    next_funding_time: int = 0
    open_interest: float = math.nan
    turnover_24h: float = math.nan

    def doubts(self, mid: float) -> list[str]:
        """Prices too far apart to trade on. mid: of the order book, NaN = unknown, which is no doubt here."""
        pairs = (
            ("the last price", self.last_price, "the mark price", self.mark_price, FAR_FROM_MARK),
            ("the order book", mid, "the mark price", self.mark_price, FAR_FROM_MARK),
            ("the mark price", self.mark_price, "the index price", self.index_price, FAR_FROM_INDEX),
        )
        return [
            f"{name} is more than {limit:.0%} from {other}"
            for name, price, other, anchor, limit in pairs
            if abs(price - anchor) > limit * anchor
        ]

    def update(self, event: TickerChanged) -> None:
        for field in fields(self):
            value = getattr(event, field.name)
            if value is not None:
                setattr(self, field.name, value)
            elif event.is_snapshot:
                setattr(self, field.name, field.default)
