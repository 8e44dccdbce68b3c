"""Requests of one kind that are made in one turn of the loop leave together.

A decision bar, a breaker or a person orders for many tokens at once. One by one, each waits for the answer
to those before it; in a batch they leave at the same moment, under a rate limit of their own beside that of
single requests. Each order keeps its own fate.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from bot.exchange.bybit.order_entry import BatchResult, OrderEntry
from bot.exchange.bybit.requests import Amendment, Cancellation, Intent, NewOrder

MOST: Final = 8  # in a batch: as many as leave in a second, so that none waits for the limit of the others

T = TypeVar("T", bound=Intent)


class Burst(Generic[T]):
    """One kind of request. `send` returns when this one was accepted, and raises its own ExchangeError."""

    def __init__(
        self,
        single: Callable[[T], Awaitable[object]],
        batch: Callable[[Sequence[T]], Awaitable[list[BatchResult]]],
    ) -> None:
        self._single = single
        self._batch = batch
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []

    async def send(self, intent: T) -> None:
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((intent, accepted))
        if len(self._waiting) == 1:
            await self._lead(self._waiting)
        await accepted

    async def _lead(self, together: list[tuple[T, asyncio.Future[None]]]) -> None:
        """The first one waits a turn for the others, and sends for all."""
        try:
            await asyncio.sleep(0)
            self._waiting = []
            chunks = (together[first : first + MOST] for first in range(0, len(together), MOST))
            await asyncio.gather(*map(self._leave, chunks))
        finally:
            if self._waiting is together:
                self._waiting = []
            for _, accepted in together:
                accepted.cancel()  # where this one was cut short; no effect on those that have their answer

    async def _leave(self, chunk: Sequence[tuple[T, asyncio.Future[None]]]) -> None:
        intents = [intent for intent, _ in chunk]
        errors: Sequence[Exception | None] = [None]
        try:
            if len(intents) == 1:
                await self._single(intents[0])
            else:
                errors = [result.error for result in await self._batch(intents)]
        except Exception as error:  # of the request as a whole: it is the fate of each
            errors = [error] * len(intents)
        for (_, accepted), found in zip(chunk, errors, strict=True):
            if accepted.done():  # who asked was cancelled
                continue
            if found is None:
                accepted.set_result(None)
            else:
                accepted.set_exception(found)


class Bursts:
    """entry: the way for orders that is open now."""

    def __init__(self, entry: Callable[[], OrderEntry]) -> None:
        self.creates: Burst[NewOrder] = Burst(
            lambda order: entry().create(order), lambda orders: entry().create_batch(orders)
        )
        self.amendments: Burst[Amendment] = Burst(
            lambda change: entry().amend(change), lambda changes: entry().amend_batch(changes)
        )
        self.cancellations: Burst[Cancellation] = Burst(
            lambda order: entry().cancel(order), lambda orders: entry().cancel_batch(orders)
        )
