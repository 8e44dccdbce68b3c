"""How times, money, signs and long lists are written."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from bot.core.reasons import kind

_NAMES: Final = 8  # in a line


def clock(ts: int, *, seconds: bool = False) -> str:
    """2025-01-31 04:15, UTC, or 2025-01-31 04:15:09."""
    form = "%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"
    return datetime.fromtimestamp(ts / 1000, UTC).strftime(form)


def money(value: float) -> str:
    """With a minus only where a cent is left of it."""
    return f"{value:z,.2f}"


def signed(value: float, form: str) -> str:
    """With a sign, a real minus, and no sign on what rounds to zero."""
    text = format(value, f"+{form}")
    return text.replace("-", "−") if any(c in "123456789" for c in text) else text[1:]


def shortened(names: list[str]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def grouped(told: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Of symbols and reasons: whom a reason concerns, and the reason, once for each kind of it."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for symbol, reason in told:
        groups.setdefault(kind(reason), []).append((symbol, reason))
    for alike, group in groups.items():
        reasons = {reason for _, reason in group}
        yield shortened([symbol for symbol, _ in group]), reasons.pop() if len(reasons) == 1 else alike
