"""What a trade costs in the simulation: spread, slippage, fees, funding. Every rounding is against us."""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from bot.core.events import BarClosed
from bot.core.money import exact, to_grid
from bot.core.types import Side
from bot.settings import Costs


class Quote(NamedTuple):
    bid: Decimal
    ask: Decimal

    def crossed_by(self, side: Side, price: Decimal) -> bool:
        """Would a limit order at `price` trade at once?"""
        return price >= self.ask if side is Side.BUY else price <= self.bid


class CostModel:
    """Prices and fees of our trades. `half_spread(symbol, start)` is a fraction of the price, >= 0."""

    def __init__(self, costs: Costs, half_spread: Callable[[str, int], float]) -> None:
        self.default_funding = exact(costs.default_funding)
        self.taker_fee = exact(costs.taker_fee)
        self.maker_fee = exact(costs.maker_fee)
        self._slippage = exact(costs.slippage_sigmas)
        self._half_spread = half_spread

    def quote(self, middle: Decimal, bar: BarClosed) -> Quote:
        """Best bid and ask around a price, not rounded."""
        half = middle * exact(self._half_spread(bar.symbol, bar.start))
        return Quote(middle - half, middle + half)

    def taker_price(self, side: Side, reference: Decimal, bar: BarClosed, tick: Decimal) -> Decimal:
        """What a market order gets when the price is `reference`: across the spread, then slippage.

        Slippage is a share of the bar's range, so the price may lie outside the bar. Rounded to the tick
        away from us, and never below one tick.
        """
        bid, ask = self.quote(reference, bar)
        slippage = self._slippage * (exact(bar.high) - exact(bar.low))
        if side is Side.BUY:
            return to_grid(ask + slippage, tick, up=True)
        return max(to_grid(bid - slippage, tick), tick)
