"""What a daemon prints: a line for each thing worth one, and a line of state now and then."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from rich.console import Console

from bot.core.commands import Command
from bot.core.events import EntriesAllowed, EntriesBlocked, Event, MarketHealthChanged
from bot.core.records import FeaturesSeen, Record
from bot.dashboard.health import entries_text, unwell_lines
from bot.dashboard.seen import unusual
from bot.dashboard.state import DashboardState, Notable
from bot.dashboard.wording import clock, grouped, money, shortened

STATE_SECONDS: Final = 60.0
SEEN_COLUMNS: Final = 120  # of a held token's features, at each decision bar
UNWELL: Final = 10  # symbols that are told of with every line of state
_STYLES: Final = {"good": "green", "bad": "red", "warning": "yellow"}


class LineView:
    """Feed it every message with `apply`; `tick` it now and then with the market's clock (ms UTC).

    `learn` takes what is long past: it counts, and nothing is printed. unknown: how often each field or topic
    came that this version does not know; each is told once.
    """

    def __init__(
        self,
        balance: float,
        console: Console,
        wall_clock: Callable[[], float] = time.monotonic,
        *,
        unknown: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.state = DashboardState(balance)
        self._console = console
        self._wall_clock = wall_clock
        self._due = wall_clock()
        self._told: Notable | None = None
        self._unhealthy: list[Notable] = []  # of this round; a dead stream concerns every symbol at once
        self._unknown = unknown
        self._unknown_told: set[str] = set()

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
            if isinstance(message, MarketHealthChanged):
                self._unhealthy.append(newest)
                return
            self._line(newest.ts, f"{newest.symbol} {newest.text}".strip(), newest.tone)

    def tick(self, now: int) -> None:
        self._tell_health()
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
        self._tell_unknown(now)

    def _tell_health(self) -> None:
        """One line for all symbols that a fault concerns, or that are well again."""
        heard, self._unhealthy = self._unhealthy, []
        for tone in dict.fromkeys(one.tone for one in heard):
            alike = [one for one in heard if one.tone == tone]
            for names, text in grouped(dict.fromkeys((one.symbol, one.text) for one in alike)):
                self._line(alike[0].ts, f"{names}: {text}", tone)

    def _tell_unknown(self, now: int) -> None:
        if new := sorted(self._unknown.keys() - self._unknown_told):
            self._unknown_told.update(new)
            counted = shortened([f"{name} ({self._unknown[name]:,})" for name in new])
            self._line(now, f"the exchange sends what this version does not know: {counted}", "warning")

    def _line(self, ts: int, text: str, tone: str) -> None:
        self._tell_health()  # which was heard before
        self._console.print(
            f"{clock(ts, seconds=True)}  {text}",
            style=_STYLES.get(tone),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
