"""What REST and the order entry stream have in common: six operations, and what their answers mean.

An acknowledgement means "accepted", never "done": the order stream tells the outcome.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from bot.exchange.bybit import endpoints
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.errors import ExchangeError, ruling
from bot.exchange.bybit.requests import Amendment, Cancellation, Intent, NewOrder, Params, params
from bot.exchange.bybit.wire import Response
from bot.exchange.bybit.wire.account import BatchItem, OrderIds


class BatchResult(NamedTuple):
    """What became of one order of a batch; `error` is None when it was accepted."""

    item: BatchItem
    error: ExchangeError | None


class OrderEntry(ABC):
    """Every method raises ExchangeError, whose kind says what is known."""

    @abstractmethod
    async def _call(self, endpoint: Endpoint, parameters: Params, cost: int = 1) -> Response[Any]:
        """Send once. cost: orders, for the limits."""

    async def create(self, order: NewOrder) -> OrderIds:
        ids: OrderIds = (await self._call(endpoints.CREATE, params(order))).value
        return ids

    async def amend(self, change: Amendment) -> OrderIds:
        ids: OrderIds = (await self._call(endpoints.AMEND, params(change))).value
        return ids

    async def cancel(self, order: Cancellation) -> OrderIds:
        ids: OrderIds = (await self._call(endpoints.CANCEL, params(order))).value
        return ids

    async def create_batch(self, orders: Sequence[NewOrder]) -> list[BatchResult]:
        return await self._batch(endpoints.CREATE_BATCH, orders)

    async def amend_batch(self, changes: Sequence[Amendment]) -> list[BatchResult]:
        return await self._batch(endpoints.AMEND_BATCH, changes)

    async def cancel_batch(self, orders: Sequence[Cancellation]) -> list[BatchResult]:
        return await self._batch(endpoints.CANCEL_BATCH, orders)

    async def _batch(self, endpoint: Endpoint, intents: Sequence[Intent]) -> list[BatchResult]:
        """At most 20 of one category (10 for spot). Each has its own fate."""
        response = await self._call(endpoint, _batch_params(intents), cost=len(intents))
        return _batch_results(endpoint.path, response)


def _batch_params(intents: Sequence[Intent]) -> Params:
    """The parameters of a batch. Raises ValueError unless all intents are of one category."""
    categories = {intent.category for intent in intents}
    if len(categories) != 1:
        raise ValueError(f"a batch holds orders of one category, not {sorted(categories)}")
    items = [
        {name: value for name, value in params(intent).items() if name != "category"} for intent in intents
    ]
    return {"category": categories.pop(), "request": items}


def _batch_results(path: str, response: Response[Any]) -> list[BatchResult]:
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
