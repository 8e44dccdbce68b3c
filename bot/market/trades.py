"""Trades of one symbol, summed over decision bars."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from bot.core.events import Traded
from bot.core.types import Side
from bot.market.periods import Periods

RECENT: Final = 512  # trades whose size tells which one is large
FEWEST: Final = 64  # of them, below which nobody knows
LARGE: Final = 0.95  # quantile of their notional from which a trade is large


@dataclass(slots=True)
class TradeFlow:
    """Trades of one span. Volumes in base coin; turnovers in quote coin; NaN where there was no trade."""

    count: int = 0
    bought: float = 0.0  # by takers
    sold: float = 0.0
    turnover: float = 0.0
    large_turnover: float = 0.0
    large_from: float = math.nan  # notional; NaN while too few trades were seen before the span

    @property
    def volume(self) -> float:
        return self.bought + self.sold

    @property
    def signed_volume(self) -> float:
        return self.bought - self.sold

    @property
    def vwap(self) -> float:
        """Volume-weighted average price."""
        return self.turnover / self.volume if self.count else math.nan

    @property
    def imbalance(self) -> float:
        """(bought - sold) / (bought + sold) in [-1, 1]; 0 without a trade."""
        return self.signed_volume / self.volume if self.count else 0.0

    @property
    def large_share(self) -> float:
        """Share of the turnover in large trades; 0 without a trade."""
        if math.isnan(self.large_from):
            return math.nan
        return self.large_turnover / self.turnover if self.count else 0.0


class Trades:
    """Fixed memory. A trade is large from the 95th percentile of the notionals before its span on.

    span: ms, of a decision bar; `late` counts trades of spans that are no longer kept, `bad` impossible ones
    """

    def __init__(self, span: int, keep: int = 8) -> None:
        self.late = 0
        self.bad = 0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._flows = Periods(span, keep, self._begin)
        self._heard_from: int | None = None  # every trade since then was heard

    def feed(self, ts: int, *, alive: bool) -> None:
        """The stream hears every trade from `ts` on, or may have lost some."""
        self._heard_from = ts if alive else None

    def add(self, trade: Traded) -> None:
        if not (0.0 < trade.price < math.inf and 0.0 < trade.size < math.inf):
            self.bad += 1
            return
        flow = self._flows.at(trade.ts)
        if flow is None:
            self.late += 1
            return
        notional = trade.price * trade.size
        flow.count += 1
        flow.turnover += notional
        if trade.side is Side.BUY:
            flow.bought += trade.size
        else:
            flow.sold += trade.size
        if notional >= flow.large_from:
            flow.large_turnover += notional
        self._recent.append(notional)

    def flow(self, start: int) -> TradeFlow | None:
        """Trades of the span that began at `start` (ms); None unless all were heard and are still kept."""
        if self._heard_from is None or self._heard_from > start:
            return None
        return self._flows.at(start)

    def _begin(self) -> TradeFlow:
        enough = len(self._recent) >= FEWEST
        return TradeFlow(large_from=float(np.quantile(self._recent, LARGE)) if enough else math.nan)
