"""What a view shows of the health of the market data and of what blocks entries."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bot.core.events import (
    EntriesAllowed,
    EntriesBlocked,
    FramesUnreadable,
    InstrumentDelisted,
    MarketHealthChanged,
    MarketHealthMeasured,
)
from bot.core.types import Feed


@dataclass(slots=True)
class SymbolHealth:
    """`settled`: it has been well since it was followed, so that a fault is news."""

    faults: tuple[str, ...] = ()
    settled: bool = False
    figures: MarketHealthMeasured | None = None


class HealthBoard:
    """Fold events into the newest picture. Empty in a backtest, whose market does not judge itself."""

    def __init__(self) -> None:
        self.symbols: dict[str, SymbolHealth] = {}
        self.blocked: dict[str, str] = {}  # reasons by cause
        self.refused = 0  # messages that could not be decoded
        self._handlers: dict[type, Callable[[Any], None]] = {
            MarketHealthChanged: self._on_changed,
            MarketHealthMeasured: self._on_measured,
            InstrumentDelisted: self._on_delisted,
            EntriesBlocked: self._on_blocked,
            EntriesAllowed: self._on_allowed,
            FramesUnreadable: self._on_refused,
        }

    def apply(self, event: object) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    @property
    def unwell(self) -> list[str]:
        """Symbols that take no entries."""
        return [symbol for symbol, health in self.symbols.items() if health.faults]

    def _on_changed(self, event: MarketHealthChanged) -> None:
        health = self.symbols.setdefault(event.symbol, SymbolHealth())
        health.faults = event.faults
        health.settled = health.settled or not event.faults

    def _on_measured(self, event: MarketHealthMeasured) -> None:
        self.symbols.setdefault(event.symbol, SymbolHealth()).figures = event

    def _on_delisted(self, event: InstrumentDelisted) -> None:
        self.symbols.pop(event.symbol, None)

    def _on_blocked(self, event: EntriesBlocked) -> None:
        self.blocked[event.cause] = event.reason

    def _on_allowed(self, event: EntriesAllowed) -> None:
        self.blocked.pop(event.cause, None)

    def _on_refused(self, event: FramesUnreadable) -> None:
        self.refused += event.count


def entries_text(board: HealthBoard) -> str:
    """Whether positions may be opened, and what stands in the way."""
    if board.blocked:
        return "blocked by " + "; ".join(f"{cause}: {reason}" for cause, reason in board.blocked.items())
    if board.unwell:
        return f"allowed, but not in {len(board.unwell)} of {len(board.symbols)} symbols"
    return "allowed"


def figures_text(health: SymbolHealth) -> str:
    """Book, counters and what is wrong, for one line."""
    seen = health.figures
    if seen is None:
        return "; ".join(health.faults)
    age = seen.ages.get(Feed.BOOK)
    parts = [
        f"book {seen.book}" + ("" if age is None else f", {age / 1_000:.0f} s old"),
        *(f"{feed} {lag / 1_000:.1f} s late" for feed, lag in seen.lags.items()),
        f"{seen.book_losses} lost, {seen.resyncs} resyncs",
        f"audits {seen.audits_passed} passed, {seen.audits_failed} failed",
        f"{seen.bars_lost} bars lost, {seen.bars_late} late, {seen.bars_corrected} corrected",
        f"{seen.refused} messages refused",
    ]
    return "; ".join((*parts, *health.faults))


def unwell_lines(board: HealthBoard, most: int) -> list[str]:
    """The symbols that take no entries, and why; the first `most` of them in full."""
    lines = [f"{symbol}: {figures_text(board.symbols[symbol])}" for symbol in board.unwell[:most]]
    more = len(board.unwell) - len(lines)
    return [*lines, f"and {more} more that take no entries"] if more else lines
