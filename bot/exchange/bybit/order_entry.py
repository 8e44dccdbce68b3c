"""What REST and the order entry stream have in common: six operations, and what their answers mean.

An acknowledgement means "accepted", never "done": the order stream tells the outcome.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from bot.exchange.bybit import endpoints
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.errors import UNREADABLE, ExchangeError, judged, ruling
from bot.exchange.bybit.requests import Amendment, Cancellation, Intent, NewOrder, Params, params
from bot.exchange.bybit.wire import Response
from bot.exchange.bybit.wire.account import BatchItem, OrderIds


class BatchResult(NamedTuple):
    """What became of one order of a batch; `error` is None when it was accepted."""

    item: BatchItem | None  # None: the answer says nothing of it
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
        return _batch_results(endpoint.path, intents, response)


def _batch_params(intents: Sequence[Intent]) -> Params:
    """The parameters of a batch. Raises ValueError unless all intents are of one category."""
    categories = {intent.category for intent in intents}
    if len(categories) != 1:
        raise ValueError(f"a batch holds orders of one category, not {sorted(categories)}")
    items = [
        {name: value for name, value in params(intent).items() if name != "category"} for intent in intents
    ]
    return {"category": categories.pop(), "request": items}


def _batch_results(path: str, intents: Sequence[Intent], response: Response[Any]) -> list[BatchResult]:
    """The fate of each order. The answer as a whole is a success even when every order failed.

    The lists of the answer are in the order of the request. An order that they do not speak of, or at whose
    place they name another one, is of unknown outcome.
    """
    items: list[BatchItem] = response.value.items
    results = []
    for position, intent in enumerate(intents):
        item = items[position] if position < len(items) else None
        verdict = response.verdicts[position] if position < len(response.verdicts) else None
        named = item.order_link_id if item else ""
        wanted = getattr(intent, "order_link_id", None) or named
        error = None
        if item is None or verdict is None or named not in ("", wanted):
            error = ExchangeError(judged(UNREADABLE, write=True), path=path, text="an order of the batch")
        elif verdict.code:
            error = ExchangeError(
                ruling(verdict.code, write=True), path=path, code=verdict.code, text=verdict.text
            )
        results.append(BatchResult(item, error))
    return results
