"""The table with one row per token; it drops columns where the terminal is narrow."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from bot.core.types import DAY_MS, Feed, Rung, Stage
from bot.core.verdict import BASE_RATE
from bot.dashboard.health import SymbolHealth
from bot.dashboard.state import TokenState
from bot.dashboard.wording import signed

_STAGE_STYLE: Final = {
    Stage.OBSERVE: "dim",
    Stage.SHADOW: "magenta",
    Stage.SMALL: "yellow",
    Stage.FULL: "bold green",
    Stage.SUSPENDED: "bold red",
}
_VERDICT_STYLE: Final = {"entered": "green", "refused": "yellow", "exited": "cyan", "held": ""}
_TONE_STYLE: Final = {"good": "green", "bad": "red", "warning": "yellow"}
_RANK: Final = {
    stage: rank for rank, stage in enumerate((Stage.FULL, Stage.SMALL, Stage.SHADOW, Stage.OBSERVE))
}


def tone_style(tone: str) -> str:
    return _TONE_STYLE.get(tone, "")


def stage_text(stage: Stage) -> Text:
    return Text(stage.value, style=_STAGE_STYLE[stage])


class _Column(NamedTuple):
    heading: str
    least_width: int  # of the terminal, for the column to be shown
    right: bool
    cell: Callable[[TokenState, int], Text | str]


def foremost(tokens: Iterable[TokenState]) -> list[TokenState]:
    """Those in the market and higher on the ladder first."""
    return sorted(tokens, key=lambda t: (t.qty == 0, _RANK.get(t.stage, len(_RANK)), t.symbol))


def token_table(
    tokens: Iterable[TokenState], now: int, width: int, rows: int, health: Mapping[str, SymbolHealth]
) -> Table:
    """At most `rows` tokens, the foremost.

    health: of the market's data; empty where the market does not judge itself: then there is no column of it
    """
    columns = [column for column in _COLUMNS if width >= column.least_width]
    if health:
        columns.insert(2, _Column("data", 0, False, lambda token, _: _data(health.get(token.symbol))))
    table = Table(box=box.SIMPLE_HEAD, expand=True, show_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column.heading, justify="right" if column.right else "left", no_wrap=True)
    narrow = width < _WARM_UP_WIDTH
    table.add_column("last decision", no_wrap=True, overflow="ellipsis", ratio=1)
    ordered = foremost(tokens)
    for token in ordered[:rows]:
        table.add_row(*(column.cell(token, now) for column in columns), last_word(token, warm_up=narrow))
    if len(ordered) > rows:
        table.add_row(Text(f"… {len(ordered) - rows} more", style="dim"))
    if not ordered:
        table.add_row(Text("no token is listed yet", style="dim"))
    return table


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _warm_up(token: TokenState, _: int) -> Text | str:
    """After a gap a token of any stage may lack bars again."""
    if token.lacks_bars:
        return _bars(token)
    return "–" if token.stage is Stage.OBSERVE else Text("ready", style="dim")


def _bars(token: TokenState) -> str:
    seen = token.readiness
    if seen is None:
        return ""
    return f"{seen.have}/{seen.need} bars" + (f", {seen.refused} refused" if seen.refused else "")


def _age(token: TokenState, now: int) -> str:
    return f"{(now - token.listed) / DAY_MS:.1f} d" if token.listed else "–"


def _model(token: TokenState, _: int) -> Text:
    text = Text(token.arm or "–")
    return text.append(" ↻", "cyan") if token.adapting else text


def _rung(token: TokenState, _: int) -> Text | str:
    """And what is in the way of the next one."""
    seen = token.rung
    if seen is None:
        return "–"
    return Text.assemble(seen.rung, (f" {seen.reason}", "dim")) if seen.rung is Rung.NONE else Text(seen.rung)


def _transfer(token: TokenState, _: int) -> str:
    """What the verdict chose, and the gain over the base rate of what leads."""
    seen = token.transfer
    if seen is None:
        return "–"
    gain = next((one for one in seen.gains if (one.arm, one.rival) == (token.arm, BASE_RATE)), None)
    if gain is None or math.isnan(gain.low):
        return seen.chosen
    return f"{seen.chosen} {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def _confidence(token: TokenState, _: int) -> Text | str:
    if math.isnan(token.p_up) or math.isnan(token.confidence):
        return "–"
    arrow, style = ("▲", "green") if token.p_up > 0.5 else ("▼", "red") if token.p_up < 0.5 else ("·", "dim")
    return Text.assemble(f"{token.confidence:.2f} ", (arrow, style))


def _data(health: SymbolHealth | None) -> Text | str:
    """Well, or how many faults; how old the book is; what was lost so far."""
    if health is None:
        return "–"
    text = Text(f"{len(health.faults)} faults", "red") if health.faults else Text("well", "green")
    seen = health.figures
    if seen is None:
        return text
    age = seen.ages.get(Feed.BOOK)
    if age is not None:
        text.append(f" {age / 1_000:.0f} s", "dim")
    lost = seen.book_losses + seen.audits_failed + seen.bars_lost + seen.refused
    return text.append(f" −{lost}", "yellow") if lost else text


def _quality(token: TokenState, _: int) -> Text | str:
    """Accuracy, skill over the base rate and calibration error of the newest days' matured labels."""
    seen = token.quality
    if seen is None or math.isnan(seen.accuracy):
        return "–"
    style = "green" if seen.skill > 0 else "red"
    return Text.assemble(f"{seen.accuracy:.0%} ", (signed(seen.skill, ".3f"), style), f" {seen.ece:.2f}")


