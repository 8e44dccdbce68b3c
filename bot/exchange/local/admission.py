"""Which orders the exchange refuses at the door, with Bybit's codes and, where they are known, its texts."""

from decimal import Decimal
from typing import Final

from bot.core.types import Side
from bot.exchange.local.account import Account, Holding
from bot.exchange.local.market import Market
from bot.exchange.local.orders import (
    FALLS,
    IOC,
    LIMIT,
    MARKET,
    POST_ONLY,
    RISES,
    TIMES_IN_FORCE,
    Order,
    Protection,
    Refused,
)
from bot.exchange.local.terms import (
    PARAMS,
    Body,
    choice,
    flag,
    link_id,
    lots,
    number,
    protection,
    side,
    text,
    ticks,
    trigger_by,
    whole,
    wrong,
)

DUPLICATE: Final = "OrderLinkedID is duplicate"
NO_BALANCE: Final = "ab not enough for new order"
OPEN_LIMIT: Final = 500  # active orders per symbol
CONDITIONAL_LIMIT: Final = 10
_TOLERANCES: Final = {  # of slippage: least, most, decimals
    "TickSize": (Decimal(1), Decimal(10_000), 0),
    "Percent": (Decimal("0.01"), Decimal(10), 2),
}
SLIPPAGE_PERCENT: Final = 5  # how far a market order walks unless it says otherwise
_MODES: Final = ("None", "CancelMaker", "CancelTaker", "CancelBoth")


def read_order(body: Body, account: Account, market: Market, order_id: str, number_: int, now: int) -> Order:
    """The order of a create request. Raises Refused where the request itself is wrong."""
    contract = market.contract
    kind = choice(body, "orderType", (MARKET, LIMIT))
    order = Order(
        number=number_,
        id=order_id,
        account=account,
        contract=contract,
        side=side(body),
        type=kind,
        time_in_force=IOC if kind == MARKET else choice(body, "timeInForce", TIMES_IN_FORCE, "GTC"),
        qty=lots(body, "qty", contract) or 0,
        price=(ticks(body, "price", contract) or 0) if kind == LIMIT else 0,
        created=now,
        updated=now,
        link_id=link_id(text(body, "orderLinkId")),
        index=whole(body, "positionIdx"),
        reduce_only=flag(body, "reduceOnly"),
        close_on_trigger=flag(body, "closeOnTrigger"),
        trigger_price=ticks(body, "triggerPrice", contract) or 0,
        trigger_direction=whole(body, "triggerDirection"),
        protection=protection(body, contract),
        smp=choice(body, "smpType", _MODES, "None"),
        last_on_created=market.last,
    )
    if order.trigger_price:
        order.trigger_by = trigger_by(body, "triggerBy")
        order.stop_type = "Stop"
    if kind == MARKET and (tolerance := number(body, "slippageTolerance")) is not None:
        unit = choice(body, "slippageToleranceType", tuple(_TOLERANCES))
        least, most, places = _TOLERANCES[unit]
        if not least <= tolerance <= most or tolerance != round(tolerance, places):
            raise wrong(f"slippageTolerance of type {unit} must be from {least} to {most}")
        order.slippage = unit, tolerance
    return order


def check_order(order: Order, market: Market) -> None:
    """A new order against every rule but the margin; closing ones are cut to the position. Raises Refused."""
    account = order.account
    if order.type == LIMIT and not order.price:
        raise wrong("price invalid")
    check_tradable(market)
    holding = account.holding(order.contract, require_index(account, market, order.index))
    if order.link_id in account.link_ids:
        raise Refused(110072, DUPLICATE)
    _check_counts(order, account)
    _shape_closing(order, holding)
    order.leaves = order.qty
    check_size(order, market)
    _check_trigger(order, market)
    check_protection(order.protection, order.side, base_price(order, market), reduces=order.reduce_only)


def check_tradable(market: Market) -> None:
    if not market.is_trading:
        raise Refused(110074, "This contract is not live")


def require_index(account: Account, market: Market, index: int) -> int:
    allowed = (1, 2) if market.symbol in account.hedged else (0,)
    if index not in allowed:
        raise Refused(PARAMS, "position idx not match position mode")
    return index


def base_price(order: Order, market: Market) -> int:
    """The price at which the order means to trade, in ticks."""
    if order.type == LIMIT:
        return order.price
    return order.trigger_price or market.last


