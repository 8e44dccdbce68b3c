"""Drawdown breakers: latches that stop entries, and flatten where so configured.

What trips, on equity with unrealised P&L:

- EQUITY:  the account cannot be valued
- DAY:     the loss since 00:00 UTC; released at the next UTC day
- ROLLING: the loss from the highest equity of the newest `rolling_days`
- PEAK:    the loss from the highest equity ever
- TOKEN:   the loss of one token since 00:00 UTC, against the account's equity; released at the next UTC day

The others stay until a person clears them. A restart clears nothing (`restore`).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

from bot.core.records import BreakerReleased, BreakerTripped, EquityMarked, Latch
from bot.core.types import DAY_MS
from bot.settings import Risk

_REASONS: Final = {
    Latch.DAY: "since 00:00 UTC",
    Latch.ROLLING: "from the highest equity of the newest days",
    Latch.PEAK: "from the highest equity ever",
}


class Breaker:
    """Watches equity. While `halted`, no position may be opened; exits always may."""

    def __init__(self, risk: Risk, equity: float) -> None:
        self._limits = {
            Latch.DAY: risk.daily_drawdown,
            Latch.ROLLING: risk.rolling_drawdown,
            Latch.PEAK: risk.peak_drawdown,
        }
        self._token_limit = risk.token_daily_loss
        self._flatten = risk.on_breaker == "flatten"
        self._window = risk.rolling_days
        self._latched: dict[Latch, BreakerTripped] = {}
        self._tokens: dict[str, BreakerTripped] = {}
        self._token_days: dict[str, tuple[int, float]] = {}  # day, P&L that it opened with
        self._day = -1
        self._equity = equity  # the newest that is one
        self._opening = equity  # of the day
        self._highs: dict[int, float] = {}  # highest equity of each of the newest days
        self.peak = equity
        self._high = equity  # what equity must exceed to be a new high of the day
        self._floor = -math.inf
        self._set_references()

    # --- what it says --------------------------------------------------------------------------------------

    @property
    def halted(self) -> bool:
        return bool(self._latched)

    @property
    def reason(self) -> str:
        """Why the account is halted, "" when it is not."""
        return next((record.reason for record in self._latched.values()), "")

    def token_reason(self, symbol: str) -> str:
        """Why this token is halted, "" when it is not."""
        record = self._tokens.get(symbol)
        return record.reason if record else ""

    def flattens(self, symbol: str) -> bool:
        """Whether an open position of this token is to be closed now."""
        return self._flatten and (bool(self._latched) or symbol in self._tokens)

    def room(self, equity: float) -> float:
        """What may still be lost before a breaker trips, quote coin."""
        return max(0.0, equity - self._floor)

    # --- what it is told -----------------------------------------------------------------------------------

    def mark(self, ts: int, equity: float) -> list[BreakerTripped | BreakerReleased]:
        """Take the newest equity."""
        if 0 < equity <= self._high and equity > self._floor and ts // DAY_MS <= self._day:  # most often
            self._equity = equity
            return []
        if not math.isfinite(equity) or equity <= 0:
            return [*self._trip(ts, Latch.EQUITY, f"equity is {equity}: the account cannot be valued", 0)]
        self._equity = equity
        out: list[BreakerTripped | BreakerReleased] = []
        if ts // DAY_MS > self._day:
            out += self._begin_day(ts, equity)
        if equity > self._high:
            self._rise(equity)
        if equity <= self._floor:
            out += self._fall(ts, equity)
        return out

    def mark_token(self, ts: int, symbol: str, pnl: float, equity: float) -> list[BreakerTripped]:
        """Take the P&L of one token since ever (realised, unrealised and costs), quote coin."""
        day = ts // DAY_MS
        known = self._token_days.get(symbol)
        if known is None or known[0] < day:
            known = self._token_days[symbol] = (day, pnl)
        loss = known[1] - pnl
        if not loss >= self._token_limit * equity > 0 or symbol in self._tokens:
            return []
        lost = f"{symbol} lost {loss / equity:.2%} of equity since 00:00 UTC"
        reason = f"{lost}, the limit is {self._token_limit:.2%}"
        record = BreakerTripped(ts, reason, (day + 1) * DAY_MS, Latch.TOKEN, symbol)
        self._tokens[symbol] = record
        return [record]

    def transfer(self, amount: float) -> None:
        """Money that came or went without trading is neither a gain nor a loss."""
        self._opening += amount
        self.peak += amount
        self._highs = {day: high + amount for day, high in self._highs.items()}
        self._set_references()

    def release(self, ts: int, reason: str) -> BreakerReleased | None:
        """A person ends every halt; None without one.

        What was lost so far counts no more: else it would trip again at once.
        """
        if not self._latched and not self._tokens:
            return None
        self._latched.clear()
        self._tokens.clear()
        self._token_days.clear()
        self._opening = self.peak = self._equity
        self._highs = {self._day: self._equity}
        self._set_references()
        return BreakerReleased(ts, reason)

    def restore(
        self,
        ts: int,
        opening: float | None,
        highs: Mapping[int, float] | None = None,
        peak: float | None = None,
        halts: Iterable[BreakerTripped] = (),
        lost: Mapping[str, float] | None = None,
    ) -> None:
        """Go on where earlier runs of the account were at `ts`: a restart is no new day and clears nothing.

        opening: equity at the beginning of the day, None if no run saw it; highs: highest equity by day
        since the epoch; halts: those that were not released; lost: by each token since 00:00 UTC, in
        positions that have ended
        """
        day = ts // DAY_MS
        if opening is not None:
            self._day, self._opening = day, opening
        self._token_days = {symbol: (day, amount) for symbol, amount in (lost or {}).items()}
        self._highs = {key: high for key, high in (highs or {}).items() if key > day - self._window}
        self.peak = max(self.peak, peak or 0.0)
        for record in halts:
            if record.until and record.until <= ts:
                continue
            if record.latch is Latch.TOKEN:
                self._tokens[record.symbol] = record
            else:
                self._latched[record.latch] = record
        self._set_references()

    def record(self, ts: int, equity: float, balance: float, gross: float, ledger: int = 0) -> EquityMarked:
        """The account as the journal keeps it; `gross` is the gross notional in quote coin."""
        peak, opening = self.peak, self._opening
        return EquityMarked(
            ts,
            equity,
            balance,
            peak,
            1 - equity / peak if equity < peak else 0.0,
            1 - equity / opening if equity < opening else 0.0,
            gross / equity if equity > 0 else math.inf,
            ledger,
        )

    # --- parts ---------------------------------------------------------------------------------------------

    def _references(self) -> dict[Latch, float]:
        """The equity from which each loss is counted."""
        rolling = max([self._opening, *self._highs.values()])
        return {Latch.DAY: self._opening, Latch.ROLLING: rolling, Latch.PEAK: self.peak}

    def _set_references(self) -> None:
        self._high = self._highs.get(self._day, -math.inf)
        self._floor = max(
            (
                high * (1 - self._limits[latch])
                for latch, high in self._references().items()
                if latch not in self._latched
            ),
            default=-math.inf,
        )

    def _begin_day(self, ts: int, equity: float) -> list[BreakerReleased]:
        self._day, self._opening = ts // DAY_MS, equity
        self._highs = {day: high for day, high in self._highs.items() if day > self._day - self._window}
        released = [
            BreakerReleased(ts, "a new UTC day", latch)
            for latch, record in self._latched.items()
            if record.until and ts >= record.until
        ]
        released += [
            BreakerReleased(ts, "a new UTC day", Latch.TOKEN, symbol)
            for symbol, record in self._tokens.items()
            if record.until and ts >= record.until
        ]
        for record in released:
            if record.latch is Latch.TOKEN:
                del self._tokens[record.symbol]
            elif record.latch is not None:
                del self._latched[record.latch]
        self._rise(equity)
        return released

    def _rise(self, equity: float) -> None:
        self.peak = max(self.peak, equity)
        self._highs[self._day] = max(equity, self._highs.get(self._day, equity))
        self._set_references()

    def _fall(self, ts: int, equity: float) -> list[BreakerTripped]:
        out = []
        for latch, high in self._references().items():
            limit = self._limits[latch]
            if equity <= high * (1 - limit):
                reason = f"down {1 - equity / high:.2%} {_REASONS[latch]}, the limit is {limit:.2%}"
                out += self._trip(ts, latch, reason, (self._day + 1) * DAY_MS if latch is Latch.DAY else 0)
        return out

    def _trip(self, ts: int, latch: Latch, reason: str, until: int) -> list[BreakerTripped]:
        if latch in self._latched:
            return []
        record = BreakerTripped(ts, reason, until, latch)
        self._latched[latch] = record
        self._set_references()
        return [record]
