"""ccxt (blocking, asyncio, pro streams), unmodified apart from the URL, runs whole sessions here."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest

from tests.local_exchange import KEY, SECRET, LocalExchange, eventually, local_exchange

SYMBOL = "BTC/USDT:USDT"
OPTIONS = {"apiKey": KEY, "secret": SECRET, "options": {"defaultType": "swap"}}


def redirected(client: Any, exchange: LocalExchange) -> Any:
    for name, value in client.urls["api"].items():
        if isinstance(value, str):
            client.urls["api"][name] = exchange.url
    streams = client.urls["api"].get("ws")
    if streams:
        for name in streams["public"]:
            streams["public"][name] = f"{exchange.streams}/v5/public/{name}"
        private = f"{exchange.streams}/v5/private"
        streams["private"].update(
            contract=private, usdc=private, trade=f"{exchange.streams}/v5/trade",
            spot={"unified": private, "nonUnified": private},
        )  # fmt: skip
    return client


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalExchange]:
    with local_exchange() as running:
        yield running


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange() as running:
        yield running


class Caller:
    """A blocking client or one of asyncio, asked in the same way."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            if asyncio.iscoroutinefunction(method):
                return await method(*arguments, **named)
            return await asyncio.to_thread(method, *arguments, **named)

        return call

    async def close(self) -> None:
        if isinstance(self._client, ccxt.async_support.Exchange):
            await self._client.close()


def topics(exchange: LocalExchange) -> set[str]:
    """Everything that anybody is subscribed to."""
    return exchange.do(lambda: {name for session in exchange.venue.hub.sessions for name in session.topics})


@asynccontextmanager
async def streaming(exchange: LocalExchange) -> AsyncIterator[Any]:
    client = redirected(ccxt.pro.bybit(OPTIONS), exchange)
    try:
        async with asyncio.timeout(20):
            await client.load_markets()
            yield client
    finally:
        await client.close()


@pytest.mark.parametrize("kind", [ccxt.bybit, ccxt.async_support.bybit], ids=["blocking", "asyncio"])
async def test_a_session(exchange: LocalExchange, kind: Callable[[Any], Any]) -> None:
    client = Caller(redirected(kind(OPTIONS), exchange))
    try:
        await session(exchange, client)
    finally:
        await client.close()


async def session(exchange: LocalExchange, client: "Caller") -> None:
    await asyncio.to_thread(exchange.advance, 120_000)
    markets = await client.load_markets()
    market = markets[SYMBOL]
    assert (market["active"], market["precision"]["price"], market["precision"]["amount"]) == (
        True,
        0.1,
        0.001,
    )
    assert abs(await client.fetch_time() - time.time() * 1_000) < 1_000
    ticker = await client.fetch_ticker(SYMBOL)
    assert ticker["bid"] < 60_000 < ticker["ask"]
    candles = await client.fetch_ohlcv(SYMBOL, "1m")
    assert await client.fetch_ohlcv(SYMBOL, "1m", since=candles[0][0], limit=1) == candles[:1]
    assert len(candles) == 3
    book = await client.fetch_order_book(SYMBOL, 50)
    assert len(book["bids"]) == len(book["asks"]) == 50
    assert (await client.fetch_balance())["USDT"]["total"] == 10_000
    await client.set_leverage(5, SYMBOL)
    with pytest.raises(ccxt.BadRequest):
        await client.set_leverage(5, SYMBOL)

    order = await client.create_order(SYMBOL, "limit", "buy", 0.1, 59_000, {"clientOrderId": "c1"})
    [resting] = await client.fetch_open_orders(SYMBOL)
    assert (resting["id"], resting["clientOrderId"], resting["status"]) == (order["id"], "c1", "open")
    await client.edit_order(order["id"], SYMBOL, "limit", "buy", 0.2, 59_100)
    changed = await client.fetch_open_order(order["id"], SYMBOL)
    assert (changed["amount"], changed["price"]) == (0.2, 59_100)
    await client.cancel_order(order["id"], SYMBOL)
    assert [found["id"] for found in await client.fetch_canceled_orders(SYMBOL)] == [order["id"]]

    best, size = book["asks"][0]
    partly = await client.create_order(SYMBOL, "limit", "buy", size + 0.01, best)
    now = await client.fetch_open_order(partly["id"], SYMBOL)
    assert (now["filled"], now["remaining"]) == (size, 0.01)
    await client.cancel_all_orders(SYMBOL)
    stop = await client.create_order(
        SYMBOL, "market", "sell", size, None, {"stopLossPrice": 59_500, "reduceOnly": True}
    )
    [position] = await client.fetch_positions([SYMBOL])
    assert (position["side"], position["contracts"], position["leverage"]) == ("long", size, 5)
    [waiting] = await client.fetch_open_orders(SYMBOL, params={"trigger": True})
    assert (waiting["id"], waiting["triggerPrice"]) == (stop["id"], 59_500)
    await asyncio.to_thread(exchange.move, "BTCUSDT", 0.99)
    assert [p["contracts"] for p in await client.fetch_positions([SYMBOL]) if p["contracts"]] == []
    trades = await client.fetch_my_trades(SYMBOL)
    assert sum(trade["amount"] for trade in trades if trade["side"] == "buy") == pytest.approx(size)
    fees = sum(trade["fee"]["cost"] for trade in trades)
    cash = sum(trade["cost"] * (1 if trade["side"] == "sell" else -1) for trade in trades)
    assert (await client.fetch_balance())["USDT"]["total"] == pytest.approx(10_000 + cash - fees)
    assert await client.fetch_trades(SYMBOL)
    assert (await client.fetch_funding_rate(SYMBOL))["fundingRate"] == 0.0001


