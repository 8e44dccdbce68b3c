"""Tables that can be read at 80 columns, and taken apart by `awk` and `grep`."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The first column names the row and is never cut; the others fold. Into a pipe: tabs, a line a row."""
    if not console.is_terminal:
        for row in (columns, *rows):
            console.file.write("\t".join(row) + "\n")  # rich would make spaces of the tabs
        return
    table = Table()
    for number, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell, "red" if cell == "broken" else "") for cell in row))
    console.print(table)
