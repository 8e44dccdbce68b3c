"""The path of one bar through the book: open, the extreme that hurts first, the other one, close.

The price stops wherever something of ours waits. What trades with us is one order of the crowd, as large as
the share of the bar's volume that we may take: it offers what the cost model says to whoever arrives, and it
is the taker that comes through our resting orders.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from bot.core.events import BarClosed
from bot.core.money import exact
from bot.core.types import Side
from bot.exchange.local.account import Holding
from bot.exchange.local.crowd import Quote
from bot.exchange.local.engine import Engine
from bot.exchange.local.orders import LAST_PRICE, LIMIT, RISES, Order
from bot.exchange.simulated.bar_market import BarMarket
from bot.exchange.simulated.costs import CostModel

FALLING: Final = -1
RISING: Final = 1


class Walk:
    """Prices in ticks; times in ms. Of the bar's volume our orders together take at most `volume_share`."""

    def __init__(
        self, engine: Engine, market: BarMarket, bar: BarClosed, costs: CostModel, volume_share: float
    ) -> None:
        self._engine = engine
        self._market = market
        self._bar = bar
        self._costs = costs
        self._at = market.last
        self._gap: Decimal | None = exact(bar.open)  # the price that a gap leads to, while it does
        self._crowd: Quote | None = None  # in the book
        has_volume = bar.volume > 0  # false for NaN too
        self._left = int(exact(bar.volume * volume_share) / market.contract.step) if has_volume else 0

    def run(self, holding: Holding, now: int) -> None:
        """Facts are of the open or of the close, but never older than `now`."""
        engine, market, bar = self._engine, self._market, self._bar
        engine.now = max(bar.ts, now)
        trades = engine.seq
        arriving = self._join(holding)
        if market.is_moved:
            self._visit(self._at)
        self._go(market.contract.nearest_ticks(bar.open))
        if engine.seq == trades:  # what a gap has done is told before what arrives after it
            engine.now = max(bar.start, now)
        for order in arriving:
            if order.is_open:
                engine.arrive(order, market)
                engine.triggers.settle(market)
                self._withdraw()
        engine.now, self._gap = max(bar.ts, now), None
        market.has_opened = False
        market.watch()
        if not market.is_touched_by(bar):
            return
        high, low, close = self._corners()
        for corner in (low, high) if self._is_hurt_by_falling(holding) else (high, low):
            self._go(corner)
        if market.has_opened and holding.qty:  # the whole bar counts for its stop
            self._go(low if holding.qty > 0 else high)
        self._go(close)
        market.watch()

    def offer(self, order: Order) -> None:
        """Stand in the book against an order that is about to meet it.

        A triggered order never does better than its trigger. A limit order that reaches the touch, but not
        our price beyond the slippage, is served at its limit.
        """
        self._withdraw()
        if not self._left:
            return
        contract, bar, side = self._market.contract, self._bar, order.side
        reference = contract.price(self._at) if self._gap is None else self._gap
        if order.trigger_price:
            worse = max if side is Side.BUY else min
            reference = worse(reference, contract.price(order.trigger_price))
        price = contract.ticks(self._costs.taker_price(side, reference, bar, contract.tick))
        assert price is not None
        if order.type == LIMIT and (order.price - price) * side.sign < 0:
            touch = self._costs.quote(reference, bar)
            if touch.crossed_by(side, contract.price(order.price)):
                price = order.price
        self._crowd = Quote(self._engine.next_number(), side.opposite, price, self._left)
        self._market.book.add(self._crowd)

    # --- on the way ---------------------------------------------------------------------------------------

    def _corners(self) -> tuple[int, int, int]:
        """High, low, close. A price off the grid has not reached the tick beyond it."""
        contract, bar = self._market.contract, self._bar
        low = int((exact(bar.low) / contract.tick).to_integral_value(ROUND_CEILING))
        high = int((exact(bar.high) / contract.tick).to_integral_value(ROUND_FLOOR))
        if low > high:  # the whole bar lies between two ticks
            low = high = contract.nearest_ticks(bar.close)
        return high, low, min(max(contract.nearest_ticks(bar.close), low), high)

    def _join(self, holding: Holding) -> list[Order]:
        """What reaches the book at the open: older exits, then orders that were there when the bar began.

        Conditional ones begin to wait. An exit is of the whole position, as it is by now.
        """
        market, start = self._market, self._bar.start
        exits, market.rests = market.rests, []
        for order in exits:
            if holding.side is order.side.opposite:
                order.leaves, order.qty = holding.lots, order.executed + holding.lots
        came = [order for order in market.arrivals if order.created <= start]
        market.arrivals = [order for order in market.arrivals if order.created > start]
        for order in came:
            if order.trigger_price:
                self._engine.wait(order, market)
                market.is_moved = True  # it has not seen any price
        return exits + [order for order in came if not order.trigger_price]

    def _is_hurt_by_falling(self, holding: Holding) -> bool:
        """A position is by what moves against it; a new one most when it is entered last."""
        if holding.qty:
            return holding.qty > 0
        ours = (order for order in holding.account.open_orders.values() if order.contract is holding.contract)
        return next((order.side is Side.SELL for order in ours), True)

    def _go(self, to: int) -> None:
        while to != self._at and (level := self._next(to)) is not None:
            self._visit(level)
        if to != self._at or self._has_resting:
            self._visit(to)

    @property
    def _has_resting(self) -> bool:
        book = self._market.book
        return bool(book.buys.keys or book.sells.keys)

    def _next(self, to: int) -> int | None:
        """The first price on the way at which something of ours waits."""
        at, market = self._at, self._market
        way = RISING if to > at else FALLING
        levels = [
            order.trigger_price
            for order in market.waiting.values()
            if (order.trigger_direction == RISES) == (way == RISING)
        ]
        best = market.book.best_price(Side.SELL if way == RISING else Side.BUY)
        if best is not None and self._left:
            beyond = best + way
            levels.append(beyond if (beyond - at) * way > 0 else at + way)
        ahead = [level for level in levels if at * way < level * way < to * way]
        return min(ahead, key=lambda level: level * way, default=None)

    def _visit(self, price: int) -> None:
        """We are last in each queue: a resting order is served when the market trades beyond its price."""
        self._at = price
        if self._left and self._has_resting:
            for side in Side:
                self._come_through(side, price - side.sign)
        self._market.move(LAST_PRICE, price)
        self._engine.triggers.settle(self._market)
        self._withdraw()

    def _come_through(self, side: Side, limit: int) -> None:
        if self._left and self._market.book.crosses(side, limit):
            crowd = Quote(self._engine.next_number(), side, limit, self._left)
            self._engine.take_from_crowd(self._market, crowd, self._engine.now)
            self._left = crowd.leaves

    def _withdraw(self) -> None:
        crowd, self._crowd = self._crowd, None
        if crowd is not None:
            self._left = crowd.leaves
            if crowd.leaves:
                self._market.book.remove(crowd)
