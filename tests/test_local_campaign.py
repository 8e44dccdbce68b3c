"""Fault campaign: under each fault, by many seeds, no order is lost or doubled, and the book recovers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bot.exchange.bybit.environment import local
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.rest import Rest
from bot.market.book import Book
from tests.local_exchange import LocalExchange, local_exchange
from tests.test_local_faults import CREATE, TOPIC, follow
from tests.test_local_own_client import CREDENTIALS, FAST, limit_order, market_order, streaming

ORDERS = 12
BY_REST = [
    "refuse", "drop", "bad_gateway", "server_error", "ack_lost", "delay", "too_many_visits", "bad_timestamp",
    "fill_before_ack", "maintenance",
]  # fmt: skip
BY_STREAM = ["gap", "drop", "duplicate", "reorder", "crossed_book", "delay"]
SEEDS = [*range(2), *(pytest.param(seed, marks=pytest.mark.campaign) for seed in range(2, 20))]


@asynccontextmanager
async def connected(seed: int) -> AsyncIterator[tuple[LocalExchange, Rest]]:
    with local_exchange(seed=seed) as exchange:
        limits = Limits(FAST, sleep=lambda _: asyncio.sleep(0))
        rest = Rest(local(exchange.url), CREDENTIALS, limits=limits, timeout=0.2)
        try:
            async with asyncio.timeout(60):
                await rest.measure_clock()
                yield exchange, rest
        finally:
            rest.close()


async def send_until_known(exchange: LocalExchange, rest: Rest, number: int) -> None:
    """What a careful trader does: the same id again, but only when the order is not there."""
    link_id = f"order-{number}"
    order = market_order(link_id) if number % 3 == 0 else limit_order(link_id)
    for _ in range(30):
        try:
            await rest.orders.create(order)
            return
        except ExchangeError as error:
            if error.code == 110072:
                return
            if error.kind not in (Kind.UNKNOWN, Kind.RETRY):
                raise
            if error.kind is Kind.UNKNOWN and await rest.orders.find(link_id, "BTCUSDT") is not None:
                return
    raise AssertionError("never came through")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", BY_REST)
async def test_no_order_is_lost_or_doubled(kind: str, seed: int) -> None:
    async with connected(seed) as (exchange, rest):
        if kind == "maintenance":
            exchange.arm(kind, lasts_ms=150)
        else:
            exchange.arm(kind, CREATE, probability=0.4, ms=300 if kind == "delay" else 20)
        for number in range(ORDERS):
            await send_until_known(exchange, rest, number)
        exchange.do(exchange.venue.faults.clear)
        wanted = Counter(f"order-{number}" for number in range(ORDERS))
        assert Counter(order.link_id for order in exchange.account.orders.values()) == wanted
        [position] = await rest.account.positions("BTCUSDT")
        fills = await rest.orders.executions(symbol="BTCUSDT")
        assert position.signed_size == sum(fill.exec_qty for fill in fills)
        assert len({fill.order_link_id for fill in fills}) == ORDERS / 3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", BY_STREAM)
async def test_the_book_is_right_within_five_seconds_of_the_end_of_the_fault(kind: str, seed: int) -> None:
    async with connected(seed) as (exchange, rest):
        book = Book("BTCUSDT", 50)
        async with streaming(local(exchange.url).public_url(), rest, TOPIC, raw_books=True) as stream:
            await follow(stream, book, exchange, rest)
            exchange.arm(kind, TOPIC, probability=0.3, ms=30)
            for _ in range(15):
                exchange.move("BTCUSDT", 1.001)
                await asyncio.sleep(0.002)
            exchange.do(exchange.venue.faults.clear)
            async with asyncio.timeout(5):
                await follow(stream, book, exchange, rest)
        assert exchange.venue.faults.struck[kind] > 0


@pytest.mark.parametrize("seed", SEEDS)
async def test_restarts_lose_no_order(seed: int) -> None:
    async with connected(seed) as (exchange, rest):
        for number in range(ORDERS):
            if number % 4 == seed % 4:
                exchange.arm("restart", ms=20)
            await send_until_known(exchange, rest, number)
        wanted = Counter(f"order-{number}" for number in range(ORDERS))
        assert Counter(order.link_id for order in exchange.account.orders.values()) == wanted
