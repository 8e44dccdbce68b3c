"""How far our view of one symbol can be trusted: for risk, which refuses entries, and for the dashboard."""

import msgspec

from bot.core.types import Feed, TradingStatus
from bot.market.book import Health, State


class SymbolHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Ages in ms by our clock, None = not heard since the subscription. Counters since the start.

    bars_missing have closed but have not come; bars_lost never came in time; bars_corrected came again with
    other values; trades_late came too late to count.
    """

    symbol: str
    status: TradingStatus
    book: Health
    ages: dict[Feed, int | None]
    stale: tuple[Feed, ...]
    bars_missing: int
    bars_lost: int
    bars_corrected: int
    trades_late: int

    @property
    def faults(self) -> tuple[str, ...]:
        """Why no position may be opened, for people; they stay the same words while they last."""
        found = []
        if self.status is not TradingStatus.TRADING:
            found.append(f"the exchange's status is {self.status}")
        if self.book.state is not State.LIVE:
            found.append(f"the book is {self.book.state}: {self.book.reason}")
        found += [f"{feed}: nothing heard within the deadline" for feed in self.stale]
        if self.bars_missing:
            found.append("bars are missing")
        return tuple(found)

    @property
    def usable(self) -> bool:
        return not self.faults
