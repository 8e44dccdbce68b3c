"""One symbol of the matching core whose prices are those of closed bars."""

from math import inf
from typing import Final

from bot.core.events import BarClosed
from bot.core.types import HOUR_MS, Instrument, Side
from bot.exchange.local.contract import Contract
from bot.exchange.local.market import Market, Print
from bot.exchange.local.orders import RISES, Order
from bot.exchange.simulated.costs import CostModel

NEVER: Final = 2**62
FUNDING_INTERVAL: Final = 8 * HOUR_MS  # of the default rate


class BarMarket(Market):
    """A bar strictly between `floor` and `ceiling` that closes before `due` (ms) changes nothing."""

    def __init__(self, instrument: Instrument, costs: CostModel) -> None:
        super().__init__(Contract(instrument, costs.taker_fee, costs.maker_fee), price=1)
        self.bar: BarClosed | None = None  # the last one
        self._stood: BarClosed | None = None  # the one whose close the prices are
        self.arrivals: list[Order] = []  # accepted; they reach the book at the next open
        self.rests: list[Order] = []  # of triggered stop losses and take profits; they go on at the next open
        self.has_opened = False  # a fill has opened or extended a position, since this was last looked at
        self.publishes_funding = False
        self.next_funding = NEVER  # ms; of the default rate, while there is a position
        self.floor, self.ceiling, self.due = -inf, inf, NEVER

    def record(self, trade: Print) -> None:
        """Prices come from the bars: our own fills are no news."""

    def stand(self) -> None:
        """The last close is the price, and nobody has to look how it came to be."""
        if self.bar is None or self.bar is self._stood:
            return
        self._stood = self.bar
        price = self.contract.nearest_ticks(self.bar.close)
        for prices in self.ranges.values():
            prices.last = prices.low = prices.high = price

    @property
    def pending_stop(self) -> Order | None:
        """The newest triggered stop loss whose rest is still to be filled."""
        return next((order for order in reversed(self.rests) if order.stop_type == "StopLoss"), None)

    def watch(self) -> None:
        """Work out which bars matter, with a tick to spare; to be called after every change."""
        if self.arrivals or self.rests:
            self.floor, self.ceiling = inf, -inf
            return
        floors, ceilings = [], []
        for order in self.waiting.values():
            if order.trigger_direction == RISES:
                ceilings.append(order.trigger_price - 1)
            else:
                floors.append(order.trigger_price + 1)
        if (bid := self.book.best_price(Side.BUY)) is not None:
            floors.append(bid)
        if (ask := self.book.best_price(Side.SELL)) is not None:
            ceilings.append(ask)
        price = self.contract.price
        self.floor = float(price(max(floors))) if floors else -inf
        self.ceiling = float(price(min(ceilings))) if ceilings else inf

    def is_touched_by(self, bar: BarClosed) -> bool:
        return bar.low <= self.floor or bar.high >= self.ceiling

    def regrid(self, instrument: Instrument) -> None:
        """Another tick or step: nothing may wait or rest that is counted in the old ones."""
        self.contract.change(instrument)
        self._stood = None
        self.stand()
