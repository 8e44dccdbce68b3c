"""How far our view of one symbol can be trusted: for risk, which refuses entries, and for the dashboard."""

import msgspec

from bot.core.types import Feed, TradingStatus
from bot.market.book import Health


class SymbolHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Ages in ms by our clock, None = not heard since the subscription. Counters since the start.

    faults: why no position may be opened, for people; they stay the same words while they last.
    trades_late came too late to count.
    """

    symbol: str
    status: TradingStatus
    faults: tuple[str, ...]
    book: Health
    ages: dict[Feed, int | None]
    stale: tuple[Feed, ...]
    trades_late: int

    @property
    def usable(self) -> bool:
        return not self.faults
