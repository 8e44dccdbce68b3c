"""Announced maintenance of the exchange: nothing is opened shortly before it and while it lasts.

https://bybit-exchange.github.io/docs/v5/system-status
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from bot.core.types import MINUTE_MS
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.wire.public import Maintenance

LEAD_MS: Final = 15 * MINUTE_MS  # an entry needs time to be worth its costs
_FUTURES: Final = 1


def in_the_way(announced: Iterable[Maintenance], now: int) -> str:
    """Why nothing should be opened at `now` (ms UTC), "" when no maintenance of futures is near."""
    for item in announced:
        concerns = not item.product or _FUTURES in item.product
        planned = item.state == "scheduled" and item.begin - LEAD_MS <= now < item.end
        if concerns and (item.state == "ongoing" or planned):
            begin, end = (
                f"{datetime.fromtimestamp(ts / 1_000, UTC):%Y-%m-%d %H:%M}" for ts in (item.begin, item.end)
            )
            return f"maintenance of the exchange ({item.state}), {begin} to {end} UTC"
    return ""


async def watch_maintenance(
    rest: Rest,
    tell: Callable[[str], None],
    *,
    every: float = 60.0,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Tell each change of `in_the_way`. For ever; while the exchange gives no answer, the last one holds."""
    told = ""
    while True:
        with suppress(ExchangeError):
            reason = in_the_way(await rest.market.system_status(), rest.clock.now_ms())
            if reason != told:
                told = reason
                tell(reason)
        await sleep(every)
