"""Order entry by WebSocket: answers find their order, silence leaves the outcome unknown."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from bot.core.errors import UsageError
from bot.core.types import OrderType, Side
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.environment import Credentials, environment
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.requests import Cancellation, NewOrder
from bot.exchange.bybit.streams import (
    Backoff,
    Connected,
    ConnectionBudget,
    Disconnected,
    LoginRefused,
    Notice,
    StreamSettings,
)
from bot.exchange.bybit.trade_stream import TradeStream
from tests.bybit_server import CREDENTIALS, StreamServer

ORDER = NewOrder(
    symbol="ETHUSDT", side=Side.BUY, order_type=OrderType.LIMIT, qty=Decimal("0.2"), price=Decimal("2800"),
    order_link_id="t-1",
)  # fmt: skip
IDS = {"data": {"orderId": "a4c1718e", "orderLinkId": "t-1"}, "header": {"X-Bapi-Limit-Status": "9"}}


@pytest.fixture
async def server() -> AsyncIterator[StreamServer]:
    async with StreamServer() as running:
        yield running


@asynccontextmanager
async def trading(server: StreamServer, **options: Any) -> AsyncIterator[tuple[TradeStream, "Told"]]:
    told = Told()
    values = {
        "credentials": CREDENTIALS, "clock": ExchangeClock(), "limits": Limits(), "timeout": 1.0,
        "settings": StreamSettings(close_s=0.05), "backoff": Backoff(0.001, 0.002),
        "budget": ConnectionBudget(10_000), **options,
    }  # fmt: skip
    stream = TradeStream(server.environment, on_notice=told.put, **values)
    running = asyncio.create_task(stream.run())
    try:
        async with asyncio.timeout(5):
            yield stream, told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Told:
    def __init__(self) -> None:
        self._notices: asyncio.Queue[Notice] = asyncio.Queue()
        self.put: Callable[[Notice], None] = self._notices.put_nowait

    async def until(self, kind: type[Notice]) -> Notice:
        while not isinstance(notice := await self._notices.get(), kind):
            pass
        return notice


async def failure(call: Any) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        await call
    return caught.value


async def test_an_order_is_acknowledged_with_its_id(server: StreamServer) -> None:
    server.order_replies.append(IDS)
    async with trading(server) as (stream, told):
        await told.until(Connected)
        ids = await stream.create(ORDER)
    assert ids.order_id == "a4c1718e"
    sent = server.seen[-1]
    assert sent["op"] == "order.create"
    assert sent["header"]["X-BAPI-TIMESTAMP"].isdigit()
    assert sent["args"] == [{
        "category": "linear", "symbol": "ETHUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.2",
        "price": "2800", "orderLinkId": "t-1", "positionIdx": 0,
    }]  # fmt: skip


async def test_answers_in_another_order_find_their_requests(server: StreamServer) -> None:
    server.silent_ops = {"order.create"}
    server.order_replies.extend([{}, {}])
    async with trading(server) as (stream, told):
        await told.until(Connected)
        first, second = (asyncio.create_task(stream.create(ORDER)) for _ in range(2))
        await server.until(lambda: len(server.topics("order.create")) == 2)
        names = [frame["reqId"] for frame in server.seen if frame["op"] == "order.create"]
        for name, order_id in ((names[1], "second"), (names[0], "first")):
            await server.push(
                {"reqId": name, "retCode": 0, "op": "order.create", "data": {"orderId": order_id}}
            )
        assert [(await first).order_id, (await second).order_id] == ["first", "second"]
    assert len(set(names)) == 2


async def test_a_refusal_without_an_id_ends_none_of_several_orders(server: StreamServer) -> None:
    """It may be another one's: an order that lives would count as refused."""
    server.silent_ops = {"order.create"}
    server.order_replies.extend([{}, {}])
    async with trading(server) as (stream, told):
        await told.until(Connected)
        orders = [asyncio.create_task(stream.create(ORDER)) for _ in range(2)]
        await server.until(lambda: len(server.topics("order.create")) == 2)
        await server.push({"retCode": 110007, "retMsg": "for one of them", "op": "order.create", "data": {}})
        for frame in [frame for frame in server.seen if frame["op"] == "order.create"]:
            answer = {"reqId": frame["reqId"], "retCode": 0, "op": "order.create", "data": {"orderId": "o"}}
            await server.push(answer)
        assert [ids.order_id for ids in await asyncio.gather(*orders)] == ["o", "o"]
        assert stream.traffic.late == 1


