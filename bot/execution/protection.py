"""No position without a live stop on the exchange for longer than `naked_seconds`, and none held for ever.

Looked at after every fact about a position, at each of its prices, and live once a second.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from bot.core.types import Instrument, Position
from bot.settings import Risk
from risk.stops import due_stop

ENDED: Final = "no longer traded, or about to end: it is closed"
_GRACE_MS: Final = 2_000  # from the first sight of a position of ours: its stop travels inside the entry
_REPEAT_MS: Final = 5_000  # before the same wish is told again


class Move(NamedTuple):
    """The stop to set."""

    stop: Decimal


class Close(NamedTuple):
    """The position has to end; `alarm` "" where nobody needs to be told."""

    alarm: str


@dataclass(slots=True)
class _Watched:
    """One position. Times, but for `opened`, are by Protection's own clock, ms."""

    opened: int
    seen: int
    best: float  # the most favourable price since then; for stops that follow the price
    good: Position | None = None  # as it was when its stop was found good
    naked_since: int | None = None  # when it was first asked to be given a stop
    asked: Decimal | None = None  # the newest stop that was asked for
    asked_at: int = 0


class Protection:
    """interval: of decision bars, ms"""

    def __init__(self, risk: Risk, interval: int) -> None:
        self._risk = risk
        self._follows = bool(risk.trailing_stops or risk.break_even_stops)
        self._longest = risk.max_holding_bars * interval
        self._naked_ms = int(risk.naked_seconds * 1_000)
        self._clock = 0  # time that has passed between receipts, ms: bars that come at once pass none
        self._received = 0
        self._watched: dict[str, _Watched] = {}
        self._planned: dict[str, Decimal | None] = {}

    def plan(self, symbol: str, stop: Decimal | None) -> None:
        """An entry leaves, with this stop inside."""
        self._planned[symbol] = stop

    def forget(self, symbol: str) -> None:
        """The position is gone."""
        self._watched.pop(symbol, None)

    def take_over(self, other: "Protection") -> None:
        """Go on with the positions that `other` watched."""
        self._clock, self._received, self._watched = other._clock, other._received, other._watched
        self._planned = other._planned

    def look(
        self, position: Position, instrument: Instrument | None, price: float, now: int, received: int
    ) -> Move | Close | None:
        """What a position needs at `price`, at `now` (ms, of the market).

        instrument: None where it is not traded, or not known yet: at a start what is held comes first
        """
        if received > self._received > 0:  # it may be set back
            self._clock += received - self._received
        self._received = received
        watched = self._watched.get(position.symbol)
        if watched is None or watched.opened != position.opened:
            watched = self._watched[position.symbol] = _Watched(position.opened, self._clock, price)
        if instrument is None:
            waited = self._clock - watched.seen >= _GRACE_MS
            return Close(ENDED) if waited else None
        if now - position.opened >= self._longest:
            return Close(f"held for {self._risk.max_holding_bars} bars: it is closed")
        if watched.good is position and not self._follows:
            return None
        return self._due(watched, position, instrument, price)

    def _due(
        self, watched: _Watched, position: Position, instrument: Instrument, price: float
    ) -> Move | Close | None:
        """For its stop."""
        watched.best = max(watched.best, price) if position.qty > 0 else min(watched.best, price)
        if self._is_naked(position, watched):
            return Close(f"no stop for {self._risk.naked_seconds:g} s: it is closed")
        planned = self._planned.get(position.symbol)
        if position.stop is None and planned is not None and self._clock - watched.seen < _GRACE_MS:
            return None
        stop = due_stop(position, planned, watched.best, instrument, self._risk)
        if stop is None:
            watched.good, watched.asked = position, None
            return None
        if (price - float(stop)) * position.side.sign <= 0:  # passed already: no stop can be set there
            return Close("")
        if stop == watched.asked and self._clock - watched.asked_at < _REPEAT_MS:
            return None
        watched.asked, watched.asked_at = stop, self._clock
        if position.stop is None and watched.naked_since is None:
            watched.naked_since = self._clock
        return Move(stop)

    def _is_naked(self, position: Position, watched: _Watched) -> bool:
        """For too long."""
        if position.stop is not None:
            watched.naked_since = None
            return False
        return watched.naked_since is not None and self._clock - watched.naked_since >= self._naked_ms
