"""What a daemon prints: a line for each thing worth one, and a line of state now and then."""

import time
from collections.abc import Callable
from typing import Final

from rich.console import Console

from bot.core.commands import Command
from bot.core.events import EntriesAllowed, EntriesBlocked, Event
from bot.core.records import FeaturesSeen, Record
from bot.dashboard.health import entries_text, unwell_lines
from bot.dashboard.seen import unusual
from bot.dashboard.state import DashboardState, Notable
from bot.dashboard.wording import clock, money

STATE_SECONDS: Final = 60.0
SEEN_COLUMNS: Final = 120  # of a held token's features, at each decision bar
UNWELL: Final = 10  # symbols that are told of with every line of state
_STYLES: Final = {"good": "green", "bad": "red", "warning": "yellow"}


class LineView:
    """Feed it every message with `apply`; `tick` it now and then with the market's clock (ms UTC).

    `learn` takes what is long past: it counts, and nothing is printed.
    """

    def __init__(
        self, balance: float, console: Console, wall_clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.state = DashboardState(balance)
        self._console = console
        self._wall_clock = wall_clock
        self._due = wall_clock()
        self._told: Notable | None = None

    def learn(self, message: Event | Command | Record) -> None:
        self.state.apply(message)
        self._told = self.state.notable[-1] if self.state.notable else None

    def apply(self, message: Event | Command | Record) -> None:
        blocked = self.state.health.blocked
        if isinstance(message, EntriesBlocked) and message.cause not in blocked:
            self._line(message.ts, f"no entries ({message.cause}): {message.reason}", "warning")
        elif isinstance(message, EntriesAllowed) and message.cause in blocked:
            self._line(message.ts, f"entries no longer wait for: {message.cause}", "good")
        self.state.apply(message)
        if isinstance(message, FeaturesSeen) and self.state.tokens[message.symbol].qty:
            self._line(message.ts, f"{message.symbol} sees {unusual(message.x, SEEN_COLUMNS)}", "plain")
        newest = self.state.notable[-1] if self.state.notable else None
        if newest is not None and newest is not self._told:
            self._told = newest
            self._line(newest.ts, f"{newest.symbol} {newest.text}".strip(), newest.tone)

    def tick(self, now: int) -> None:
        if self._wall_clock() < self._due:
            return
        self._due = self._wall_clock() + STATE_SECONDS
        state, board = self.state, self.state.health
        held = [token for token in state.tokens.values() if token.qty]
        self._line(
            now,
            f"equity {money(state.equity)}, {len(held)} positions, {len(state.tokens)} tokens, "
            f"{state.fills} fills, entries {entries_text(board)}",
            "plain",
        )
        if warming := [str(token.readiness) for token in state.tokens.values() if token.lacks_bars]:
            more = f"; and {len(warming) - UNWELL} more" if len(warming) > UNWELL else ""
            self._line(now, f"warming up: {'; '.join(warming[:UNWELL])}{more}", "plain")
        for line in unwell_lines(board, UNWELL):
            self._line(now, line, "warning")

    def _line(self, ts: int, text: str, tone: str) -> None:
        self._console.print(
            f"{clock(ts)}  {text}", style=_STYLES.get(tone), markup=False, highlight=False, soft_wrap=True
        )
