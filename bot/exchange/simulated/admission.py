"""Which orders the exchange refuses at the door. Texts follow Bybit's where they are known."""

import re
from decimal import Decimal
from typing import Final

from bot.core.money import to_grid
from bot.core.types import Instrument, OrderRequest, OrderType, Side, TimeInForce
from bot.exchange.simulated.account import Position
from bot.exchange.simulated.costs import Quote
from bot.exchange.simulated.matching import WOULD_TAKE

DUPLICATE: Final = "OrderLinkedID is duplicate"
NO_BALANCE: Final = "ab not enough for new order"
_LINK_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")


def objection(
    order: OrderRequest, instrument: Instrument, position: Position, last: Decimal, quote: Quote
) -> str | None:
    """Why the order is invalid at the last price, or None. The margin and duplicates are the broker's."""
    return (
        _form(order)
        or _prices(order, instrument.tick_size, last)
        or _size(order, instrument, position, last)
        or _reduce_only(order, position)
        or _protection(order, last)
        or _post_only(order, quote)
    )


def base_price(order: OrderRequest, last: Decimal) -> Decimal:
    """The price at which the order means to trade."""
    if order.type is OrderType.LIMIT and order.price is not None:
        return order.price
    return last if order.trigger_price is None else order.trigger_price


def off_grid(value: Decimal, step: Decimal) -> bool:
    return not value.is_finite() or value <= 0 or to_grid(value, step) != value


def stop_objection(stop_loss: Decimal, side: Side, base: Decimal) -> str | None:
    """A stop must lie beyond the price on the losing side of a position of `side`."""
    if (base - stop_loss) * side.sign > 0:
        return None
    relation = "lower" if side is Side.BUY else "higher"
    return f"StopLoss:{stop_loss} set for {side} position should {relation} than base_price:{base}"


def _form(order: OrderRequest) -> str | None:
    if not _LINK_ID.fullmatch(order.link_id):
        return "params error: orderLinkId must be 1 to 36 letters, digits, - or _"
    if order.type is OrderType.LIMIT and order.price is None:
        return "params error: a limit order needs a price"
    if order.type is OrderType.MARKET and order.time_in_force is TimeInForce.POST_ONLY:
        return "params error: a market order cannot be post-only"
    if order.reduce_only and (order.stop_loss is not None or order.take_profit is not None):
        return "params error: a reduce-only order cannot carry a stop loss or take profit"
    return None


def _prices(order: OrderRequest, tick: Decimal, last: Decimal) -> str | None:
    limit = order.price if order.type is OrderType.LIMIT else None
    named = {
        "price": limit,
        "stopLoss": order.stop_loss,
        "takeProfit": order.take_profit,
        "triggerPrice": order.trigger_price,
    }
    for name, price in named.items():
        if price is not None and off_grid(price, tick):
            return f"params error: {name} {price} is not a multiple of the tick {tick}"
    if order.trigger_price == last:
        return f"trigger_price[{order.trigger_price}] is the current price already"
    return None


def _size(order: OrderRequest, instrument: Instrument, position: Position, last: Decimal) -> str | None:
    """What closes a whole position may be as small as it is: a partial fill must not leave dust for ever."""
    qty = order.qty
    closes_all = order.reduce_only and qty == position.opposed_by(order.side)
    largest = instrument.max_market_qty if order.type is OrderType.MARKET else instrument.max_qty
    if off_grid(qty, instrument.qty_step):
        return f"Qty invalid: {qty} is not a multiple of the step {instrument.qty_step}"
    if qty < instrument.min_qty and not closes_all:
        return f"Qty invalid: {qty} is below the minimum {instrument.min_qty}"
    if qty > largest:
        return f"Qty invalid: {qty} is above the maximum {largest} of a {order.type} order"
    value = qty * base_price(order, last)
    if value < instrument.min_notional and not order.reduce_only:
        return f"Order does not meet minimum order value {instrument.min_notional}"
    return None


def _reduce_only(order: OrderRequest, position: Position) -> str | None:
    if not order.reduce_only or position.opposed_by(order.side):
        return None
    if not position.qty:
        return "current position is zero, cannot fix reduce-only order qty"
    return "reduce-only order has same side with current position"


def _protection(order: OrderRequest, last: Decimal) -> str | None:
    base, side = base_price(order, last), order.side
    if order.stop_loss is not None:
        reason = stop_objection(order.stop_loss, side, base)
        if reason is None and order.trigger_price is None:
            reason = stop_objection(order.stop_loss, side, last)
        if reason is not None:
            return reason
    if order.take_profit is not None and (order.take_profit - base) * side.sign <= 0:
        relation = "higher" if side is Side.BUY else "lower"
        return (
            f"TakeProfit:{order.take_profit} set for {side} position should {relation} than base_price:{base}"
        )
    return None


def _post_only(order: OrderRequest, quote: Quote) -> str | None:
    if order.time_in_force is not TimeInForce.POST_ONLY or order.trigger_price is not None:
        return None
    assert order.price is not None
    return WOULD_TAKE if quote.crossed_by(order.side, order.price) else None
