"""Ways out of positions: reduce-only market orders, tried again until nothing is left."""

from typing import Final

from bot.core.records import Alarm
from bot.core.types import Position
from bot.engine.account_view import AccountView
from bot.engine.decisions import Message
from risk.manager import RiskManager

_PAUSE_MS: Final = 15_000  # after an exit that was not carried out, a bar at most; doubled each time
_LONGEST_PAUSE_MS: Final = 300_000


class Exits:
    """interval: of decision bars, ms; `unsold`: delisted, or the exchange did not carry out the exit"""

    def __init__(self, account: AccountView, manager: RiskManager, interval: int) -> None:
        self._account = account
        self._manager = manager
        self._first_pause = min(interval, _PAUSE_MS)
        self.unsold: set[str] = set()
        self._pauses: dict[str, tuple[int, int]] = {}  # until when no exit is tried again, and how long it is

    def close(self, position: Position, ts: int, alarm: str = "") -> list[Message]:
        """An order for what is not yet on its way out; not at once after a failure."""
        symbol, orders = position.symbol, self._account.orders
        qty = abs(position.qty) - orders.leaving(symbol)
        until, pause = self._pauses.get(symbol, (0, 0))
        if qty <= 0 or until - pause <= ts < until:  # the clock may have been set back: no pause is for ever
            return []
        link_id = orders.next_id(symbol)
        approved = self._manager.approve_exit(symbol, position.side.opposite, qty, link_id)
        out: list[Message] = [Alarm(ts, symbol, alarm)] if alarm else []
        return [*out, orders.place(approved, ts, 0.0)]

    def close_delisted(self, symbol: str, ts: int) -> list[Message]:
        """What is still held of it is sold while that can be done."""
        self.unsold.add(symbol)
        position = self._account.portfolio.positions.get(symbol)
        return self.close(position, ts) if position else []

    def close_unsold(self, ts: int) -> list[Message]:
        """At each bar or mark of any symbol: a delisted one has no bars of its own any more."""
        held = self._account.portfolio.positions
        self.unsold &= held.keys()
        return [message for name in sorted(self.unsold) for message in self.close(held[name], ts)]

    def covers(self, position: Position) -> bool:
        """Whether all of it is on its way out."""
        return self._account.orders.leaving(position.symbol) >= abs(position.qty)

    def failed(self, symbol: str, ts: int) -> None:
        """The exchange did not carry out an exit from what is still held."""
        self.unsold.add(symbol)
        _, last = self._pauses.get(symbol, (0, 0))
        pause = min(max(2 * last, self._first_pause), _LONGEST_PAUSE_MS)
        self._pauses[symbol] = ts + pause, pause

    def ended(self, symbol: str) -> None:
        """The position is gone."""
        self._pauses.pop(symbol, None)

    def take_over(self, other: "Exits") -> None:
        self.unsold, self._pauses = other.unsold, other._pauses
