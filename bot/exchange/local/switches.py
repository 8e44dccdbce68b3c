"""What an operator may tell the local exchange: the bodies of /admin/…"""

from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from bot.core.errors import UsageError
from bot.core.types import DAY_MS

Ms = Annotated[int, Meta(ge=0, le=365 * DAY_MS)]
T = TypeVar("T", bound="Switch")
SMALLEST: Final = 1e-6  # of a price, and of all that an operator does to one
LARGEST: Final = 1e6


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of them."""


class Arm(Switch, frozen=True):
    """/admin/faults: see `faults.Fault`."""

    kind: str
    target: str = "*"
    count: Annotated[int, Meta(ge=1)] | None = None
    probability: Annotated[float, Meta(ge=0, le=1)] = 1.0
    ms: Annotated[int, Meta(ge=-DAY_MS, le=DAY_MS)] = 500
    lasts_ms: Ms | None = None

    def __post_init__(self) -> None:
        if self.ms < 0 and self.kind != "clock_skew":
            raise ValueError("ms below 0 is for clock_skew only")


class List(Switch, frozen=True):
    """/admin/list: price in USDT."""

    symbol: Annotated[str, Meta(min_length=1)]
    price: float
    in_ms: Ms = 0


class Delist(Switch, frozen=True):
    """/admin/delist."""

    symbol: str
    in_ms: Ms = 0


class Move(Switch, frozen=True):
    """/admin/move: the fair price times `factor`."""

    symbol: str
    factor: float


class Advance(Switch, frozen=True):
    """/admin/advance: of an exchange whose clock stands still."""

    ms: Ms


def read(kind: type[T], body: dict[str, Any]) -> T:
    """Raises UsageError that says which key is wrong, and how."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"/admin/{'faults' if kind is Arm else kind.__name__.lower()}: {error}") from None


def in_range(name: str, value: float) -> float:
    """Nothing that would stop the market: NaN is in no range. Raises UsageError."""
    if not SMALLEST <= value <= LARGEST:
        raise UsageError(
            f"{name} must stay from {SMALLEST:g} to {LARGEST:g}, all moves together; not {value:g}"
        )
    return value
