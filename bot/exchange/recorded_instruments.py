"""Instrument filters for recorded markets: from `<DIR>/instruments.json`, or inferred from the price.

{"ABCUSDT": {"tick_size": "0.0001", "qty_step": "1", "min_qty": "1", "max_qty": "1000000",
             "max_market_qty": "200000", "min_notional": "5"}}
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final, Self

import msgspec

from bot.core.errors import DataError, RuntimeFault
from bot.core.types import Instrument

FILE_NAME: Final = "instruments.json"
_DIGITS_BELOW_PRICE = 4  # one tick is 0.1 to 1 bp of the price
_MAX_STEPS = 10_000_000  # of the quantity: an order of 1-10 million quote units, so never the limit
_MIN_NOTIONAL = Decimal(5)


class Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The exchange's limits for orders of one contract; quantities in base, the notional in quote coin."""

    tick_size: Decimal
    qty_step: Decimal
    min_qty: Decimal
    max_qty: Decimal
    max_market_qty: Decimal
    min_notional: Decimal

    def __post_init__(self) -> None:
        for name in ("tick_size", "qty_step", "min_qty", "max_qty", "max_market_qty"):
            value = getattr(self, name)
            if not (value.is_finite() and value > 0):
                raise ValueError(f"{name} must be a number above zero")
        if not (self.min_notional.is_finite() and self.min_notional >= 0):
            raise ValueError("min_notional must be a number, zero or more")
        if self.min_qty > min(self.max_qty, self.max_market_qty):
            raise ValueError("min_qty is above max_qty or max_market_qty")

    @classmethod
    def of(cls, instrument: Instrument) -> Self:
        """Raises ValueError for limits that contradict each other."""
        return cls(**{name: getattr(instrument, name) for name in cls.__struct_fields__})

    def instrument(self, symbol: str, launch_time: int, funding_interval_ms: int) -> Instrument:
        return Instrument(
            symbol=symbol,
            launch_time=launch_time,
            funding_interval_ms=funding_interval_ms,
            **{name: getattr(self, name) for name in self.__struct_fields__},
        )


def load(directory: Path) -> dict[str, Filters]:
    """The filters that the directory states, by symbol; none without the file. Raises DataError."""
    path = directory / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Filters])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, OSError) as error:
        raise DataError(f"{path}: {error}; correct it, or remove it to have the filters inferred") from None


def save(directory: Path, filters: Mapping[str, Filters]) -> Path:
    """Write the directory's filters anew, whole or not at all; returns the path. Raises RuntimeFault."""
    path = directory / FILE_NAME
    unfinished = path.with_suffix(".unfinished")
    document = msgspec.json.format(msgspec.json.encode(dict(sorted(filters.items()))), indent=1)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(document + b"\n")
        unfinished.replace(path)
    except OSError as error:
        raise RuntimeFault(f"{path}: cannot be written ({error}); choose another directory") from None
    return path


def infer(first_close: float) -> Filters:
    """Plausible filters for a contract that closed its first bar at `first_close`. Assumptions, not facts:

    the tick has five significant digits of the price; the quantity step is the power of ten that is worth
    0.1 to 1 quote unit; orders start at one step and 5 quote units.
    """
    step = _power_of_ten(math.floor(-math.log10(first_close)))
    return Filters(
        tick_size=_power_of_ten(math.floor(math.log10(first_close)) - _DIGITS_BELOW_PRICE),
        qty_step=step,
        min_qty=step,
        max_qty=step * _MAX_STEPS,
        max_market_qty=step * _MAX_STEPS,
        min_notional=_MIN_NOTIONAL,
    )


def _power_of_ten(exponent: int) -> Decimal:
    """10^exponent with its natural digits (1000, not 1E+3): the grid's digits become an order's digits."""
    return Decimal(10) ** exponent if exponent >= 0 else Decimal(1).scaleb(exponent)
