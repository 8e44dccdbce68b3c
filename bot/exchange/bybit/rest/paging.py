"""Lists that come in pages with a cursor."""

from collections.abc import AsyncIterator
from typing import Any

from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.requests import Params
from bot.exchange.bybit.rest.transport import Transport
from bot.exchange.bybit.wire import Response


async def pages(transport: Transport, endpoint: Endpoint, query: Params) -> AsyncIterator[Response[Any]]:
    """Every page of a list with a cursor. A cursor that repeats ends it: a server bug must not loop us."""
    cursor, seen = "", set[str]()
    while cursor not in seen:
        seen.add(cursor)
        response = await transport.call(endpoint, {**query, "cursor": cursor or None})
        yield response
        cursor = response.value.next_page_cursor
        if not cursor:
            return