def bound(order: Order, market: Market) -> int:
    """The limit price that a market order is converted to, in ticks."""
    reference = market.book.best_price(order.side.opposite) or market.mark
    sign = order.side.sign
    if order.slippage is None:
        reach = max(1, reference * SLIPPAGE_PERCENT // 100)
    elif order.slippage[0] == "TickSize":
        reach = int(order.slippage[1])
    else:
        reach = max(1, int(reference * order.slippage[1] / 100))
    return max(1, reference + sign * reach)


def _check_counts(order: Order, account: Account) -> None:
    if order.trigger_price and account.counts[order.symbol, "Stop"] >= CONDITIONAL_LIMIT:
        raise Refused(110009, "The number of stop orders exceeds the maximum allowable limit")
    if not order.trigger_price and account.counts[order.symbol, ""] >= OPEN_LIMIT:
        raise Refused(110020, "Not allowed to have more than 500 active orders")


def _shape_closing(order: Order, holding: Holding) -> None:
    """A reduce-only order never asks for more than there is; in hedge mode closing is reduce-only anyway."""
    if order.index and (order.side is Side.BUY) != (order.index == 1):
        order.reduce_only = True
    if not order.reduce_only:
        return
    if order.protection:
        raise wrong("a reduce-only order cannot carry a stop loss or take profit")
    if order.trigger_price:  # looked at when it is triggered
        return
    if not holding.qty:
        raise Refused(110017, "current position is zero, cannot fix reduce-only order qty")
    if holding.side is order.side:
        raise Refused(110017, "reduce-only order has same side with current position")
    if order.qty == 0 and order.close_on_trigger:
        order.qty = holding.lots
    order.qty = min(order.qty, holding.lots)


def check_size(order: Order, market: Market) -> None:
    """Against the filters of the instrument. What closes a whole position may be as small as it is."""
    contract, qty = market.contract, market.contract.quantity(order.qty)
    instrument = contract.instrument
    largest = instrument.max_market_qty if order.type == MARKET else instrument.max_qty
    if order.qty == 0 and order.trigger_price and order.reduce_only and order.close_on_trigger:
        return  # all that is held when it is triggered
    if order.qty <= 0:
        raise Refused(PARAMS, "Qty invalid")
    if qty < instrument.min_qty and not _closes_all(order):
        raise Refused(PARAMS, "The number of contracts exceeds minimum limit allowed")
    if qty > largest:
        raise Refused(
            PARAMS,
            "The number of contracts exceeds maximum limit allowed: too large, "
            f"order_qty:{qty} > max_qty:{largest}",
        )
    value = qty * contract.price(base_price(order, market))
    if value < instrument.min_notional and not order.reduce_only:
        raise Refused(110094, f"Order does not meet minimum order value {instrument.min_notional}USDT")


def _closes_all(order: Order) -> bool:
    return order.reduce_only and order.qty == order.account.holding(order.contract, order.index).lots


def _check_trigger(order: Order, market: Market) -> None:
    if not order.trigger_price:
        return
    current = market.ranges[order.trigger_by].last
    if order.trigger_direction not in (RISES, FALLS):
        raise wrong("triggerDirection invalid")
    told = f"trigger_price[{order.trigger_price}]", f"current[{current}]??{order.trigger_by}"
    if order.trigger_direction == RISES and order.trigger_price <= current:
        raise Refused(110092, f"expect Rising, but {told[0]} <= {told[1]}")
    if order.trigger_direction == FALLS and order.trigger_price >= current:
        raise Refused(110093, f"expect Falling, but {told[0]} >= {told[1]}")


def check_protection(terms: Protection, side_: Side, base: int, *, reduces: bool = False) -> None:
    """A stop lies on the losing side of the price, a take profit on the winning one. Prices in ticks."""
    if reduces:
        return
    for name, price, sign in (
        ("StopLoss", terms.stop_loss, side_.sign),
        ("TakeProfit", terms.take_profit, -side_.sign),
    ):
        if price and (base - price) * sign <= 0:
            relation = "lower" if sign > 0 else "higher"
            raise Refused(
                PARAMS,
                f"{name}:{price} set for {side_} position should be {relation} "
                f"than base_price:{base}??LastPrice",
            )


def is_post_only_taker(order: Order, market: Market) -> bool:
    return order.time_in_force == POST_ONLY and market.book.crosses(order.side, order.price)


def require_margin(order: Order, market: Market, holding: Holding) -> None:
    """What the order would open must be covered, with the fees both ways; 110007 otherwise."""
    if order.reduce_only:
        return
    price = order.price if order.type == LIMIT else market.book.best_price(order.side.opposite) or market.mark
    before = holding.order_margin
    holding.reserve(order, order.leaves, price)
    needed = holding.order_margin - before
    holding.reserve(order, -order.leaves, price)
    if needed > 0 and needed > order.account.available:
        raise Refused(110007, NO_BALANCE)
    opened = abs(holding.value + needed * holding.leverage)
    if needed > 0 and opened > market.contract.tiers[-1].limit:
        raise Refused(110090, "Order placement failed as your position may exceed the max limit")
