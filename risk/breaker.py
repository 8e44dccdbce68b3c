"""The daily drawdown breaker: flatten and halt to the next UTC day.

A halt because the account cannot be valued stays until a person clears it.
"""

import math

from bot.core.records import BreakerReleased, BreakerTripped, EquityMarked
from bot.core.types import DAY_MS


class Breaker:
    """Watches equity with unrealised P&L. While `halted`, no position may be opened; exits always may."""

    def __init__(self, daily_drawdown: float, equity: float) -> None:
        self._limit = daily_drawdown
        self._day = -1
        self._day_equity = equity
        self._day_floor = equity * (1 - daily_drawdown)
        self.peak = equity
        self.halted = False
        self._until = 0  # ms; 0 while halted = until a person clears it

    def restore(self, ts: int, opening: float | None, halted_until: int | None) -> None:
        """Go on with the day of an earlier run at `ts`: the equity that it opened with, and the halt that
        was in force, None for none. A restart is no new day.
        """
        if opening is not None:
            self._day = ts // DAY_MS
            self._day_equity = opening
            self._day_floor = opening * (1 - self._limit)
        if halted_until is not None and (not halted_until or halted_until > ts):
            self.halted = True
            self._until = halted_until

    def release(self, ts: int, reason: str) -> BreakerReleased | None:
        """A person wants to trade on: the day is measured from the next equity. None when not halted."""
        if not self.halted:
            return None
        self.halted = False
        self._day = -1
        return BreakerReleased(ts, reason)

    def transfer(self, amount: float) -> None:
        """Money that came or went without trading is neither a gain nor a loss."""
        self._day_equity += amount
        self._day_floor = self._day_equity * (1 - self._limit)
        self.peak += amount

    def mark(self, ts: int, equity: float) -> BreakerTripped | BreakerReleased | None:
        """Take the newest equity; at most one thing happens."""
        if not math.isfinite(equity) or equity <= 0:
            return self._trip(ts, f"equity is {equity}: the account cannot be valued", 0)
        day = ts // DAY_MS
        if day > self._day:
            self._day = day
            self._day_equity = equity
            self._day_floor = equity * (1 - self._limit)
            if self.halted and self._until and ts >= self._until:
                self.halted = False
                return BreakerReleased(ts, "a new UTC day")
        if equity > self.peak:
            self.peak = equity
        if equity <= self._day_floor and not self.halted:
            loss = 1 - equity / self._day_equity
            reason = f"down {loss:.2%} since 00:00 UTC, the limit is {self._limit:.2%}"
            return self._trip(ts, reason, (self._day + 1) * DAY_MS)
        return None

    def _trip(self, ts: int, reason: str, until: int) -> BreakerTripped | None:
        if self.halted and (not self._until or until):
            return None
        self.halted = True
        self._until = until
        return BreakerTripped(ts, reason, until)

    def record(self, ts: int, equity: float, balance: float, gross: float) -> EquityMarked:
        """The account as the journal keeps it; `gross` is the gross notional in quote coin."""
        return EquityMarked(
            ts,
            equity,
            balance,
            self.peak,
            max(0.0, 1 - equity / self.peak),
            max(0.0, 1 - equity / self._day_equity),
            gross / equity if equity > 0 else math.inf,
        )
