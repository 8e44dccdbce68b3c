"""Progress of long work: a bar with the time that is left in a terminal, a line now and then without one."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PLAIN_SECONDS: Final = 10.0


class WorkProgress:
    """Report with `reached` or `done`; use it as a context manager. Amounts are in any one unit."""

    def __init__(
        self,
        title: str,
        total: float = 0.0,
        console: Console | None = None,
        wall_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._console = console or Console()
        self._wall_clock = wall_clock
        self._began = self._due = wall_clock()
        self._total, self._reached = total, 0.0
        self._bar = Progress(
            TextColumn(title), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[what]}"),
            TimeRemainingColumn(compact=True), console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total or None, what="")

    def __enter__(self) -> Self:
        self._bar.start()
        if not self._console.is_terminal:  # the first part may take a while
            self._console.print(f"{self._title}: begins", highlight=False)
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._bar.stop()

    def total(self, amount: float) -> None:
        """Everything that is to be done from now on."""
        self._total, self._reached = amount, 0.0
        self._began = self._wall_clock()
        self._bar.update(self._task, total=amount, completed=0)

    def done(self, amount: float, what: str) -> None:
        """So much more is done; `what` was the last of it."""
        self.reached(self._reached + amount, what)

    def reached(self, amount: float, what: str) -> None:
        """So much is done in all."""
        self._reached = amount
        self._bar.update(self._task, completed=amount, what=what)
        now, ended = self._wall_clock(), amount >= self._total
        if self._console.is_terminal or not (now >= self._due or ended):
            return
        self._due = now + PLAIN_SECONDS
        line = f"{self._title}: {amount / self._total:.0%}  {what}"
        if not ended:
            line += f"  {_span((now - self._began) / amount * (self._total - amount))} left"
        self._console.print(line, highlight=False)


def _span(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"
