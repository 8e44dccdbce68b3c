"""The closing account of a run as a table."""

from collections.abc import Sequence

from rich.table import Table

from bot.exchange.bybit.audit import Line


def audit_table(lines: Sequence[Line]) -> Table:
    equal = all(line.equal for line in lines)
    title = "Our books equal the exchange's" if equal else "Our books differ from the exchange's"
    table = Table("", "ours", "the exchange's", "", title=title, title_justify="left")
    for line in lines:
        verdict = "equal" if line.equal else "[red]differs[/red]"
        table.add_row(line.what, line.ours, line.theirs, verdict)
    return table
