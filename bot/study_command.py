"""`bot study`: options in, a study, its predictions and its table out."""

import csv
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from bot.core.errors import UsageError
from bot.settings import Settings
from bot.storage.barfiles import INTERVALS

ARMS: Final = (
    "base_rate", "lgbm_pooled", "frozen", "chain", "chain_head", "lgbm_token", "head", "full", "scratch", "mmd",
    "coral", "adversarial", "unaligned",
)  # fmt: skip
"""Most valuable first. Always-short, the pooled rate and the ensemble cost nothing and come with them."""
PLAIN_SECONDS: Final = 15.0


def study(
    settings: Settings,
    data: Annotated[Path, typer.Option("--data", help="Folder of bars: SYMBOL/15m.parquet and so on.")],
    funding: Annotated[
        Path | None, typer.Option("--funding", help="Folder of funding rates, SYMBOL.parquet.")
    ] = None,
) -> None:
    raise NotImplementedError


class StudyProgress:
    """A bar with the time that is left in a terminal, a line now and then without one."""

    def __init__(self, console: Console, wall_clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._wall_clock = wall_clock
        self._began = self._due = wall_clock()
        self._total, self._done = 0.0, 0.0
        self._bar = Progress(
            TextColumn("Study"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[what]}"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None, what="features")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._bar.stop()

    def total(self, seconds: float) -> None:
        self._total = seconds
        self._began = self._wall_clock()
        self._bar.update(self._task, total=seconds)

    def done(self, seconds: float, what: str) -> None:
        self._done += seconds
        self._bar.update(self._task, completed=self._done, what=what)
        now = self._wall_clock()
        if not self._console.is_terminal and (now >= self._due or self._done >= self._total):
            self._due = now + PLAIN_SECONDS
            left = (now - self._began) / self._done * (self._total - self._done)
            self._console.print(
                f"study: {self._done / self._total:.0%}  {what}  about {left / 60:.0f} min left", highlight=False
            )
