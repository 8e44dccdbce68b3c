"""Floats as exact decimals, and the one place where prices and quantities of orders are put on the grid."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from bot.core.types import Instrument, Side


def exact(value: float) -> Decimal:
    """The shortest decimal that reads back as `value`: what a person would write."""
    return Decimal(repr(float(value)))  # numpy's own repr names its type


def to_grid(value: float | Decimal, step: Decimal, *, up: bool = False) -> Decimal:
    """The multiple of `step` at or below `value` (at or above, if `up`), with the decimals of `step`."""
    amount = value if isinstance(value, Decimal) else exact(value)
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    return ((amount / step).to_integral_value(rounding) * step).quantize(step)


def limit_price(value: float | Decimal, side: Side, instrument: Instrument) -> Decimal:
    """A limit price that is never worse than intended: a buy is rounded down, a sell up."""
    return to_grid(value, instrument.tick_size, up=side is Side.SELL)


def quantity(value: float | Decimal, instrument: Instrument) -> Decimal:
    """An order quantity, rounded down to the step."""
    return to_grid(value, instrument.qty_step)
