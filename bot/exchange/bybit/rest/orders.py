"""Orders by REST. An acknowledgement means "accepted", never "done": the order stream tells the outcome."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bot.exchange.bybit import endpoints
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.errors import ExchangeError, ruling
from bot.exchange.bybit.requests import Amendment, Cancellation, Intent, NewOrder, Params, TradingStop, params
from bot.exchange.bybit.rest.paging import pages
from bot.exchange.bybit.rest.transport import Transport
from bot.exchange.bybit.wire import Response
from bot.exchange.bybit.wire.account import BatchItem, CancelledAll, OrderIds
from bot.exchange.bybit.wire.private import Execution, Order


class BatchResult(NamedTuple):
    """What became of one order of a batch; `error` is None when it was accepted."""

    item: BatchItem
    error: ExchangeError | None


class OrdersRest:
    """Every method raises ExchangeError. After the kind UNKNOWN, `find` tells what happened."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._call = transport.call

    async def create(self, order: NewOrder) -> OrderIds:
        ids: OrderIds = (await self._call(endpoints.CREATE, params(order))).value
        return ids

    async def amend(self, change: Amendment) -> OrderIds:
        ids: OrderIds = (await self._call(endpoints.AMEND, params(change))).value
        return ids

    async def cancel(self, order: Cancellation) -> OrderIds:
        ids: OrderIds = (await self._call(endpoints.CANCEL, params(order))).value
        return ids

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

    async def create_batch(self, orders: Sequence[NewOrder]) -> list[BatchResult]:
        return await self._batch(endpoints.CREATE_BATCH, orders)

    async def amend_batch(self, changes: Sequence[Amendment]) -> list[BatchResult]:
        return await self._batch(endpoints.AMEND_BATCH, changes)

    async def cancel_batch(self, orders: Sequence[Cancellation]) -> list[BatchResult]:
        return await self._batch(endpoints.CANCEL_BATCH, orders)

    async def _batch(self, endpoint: Endpoint, intents: Sequence[Intent]) -> list[BatchResult]:
        """At most 20 of one category (10 for spot). Each has its own fate."""
        response = await self._call(endpoint, batch_params(intents), cost=len(intents))
        return batch_results(endpoint.path, response)

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


def batch_params(intents: Sequence[Intent]) -> Params:
    """The parameters of a batch. Raises ValueError unless all intents are of one category."""
    categories = {intent.category for intent in intents}
    if len(categories) != 1:
        raise ValueError(f"a batch holds orders of one category, not {sorted(categories)}")
    items = [
        {name: value for name, value in params(intent).items() if name != "category"} for intent in intents
    ]
    return {"category": categories.pop(), "request": items}


def batch_results(path: str, response: Response[Any]) -> list[BatchResult]:
    """The fate of each order. The answer as a whole is a success even when every order failed."""
    items: list[BatchItem] = response.value.items
    results = []
    for position, item in enumerate(items):
        verdict = response.verdicts[position] if position < len(response.verdicts) else None
        error = None
        if verdict is None or verdict.code:
            code, text = (verdict.code, verdict.text) if verdict else (0, "no verdict")
            error = ExchangeError(ruling(code, write=True), path=path, code=code, text=text)
        results.append(BatchResult(item, error))
    return results
