"""The HTML that reports are made of. Plain strings are escaped; only `Html` passes as it is."""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from bot.research.bootstrap import Estimate

MISSING: Final = "–"


class Html(str):
    """Markup that is safe already."""

    __slots__ = ()


def safe(value: object) -> Html:
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def joined(parts: Iterable[Html], separator: str = "\n") -> Html:
    return Html(separator.join(parts))


def tag(name: str, *content: object, **attributes: str) -> Html:
    """An element; `class_` stands for the attribute `class`."""
    pairs = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{pairs}>{''.join(safe(part) for part in content)}</{name}>")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, text_columns: int = 1) -> Html:
    """The first `text_columns` columns are text, the others figures, set to the right."""

    def cells(kind: str, row: Sequence[object]) -> Html:
        return joined(
            (
                tag(kind, cell) if i < text_columns else tag(kind, cell, class_="n")
                for i, cell in enumerate(row)
            ),
            "",
        )

    body = joined((tag("tr", cells("td", row)) for row in rows), "\n")
    grid = tag("table", tag("thead", tag("tr", cells("th", headings))), tag("tbody", body))
    return tag("div", grid, class_="scroll")


def details(summary: object, *content: object, unfolded: bool = False) -> Html:
    inner = joined((tag("summary", summary), *(safe(part) for part in content)))
    return Html(f"<details{' open' if unfolded else ''}>{inner}</details>")


def card(label: str, value: object, note: object = "") -> Html:
    lines = (("label", label), ("value", value), ("note", note))
    return tag("div", *(tag("div", content, class_=name) for name, content in lines), class_="card")


# --- figures in words --------------------------------------------------------------------------------------


def clock(ts: int) -> str:
    """2025-01-31 04:15; UTC."""
    return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def number(value: float, form: str = ".2f") -> str:
    """With a real minus, no sign on what rounds to zero, and a dash for what is not known."""
    if not math.isfinite(value):
        return MISSING
    text = format(value, form)
    return text.replace("-", "−") if any(c in "123456789" for c in text) else text.lstrip("+-")


def percent(value: float, form: str = ".1f") -> str:
    text = number(100.0 * value, form)
    return text if text == MISSING else f"{text}%"


Writer = Callable[[float], str]


def interval(estimate: Estimate, write: Writer) -> str:
    """[low, high], empty where there is none."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f"[{write(estimate.low)}, {write(estimate.high)}]"


def known(estimate: Estimate, write: Writer = percent) -> str:
    """The value, and its interval where there is one."""
    return f"{write(estimate.value)} {interval(estimate, write)}".rstrip()


def estimated(estimate: Estimate, write: Writer = percent) -> Html:
    """The value with its interval in small print."""
    return joined((safe(write(estimate.value)), tag("small", interval(estimate, write))), " ")


def fine(value: float) -> str:
    """Percent with two decimals."""
    return percent(value, ".2f")


def points(value: float) -> str:
    """A difference of fractions as percentage points."""
    return number(100.0 * value, "+.1f")


def signed_percent(value: float) -> str:
    return percent(value, "+.2f")


def signed_money(value: float) -> str:
    return number(value, "+,.2f")


def money(value: float) -> str:
    return number(value, ",.2f")
