"""Options that say which exchange is meant, and a REST client for it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import typer

from bot.core.errors import UsageError
from bot.exchange.bybit.environment import Environment, local
from bot.exchange.bybit.environment import environment as named
from bot.exchange.bybit.rest import Rest

T = TypeVar("T")

EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment", "-e",
        help="Of Bybit: mainnet, testnet, demo, or a regional host such as mainnet-eu. Default: mainnet.",
    ),
]  # fmt: skip
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="A local exchange instead of Bybit, http://127.0.0.1:PORT (see `bot exchange`)."
    ),
]


def venue(environment: str | None, url: str | None) -> Environment:
    """The exchange that the options name. Raises UsageError."""
    if url is None:
        return named(environment or "mainnet")
    if environment is not None:
        raise UsageError("--url is a local exchange: leave --environment away")
    return local(url)


@asynccontextmanager
async def public_rest(environment: str | None, url: str | None) -> AsyncIterator[Rest]:
    """A REST client without a key, its clock measured. Raises UsageError, ExchangeError."""
    rest = Rest(venue(environment, url))
    try:
        await rest.measure_clock()
        yield rest
    finally:
        rest.close()


def interruptible(body: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end; Ctrl-C and SIGTERM cancel it, so that its `finally` clauses keep what is there."""

    async def main() -> T:
        task = asyncio.ensure_future(body())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