async def test_a_ban_of_the_address_does_not_stop_orders_on_the_open_connection(server: StreamServer) -> None:
    limits = Limits()
    server.order_replies.append(IDS)
    async with trading(server, limits=limits) as (stream, told):
        await told.until(Connected)
        limits.banned()
        assert (await stream.create(ORDER)).order_id == "a4c1718e"


async def test_a_refusal_is_the_same_as_by_rest(server: StreamServer) -> None:
    server.order_replies.append({"retCode": 110007, "retMsg": "ab not enough for new order", "data": {}})
    async with trading(server) as (stream, told):
        await told.until(Connected)
        error = await failure(stream.create(ORDER))
    assert (error.kind, error.code, error.path) == (Kind.REFUSED, 110007, "/v5/order/create")


async def test_too_many_visits_back_off_the_group_that_rest_uses_too(server: StreamServer) -> None:
    limits = Limits()
    server.order_replies.append({"retCode": 10006, "retMsg": "Too many visits!", "header": {}})
    async with trading(server, limits=limits) as (stream, told):
        await told.until(Connected)
        assert (await failure(stream.create(ORDER))).retry_after == 1.0
    assert limits.groups["create"].backed_off == 1
    assert limits.groups["cancel"].backed_off == 0


async def test_an_answer_that_does_not_come_leaves_the_outcome_unknown(server: StreamServer) -> None:
    server.order_replies.append(None)
    async with trading(server, timeout=0.02) as (stream, told):
        await told.until(Connected)
        assert (await failure(stream.create(ORDER))).kind is Kind.UNKNOWN


async def test_a_silent_connection_is_given_up_at_once_and_comes_back(server: StreamServer) -> None:
    """It may be half open: whoever sends the next order must not wait for it too."""
    server.order_replies.extend([None, IDS])
    async with trading(server, timeout=0.02) as (stream, told):
        await told.until(Connected)
        await failure(stream.create(ORDER))
        assert not stream.connected
        await told.until(Disconnected)
        await told.until(Connected)
        assert (await stream.create(ORDER)).order_id == "a4c1718e"


async def test_a_connection_lost_before_the_answer_leaves_the_outcome_unknown(server: StreamServer) -> None:
    server.order_replies.append(None)
    async with trading(server) as (stream, told):
        await told.until(Connected)
        order = asyncio.create_task(failure(stream.create(ORDER)))
        await server.until(lambda: len(server.topics("order.create")) == 1)
        server.sessions[0].transport.abort()
        assert (await order).kind is Kind.UNKNOWN
        await told.until(Connected)  # and it comes back


async def test_without_a_connection_the_order_was_not_sent(server: StreamServer) -> None:
    async with trading(server) as (stream, told):
        await told.until(Connected)
        await server.stop()
        await told.until(Disconnected)
        assert not stream.connected
        error = await failure(stream.cancel(Cancellation(symbol="ETHUSDT", order_link_id="t-1")))
        assert error.kind is Kind.RETRY
        await server.start()


async def test_an_answer_that_cannot_be_read_leaves_the_outcome_unknown(server: StreamServer) -> None:
    server.order_replies.append({"data": {"surprise": 1}})
    async with trading(server) as (stream, told):
        await told.until(Connected)
        assert (await failure(stream.create(ORDER))).kind is Kind.UNKNOWN


async def test_each_order_of_a_batch_has_its_own_fate(server: StreamServer) -> None:
    server.order_replies.append({
        "data": {"list": [{"orderId": "1"}, {"orderId": ""}]},
        "retExtInfo": {"list": [{"code": 0, "msg": "OK"}, {"code": 10001, "msg": "position idx"}]},
    })  # fmt: skip
    async with trading(server) as (stream, told):
        await told.until(Connected)
        good, bad = await stream.create_batch([ORDER, ORDER])
    assert good.error is None
    assert bad.error is not None
    assert bad.error.kind is Kind.REFUSED
    assert server.seen[-1]["args"][0]["category"] == "linear"


async def test_a_refused_login_is_told(server: StreamServer) -> None:
    async with trading(server, credentials=Credentials("k", "s")) as (stream, told):
        refused = await told.until(LoginRefused)
        assert isinstance(refused, LoginRefused)
        assert refused.reason == "Invalid sign (10004)"
        assert not stream.connected


def test_demo_has_no_order_entry_by_websocket() -> None:
    with pytest.raises(UsageError, match="use REST"):
        TradeStream(
            environment("demo"), CREDENTIALS, clock=ExchangeClock(), limits=Limits(), on_notice=lambda _: None
        )
