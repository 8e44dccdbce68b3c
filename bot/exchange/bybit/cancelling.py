"""Cancels many orders at once, for a start and for an emergency."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from bot.exchange.bybit.bursts import MOST, Bursts
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.requests import Cancellation
from bot.exchange.bybit.rest.orders import OrdersRest
from bot.exchange.bybit.wire.private import Order

ACTIVE: Final = ("", "UNKNOWN")  # `stop_order_type` of an order that rests in the book


async def cancel_many(orders: OrdersRest, doomed: Sequence[Order], listed: Sequence[Order]) -> None:
    """Cancel `doomed` of the open orders `listed`; what is left of them the next look at the list shows.

    A batch costs as many requests as it holds orders, so that hundreds take half a minute. Where there are
    more than one batch, a symbol at which nothing else rests is cleared by one request, stops excepted: what
    somebody else places there between the look and the request goes with it. When all have been tried the
    first ExchangeError is raised that is not of the kind UNKNOWN.
    """
    resting: defaultdict[str, list[Order]] = defaultdict(list)
    for order in listed:
        if order.stop_order_type in ACTIVE:
            resting[order.symbol].append(order)
    ids = {order.order_id for order in doomed}
    cleared = {
        symbol
        for symbol, found in resting.items()
        if len(doomed) > MOST and len(found) > 1 and all(order.order_id in ids for order in found)
    }
    cancellations = Bursts(lambda: orders).cancellations
    outcomes = await asyncio.gather(
        *(orders.cancel_all(symbol=symbol, order_filter="Order") for symbol in sorted(cleared)),
        *(
            cancellations.send(Cancellation(symbol=order.symbol, order_id=order.order_id))
            for order in doomed
            if order.symbol not in cleared or order.stop_order_type not in ACTIVE
        ),
        return_exceptions=True,
    )
    for outcome in outcomes:
        is_gone = isinstance(outcome, ExchangeError) and outcome.kind is Kind.UNKNOWN
        if isinstance(outcome, BaseException) and not is_gone:
            raise outcome
