"""A local exchange in a thread of its own, so that blocking clients can be held against it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeVar

from bot.core.types import DAY_MS
from bot.exchange.local import assets
from bot.exchange.local.account import Account
from bot.exchange.local.assets import Asset
from bot.exchange.local.server import Server
from bot.exchange.local.venue import Venue
from bot.exchange.local.world import World

T = TypeVar("T")
KEY, SECRET = "local", "local-secret"
PATIENCE = 10.0


def two_symbols(now: int) -> list[Asset]:
    """Prices that stand still until a test moves them; market makers, but no takers."""
    launch = now - 30 * DAY_MS
    return [
        assets.plain("BTCUSDT", 60_000.0, launch, turnover=8e8),
        assets.plain("ETHUSDT", 2_500.0, launch, turnover=4e8),
    ]


class LocalExchange:
    """`do` runs a function inside the exchange's thread; `advance` moves its market."""

    def __init__(self, venue: Venue, account: Account) -> None:
        self.venue = venue
        self.account = account
        self.server = Server(venue)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(PATIENCE)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def streams(self) -> str:
        return self.url.replace("http", "ws")

    def do(self, function: Callable[[], T]) -> T:
        async def inside() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(PATIENCE)

    def advance(self, ms: int) -> None:
        self.do(lambda: self.venue.advance(ms))

    def move(self, symbol: str, factor: float) -> None:
        """The fair price jumps, the crowd follows with the next step, and somebody trades there."""
        self.do(lambda: self.venue.world.move(symbol, factor))
        self.advance(200)

    def arm(self, kind: str, target: str = "*", **options: Any) -> None:
        self.do(lambda: self.server.arm(kind, target, **options))


@contextmanager
def local_exchange(
    listed: Callable[[int], Sequence[Asset]] = two_symbols,
    *,
    manual: bool = True,
    rate_limit_scale: float = 20.0,
    seed: int = 1,
    balance: int = 10_000,
    latency_ms: float = 0.0,
) -> Iterator[LocalExchange]:
    now = int(time.time() * 1000)
    venue = Venue(
        World(listed(now), seed, now), rate_limit_scale=rate_limit_scale, manual=manual, latency_ms=latency_ms
    )
    account = venue.open_account(KEY, SECRET, Decimal(balance))
    venue.open_account("reader", "reader-secret", Decimal(balance), read_only=True)
    exchange = LocalExchange(venue, account)
    exchange.start()
    try:
        yield exchange
    finally:
        exchange.stop()


def eventually(condition: Callable[[], T], patience: float = PATIENCE) -> T:
    """The first true value of `condition`."""
    end = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError("it never happened")
        time.sleep(0.005)
    return value
