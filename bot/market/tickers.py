"""The newest ticker of one symbol."""

import math
from dataclasses import dataclass, fields

from bot.core.events import TickerChanged


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

    @property
    def premium(self) -> float:
        """Mark over index price - 1."""
        return self.mark_price / self.index_price - 1 if self.index_price > 0 else math.nan

    def update(self, event: TickerChanged) -> None:
        for field in fields(self):
            value = getattr(event, field.name)
            if value is not None:
                setattr(self, field.name, value)
            elif event.is_snapshot:
                setattr(self, field.name, field.default)
