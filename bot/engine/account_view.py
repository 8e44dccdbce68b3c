"""The account of an engine as risk sees it (risk.context.AccountState): what is held and on its way alike."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from bot.core.types import Side
from bot.engine.market_view import MarketView
from bot.engine.portfolio import Portfolio
from bot.execution.orders import Orders
from bot.execution.working import Work
from risk.context import Exposure, MarketFacts


@dataclass(slots=True)
class AccountView:
    """blocks: why no position may be opened now, by cause. others: what somebody else has, by symbol."""

    portfolio: Portfolio
    orders: Orders
    markets: MarketView
    works: dict[str, Work] = field(default_factory=dict)  # entries of several parts, by symbol
    blocks: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    def take_over(self, other: "AccountView") -> None:
        """Its books and its blocks instead of ours, which opened nothing."""
        self.portfolio, self.orders, self.others = other.portfolio, other.orders, other.others
        self.blocks |= other.blocks

    @property
    def blocked(self) -> str:
        return next(iter(self.blocks.values()), "")

    @property
    def equity(self) -> float:
        return self.portfolio.equity

    @property
    def balance(self) -> float:
        return self.portfolio.cash

    @property
    def gross_notional(self) -> float:
        return sum(abs(notional) for _, notional in self._notionals())

    @property
    def open_risk(self) -> float:
        """What positions lose from here if every stop is hit, and pending entries from their prices."""
        risk = self.orders.pending_risk
        for symbol, notional in self._unsent().items():
            order = self.works[symbol].whole
            if order.stop_loss is not None:
                risk += notional * abs(1 - float(order.stop_loss) / self.works[symbol].signal.price)
        for symbol, position in self.portfolio.positions.items():
            price = self.portfolio.last(symbol)
            stop = price if position.stop is None else float(position.stop)
            risk += max(0.0, float(position.qty) * (price - stop))
        return risk

    @property
    def open_positions(self) -> int:
        entering = {order.symbol for order in self.orders.pending_entries}
        return len(entering | self._unsent().keys() | self.portfolio.positions.keys())

    def is_exposed(self, symbol: str, side: Side) -> bool:
        """In the market or about to be. For a turn, what is wholly on its way out does not count."""
        if self.orders.is_entering(symbol) or symbol in self.works:
            return True
        position = self.portfolio.positions.get(symbol)
        if position is None:
            return False
        return position.side is side or self.orders.leaving(symbol) < abs(position.qty)

    def exposure(self, symbol: str, side: Side) -> Exposure:
        gross, signed = 0.0, dict[str, float]()
        for name, notional in self._notionals():
            gross += abs(notional)
            signed[name] = signed.get(name, 0.0) + notional
        moves_with, sign = self.markets.moves_with, side.sign
        together = (
            abs(notional)
            for name, notional in signed.items()
            if notional and moves_with(symbol, name) * notional * sign > 0
        )
        return Exposure(gross, sum(signed.values()), sum(together))

    def somebody_else(self, symbol: str) -> str:
        return self.others.get(symbol, "")

    def entries_since(self, ts: int) -> int:
        return self.orders.entries_since(ts)

    def last_loss(self, symbol: str) -> int:
        return self.portfolio.last_loss.get(symbol, 0)

    def market(self, symbol: str, now: int) -> MarketFacts:
        return self.markets.facts(symbol, now)

    def _notionals(self) -> Iterator[tuple[str, float]]:
        """Of all that is held or on its way, by symbol, positive when long."""
        yield from self.orders.pending_notionals()
        for symbol, notional in self._unsent().items():
            yield symbol, notional * self.works[symbol].whole.side.sign
        yield from self.portfolio.notionals()

    def _unsent(self) -> dict[str, float]:
        """Notional of the parts of entries that have not left yet."""
        works = self.works.items()
        return {symbol: float(work.unsent) * self._price(work) for symbol, work in works if work.unsent}

    def _price(self, work: Work) -> float:
        price = self.markets.price(work.whole.symbol)
        return work.signal.price if math.isnan(price) else price
