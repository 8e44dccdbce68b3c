"""The account of an engine as risk sees it (risk.context.AccountState): what is held and on its way alike."""

import math
from dataclasses import dataclass, field

from bot.core.types import Side
from bot.engine.market_view import MarketView
from bot.engine.portfolio import Portfolio
from bot.execution.orders import Orders
from bot.execution.working import Work
from risk.context import MarketFacts


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
        return self.portfolio.gross_notional + self.orders.pending_notional + sum(self._unsent().values())

    @property
    def net_notional(self) -> float:
        return sum(self._signed().values())

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

    def cluster_notional(self, symbol: str, side: Side) -> float:
        held = ((name, value) for name, value in self._signed().items() if value)
        return sum(
            abs(value)
            for name, value in held
            if self.markets.moves_with(symbol, name) * value * side.sign > 0
        )

    def somebody_else(self, symbol: str) -> str:
        return self.others.get(symbol, "")

    def entries_since(self, ts: int) -> int:
        return self.orders.entries_since(ts)

    def last_loss(self, symbol: str) -> int:
        return self.portfolio.last_loss.get(symbol, 0)

    def market(self, symbol: str, now: int) -> MarketFacts:
        return self.markets.facts(symbol, now)

    def _signed(self) -> dict[str, float]:
        """Notional of each token, positive when long."""
        signed = self.orders.pending_by_symbol()
        for symbol, notional in self._unsent().items():
            signed[symbol] = signed.get(symbol, 0.0) + notional * self.works[symbol].whole.side.sign
        for symbol, position in self.portfolio.positions.items():
            value = float(position.qty) * self.portfolio.last(symbol)
            signed[symbol] = signed.get(symbol, 0.0) + value
        return signed

    def _unsent(self) -> dict[str, float]:
        """Notional of the parts of entries that have not left yet."""
        works = self.works.items()
        return {symbol: float(work.unsent) * self._price(work) for symbol, work in works if work.unsent}

    def _price(self, work: Work) -> float:
        price = self.markets.price(work.whole.symbol)
        return work.signal.price if math.isnan(price) else price
