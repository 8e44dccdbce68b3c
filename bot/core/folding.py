"""What a fill makes of a position: the one place where average prices are formed.

Exact with Decimal, for the books; with float, for views and reports.
"""

from decimal import Decimal
from typing import Generic, NamedTuple, TypeVar

Number = TypeVar("Number", Decimal, float)


class Folded(NamedTuple, Generic[Number]):
    """A position after a fill.

    qty:    signed, entered at the average price `entry` (which means nothing when flat)
    closed: how much of the old position the fill closed, signed like it; it realised
            closed x (price of the fill - old entry)
    """

    qty: Number
    entry: Number
    closed: Number


def fold(held: Number, entry: Number, change: Number, price: Number) -> Folded[Number]:
    """`change` is the signed quantity of a fill at `price`; `held` at `entry` is the position before it."""
    qty = held + change
    if held * change > 0:
        return Folded(qty, average(entry, abs(held), price, abs(change)), held - held)
    if held * qty < 0 or not held:  # turned over, or opened: all that is left was bought at this price
        return Folded(qty, price, held)
    return Folded(qty, entry, -change)


def average(entry: Number, held: Number, price: Number, qty: Number) -> Number:
    """Average price of `held` at `entry` and `qty` at `price`, both >= 0 and not both 0."""
    return (entry * held + price * qty) / (held + qty)
