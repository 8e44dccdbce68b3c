"""How times, money and signs are written."""

from datetime import UTC, datetime


def clock(ts: int) -> str:
    """2025-01-31 04:15, UTC."""
    return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def money(value: float) -> str:
    return f"{value:,.2f}"


def signed(value: float, form: str) -> str:
    """With a sign, a real minus, and no sign on what rounds to zero."""
    text = format(value, f"+{form}")
    return text.replace("-", "−") if any(c in "123456789" for c in text) else text[1:]
