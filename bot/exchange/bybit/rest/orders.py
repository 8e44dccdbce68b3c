"""Orders by REST: entry, stops, and what is known of them."""

from typing import Any

from bot.exchange.bybit import endpoints
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.order_entry import OrderEntry
from bot.exchange.bybit.requests import Params, TradingStop, params
from bot.exchange.bybit.rest.paging import pages
from bot.exchange.bybit.rest.transport import Transport
from bot.exchange.bybit.wire import Response
from bot.exchange.bybit.wire.account import CancelledAll
from bot.exchange.bybit.wire.private import Execution, Order


class OrdersRest(OrderEntry):
    """Every method raises ExchangeError. After the kind UNKNOWN, `find` tells what happened."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def _call(self, endpoint: Endpoint, parameters: Params, cost: int = 1) -> Response[Any]:
        return await self._transport.call(endpoint, parameters, cost)

    async def cancel_all(
        self,
        *,
        symbol: str | None = None,
        settle_coin: str | None = None,
        order_filter: str | None = None,
        category: str = "linear",
    ) -> CancelledAll:
        """Every order of a symbol or of a settle coin; one of the two is required. At most 500 at once."""
        query: Params = {
            "category": category, "symbol": symbol, "settleCoin": settle_coin, "orderFilter": order_filter,
        }  # fmt: skip
        cancelled: CancelledAll = (await self._call(endpoints.CANCEL_ALL, query)).value
        return cancelled

    async def set_stop(self, stop: TradingStop) -> None:
        """Move or remove the stops of an open position. A stop that is so already counts as success."""
        await self._call(endpoints.STOP, params(stop))

    async def open_orders(
        self,
        *,
        symbol: str | None = None,
        settle_coin: str | None = None,
        link_id: str | None = None,
        order_filter: str | None = None,
        category: str = "linear",
    ) -> list[Order]:
        """Open and conditional orders; by `link_id` also one that has just finished."""
        query: Params = {
            "category": category, "symbol": symbol, "settleCoin": settle_coin,
            "orderLinkId": link_id, "orderFilter": order_filter, "limit": 50,
        }  # fmt: skip
        return await self._orders(endpoints.OPEN_ORDERS, query)

    async def history(
        self,
        *,
        symbol: str | None = None,
        link_id: str | None = None,
        status: str | None = None,
        start: int | None = None,
        end: int | None = None,
        category: str = "linear",
    ) -> list[Order]:
        """Finished orders within [start, end] (ms, at most 7 days; none: the last 7), newest first."""
        query: Params = {
            "category": category, "symbol": symbol, "orderLinkId": link_id, "orderStatus": status,
            "startTime": start, "endTime": end, "limit": 50,
        }  # fmt: skip
        return await self._orders(endpoints.ORDER_HISTORY, query)

    async def executions(
        self,
        *,
        symbol: str | None = None,
        link_id: str | None = None,
        kind: str | None = None,
        start: int | None = None,
        end: int | None = None,
        category: str = "linear",
    ) -> list[Execution]:
        """Fills and funding within [start, end] (ms, at most 7 days), newest first, each once."""
        query: Params = {
            "category": category, "symbol": symbol, "orderLinkId": link_id, "execType": kind,
            "startTime": start, "endTime": end, "limit": 100,
        }  # fmt: skip
        found: dict[str, Execution] = {}
        async for page in pages(self._transport, endpoints.EXECUTIONS, query):
            found.update((execution.exec_id, execution) for execution in page.value.executions)
        return list(found.values())

    async def find(self, link_id: str, symbol: str, category: str = "linear") -> Order | None:
        """The order with this id, open or finished. None proves nothing yet: creation is asynchronous."""
        for found in (
            await self.open_orders(symbol=symbol, link_id=link_id, category=category),
            await self.history(symbol=symbol, link_id=link_id, category=category),
        ):
            if matching := [order for order in found if order.order_link_id == link_id]:
                return matching[0]
        return None

    async def _orders(self, endpoint: Endpoint, query: Params) -> list[Order]:
        found: dict[str, Order] = {}
        async for page in pages(self._transport, endpoint, query):
            found.update((order.order_id, order) for order in page.value.orders)
        return list(found.values())
