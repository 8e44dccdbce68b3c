"""Orders that wait for a price: conditional ones, and those that the exchange keeps to protect a position."""

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from bot.core.types import Side
from bot.exchange.local.account import Account, Holding
from bot.exchange.local.admission import bound, check_protection, require_index, require_margin
from bot.exchange.local.market import Market
from bot.exchange.local.orders import (
    CANCELLED,
    DEACTIVATED,
    FALLS,
    GTC,
    IOC,
    LAST_PRICE,
    LIMIT,
    MARKET,
    NEW,
    NO_MARGIN,
    RISES,
    TRIGGERED,
    Order,
    Protection,
    Refused,
)
from bot.exchange.local.terms import PARAMS, choice, limit_leg, lots, text, ticks, trigger_by, whole

if TYPE_CHECKING:
    from bot.exchange.local.engine import Engine

BY_CLEARING: Final = "CancelByTpSlTsClear"
STOP_REACH: Final = Decimal(10)  # percent that a stop may walk through the book
_LEGS: Final = {"take_profit": "TakeProfit", "stop_loss": "StopLoss"}


class Triggers:
    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def settle(self, market: Market) -> None:
        """Fire what the prices since the last look have reached, until nothing moves any more."""
        engine = self._engine
        while market.is_moved:
            for order in list(market.waiting.values()):
                if order.distance:
                    self._trail(order, market)
            reached = [order for order in market.waiting.values() if self._is_reached(order, market)]
            market.take_ranges(engine.next_number())
            for order in sorted(reached, key=lambda order: order.number):
                if order.id in market.waiting:
                    self._fire(order, market)

    def _is_reached(self, order: Order, market: Market) -> bool:
        return order.trigger_price > 0 and market.reaches(order)

    def _fire(self, order: Order, market: Market) -> None:
        engine = self._engine
        holding = engine.holding(order)
        del market.waiting[order.id]
        holding.forget(order)
        order.status, order.updated = TRIGGERED, engine.now
        engine.tell(order)
        if not engine.fit(order):
            return
        engine.attract(order, market)
        if order.type == MARKET:
            if order.stop_type != "Stop":
                order.slippage = ("Percent", STOP_REACH)
            order.price = bound(order, market)
        order.status = NEW
        try:
            require_margin(order, market, holding)
        except Refused:
            engine.end(order, CANCELLED, reject=NO_MARGIN)
            return
        engine.enter(order, market)
        order.account.touch(holding)

    # --- protection of positions --------------------------------------------------------------------------

    def attach(self, order: Order, holding: Holding, filled: int) -> None:
        """A fill has opened or extended the position: its take profit and stop loss come to life."""
        terms = order.protection
        if terms.mode == "Full":
            for leg, price, by in (
                ("take_profit", terms.take_profit, terms.tp_by),
                ("stop_loss", terms.stop_loss, terms.sl_by),
            ):
                if price and self._may_set(holding, leg, order, filled):
                    self.protect(holding, leg, price, by, order.link_id)
            return
        self._add_pair(holding, terms, filled, order.link_id)

    def _may_set(self, holding: Holding, leg: str, order: Order, filled: int) -> bool:
        """A later fill of an order must not undo what was moved after the first one."""
        current: Order | None = getattr(holding, leg)
        return order.executed == filled or current is None or current.side is holding.side

    def _add_pair(self, holding: Holding, terms: Protection, size: int, parent: str) -> None:
        legs = [
            self._keep(holding, f"Partial{name}", price, by, size, limit, parent)
            for name, price, by, limit in (
                ("TakeProfit", terms.take_profit, terms.tp_by, terms.tp_limit),
                ("StopLoss", terms.stop_loss, terms.sl_by, terms.sl_limit),
            )
            if price
        ]
        if len(legs) == 2:
            legs[0].pair, legs[1].pair = legs[1], legs[0]
        for order in legs:
            holding.partial_stops[order.id] = order

    def protect(self, holding: Holding, leg: str, price: int, by: str = LAST_PRICE, parent: str = "") -> None:
        """Set or move the one "take_profit" or "stop_loss" of the whole position, to a price in ticks."""
        order: Order | None = getattr(holding, leg)
        if order is not None and order.side is holding.side:  # of the position that a fill has just flipped
            self.deactivate(order)
            order = None
        if order is None:
            order = self._keep(holding, _LEGS[leg], price, by, 0, 0, parent)
            setattr(holding, leg, order)
            return
        if (order.trigger_price, order.trigger_by) == (price, by):
            return
        engine = self._engine
        order.trigger_price, order.trigger_by, order.updated = price, by, engine.now
        order.number = engine.next_number()  # what the price did before is not held against it
        engine.markets[order.symbol].is_moved = True
        engine.tell(order)

    def _keep(
        self,
        holding: Holding,
        stop_type: str,
        price: int,
        by: str,
        size: int,
        limit: int,
        parent: str,
    ) -> Order:
        """A new waiting order that closes `size` lots of the position (0: all of it)."""
        engine, contract = self._engine, holding.contract
        market = engine.markets[contract.symbol]
        is_profit = stop_type.endswith("TakeProfit")
        is_long = holding.side is Side.BUY
        order = Order(
            number=engine.next_number(),
            id=engine.new_id(),
            account=holding.account,
            contract=contract,
            side=Side.SELL if is_long else Side.BUY,
            type=LIMIT if limit else MARKET,
            time_in_force=GTC if limit else IOC,
            qty=size or holding.lots,
            price=limit,
            created=engine.now,
            updated=engine.now,
            index=holding.index,
            reduce_only=True,
            close_on_trigger=True,
            trigger_price=price,
            trigger_direction=RISES if is_long is is_profit else FALLS,
            trigger_by=by,
            stop_type=stop_type,
            create_type=f"CreateBy{stop_type}",
            parent=parent,
            last_on_created=market.last,
        )
        order.leaves = order.qty
        holding.account.admit(order)
        engine.wait(order, market)
        market.is_moved = True  # it may be behind the price already
        return order

    def deactivate(self, order: Order) -> None:
        self._engine.end(order, DEACTIVATED, cancel_type=BY_CLEARING)

    def follow(self, holding: Holding) -> None:
        """The position has changed: its stops grow and shrink with it, and end with it."""
        side, lots = holding.side, holding.lots
        for order in holding.stops():
            if side is not order.side.opposite:
                self.deactivate(order)
            elif order.id not in holding.partial_stops:
                order.qty = order.leaves = lots

    def _trail(self, order: Order, market: Market) -> None:
        """The stop follows the best price at its distance; it never goes back."""
        prices = market.ranges[LAST_PRICE]
        sign = order.side.opposite.sign
        best = prices.high if sign > 0 else prices.low
        if order.number > market.looked:
            best = prices.last
        if order.extreme and (best - order.extreme) * sign <= 0:
            return
        order.extreme = best
        order.trigger_price = max(1, best - sign * order.distance)
        order.number = self._engine.next_number()  # the prices before the best one do not count

    # --- POST /v5/position/trading-stop -------------------------------------------------------------------

    def trading_stop(self, account: Account, body: Mapping[str, Any], now: int) -> None:
        """Set, move or remove ("0") the stops of an open position. Raises Refused."""
        engine = self._engine
        engine.now = max(engine.now, now)
        market = engine.market(text(body, "symbol"))
        index = require_index(account, market, whole(body, "positionIdx"))
        holding = account.holding(market.contract, index)
        if holding.side is None:
            raise Refused(PARAMS, "can not set tp/sl/ts for zero position")
        terms = Protection(
            take_profit=ticks(body, "takeProfit", market.contract) or 0,
            stop_loss=ticks(body, "stopLoss", market.contract) or 0,
            tp_by=trigger_by(body, "tpTriggerBy"),
            sl_by=trigger_by(body, "slTriggerBy"),
            mode=choice(body, "tpslMode", ("Full", "Partial"), "Full"),
            tp_limit=limit_leg(body, "tp", market.contract),
            sl_limit=limit_leg(body, "sl", market.contract),
        )
        check_protection(terms, holding.side, market.last)
        if terms.mode == "Partial":
            has_changed = self._partial_stop(holding, terms, body)
        else:
            has_changed = any(
                [
                    self._whole_stop(holding, "take_profit", body, terms.take_profit, terms.tp_by),
                    self._whole_stop(holding, "stop_loss", body, terms.stop_loss, terms.sl_by),
                ]
            )
        has_changed |= self._trailing_stop(holding, body, market)
        if not has_changed:
            raise Refused(34040, "not modified")
        account.touch(holding)
        engine.triggers.settle(market)

    def _partial_stop(self, holding: Holding, terms: Protection, body: Mapping[str, Any]) -> bool:
        if not terms:
            return False
        sizes = [lots(body, name, holding.contract) for name in ("tpSize", "slSize")]
        given = {size for size in sizes if size}
        if len(given) > 1:
            raise Refused(PARAMS, "tpSize and slSize must be equal")
        size = given.pop() if given else holding.lots
        self._add_pair(holding, terms, min(size, holding.lots), "")
        return True

    def _whole_stop(self, holding: Holding, leg: str, body: Mapping[str, Any], price: int, by: str) -> bool:
        """Whether it changed anything."""
        name = "takeProfit" if leg == "take_profit" else "stopLoss"
        if body.get(name) in (None, ""):
            return False
        current: Order | None = getattr(holding, leg)
        if not price:
            if current is None:
                return False
            self.deactivate(current)
            return True
        if current is not None and (current.trigger_price, current.trigger_by) == (price, by):
            return False
        self.protect(holding, leg, price, by)
        return True

    def _trailing_stop(self, holding: Holding, body: Mapping[str, Any], market: Market) -> bool:
        distance = ticks(body, "trailingStop", holding.contract)
        if distance is None:
            return False
        current = holding.trailing
        if current is not None:
            if current.distance == distance and not text(body, "activePrice"):
                return False
            self.deactivate(current)
        elif not distance:
            return False
        if distance:
            sign = 1 if holding.side is Side.BUY else -1
            start = ticks(body, "activePrice", holding.contract) or market.last
            begin = max(start, market.last) if sign > 0 else min(start, market.last)
            stop = max(1, begin - sign * distance)
            order = self._keep(holding, "TrailingStop", stop, LAST_PRICE, 0, 0, "")
            order.distance = distance
            order.trigger_direction = FALLS if sign > 0 else RISES
            order.extreme = begin
            if begin != market.last:
                order.trigger_price = 0  # not active before the price has come
            holding.trailing = order
        return True
