"""From settings to a running exchange."""

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from bot.core.money import exact
from bot.exchange.local import assets
from bot.exchange.local.server import Server
from bot.exchange.local.venue import Venue
from bot.exchange.local.world import World
from bot.settings import Exchange


def build(settings: Exchange, sources: Sequence[str], data: Path | None, now: int) -> Venue:
    """The venue at `now` (ms UTC). Raises DataError for recorded bars that cannot be used."""
    if data is None:
        listed = assets.simulated(
            settings.seed, sources, now, history_days=settings.history_days, future_days=settings.future_days
        )
    else:
        listed = assets.recorded(data, settings.seed, now, history_days=settings.history_days)
    venue = Venue(
        World(listed, settings.seed, now),
        rate_limit_scale=settings.rate_limit_scale,
        latency_ms=settings.latency_ms,
    )
    for account in settings.accounts:
        balance = exact(account.balance)
        venue.open_account(account.key, account.secret, balance, read_only=account.read_only)
    return venue


def serve(settings: Exchange, sources: Sequence[str], data: Path | None) -> None:
    """Until Ctrl-C or SIGTERM. Raises UsageError when the port is taken, DataError for bad bars."""
    venue = build(settings, sources, data, int(time.time() * 1000))
    asyncio.run(_serve(venue, settings))


async def _serve(venue: Venue, settings: Exchange) -> None:
    """Raises what has stopped the market's clock."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Server(venue, settings.port) as server:
        symbols = [listed.symbol for listed in venue.world.listed.values() if listed.market.is_trading]
        print(f"exchange ready on {server.url} ({', '.join(symbols)}; seed {settings.seed})", flush=True)  # noqa: T201
        asked, failed = (asyncio.ensure_future(ending) for ending in (stopped.wait(), server.failure()))
        done, _ = await asyncio.wait((asked, failed), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        failed.cancel()
        if failed in done:  # a market that stands still must not look alive
            failed.result()
