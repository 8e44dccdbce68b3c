"""Requests that are made in one turn of the loop leave together, and each keeps its own fate."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from bot.core.commands import AmendOrder, CancelOrder
from bot.core.events import EntriesBlocked, OrderAccepted, OrderCancelled
from bot.core.types import Side
from bot.exchange.bybit.bursts import MOST, Bursts
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from tests.bybit_server import RestServer, drop
from tests.local_exchange import local_exchange
from tests.test_bybit_amend import SYMBOL, resting
from tests.test_bybit_rest import IDS, connected
from tests.test_wallet import watching

BATCH = "/v5/order/create-batch"
OK = {"code": 0, "msg": "OK"}


@pytest.fixture
async def server() -> AsyncIterator[RestServer]:
    async with RestServer() as running:
        yield running


@pytest.fixture
async def rest(server: RestServer) -> AsyncIterator[Rest]:
    client = connected(server)
    yield client
    client.close()


def order(link: str) -> NewOrder:
    return NewOrder(symbol=SYMBOL, side=Side.BUY, order_type="Market", qty=Decimal(1), order_link_id=link)


def answer(server: RestServer, links: str, *verdicts: dict[str, object]) -> None:
    """The next batch is answered so; a link id for each letter."""
    listed = [{"orderId": f"o-{link}", "orderLinkId": link} for link in links]
    server.will(BATCH, {"list": listed}, extra={"list": verdicts or [OK] * len(links)})


async def sent(bursts: Bursts, links: str) -> list[Kind | None]:
    """How each of the orders fared, all of them sent in one turn."""
    outcomes = await asyncio.gather(
        *(bursts.creates.send(order(link)) for link in links), return_exceptions=True
    )
    assert all(outcome is None or isinstance(outcome, ExchangeError) for outcome in outcomes), outcomes
    return [outcome.kind if isinstance(outcome, ExchangeError) else None for outcome in outcomes]


async def test_one_request_carries_the_orders_of_a_turn_and_each_has_its_own_fate(
    server: RestServer, rest: Rest
) -> None:
    answer(server, "abcd", OK, {"code": 110007, "msg": "ab not enough"}, {"code": 10006, "msg": "Too many"})
    bursts = Bursts(lambda: rest.orders)
    assert await sent(bursts, "abcd") == [None, Kind.REFUSED, Kind.RETRY, Kind.UNKNOWN]
    (request,) = server.seen
    assert [item["orderLinkId"] for item in request.params["request"]] == list("abcd")


async def test_a_lone_order_leaves_alone(server: RestServer, rest: Rest) -> None:
    server.will("/v5/order/create", IDS)
    bursts = Bursts(lambda: rest.orders)
    assert await sent(bursts, "a") == [None]
    assert await sent(bursts, "b") == [None]
    assert [seen.path for seen in server.seen] == ["/v5/order/create"] * 2


async def test_a_batch_holds_as_many_as_may_leave_in_a_second(server: RestServer, rest: Rest) -> None:
    links = "abcdefghijklmnopqrstuvwxyz"[: MOST + 1]
    answer(server, links[:MOST])
    server.will("/v5/order/create", IDS)
    assert await sent(Bursts(lambda: rest.orders), links) == [None] * (MOST + 1)
    assert sorted(seen.path for seen in server.seen) == ["/v5/order/create", BATCH]


async def test_a_batch_without_an_answer_leaves_each_of_its_orders_unknown(
    server: RestServer, rest: Rest
) -> None:
    server.will_act(BATCH, drop)
    assert await sent(Bursts(lambda: rest.orders), "ab") == [Kind.UNKNOWN] * 2


@pytest.mark.parametrize(
    ("links", "fates"), [("ba", [Kind.UNKNOWN] * 2), ("a", [None, Kind.UNKNOWN]), ("", [Kind.UNKNOWN] * 2)]
)
async def test_an_answer_about_other_orders_proves_nothing(
    server: RestServer, rest: Rest, links: str, fates: list[Kind | None]
) -> None:
    answer(server, links)
    assert await sent(Bursts(lambda: rest.orders), "ab") == fates


async def test_nobody_waits_for_ever_when_the_one_that_sends_for_all_is_cancelled(
    server: RestServer, rest: Rest
) -> None:
    bursts = Bursts(lambda: rest.orders)
    leader, other = (asyncio.create_task(bursts.creates.send(order(link))) for link in "ab")
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.wait((leader, other), timeout=5)
    assert leader.cancelled()
    assert other.cancelled()
    server.will("/v5/order/create", IDS)
    assert await sent(bursts, "c") == [None]


async def test_many_resting_orders_are_placed_amended_and_cancelled_by_one_request_each() -> None:
    """At the local exchange, where single requests fail from the first moment on."""
    with local_exchange() as exchange:
        exchange.advance(500)
        for single in ("create", "amend", "cancel"):
            exchange.arm("bad_gateway", f"/v5/order/{single}")
        async with watching(exchange) as (broker, heard):
            for number in range(4):
                broker.submit(resting(f"o{number}", f"{2_400 - number}"))
            await heard.until(OrderAccepted, 4)
            for number in range(4):
                price = Decimal("2407.0001" if number == 3 else f"{2_410 - number}")  # off the grid
                broker.submit(AmendOrder(0, SYMBOL, f"o{number}", price))
            await broker.settled()
            listed = await broker._rest.orders.open_orders(symbol=SYMBOL)
            prices = {item.order_link_id: item.price for item in listed}
            assert prices == {"o0": 2_410, "o1": 2_409, "o2": 2_408, "o3": 2_397}
            for number in range(4):
                broker.submit(CancelOrder(0, SYMBOL, f"o{number}"))
            await heard.until(OrderCancelled, 4)
            await broker.settled()
            assert heard.of(EntriesBlocked) == []
            assert await broker._rest.orders.open_orders(symbol=SYMBOL) == []
