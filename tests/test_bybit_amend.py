"""Amended and late orders through the real client, against the local exchange."""

import asyncio
import time
from decimal import Decimal

from bot.core.commands import AmendOrder, CancelOrder, PlaceOrder
from bot.core.events import EntriesBlocked, OrderAccepted, OrderCancelled, OrderFilled, OrderRejected
from bot.core.types import OrderRequest, OrderType, Side, TimeInForce
from tests.local_exchange import local_exchange
from tests.test_wallet import watching

SYMBOL = "ETHUSDT"


def resting(link_id: str, price: str, valid_ms: int = 60_000) -> PlaceOrder:
    now = int(time.time() * 1_000)
    request = OrderRequest(
        link_id=link_id, symbol=SYMBOL, side=Side.BUY, type=OrderType.LIMIT, qty=Decimal("0.5"),
        price=Decimal(price), time_in_force=TimeInForce.POST_ONLY, stop_loss=Decimal(2_000),
    )  # fmt: skip
    return PlaceOrder(now, request, now + valid_ms)


async def test_an_amended_order_keeps_its_id_rests_at_its_new_price_and_fills_there() -> None:
    with local_exchange() as exchange:
        exchange.advance(500)
        async with watching(exchange) as (broker, heard):
            broker.submit(resting("a", "2400"))
            await heard.until(OrderAccepted)
            broker.submit(AmendOrder(0, SYMBOL, "a", Decimal("2410.5")))
            await broker.settled()
            (order,) = await broker._rest.orders.open_orders(symbol=SYMBOL)
            assert (order.order_link_id, order.price) == ("a", Decimal("2410.5"))
            exchange.move(SYMBOL, 0.95)
            (filled,) = await heard.until(OrderFilled)
            assert (filled.link_id, filled.price, filled.leaves_qty) == ("a", Decimal("2410.5"), 0)
            assert heard.of(EntriesBlocked) == []


async def test_an_amendment_that_comes_too_late_changes_nothing() -> None:
    with local_exchange() as exchange:
        exchange.advance(500)
        async with watching(exchange) as (broker, heard):
            broker.submit(resting("a", "2400"))
            await heard.until(OrderAccepted)
            broker.submit(CancelOrder(0, SYMBOL, "a"))
            await heard.until(OrderCancelled)
            broker.submit(AmendOrder(0, SYMBOL, "a", Decimal("2410.5")))
            broker.submit(AmendOrder(0, SYMBOL, "never", Decimal("2410.5")))
            await broker.settled()
            assert heard.of(EntriesBlocked) == []
            assert await broker._rest.orders.open_orders(symbol=SYMBOL) == []


async def test_an_order_whose_time_is_over_is_dropped_and_not_sent() -> None:
    with local_exchange() as exchange:
        exchange.advance(500)
        async with watching(exchange) as (broker, heard):
            broker.submit(resting("late", "2400", valid_ms=-60_000))
            (rejected,) = await heard.until(OrderRejected)
            assert "not sent" in rejected.reason
            await asyncio.sleep(0)
            assert await broker._rest.orders.open_orders(symbol=SYMBOL) == []
