"""What one bar does to one symbol's orders and position.

A bar does not tell in which order its prices came, so the order of events inside it is the one that hurts:
at the open the rest of an older exit, then new orders; then whatever opens or extends a position; then the
stop loss over the whole bar; the take profit; and last the resting orders that reduce.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from bot.core.events import BarClosed
from bot.core.money import quantity
from bot.core.types import FillOrigin, OrderType, Side, TimeInForce
from bot.exchange.simulated.account import ZERO
from bot.exchange.simulated.contract import Contract, Exit, Phase, WorkingOrder

NO_LIQUIDITY: Final = "EC_NoImmediateQtyToFill"
WOULD_TAKE: Final = "EC_PostOnlyWillTakeLiquidity"


def match(contract: Contract, bar: BarClosed, now: int, volume_share: float) -> None:
    """Play `bar`; facts get a `ts` of at least `now` (ms). A bar that overlaps the last one is ignored.

    Of its volume we take at most `volume_share`.
    """
    if contract.bar is not None and bar.start < contract.bar.ts:
        return
    contract.pay_default_funding(bar.start, now)
    contract.bar = bar
    _BarMatching(contract, bar, now, volume_share).run()
    contract.pay_default_funding(bar.ts, max(bar.ts, now))
    contract.watch()


class _BarMatching:
    def __init__(self, contract: Contract, bar: BarClosed, now: int, volume_share: float) -> None:
        self._contract = contract
        self._bar = bar
        self._tick = contract.instrument.tick_size
        self._opened = max(bar.start, now)
        self._closed = max(bar.ts, now)
        has_volume = bar.volume > 0  # false for NaN too
        self._capacity = (
            quantity(float(bar.volume * volume_share), contract.instrument) if has_volume else ZERO
        )
        self._entered_inside = False

    def run(self) -> None:
        self._continue_exit()
        self._meet_market()
        self._walk_orders(opening_only=True)
        self._check_stop()
        self._check_target()
        self._walk_orders(opening_only=False)
        self._check_stop()

    # --- at the open --------------------------------------------------------------------------------------

    def _continue_exit(self) -> None:
        pending = self._contract.exit
        if pending is not None:
            self._fill_exit(pending, self._worse(self._exit_side(), pending.level), self._opened)

    def _meet_market(self) -> None:
        for order in self._eligible():
            if order.phase is not Phase.ARRIVING:
                continue
            if order.request.type is OrderType.MARKET:
                self._fill_market(order, self._bar.open, self._opened)
            else:
                self._arrive(order)

    def _arrive(self, order: WorkingOrder) -> None:
        """A limit order reaches the book: it takes what the open offers and rests with the remainder."""
        contract, request, price = self._contract, order.request, _limit(order)
        costs = contract.costs
        if costs.quote(self._bar.open, self._bar).crossed_by(request.side, price):
            if request.time_in_force is TimeInForce.POST_ONLY:
                contract.cancel(order, WOULD_TAKE, self._opened)
                return
            offered = costs.taker_price(request.side, self._bar.open, self._bar, self._tick)
            bounded = min(offered, price) if request.side is Side.BUY else max(offered, price)
            self._fill_order(order, bounded, self._opened)
        if self._is_working(order):
            if request.time_in_force is TimeInForce.IOC:
                contract.cancel(order, NO_LIQUIDITY, self._opened)
            else:
                order.phase = Phase.RESTING

    # --- inside the bar -----------------------------------------------------------------------------------

    def _walk_orders(self, *, opening_only: bool) -> None:
        for order in self._eligible():
            if opening_only and self._contract.position.opposed_by(order.request.side):
                continue
            before = abs(self._contract.position.qty)
            if order.phase is Phase.RESTING:
                self._fill_if_traded_through(order)
            elif order.phase is Phase.UNTRIGGERED:
                self._trigger_if_reached(order)
            self._entered_inside |= abs(self._contract.position.qty) > before

    def _fill_if_traded_through(self, order: WorkingOrder) -> None:
        """We are last in the queue: our price has been served only when the market traded beyond it."""
        price = _limit(order)
        if self._traded_beyond(price, below=order.request.side is Side.BUY):
            self._fill_order(order, price, self._closed, is_maker=True)

    def _trigger_if_reached(self, order: WorkingOrder) -> None:
        level = order.request.trigger_price
        assert level is not None
        reached = self._bar.high >= float(level) if order.rising else self._bar.low <= float(level)
        if not reached:
            return
        if order.request.type is OrderType.MARKET:
            self._fill_market(order, self._worse(order.request.side, level), self._closed)
        else:
            order.phase, order.since = Phase.ARRIVING, self._closed

    def _check_stop(self) -> None:
        contract, stop = self._contract, self._contract.stop_loss
        if stop is None or contract.exit is not None:
            return
        is_long = contract.position.qty > 0
        if self._bar.low <= float(stop) if is_long else self._bar.high >= float(stop):
            contract.exit = Exit(FillOrigin.STOP_LOSS, stop)
            self._fill_exit(contract.exit, self._worse(self._exit_side(), stop), self._closed)

    def _check_target(self) -> None:
        """A market order of the exchange once the price was traded through.

        Not in the bar of an entry inside that bar: the price may have been there before us.
        """
        contract, target = self._contract, self._contract.take_profit
        if target is None or contract.exit is not None or self._entered_inside:
            return
        if self._traded_beyond(target, below=contract.position.qty < 0):
            contract.exit = Exit(FillOrigin.TAKE_PROFIT, target)
            self._fill_exit(contract.exit, float(target), self._closed)

    # --- fills --------------------------------------------------------------------------------------------

    def _fill_market(self, order: WorkingOrder, reference: float, ts: int) -> None:
        side = order.request.side
        price = self._contract.costs.taker_price(side, reference, self._bar, self._tick)
        self._fill_order(order, price, ts)
        if self._is_working(order):
            self._contract.cancel(order, NO_LIQUIDITY, ts)

    def _fill_order(self, order: WorkingOrder, price: Decimal, ts: int, *, is_maker: bool = False) -> None:
        qty = min(order.leaves, self._capacity)
        if order.request.reduce_only:
            qty = min(qty, self._contract.position.opposed_by(order.request.side))
        if qty > 0:
            self._capacity -= qty
            self._contract.fill_order(order, price, qty, ts, is_maker=is_maker)

    def _fill_exit(self, pending: Exit, reference: float, ts: int) -> None:
        contract = self._contract
        qty = min(abs(contract.position.qty), self._capacity)
        if qty > 0:
            self._capacity -= qty
            price = contract.costs.taker_price(self._exit_side(), reference, self._bar, self._tick)
            contract.fill_exit(price, qty, ts, pending.origin)

    # --- reading the bar ----------------------------------------------------------------------------------

    def _eligible(self) -> Iterator[WorkingOrder]:
        """Orders that were there when the bar opened, oldest first; a fill on the way may end later ones."""
        for order in tuple(self._contract.orders.values()):
            if order.since <= self._bar.start and self._is_working(order):
                yield order

    def _is_working(self, order: WorkingOrder) -> bool:
        return order.request.link_id in self._contract.orders

    def _exit_side(self) -> Side:
        return Side.SELL if self._contract.position.qty > 0 else Side.BUY

    def _worse(self, side: Side, level: Decimal) -> float:
        """The level, or the open where the market gapped beyond it."""
        price = float(level)
        return max(price, self._bar.open) if side is Side.BUY else min(price, self._bar.open)

    def _traded_beyond(self, price: Decimal, *, below: bool) -> bool:
        """By at least one tick."""
        if below:
            return self._bar.low <= float(price - self._tick)
        return self._bar.high >= float(price + self._tick)


def _limit(order: WorkingOrder) -> Decimal:
    assert order.request.price is not None
    return order.request.price
