"""Our own client, unchanged, against the local exchange, which says nothing that it does not know."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from bot.core.types import DAY_MS, MINUTE_MS, OrderType, Side, TimeInForce
from bot.exchange.bybit.environment import Credentials, check_key, local
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.requests import Amendment, Cancellation, NewOrder, TradingStop
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import (
    Backoff,
    Connected,
    ConnectionBudget,
    Notice,
    RawBook,
    Stream,
    StreamSettings,
)
from bot.exchange.bybit.trade_stream import TradeStream
from bot.exchange.bybit.wire import codec
from bot.exchange.bybit.wire.private import Executions, Orders, Positions, Wallets
from bot.exchange.bybit.wire.public import Klines, Ticker, Trades
from bot.market.book import Book, Outcome
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange

CREDENTIALS = Credentials(KEY, SECRET)
FAST = dict.fromkeys(Limits().groups, 1000)
QUICK = StreamSettings(open_s=2.0, answer_s=2.0, close_s=0.05, look_s=0.01, renew_pause_s=0.0)
T = TypeVar("T")


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange() as running:
        yield running


@pytest.fixture
async def rest(exchange: LocalExchange) -> AsyncIterator[Rest]:
    client = Rest(local(exchange.url), CREDENTIALS, limits=Limits(FAST))
    await client.measure_clock()
    yield client
    client.close()


@asynccontextmanager
async def streaming(url: str, rest: Rest, *topics: str, **options: Any) -> AsyncIterator[Stream]:
    values: dict[str, Any] = {
        "settings": QUICK, "clock": rest.clock, "budget": ConnectionBudget(10_000),
        "backoff": Backoff(0.01, 0.02),
    }  # fmt: skip
    stream = Stream(url, topics, **{**values, **options})
    running = asyncio.create_task(stream.run())
    try:
        async with asyncio.timeout(10):
            yield stream
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(stream: Stream, kind: type[T], condition: Callable[[T], bool] = lambda _: True) -> T:
    while True:
        for delivery in await stream.take(limit=1):
            if isinstance(delivery.message, kind) and condition(delivery.message):
                return delivery.message


def limit_order(link_id: str, price: str = "59000", **more: Any) -> NewOrder:
    values = {"qty": Decimal("0.1"), "price": Decimal(price), "side": Side.BUY, **more}
    return NewOrder(symbol="BTCUSDT", order_type=OrderType.LIMIT, order_link_id=link_id, **values)


def market_order(link_id: str, side: Side = Side.BUY, qty: str = "0.01", **more: Any) -> NewOrder:
    return NewOrder(
        symbol="BTCUSDT",
        order_type=OrderType.MARKET,
        order_link_id=link_id,
        side=side,
        qty=Decimal(qty),
        **more,
    )


async def test_a_session_by_rest_in_which_every_field_is_known(exchange: LocalExchange, rest: Rest) -> None:
    codec.unknown.clear()
    exchange.advance(2 * MINUTE_MS)
    assert abs(rest.clock.health().offset_ms) < 100
    names = [item.symbol for item in await rest.market.instruments()]
    assert names == ["BTCUSDT", "ETHUSDT"]
    [ticker] = await rest.market.tickers("BTCUSDT")
    book = await rest.market.order_book("BTCUSDT", 50)
    assert (ticker.bid_price, ticker.ask_price) == (book.bids[0][0], book.asks[0][0])
    assert len(await rest.market.klines("BTCUSDT", MINUTE_MS)) == 3
    assert await rest.market.system_status() == []
    assert check_key(await rest.account.key(), local(exchange.url)) == []
    await rest.account.set_leverage("BTCUSDT", Decimal(5))
    await rest.account.set_leverage("BTCUSDT", Decimal(5))  # no change is success
    await rest.account.set_position_mode(hedge=False, symbol="BTCUSDT")
    assert (await rest.account.info()).margin_mode == "REGULAR_MARGIN"
    assert (await rest.account.fee_rates("BTCUSDT"))[0].taker_fee_rate == Decimal("0.00055")

    ids = await rest.orders.create(limit_order("a", time_in_force=TimeInForce.POST_ONLY))
    await rest.orders.amend(Amendment(symbol="BTCUSDT", order_link_id="a", qty=Decimal("0.2")))
    [order] = await rest.orders.open_orders(symbol="BTCUSDT")
    assert (order.order_id, order.qty, order.order_status) == (ids.order_id, Decimal("0.2"), "New")
    await rest.orders.cancel(Cancellation(symbol="BTCUSDT", order_link_id="a"))
    found = await rest.orders.find("a", "BTCUSDT")
    assert found is not None
    assert found.order_status == "Cancelled"

    await rest.orders.create(market_order("b", stop_loss=Decimal("59500"), take_profit=Decimal("61000")))
    await rest.orders.set_stop(TradingStop(symbol="BTCUSDT", stop_loss=Decimal("59600")))
    [position] = await rest.account.positions("BTCUSDT")
    assert (position.signed_size, position.stop_loss) == (Decimal("0.01"), Decimal("59600"))
    results = await rest.orders.create_batch([limit_order("c"), limit_order("c"), limit_order("d")])
    assert [result.error and result.error.code for result in results] == [None, 110072, None]
    assert len((await rest.orders.cancel_all(symbol="BTCUSDT", order_filter="Order")).orders) == 2
    exchange.move("BTCUSDT", 0.99)
    [position] = await rest.account.positions("BTCUSDT")
    assert position.size == 0
    now = exchange.venue.world.now
    fills = await rest.orders.executions(symbol="BTCUSDT")
    assert [fill.stop_order_type for fill in fills] == ["StopLoss", "UNKNOWN"]
    ledger = await rest.account.transactions(now - DAY_MS, now + DAY_MS)
    wallet = await rest.account.wallet("USDT")
    assert wallet.total_wallet_balance == sum(entry.change or 0 for entry in ledger)
    [closed] = await rest.account.closed_pnl(now - DAY_MS, now + DAY_MS)
    assert closed.closed_pnl < 0
    assert (await rest.market.recent_trades("BTCUSDT"))[0].price < 60_000
    assert dict(codec.unknown) == {}


async def test_a_book_that_follows_the_market_for_a_minute(exchange: LocalExchange, rest: Rest) -> None:
    topic, book = "orderbook.50.BTCUSDT", Book("BTCUSDT", 50)
    async with streaming(local(exchange.url).public_url(), rest, topic, raw_books=True) as stream:
        first = await until(stream, RawBook)
        assert book.update(first.payload, 1) is Outcome.REPLACED
        for number in range(60):
            exchange.move("BTCUSDT", 1.0007 if number % 3 else 0.998)
        expected = await rest.market.order_book("BTCUSDT", 50)
        while book.bids() != expected.bids or book.asks() != expected.asks:
            for delivery in await stream.take():
                if isinstance(delivery.message, RawBook):
                    assert book.update(delivery.message.payload, 1) is Outcome.APPLIED


async def test_public_and_private_events_are_known_to_the_last_field(
    exchange: LocalExchange, rest: Rest
) -> None:
    codec.unknown.clear()
    public = [
        "orderbook.1.BTCUSDT",
        "publicTrade.BTCUSDT",
        "tickers.BTCUSDT",
        "kline.1.BTCUSDT",
        "allLiquidation.BTCUSDT",
    ]
    environment = local(exchange.url)
    async with (
        streaming(environment.public_url(), rest, *public) as market,
        streaming(environment.private_url, rest, "order", "execution", "position", "wallet",
                  credentials=CREDENTIALS) as account,
    ):  # fmt: skip
        await until(market, Connected)
        await until(account, Connected)
        await rest.orders.create(market_order("a"))
        exchange.move("BTCUSDT", 1.001)
        exchange.advance(61_000)
        executions = await until(account, Executions)
        orders = await until(account, Orders)
        assert executions.data[0].order_link_id == orders.data[0].order_link_id == "a"
        assert orders.data[0].order_status == "Filled"
        assert (await until(account, Positions)).data[0].signed_size == Decimal("0.01")
        wallets = await until(account, Wallets)
        assert wallets.data[0].total_wallet_balance == exchange.account.wallet
        assert await until(market, Ticker)
        assert await until(market, Trades)
        assert (await until(market, Klines, lambda klines: klines.data[0].confirm)).data[0].volume > 0
    assert dict(codec.unknown) == {}


async def test_order_entry_by_websocket(exchange: LocalExchange, rest: Rest) -> None:
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    stream = TradeStream(
        local(exchange.url), CREDENTIALS, clock=rest.clock, limits=rest.limits, on_notice=notices.put_nowait,
        budget=ConnectionBudget(10_000),
    )  # fmt: skip
    running = asyncio.create_task(stream.run())
    async with asyncio.timeout(10):
        assert isinstance(await notices.get(), Connected)
        ids = await stream.create(limit_order("a"))
        assert (
            await stream.amend(Amendment(symbol="BTCUSDT", order_link_id="a", price=Decimal("58000")))
        ) == ids
        assert (await stream.cancel(Cancellation(symbol="BTCUSDT", order_id=ids.order_id))) == ids
        results = await stream.create_batch([limit_order("b"), limit_order("b")])
        assert [result.error and result.error.code for result in results] == [None, 110072]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_listings_and_delistings_are_seen_at_run_time(exchange: LocalExchange, rest: Rest) -> None:
    exchange.do(
        lambda: exchange.server.admin("POST", "list", {"symbol": "NEWUSDT", "price": 2, "in_ms": 5_000})
    )
    states = {item.symbol: item.status for item in await rest.market.instruments()}
    assert states["NEWUSDT"] == "PreLaunch"
    exchange.advance(6_000)
    [new] = await rest.market.instruments(symbol="NEWUSDT", statuses=["Trading"])
    assert new.launch_time <= exchange.venue.world.now
    await rest.orders.create(
        NewOrder(
            symbol="NEWUSDT", side=Side.BUY, order_type=OrderType.MARKET, qty=Decimal(10), order_link_id="n"
        )
    )
    exchange.do(lambda: exchange.server.admin("POST", "delist", {"symbol": "NEWUSDT", "in_ms": 1_000}))
    [ending] = await rest.market.instruments(symbol="NEWUSDT", statuses=["Trading"])
    assert ending.delivery_time > 0
    exchange.advance(2_000)
    assert [item.symbol for item in await rest.market.instruments()] == ["BTCUSDT", "ETHUSDT"]
    assert await rest.account.positions() == []
    assert (await rest.orders.executions(symbol="NEWUSDT"))[0].exec_type == "Settle"
