"""The live view of a run in the terminal; without one, a plain line every few seconds."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bot.core.commands import Command
from bot.core.events import Event
from bot.core.records import Record
from bot.core.types import DAY_MS
from bot.dashboard.health import entries_text, unwell_lines
from bot.dashboard.seen import unusual
from bot.dashboard.state import NOTABLE, DashboardState
from bot.dashboard.token_table import foremost, last_word, stage_text, token_table, tone_style
from bot.dashboard.wording import clock, money, signed

REFRESH_SECONDS: Final = 0.25
PLAIN_SECONDS: Final = 5.0
_WAITING: Final = "waiting for the adaptation of a model"
UNWELL: Final = 3  # symbols whose faults are spelt out
_FRAME_COLUMNS: Final = 4
_FRAME_LINES: Final = 10  # of the view besides the rows of the tables


class TerminalView:
    """Feed it every message with `apply` and the market's clock with `tick`; use it as a context manager.

    It has no thread: a tick redraws when a quarter of a second has passed and costs one look at the wall
    clock otherwise. `start` and `end` are those of the run, ms UTC.
    """

    def __init__(
        self,
        title: str,
        *,
        simulated: bool,
        start: int,
        end: int,
        balance: float,
        console: Console | None = None,
        wall_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = DashboardState(balance)
        self.apply: Callable[[Event | Command | Record], None] = self.state.apply
        self._title = title
        self._simulated = simulated
        self._start, self._end = start, end
        self._now = start
        self._console = console or Console()
        self._wall_clock = wall_clock
        self._live: Live | None = None
        self._period = REFRESH_SECONDS if self._console.is_terminal else PLAIN_SECONDS
        self._drawn = wall_clock()
        self._drawn_at = start
        self._due = self._drawn + self._period
        self._speed = math.nan
        self._is_waiting = False

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self.render(), console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._draw()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tick(self, now: int) -> None:
        """The market's clock has reached `now` (ms UTC)."""
        self._now = now
        wall = self._wall_clock()
        if wall < self._due:
            return
        self._due = wall + self._period
        began = not self._is_waiting
        self._is_waiting = now == self._drawn_at > self._start  # for a model: the market's time stands still
        if not self._is_waiting:
            self._measure_speed(wall)
        elif self._live is None:  # once per stay, in a log
            if began:
                self._console.print(f"{_WAITING} ...", highlight=False)
            return
        self._draw()

    def _measure_speed(self, wall: float) -> None:
        """Market time per wall time, smoothed over the last few drawings."""
        speed = (self._now - self._drawn_at) / 1000.0 / max(wall - self._drawn, 1e-9)
        self._speed = speed if math.isnan(self._speed) else 0.8 * self._speed + 0.2 * speed
        self._drawn, self._drawn_at = wall, self._now

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self.render(), refresh=True)
        else:
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    @property
    def _market(self) -> str:
        return "SIMULATED MARKET" if self._simulated else "RECORDED MARKET"

    @property
    def _days(self) -> tuple[float, float]:
        return (self._now - self._start) / DAY_MS, (self._end - self._start) / DAY_MS

    # --- the three forms -----------------------------------------------------------------------------------

    def render(self) -> RenderableType:
        """The whole view, for the console's width."""
        state, width = self.state, self._console.width
        unwell = [
            Text(line, "yellow", no_wrap=True, overflow="ellipsis")
            for line in unwell_lines(state.health, UNWELL)
        ]
        rows = max(self._console.height - _FRAME_LINES - NOTABLE - len(unwell), 3)
        colour = "yellow" if self._simulated else "blue"
        warning = " – not real prices" if self._simulated else ""
        return Panel(
            Group(
                self._headline(),
                self._progress(),
                self._account(),
                Text(),
                token_table(state.tokens.values(), self._now, width, rows, state.health.symbols),
                *unwell,
                *self._seen(),
                Text(),
                self._events(),
            ),
            title=Text(f" {self._market}{warning} ", style=f"bold black on {colour}"),
            title_align="left",
            border_style=colour,
            padding=(0, 1),
        )

    def line(self) -> str:
        """One line for a pipe or a log, in ASCII."""
        state = self.state
        day, days = self._days
        stages = ", ".join(f"{t.symbol} {t.stage.value}" for t in state.tokens.values()) or "no token yet"
        halted = "  BREAKER TRIPPED" if state.halted else ""
        board = state.health
        entries = f"  entries {entries_text(board)}" if board.symbols or board.blocked else ""
        speed = self._speed_text.replace("×", "x")
        return (
            f"{self._market}  {clock(self._now)} UTC  day {day:.1f} of {days:.0f}  {speed}  "
            f"equity {money(state.equity)} ({self._gain:+.2%})  drawdown {state.drawdown:.2%}  "
            f"exposure {state.exposure:.1%}  fills {state.fills}{halted}{entries}  {stages}"
        )

    def summary(self, outcome: str = "finished", report: Path | None = None) -> None:
        """Print the final table. `outcome` is how the run ended, in a word or two."""
        state = self.state
        day, days = self._days
        table = Table(
            title=f"{self._market}: {self._title} – day {day:.1f} of {days:.0f}, {outcome}",
            title_style="bold", title_justify="left", header_style="dim", box=box.SIMPLE_HEAD,
            show_edge=False,
        )  # fmt: skip
        for heading in ("token", "stage", "model"):
            table.add_column(heading, no_wrap=True)
        for heading in ("trades", "net P&L", "refused"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("last word", overflow="fold")
        for token in sorted(state.tokens.values(), key=lambda t: t.symbol):
            result = token.realised + token.unrealised
            table.add_row(
                token.symbol, stage_text(token.stage), token.arm or "–", str(token.trades),
                Text(signed(result, ",.2f"), style=_gain_style(result)), f"{token.refusals:,}",
                last_word(token, warm_up=True),
            )  # fmt: skip
        self._console.print()
        self._console.print(table)
        self._console.print(
            Text.assemble(
                ("Equity ", "dim"), (money(state.equity), "bold"), "  ",
                (f"{signed(state.profit, ',.2f')} ({signed(self._gain, '.2%')})", _gain_style(state.profit)),
                ("  after fees ", "dim"), money(state.fees), (" and funding ", "dim"), money(state.funding),
                ("  deepest drawdown ", "dim"), f"{state.worst_drawdown:.2%}",
            )
        )  # fmt: skip
        if report is not None:
            self._console.print(Text.assemble(("Report ", "dim"), str(report)), soft_wrap=True)

    # --- parts of the view ---------------------------------------------------------------------------------

    def _headline(self) -> RenderableType:
        grid = Table.grid(expand=True)
        grid.add_column(no_wrap=True, ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_row(
            Text(self._title, style="bold", overflow="ellipsis"),
            Text.assemble(
                (f"{clock(self._now)} UTC", "bold"),
                f"  {_WAITING if self._is_waiting else self._speed_text}",
            ),
        )
        return grid

    def _progress(self) -> RenderableType:
        day, days = self._days
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        done = min(max(day / days, 0.0), 1.0) if days > 0 else 1.0
        grid.add_row(
            f"day {day:.1f} of {days:.0f}",
            ProgressBar(total=1.0, completed=done, complete_style="cyan", finished_style="cyan"),
            f"{done:.0%}",
        )
        return grid

    def _account(self) -> Text:
        """Figures in as many lines as they need, none of them broken."""
        state = self.state
        gain = f"{signed(state.profit, ',.2f')} ({signed(self._gain, '.2%')})"
        figures = [
            ("equity", money(state.equity), "bold"),
            ("P&L", gain, _gain_style(state.profit)),
            ("drawdown", f"{state.drawdown:.2%}", ""),
            ("today", f"{state.day_drawdown:.2%}", ""),
            ("exposure", f"{state.exposure:.1%}", ""),
            ("breaker", *self._breaker()),
        ]
        board = state.health
        if board.symbols or board.blocked:
            style = "bold red" if board.blocked else "yellow" if board.unwell else "green"
            figures.append(("entries", entries_text(board), style))
        lines = [Text()]
        for label, value, style in figures:
            figure = Text.assemble((f"{label} ", "dim"), (value, style))
            if lines[-1] and lines[-1].cell_len + figure.cell_len + 3 > self._console.width - _FRAME_COLUMNS:
                lines.append(Text())
            lines[-1].append("   " if lines[-1] else "").append_text(figure)
        return Text("\n").join(lines)

    def _breaker(self) -> tuple[str, str]:
        if not self.state.halted:
            return "armed", "green"
        until = self.state.halted_until
        return (
            f"TRIPPED until {clock(until) + ' UTC' if until else 'a person clears it'}",
            "bold white on red",
        )

    def _seen(self) -> list[RenderableType]:
        """What the model of the first token that has one sees."""
        token = next((token for token in foremost(self.state.tokens.values()) if token.features), None)
        if token is None:
            return []
        heading = f"{token.symbol} sees  "
        room = self._console.width - _FRAME_COLUMNS - len(heading)
        return [
            Text.assemble((heading, "dim"), unusual(token.features, room), no_wrap=True, overflow="ellipsis")
        ]

    def _events(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(style="dim", no_wrap=True, min_width=11)
        grid.add_column(no_wrap=True, min_width=max((len(symbol) for symbol in self.state.tokens), default=0))
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for event in reversed(self.state.notable):
            grid.add_row(clock(event.ts)[5:], event.symbol, Text(event.text, style=tone_style(event.tone)))
        return grid

    @property
    def _gain(self) -> float:
        return self.state.equity / self.state.initial - 1.0

    @property
    def _speed_text(self) -> str:
        return "" if math.isnan(self._speed) else f"{self._speed:,.0f}× real time"


def _gain_style(value: float) -> str:
    return "green" if value > 0 else "red" if value < 0 else ""
