"""What is against trading a token, beside its model: thin trading, data that cannot be trusted, losses.

Trouble is over when it is over; how long ago that is says `calm`. Too much of it in a day, a breaker of the
token's own, or the word of the exchange suspend the token.
"""

import math
from collections import deque
from typing import Final

from bot.core.events import (
    BarClosed,
    FeedRefused,
    InstrumentStatusChanged,
    LiquiditySampled,
    MarketHealthChanged,
)
from bot.core.records import BreakerReleased, BreakerTripped
from bot.core.types import DAY_MS, TradingStatus
from bot.market.liquidity import Liquidity, per_day
from bot.settings import Settings

Concerning = (
    LiquiditySampled
    | MarketHealthChanged
    | FeedRefused
    | InstrumentStatusChanged
    | BreakerTripped  # the token's own
    | BreakerReleased
)
_ENDED: Final = (TradingStatus.DELIVERING, TradingStatus.CLOSED)
_FRESH: Final = 2  # decision bars for which a sample of the book counts
_FOR_EVER: Final = 2**63 - 1  # a time that does not come


class Soundness:
    """Of one token. Feed it each decision bar, then ask; what it does not know is no trouble."""

    def __init__(self, settings: Settings, interval: int, launched: int) -> None:
        """interval: of decision bars, ms; launched: ms UTC"""
        self.calm = 0  # decision bars since the last trouble
        self._limits = settings.universe
        self._most_faults = settings.gate.most_faults
        self._interval = interval
        self._launched = launched
        self._turnovers: deque[float] = deque(maxlen=DAY_MS // interval)
        self._sample: LiquiditySampled | None = None
        self._is_liquid = False
        self._lacks: tuple[str, ...] = ()
        self._faults: tuple[str, ...] = ()
        self._refused: dict[str, None] = {}  # feeds that the exchange does not give us
        self._status = TradingStatus.TRADING
        self._fault_day = self._fault_count = 0
        self._suspensions: dict[str, int] = {}  # reason: until when, ms

    @property
    def trouble(self) -> tuple[str, ...]:
        """In the way of any step up, and the end of SMALL and FULL."""
        found = [*self._lacks, *self._faults, *self._refused]
        if self._status is not TradingStatus.TRADING:
            found.append(f"the exchange's status is {self._status}")
        return tuple(dict.fromkeys(found))

    @property
    def suspended(self) -> str:
        """Why the token is suspended, "" when it is not."""
        ended = [f"the exchange's status is {self._status}"] if self._status in _ENDED else []
        return "; ".join([*ended, *self._suspensions])

    def on_bar(self, bar: BarClosed) -> None:
        self._suspensions = {why: until for why, until in self._suspensions.items() if bar.ts < until}
        self._turnovers.append(bar.turnover)
        self._judge(bar.ts)
        self.calm = 0 if self.trouble or self.suspended else self.calm + 1

    def hear(self, news: Concerning) -> None:
        match news:
            case LiquiditySampled():
                self._sample = news
            case MarketHealthChanged():
                self._on_faults(news)
            case FeedRefused():
                self._refused[news.reason] = None
            case InstrumentStatusChanged():
                self._status = news.status
            case BreakerTripped():
                self._suspensions[news.reason] = news.until or _FOR_EVER
            case BreakerReleased():
                self._suspensions.clear()
        if self.trouble or self.suspended:
            self.calm = 0

    def suspend(self, reason: str) -> None:
        """For good, unless a person releases it."""
        self._suspensions[reason] = _FOR_EVER
        self.calm = 0

    def _on_faults(self, event: MarketHealthChanged) -> None:
        begins = bool(event.faults) and not self._faults
        self._faults = event.faults
        if not begins:
            return
        day = event.ts // DAY_MS
        self._fault_count = self._fault_count + 1 if day == self._fault_day else 1
        self._fault_day = day
        if self._fault_count > self._most_faults:
            reason = f"more than {self._most_faults} faults of its market data in a day"
            self._suspensions[reason] = (day + 1) * DAY_MS

    def _judge(self, ts: int) -> None:
        lacks = self._liquidity(ts).lacks(self._limits, inside=self._is_liquid)
        self._is_liquid, self._lacks = not lacks, lacks

    def _liquidity(self, ts: int) -> Liquidity:
        """By the book and the ticker where they are known, else the turnover by the bars."""
        by_bars = math.fsum(self._turnovers) * DAY_MS / (len(self._turnovers) * self._interval)
        seen = self._sample
        if seen is None or ts - seen.ts > _FRESH * self._interval:
            return Liquidity(by_bars)
        turnover = per_day(seen.turnover_24h, ts - self._launched)
        return Liquidity(
            by_bars if math.isnan(turnover) else turnover,
            seen.spread_bps / 1e4,
            min(seen.bid_depth, seen.ask_depth),
        )
