"""Tables of `bot instruments` and `bot data check`: whole at 80 columns, and lines for other programs."""

import io

import pytest
from rich.console import Console

from bot.commands.plain_table import print_table

COLUMNS = ("file", "rows", "first (UTC)", "last (UTC)", "gaps", "missing", "longest gap", "verdict")
ROW = (
    "1000000BABYDOGEUSDT/15m.parquet",
    "70,000",
    "2024-01-01 00:00",
    "2026-01-01 00:00",
    "2",
    "3",
    "",
    "good",
)


def printed(width: int, *, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(width=width, file=file, force_terminal=terminal, color_system=None)
    print_table(console, COLUMNS, [ROW])
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_sees_the_whole_name_and_every_character(width: int) -> None:
    seen = printed(width, terminal=True)
    assert ROW[0] in seen
    assert "…" not in seen
    assert max(map(len, seen.splitlines())) <= width


def test_a_pipe_gets_a_line_for_each_row() -> None:
    assert printed(80, terminal=False).splitlines() == ["\t".join(COLUMNS), "\t".join(ROW)]
