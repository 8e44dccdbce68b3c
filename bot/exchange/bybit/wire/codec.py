"""From bytes to typed messages: tolerant of what is new, strict about what we need.

Bybit sends numbers as strings and writes "" where a number is missing, and it adds fields without notice.
So every message type forbids unknown fields, which makes the exact, fastest decoder possible; what it refuses
takes the tolerant road: parse, tidy (drop empty values, count and drop unknown fields), convert.
"""

import math
import re
import types
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Generic, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from bot.core.errors import DataError

Price = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
Size = Annotated[float, msgspec.Meta(ge=0, le=1e24)]
Finite = Annotated[float, msgspec.Meta(ge=-1e24, le=1e24)]  # the bounds also keep out NaN and infinity
Millis = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Sequence = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]

T = TypeVar("T")
Tidy = Callable[[Any], Any]

# Plain decimals and the "0E-8" of Java's BigDecimal; never NaN, infinity or an exponent that explodes.
_NUMBER: Final = re.compile(r"[-+]?\d{1,40}(\.\d{1,40})?([eE][-+]?\d{1,2})?", re.ASCII)
_REMEMBERED: Final = 1_000
_MOST: Final = Decimal(10) ** 15  # of a price or a quantity
MALFORMED: Final = (msgspec.MsgspecError, RecursionError, ValueError, ArithmeticError)

unknown: Final[Counter[str]] = Counter()
"""How often each field or topic arrived that this version does not know ("order.data.newField")."""


class WireError(DataError):
    """A message from the exchange that cannot be understood; the text names the kind and the field."""


class Wire(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, gc=False):
    """Base of everything that Bybit sends. `unused` names documented fields that we have no use for."""

    unused: ClassVar[frozenset[str]] = frozenset()


def names(text: str) -> frozenset[str]:
    """Field names, separated by blanks."""
    return frozenset(text.split())


def name(value: str) -> None:
    """For ids that we tell things apart by. Raises ValueError."""
    if not value:
        raise ValueError("an id is empty")


def amount(value: Decimal | None, *, positive: bool = True) -> None:
    """For prices and quantities, where one is given. Raises ValueError for one that cannot be."""
    if value is not None and not (0 <= value <= _MOST and (value or not positive)):
        raise ValueError(f"{value} is no {'positive ' if positive else ''}amount")


def count_unknown(path: str) -> None:
    """Hostile input must not grow the counter for ever."""
    unknown[path if path in unknown or len(unknown) < _REMEMBERED else "(more)"] += 1


def parsed(payload: bytes, name: str) -> Any:
    """Untyped JSON. Raises WireError."""
    try:
        return msgspec.json.decode(payload)
    except MALFORMED as error:
        raise WireError(f"{name}: {error}") from None


class Codec(Generic[T]):
    """Decodes one type of message."""

    def __init__(self, kind: type[T], name: str) -> None:
        self.name = name
        self._kind = kind
        self._tidy = _tidy_of(kind, name)
        self._json = msgspec.json.Decoder(kind, strict=False)
        self._exact = not _holds_decimal(kind)  # msgspec would accept Decimal("NaN")

    def decode(self, payload: bytes) -> T:
        """Raises WireError."""
        if self._exact:
            try:
                return self._json.decode(payload)
            except MALFORMED:
                pass  # something is empty, new or wrong: the tolerant road tells which
        return self.convert(parsed(payload, self.name))

    def convert(self, document: Any) -> T:
        """From parsed JSON. Raises WireError."""
        try:
            return msgspec.convert(self._tidy(document), self._kind, strict=False)
        except MALFORMED as error:
            raise WireError(f"{self.name}: {error}") from None


class _Rule(NamedTuple):
    tidy: Tidy
    keeps_empty: bool  # "" is a value of a text
    clears: bool  # "" says "no longer", which differs from "not mentioned"


def _tidy_of(kind: Any, path: str) -> Tidy:
    """The function that drops empty values and unknown fields from parsed JSON of this type."""
    inner = _inner(kind)
    origin, arguments = get_origin(inner), get_args(inner)
    if origin is list:
        return _tidy_list(_tidy_of(arguments[0], path))
    if origin is dict:
        return _tidy_dict(_tidy_of(arguments[1], path))
    if inner in (float, int, Decimal):
        return lambda value: _checked_number(value, path)
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        return _tidy_struct(inner, path)
    return _as_it_is


def _tidy_struct(kind: type[msgspec.Struct], path: str) -> Tidy:
    if kind.__struct_config__.array_like:
        return _as_it_is
    rules = {
        field.encode_name: _Rule(
            _tidy_of(field.type, f"{path}.{field.encode_name}"),
            str in _members(field.type),
            msgspec.UnsetType in _members(field.type),
        )
        for field in msgspec.structs.fields(kind)
    }
    unused: frozenset[str] = getattr(kind, "unused", frozenset())

    def tidy(value: Any) -> Any:
        if not isinstance(value, dict):
            return value  # msgspec says what was expected
        tidied: dict[str, Any] = {}
        for name, item in value.items():
            rule = rules.get(name)
            if rule is None:
                if name not in unused:
                    count_unknown(f"{path}.{name[:64]}")
            elif item is None or (item == "" and not rule.keeps_empty):
                if rule.clears:
                    tidied[name] = None
            else:
                tidied[name] = rule.tidy(item)
        return tidied

    return tidy


def _tidy_list(inner: Tidy) -> Tidy:
    if inner is _as_it_is:
        return inner
    return lambda value: [inner(item) for item in value] if isinstance(value, list) else value


def _tidy_dict(inner: Tidy) -> Tidy:
    def tidy(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: inner(item) for key, item in value.items() if item not in (None, "")}

    return tidy


def _checked_number(value: Any, path: str) -> Any:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise WireError(f"{path}: {value[:40]!r} is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise WireError(f"{path}: {value} is not a finite number")
    return value


def _as_it_is(value: Any) -> Any:
    return value


def _members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, without annotations; a single type is its own only alternative."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(member for part in get_args(kind) for member in _members(part))
    return (kind,)


def _inner(kind: Any) -> Any:
    """The one type of a field besides None and UNSET; None for a true union."""
    members = [part for part in _members(kind) if part not in (type(None), msgspec.UnsetType)]
    return members[0] if len(members) == 1 else None


def _holds_decimal(kind: Any) -> bool:
    inner = _inner(kind)
    if inner is Decimal:
        return True
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        return any(_holds_decimal(field.type) for field in msgspec.structs.fields(inner))
    return any(_holds_decimal(part) for part in get_args(inner) if part is not Ellipsis)
