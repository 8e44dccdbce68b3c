"""Everybody else: market makers who quote around the fair price, and takers who trade against them and us."""

from random import Random
from typing import Final

from bot.core.types import Side
from bot.exchange.local.engine import Engine
from bot.exchange.local.market import Market

LEVELS: Final = 250  # on each side
LEVEL_SHARE: Final = 0.02  # of the turnover of a minute, on the best level
DEEPER: Final = 0.03  # growth of the size per level
CHANGES: Final = 3  # quotes on each side that are renewed in a step
TRADES_PER_SECOND: Final = 2.0
MINUTES_PER_DAY: Final = 1440


class Quote:
    """A market maker's order. It belongs to nobody and rests like any other."""

    __slots__ = ("leaves", "number", "price", "side")

    def __init__(self, number: int, side: Side, price: int, leaves: int) -> None:
        self.number = number
        self.side = side
        self.price = price
        self.leaves = leaves


class Crowd:
    def __init__(self, engine: Engine, market: Market, turnover: float, seed: str) -> None:
        self._engine = engine
        self._market = market
        self._rng = Random(seed)
        self._notional = turnover / MINUTES_PER_DAY * LEVEL_SHARE
        self._quotes: dict[Side, dict[int, Quote]] = {Side.BUY: {}, Side.SELL: {}}
        self._appetite = 0.0  # lots that takers still want to trade
        self.is_quoting = True

    def quote(self, fair: float, half_spread: float, now: int) -> None:
        """Move the ladder to the fair price. What it meets on the way is traded with."""
        contract = self._market.contract
        middle = fair / float(contract.tick)
        half = max(0.5, middle * half_spread)
        spacing = max(1, round(half / 4))
        best = {
            Side.BUY: max(1, int((middle - half) // spacing) * spacing),
            Side.SELL: max(2, -int(-(middle + half) // spacing) * spacing),
        }
        lots = max(1.0, self._notional / fair / float(contract.step))
        for side in Side:
            self._withdraw(side, best[side], spacing)
        if self.is_quoting:
            for side in Side:
                self._fill_up(side, best[side], spacing, lots, now)

    def _withdraw(self, side: Side, best: int, spacing: int) -> None:
        """Take back what is too good, too far, gone, off the grid, or simply reconsidered."""
        quotes, sign = self._quotes[side], side.sign
        farthest = best - sign * spacing * (LEVELS - 1)
        for price, quote in list(quotes.items()):
            out = (price - best) * sign > 0 or (farthest - price) * sign > 0 or price % spacing
            if quote.leaves <= 0 or out or not self.is_quoting:
                self._drop(quotes, price)
        for _ in range(min(CHANGES, len(quotes))):
            depth = int(self._rng.expovariate(0.2))
            price = best - sign * spacing * depth
            if price in quotes:
                self._drop(quotes, price)

    def _drop(self, quotes: dict[int, Quote], price: int) -> None:
        quote = quotes.pop(price)
        if quote.leaves > 0:
            self._market.book.remove(quote)

    def _fill_up(self, side: Side, best: int, spacing: int, lots: float, now: int) -> None:
        quotes, rng = self._quotes[side], self._rng
        for level in range(LEVELS):
            price = best - side.sign * spacing * level
            if price in quotes or price < 1:
                continue
            size = max(1, round(lots * (1 + DEEPER * level) * rng.lognormvariate(0, 0.5)))
            quote = Quote(self._engine.next_number(), side, price, size)
            self._engine.take_from_crowd(self._market, quote, now)
            if quote.leaves > 0:
                self._market.book.add(quote)
                quotes[price] = quote

    def trade(self, volume: float, elapsed: int, fair: float, now: int) -> None:
        """Takers trade `volume` (base coin per ms) on average; they lean towards the fair price."""
        market, rng = self._market, self._rng
        lots = volume * elapsed / float(market.contract.step)
        self._appetite += lots
        usual = max(1.0, lots * 1000 / elapsed / TRADES_PER_SECOND)
        while self._appetite > 0 and lots > 0:
            size = max(1, round(usual * rng.expovariate(1.0)))
            self._appetite -= size
            drift = fair / float(market.contract.tick) - market.last
            side = Side.BUY if rng.random() < 0.5 + 0.2 * ((drift > 0) - (drift < 0)) else Side.SELL
            self.take(side, size, now)

    def take(self, side: Side, lots: int, now: int, reach: float = 0.002) -> int:
        """An immediate order of the crowd, `reach` (a fraction) beyond the best price; the lots traded."""
        best = self._market.book.best_price(side.opposite)
        if best is None:
            return 0
        limit = max(1, best + side.sign * max(1, int(best * reach)))
        quote = Quote(self._engine.next_number(), side, limit, lots)
        self._engine.take_from_crowd(self._market, quote, now)
        return lots - quote.leaves
