"""What a request may change in an open order, and what that does to its place in the book."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bot.exchange.local.account import Holding
from bot.exchange.local.admission import base_price, check_protection, check_size, require_margin
from bot.exchange.local.market import Market
from bot.exchange.local.orders import FALLS, LIMIT, RISES, UNTRIGGERED, Order, Refused
from bot.exchange.local.terms import PARAMS, lots, ticks, trigger_by

if TYPE_CHECKING:
    from bot.exchange.local.engine import Engine


class Amendments:
    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def apply(self, order: Order, market: Market, body: Mapping[str, Any]) -> bool:
        """Whether anything has changed. An order that loses its place has been taken out of the book.

        Raises Refused, and then nothing has changed.
        """
        before = order.protection
        has_changed = self._amend_protection(order, market, body)
        amend = self._amend_waiting if order.status == UNTRIGGERED else self._amend_resting
        try:
            return amend(order, market, body) or has_changed
        except Refused:
            order.protection = before
            raise

    def _amend_protection(self, order: Order, market: Market, body: Mapping[str, Any]) -> bool:
        old = order.protection
        take_profit = ticks(body, "takeProfit", order.contract)
        stop_loss = ticks(body, "stopLoss", order.contract)
        if take_profit is None and stop_loss is None:
            return False
        new = replace(
            old,
            take_profit=old.take_profit if take_profit is None else take_profit,
            stop_loss=old.stop_loss if stop_loss is None else stop_loss,
            tp_by=trigger_by(body, "tpTriggerBy") if body.get("tpTriggerBy") else old.tp_by,
            sl_by=trigger_by(body, "slTriggerBy") if body.get("slTriggerBy") else old.sl_by,
        )
        if new == old:
            return False
        price = ticks(body, "price", order.contract) or base_price(order, market)
        check_protection(new, order.side, price)
        order.protection = new
        return True

    def _amend_waiting(self, order: Order, market: Market, body: Mapping[str, Any]) -> bool:
        before = (order.qty, order.price, order.trigger_price, order.trigger_by)
        trigger = ticks(body, "triggerPrice", order.contract) or order.trigger_price
        kind = trigger_by(body, "triggerBy") if body.get("triggerBy") else order.trigger_by
        current = market.ranges[kind or "LastPrice"].last
        if trigger != order.trigger_price and order.trigger_direction:
            is_ahead = trigger > current if order.trigger_direction == RISES else trigger < current
            if not is_ahead:
                code = 110093 if order.trigger_direction == FALLS else 110092
                raise Refused(code, f"trigger_price[{trigger}] is behind current[{current}]??{kind}")
        quantity = lots(body, "qty", order.contract) or order.qty
        price = ticks(body, "price", order.contract) if order.type == LIMIT else None
        changed = replace(
            order,
            trigger_price=trigger,
            trigger_by=kind,
            price=price or order.price,
            qty=quantity,
            leaves=quantity,
        )
        if order.stop_type == "Stop":  # what protects a position is sized by the exchange
            check_size(changed, market)
        order.trigger_price, order.trigger_by = trigger, kind
        order.price = changed.price
        order.qty = order.leaves = quantity
        return (order.qty, order.price, order.trigger_price, order.trigger_by) != before

    def _amend_resting(self, order: Order, market: Market, body: Mapping[str, Any]) -> bool:
        """Whether it changed anything. An order that loses its place has been taken out of the book."""
        price = ticks(body, "price", order.contract) or order.price
        quantity = lots(body, "qty", order.contract) or order.qty
        holding = self._engine.holding(order)
        if order.reduce_only:
            quantity = min(quantity, order.executed + holding.lots)
        leaves = quantity - order.executed
        if (price, quantity) == (order.price, order.qty):
            return False
        if leaves <= 0:
            raise Refused(PARAMS, "orderQty must be greater than the executed quantity")
        if price == order.price and leaves <= order.leaves:
            self._shrink(order, market, holding, leaves)
            return True
        self._check_amended(order, market, holding, price, quantity)
        market.book.remove(order)
        order.is_booked = False
        self._engine.release(order)
        holding.closers.pop(order.id, None)
        order.price, order.qty, order.leaves = price, quantity, leaves
        self._engine.price(order, market)
        return True

    def _shrink(self, order: Order, market: Market, holding: Holding, leaves: int) -> None:
        if order.is_reserved:
            holding.reserve(order, leaves - order.leaves, order.price)
        market.book.reduce(order, leaves)
        order.qty = order.executed + leaves

    def _check_amended(
        self, order: Order, market: Market, holding: Holding, price: int, quantity: int
    ) -> None:
        """The new order must pass the door that a new one passes; the old one stays if it does not."""
        old = order.price, order.qty, order.leaves
        if order.is_reserved:
            holding.reserve(order, -order.leaves, order.price)
        order.price, order.qty, order.leaves = price, quantity, quantity - order.executed
        try:
            check_size(order, market)
            require_margin(order, market, holding)
        finally:
            order.price, order.qty, order.leaves = old
            if order.is_reserved:
                holding.reserve(order, order.leaves, order.price)
