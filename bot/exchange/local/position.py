"""A position and its money, exact: what leaves the position arrives in the wallet."""

from decimal import Decimal
from typing import Final

from bot.core.types import Side

ZERO: Final = Decimal(0)
SMALLEST_CASH: Final = Decimal("1e-8")  # decimals of the fees that Bybit books
_COST_STEP: Final = Decimal("1e-12")


class Position:
    """Signed quantity and what it cost (quantity x average price, same sign).

    The cost is kept instead of the average price: a partial close moves a rounded share of it to the balance
    and leaves exactly the rest, so nothing is lost to the division.
    """

    __slots__ = ("cost", "qty")

    def __init__(self) -> None:
        self.qty = ZERO
        self.cost = ZERO

    @property
    def average_price(self) -> Decimal:
        return self.cost / self.qty if self.qty else ZERO

    def opposed_by(self, side: Side) -> Decimal:
        """How much of the position an order of `side` could close, >= 0."""
        return max(ZERO, -self.qty * side.sign)

    def unrealised(self, price: Decimal) -> Decimal:
        return self.qty * price - self.cost

    def trade(self, side: Side, price: Decimal, qty: Decimal) -> Decimal:
        """Apply a fill, which may close, reduce, flip or extend the position; returns the realised P&L."""
        closing = min(qty, self.opposed_by(side)) * -side.sign  # signed like the position
        realised = ZERO
        if closing:
            released = self.cost
            if closing != self.qty:
                released = (self.cost * closing / self.qty).quantize(_COST_STEP)
            realised = closing * price - released
            self.qty -= closing
            self.cost -= released
        opening = qty * side.sign + closing
        self.qty += opening
        self.cost += opening * price
        return realised
