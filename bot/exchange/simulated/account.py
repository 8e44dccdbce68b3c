"""Money and positions of the simulated account, exact: what leaves the position arrives in the balance."""

from decimal import Decimal
from typing import Final

from bot.core.events import Event, FundingPaid, OrderFilled
from bot.core.types import FillOrigin, Side

ZERO: Final = Decimal(0)
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


class Account:
    """The balance in quote coin, and the facts about it that nobody has collected yet."""

    def __init__(self, balance: Decimal) -> None:
        self.balance = balance
        self._facts: list[Event] = []
        self._executions = 0

    def publish(self, fact: Event) -> None:
        self._facts.append(fact)

    def collect(self) -> list[Event]:
        facts, self._facts = self._facts, []
        return facts

    def book_fill(
        self,
        position: Position,
        symbol: str,
        *,
        ts: int,
        side: Side,
        price: Decimal,
        qty: Decimal,
        fee: Decimal,
        leaves: Decimal,
        is_maker: bool,
        origin: FillOrigin,
        link_id: str,
    ) -> None:
        self.balance += position.trade(side, price, qty) - fee
        execution = self._execution_id(ts)
        self.publish(
            OrderFilled(ts, ts, execution, link_id, symbol, side, price, qty, fee, leaves, is_maker, origin)
        )

    def book_funding(self, symbol: str, amount: Decimal, rate: float, ts: int) -> None:
        self.balance -= amount
        self.publish(FundingPaid(ts, ts, self._execution_id(ts), symbol, amount, rate))

    def _execution_id(self, ts: int) -> str:
        """Unique over restarts too, because the counter alone would begin again."""
        self._executions += 1
        return f"sim-{ts}-{self._executions}"