def _position(token: TokenState, _: int) -> str:
    return f"{signed(token.qty, ',.6g')} ({signed(token.notional, ',.0f')})" if token.qty else "–"


def _notional(token: TokenState, _: int) -> str:
    return signed(token.notional, ",.0f") if token.qty else "–"


def _stop(token: TokenState, _: int) -> Text | str:
    if not token.qty:
        return "–"
    return Text("NONE", style="bold red") if math.isnan(token.stop) else f"{token.stop:g}"


def _unrealised(token: TokenState, _: int) -> Text | str:
    if not token.qty:
        return "–"
    value = token.unrealised
    return Text(signed(value, ",.2f"), style="green" if value > 0 else "red" if value < 0 else "")


def last_word(token: TokenState, *, warm_up: bool) -> Text:
    """The last verdict with its reason; while there can be none, the warm-up if asked for."""
    if token.lacks_bars and (warm_up or not token.verdict):
        return Text(f"warming up {_bars(token)}" if warm_up else "", style="dim")
    reason = f": {token.reason}" if token.reason else ""
    return Text.assemble((token.verdict, _VERDICT_STYLE.get(token.verdict, "dim")), (reason, "dim"))


_WARM_UP_WIDTH: Final = 150
_COLUMNS: Final = (
    _Column("token", 0, False, lambda token, _: token.symbol),
    _Column("stage", 0, False, lambda token, _: stage_text(token.stage)),
    _Column("warm-up", _WARM_UP_WIDTH, True, _warm_up),
    _Column("age", 140, True, _age),
    _Column("model", 100, False, _model),
    _Column("rung", 200, False, _rung),
    _Column("transfer", 230, False, _transfer),
    _Column("sim.", 0, True, lambda token, _: _number(token.similarity, ".2f")),
    _Column("MMD²", 120, True, lambda token, _: _number(token.mmd, ".3f")),
    _Column("labels", 130, True, lambda token, _: f"{token.labels:.0f}"),
    _Column("conf.", 0, True, _confidence),
    _Column("acc. skill ECE", 170, True, _quality),
    _Column("position", 100, True, _position),
    _Column("stop", 120, True, _stop),
    _Column("unreal.", 0, True, _unrealised),
)
