"""Progress of the pretraining: a bar in a terminal, a line now and then without one."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS: Final = 5.0


class PretrainingProgress:
    """Report each finished epoch with `epoch`; use it as a context manager."""

    def __init__(
        self, epochs: int, console: Console | None = None, wall_clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._epochs = epochs
        self._console = console or Console()
        self._wall_clock = wall_clock
        self._due = wall_clock()
        self._bar = Progress(
            TextColumn("Pretraining on BTC and ETH"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
            TextColumn("{task.fields[figures]}"), TimeRemainingColumn(compact=True),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=epochs, figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._bar.stop()

    def epoch(self, done: int, loss: float, tail_loss: float) -> None:
        """`done` epochs are finished; losses in nats, `tail_loss` on the purged tail."""
        figures = f"loss {loss:.4f}  tail {tail_loss:.4f}"
        self._bar.update(self._task, completed=done, figures=figures)
        if not self._console.is_terminal and (self._wall_clock() >= self._due or done == self._epochs):
            self._due = self._wall_clock() + PLAIN_SECONDS
            self._console.print(f"pretraining: epoch {done} of {self._epochs}  {figures}", highlight=False)