async def test_the_asyncio_client(shared: LocalExchange) -> None:
    client = redirected(ccxt.async_support.bybit(OPTIONS), shared)
    try:
        await client.load_markets()
        order = await client.create_order(SYMBOL, "limit", "buy", 0.01, 59_000)
        assert [found["id"] for found in await client.fetch_open_orders(SYMBOL)] == [order["id"]]
        await client.cancel_order(order["id"], SYMBOL)
        bracket = await client.create_order(
            SYMBOL,
            "market",
            "buy",
            0.01,
            None,
            {"stopLoss": {"triggerPrice": 59_000}, "takeProfit": {"triggerPrice": 62_000}},
        )
        assert bracket["id"]
        kinds = {found["info"]["stopOrderType"] for found in await client.fetch_open_orders(SYMBOL)}
        assert kinds == {"StopLoss", "TakeProfit"}
        [position] = await client.fetch_positions([SYMBOL])
        assert (position["stopLossPrice"], position["takeProfitPrice"]) == (59_000, 62_000)
        with pytest.raises(ccxt.InsufficientFunds):
            await client.create_order(SYMBOL, "limit", "buy", 50, 59_000)
        with pytest.raises(ccxt.OrderNotFound):
            await client.cancel_order("11111111-2222-4333-8444-555555555555", SYMBOL)
    finally:
        await client.close()


async def test_the_public_streams(exchange: LocalExchange) -> None:
    async with streaming(exchange) as pro:
        book = await pro.watch_order_book(SYMBOL, 50)
        assert book["bids"][0][0] < 60_000 < book["asks"][0][0]
        ticker = await pro.watch_ticker(SYMBOL)
        assert ticker["last"] == 60_000
        waiting = asyncio.gather(pro.watch_trades(SYMBOL), pro.watch_ohlcv(SYMBOL, "1m"))
        for _ in range(100):
            await asyncio.sleep(0.02)
            await asyncio.to_thread(exchange.move, "BTCUSDT", 1.0005)
            if waiting.done():
                break
        trades, candles = await waiting
        assert trades[0]["side"] == "sell"
        assert candles
        rest = await pro.fetch_order_book(SYMBOL, 50)
        for _ in range(50):
            if pro.orderbooks[SYMBOL]["bids"][0] == rest["bids"][0]:
                break
            await pro.watch_order_book(SYMBOL, 50)
        assert pro.orderbooks[SYMBOL]["asks"][0] == rest["asks"][0]


async def test_private_streams_and_order_entry(exchange: LocalExchange) -> None:
    async with streaming(exchange) as pro:
        orders = asyncio.create_task(pro.watch_orders(SYMBOL))
        trades = asyncio.create_task(pro.watch_my_trades(SYMBOL))
        assert await pro.watch_positions([SYMBOL]) == []
        positions = asyncio.create_task(pro.watch_positions([SYMBOL]))
        await asyncio.to_thread(eventually, lambda: {"order", "execution", "position"} <= topics(exchange))
        order = await pro.create_order_ws(SYMBOL, "market", "buy", 0.01)
        assert (await orders)[0]["id"] == order["id"]
        [trade] = await trades
        assert (trade["order"], trade["amount"]) == (order["id"], 0.01)
        [position] = await positions
        assert (position["side"], position["contracts"]) == ("long", 0.01)
        resting = await pro.create_order_ws(SYMBOL, "limit", "buy", 0.01, 59_000)
        changed = await pro.edit_order_ws(resting["id"], SYMBOL, "limit", "buy", 0.02, 59_010)
        assert changed["id"] == resting["id"]
        cancelled = await pro.cancel_order_ws(resting["id"], SYMBOL)
        assert cancelled["id"] == resting["id"]
        balance = await pro.fetch_balance()
        assert balance["USDT"]["total"] < 10_000


async def test_streams_come_back_after_a_restart(exchange: LocalExchange) -> None:
    async with streaming(exchange) as pro:
        await pro.watch_order_book(SYMBOL, 50)
        await asyncio.to_thread(exchange.arm, "restart", ms=0)
        await asyncio.to_thread(eventually, lambda: not topics(exchange))
        for _ in range(3):
            try:
                book = await pro.watch_order_book(SYMBOL, 50)  # tells of the loss, or comes back by itself
            except ccxt.NetworkError:
                continue
            if topics(exchange):
                break
        assert topics(exchange) == {"orderbook.50.BTCUSDT"}
        assert book["bids"][0][0] < book["asks"][0][0]


async def test_private_streams_and_order_entry_come_back_after_a_restart(exchange: LocalExchange) -> None:
    async with streaming(exchange) as pro:

        async def persistently(method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
            for _ in range(3):
                try:
                    return await method(*arguments)
                except ccxt.NetworkError:  # it tells of the loss once
                    continue
            raise AssertionError("it does not come back")

        for _ in range(2):
            watched = asyncio.create_task(persistently(pro.watch_orders, SYMBOL))
            await asyncio.to_thread(eventually, lambda: "order" in topics(exchange))
            order = await persistently(pro.create_order_ws, SYMBOL, "limit", "buy", 0.01, 59_000)
            assert (await watched)[-1]["id"] == order["id"]
            await asyncio.to_thread(exchange.arm, "restart", ms=0)
            await asyncio.to_thread(eventually, lambda: not topics(exchange))
