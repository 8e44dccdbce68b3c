"""What a model sees of its token, by the names of the specification."""

from collections.abc import Sequence
from typing import Final

from bot.dashboard.wording import signed
from strategies.features.spec import SPEC

_LEAST: Final = 1.0  # robust z-score below which a value is an ordinary one


def unusual(x: Sequence[float], width: int) -> str:
    """The normalised features furthest from the token's own median, the furthest first, as many as fit.

    x: one row in the order of the specification. Then the kinds of inputs that are missing, in any case.
    """
    missing = [
        feature.name for feature, value in zip(SPEC, x, strict=True) if feature.group == "missing" and value
    ]
    scored = [(value, feature.name) for feature, value in zip(SPEC, x, strict=True) if feature.normalised]
    scored.sort(key=lambda item: -abs(item[0]))
    tail = ", ".join(missing)
    parts: list[str] = []
    for value, name in scored:
        part = f"{name} {signed(value, '.1f')}"
        if abs(value) < _LEAST or len("  ".join([*parts, part, tail])) > width:
            break
        parts.append(part)
    return "  ".join([*(parts or ["nothing unusual"]), *([tail] if tail else [])])
