"""REST through pybit: signed, throttled, typed; every failure is one of five kinds and shows no secret."""

import asyncio
import io
import logging
import random
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pybit.unified_trading import HTTP
from rich.console import Console
from rich.traceback import Traceback

from bot.core.errors import UsageError
from bot.core.types import MINUTE_MS, OrderType, Side
from bot.exchange.bybit import endpoints
from bot.exchange.bybit.clock import ExchangeClock
from bot.exchange.bybit.endpoints import Endpoint
from bot.exchange.bybit.environment import local
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.limits import Limits
from bot.exchange.bybit.requests import Amendment, Cancellation, NewOrder, TradingStop, plain
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.rest.lane import _Http
from bot.exchange.bybit.rest.transport import Transport
from bot.exchange.bybit.wire import WireError
from tests.bybit_fixtures import sample
from tests.bybit_server import CREDENTIALS, NOW, Answer, RestServer, drop, hang

CREATE, KLINE, TIME, KEY = "/v5/order/create", "/v5/market/kline", "/v5/market/time", "/v5/user/query-api"
ORDER = NewOrder(
    symbol="BTCUSDT", side=Side.BUY, order_type=OrderType.LIMIT, qty=Decimal("0.001"), price=Decimal("30000"),
    order_link_id="t-1", stop_loss=Decimal("29500"),
)  # fmt: skip
IDS = {"orderId": "o-1", "orderLinkId": "t-1"}


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[RestServer]:
    async with RestServer() as running:
        yield running


@pytest.fixture
async def rest(server: RestServer) -> AsyncIterator[Rest]:
    client = connected(server)
    yield client
    client.close()


def connected(server: RestServer, timeout: float = 5.0) -> Rest:
    client = Rest(server.environment, CREDENTIALS, limits=Limits(sleep=no_sleep), timeout=timeout)
    client.transport._sleep = no_sleep
    client.transport._rng = random.Random(1)
    return client


async def failure(call: Any) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        await call
    return caught.value


# --- requests ---------------------------------------------------------------------------------------------


async def test_an_order_leaves_signed_with_its_numbers_as_plain_texts(server: RestServer, rest: Rest) -> None:
    server.will(CREATE, IDS)
    tiny = NewOrder(
        symbol="PEPEUSDT", side=Side.BUY, order_type=OrderType.LIMIT,
        qty=Decimal("1E+3"), price=Decimal("0.00000001"), reduce_only=True,
    )  # fmt: skip
    ids = await rest.orders.create(tiny)
    (seen,) = server.seen
    assert ids.order_id == "o-1"
    assert seen.signed_correctly
    assert seen.params == {
        "symbol": "PEPEUSDT", "category": "linear", "side": "Buy", "orderType": "Limit", "qty": "1000",
        "price": "0.00000001", "positionIdx": 0, "reduceOnly": True,
    }  # fmt: skip


def test_a_float_never_becomes_a_price() -> None:
    with pytest.raises(TypeError, match="Decimal"):
        plain({"price": 0.00001})


async def test_requests_are_signed_with_the_exchanges_time_not_with_ours(server: RestServer) -> None:
    clock = ExchangeClock(wall=lambda: 1_000_000.0)
    client = Rest(server.environment, CREDENTIALS, clock=clock)
    server.will(TIME, {"timeSecond": str(NOW // 1_000), "timeNano": str(NOW * 10**6)})
    server.will(CREATE, IDS)
    await client.measure_clock()
    await client.orders.create(ORDER)
    client.close()
    assert abs(int(server.seen[-1].headers["X-BAPI-TIMESTAMP"]) - NOW) < 5_000
    assert server.seen[-1].signed_correctly


async def test_two_accounts_in_one_process_sign_with_their_own_clocks(server: RestServer) -> None:
    server.will(KEY, {"permissions": {}, "readOnly": 1})
    for year in (2001, 2031):
        clock = ExchangeClock(wall=lambda year=year: (year - 1970) * 31_556_952.0)  # type: ignore[misc]
        client = Rest(server.environment, CREDENTIALS, clock=clock)
        await client.account.key()
        client.close()
    stamps = [int(seen.headers["X-BAPI-TIMESTAMP"]) for seen in server.seen]
    assert stamps[1] - stamps[0] > 29 * 31_556_952_000


@pytest.mark.parametrize("endpoint", endpoints.ALL, ids=lambda endpoint: endpoint.method)
async def test_pybits_method_of_an_endpoint_asks_for_its_path(endpoint: Endpoint, server: RestServer) -> None:
    server.will(endpoint.path, code=10005)
    transport = Transport(server.environment, CREDENTIALS, ExchangeClock(), Limits(sleep=no_sleep))
    assert (await failure(transport.call(endpoint))).code == 10005
    transport.close()
    assert [seen.path for seen in server.seen] == [endpoint.path]
    assert (server.seen[0].method == "POST") is endpoint.write
    assert server.seen[0].signed_correctly is endpoint.signed


async def test_a_signed_endpoint_without_a_key_says_which_variables_to_set(server: RestServer) -> None:
    client = Rest(server.environment)
    with pytest.raises(UsageError, match="BOT_LOCAL_API_KEY and BOT_LOCAL_API_SECRET"):
        await client.account.key()
    client.close()
    assert server.seen == []


# --- what an answer means ---------------------------------------------------------------------------------


async def test_a_refused_order_keeps_its_code_and_text_and_is_sent_once(
    server: RestServer, rest: Rest
) -> None:
    server.will(CREATE, code=110007, text="ab not enough for new order")
    error = await failure(rest.orders.create(ORDER))
    assert (error.kind, error.code, error.text) == (Kind.REFUSED, 110007, "ab not enough for new order")
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", [10000, 10016, 10006, 10002])
async def test_a_write_is_never_repeated_whatever_the_answer(
    server: RestServer, rest: Rest, code: int
) -> None:
    server.will(CREATE, code=code)
    await failure(rest.orders.create(ORDER))
    assert [seen.path for seen in server.seen].count(CREATE) == 1


async def test_a_read_is_repeated_until_it_succeeds(server: RestServer, rest: Rest) -> None:
    server.will(KEY, code=10016)
    server.will_act(KEY, drop)
    server.will(KEY, {"permissions": {}, "readOnly": 1})
    assert (await rest.account.key()).read_only
    assert len(server.seen) == 3


async def test_a_timestamp_refusal_measures_the_clock_before_the_next_try(
    server: RestServer, rest: Rest
) -> None:
    server.will(KEY, code=10002)
    server.will(KEY, {"permissions": {}, "readOnly": 0})
    server.will(TIME, {"timeSecond": str(NOW // 1_000), "timeNano": str(NOW * 10**6)})
    await rest.account.key()
    assert [seen.path for seen in server.seen].count(TIME) == 5
    assert abs(rest.clock.now_ms() - NOW) < 5_000


async def test_a_timestamp_refusal_of_an_order_measures_the_clock_for_the_next_one(
    server: RestServer, rest: Rest
) -> None:
    server.will(CREATE, code=10002)
    server.will(TIME, code=10016)
    assert (await failure(rest.orders.create(ORDER))).code == 10002  # not the error of the measurement
    assert TIME in [seen.path for seen in server.seen]


async def test_an_unchanged_leverage_is_a_success(server: RestServer, rest: Rest) -> None:
    server.will("/v5/position/set-leverage", code=110043, text="leverage not modified")
    await rest.account.set_leverage("BTCUSDT", Decimal(3))
    assert server.seen[0].params["buyLeverage"] == server.seen[0].params["sellLeverage"] == "3"


async def test_an_unknown_key_names_the_environment_that_was_tried_and_the_others(server: RestServer) -> None:
    testnet = replace(server.environment, name="testnet", keys="TESTNET")
    client = Rest(testnet, CREDENTIALS, limits=Limits(sleep=no_sleep))
    server.will(KEY, code=10003, text="API key is invalid.")
    error = await failure(client.account.key())
    client.close()
    assert error.kind is Kind.CONFIGURATION
    for name in ("testnet", "mainnet", "demo", "BOT_TESTNET_API_KEY"):
        assert name in str(error)
    assert len(server.seen) == 1


# --- when no answer comes ---------------------------------------------------------------------------------


async def test_an_order_without_an_answer_has_an_unknown_outcome(server: RestServer, rest: Rest) -> None:
    server.will_act(CREATE, drop)
    assert (await failure(rest.orders.create(ORDER))).kind is Kind.UNKNOWN
    assert len(server.seen) == 1


async def test_a_hanging_exchange_is_given_up_and_the_outcome_is_unknown(server: RestServer) -> None:
    client = connected(server, timeout=0.1)
    server.will_act(CREATE, hang)
    error = await failure(client.orders.create(ORDER))
    client.close()
    assert error.kind is Kind.UNKNOWN


async def test_an_order_that_waits_behind_a_hanging_one_never_left(server: RestServer) -> None:
    client = connected(server, timeout=0.2)
    client.transport._timeout = 0.05  # callers give up while pybit still waits
    server.will_act(CREATE, hang)
    first, second = await asyncio.gather(
        failure(client.orders.create(ORDER)), failure(client.orders.create(ORDER))
    )
    client.close()
    assert (first.kind, second.kind) == (Kind.UNKNOWN, Kind.RETRY)
    assert len(server.seen) == 1


async def test_a_cancel_does_not_wait_behind_a_hanging_order(server: RestServer) -> None:
    client = connected(server, timeout=0.3)
    server.will_act(CREATE, hang)
    server.will("/v5/order/cancel", IDS)
    entry = asyncio.create_task(failure(client.orders.create(ORDER)))
    await client.orders.cancel(Cancellation(symbol="BTCUSDT", order_link_id="t-0"))
    assert not entry.done()
    await entry
    client.close()


async def test_an_order_that_could_not_connect_was_not_sent() -> None:
    client = Rest(local("http://127.0.0.1:9"), CREDENTIALS, limits=Limits(sleep=no_sleep))
    error = await failure(client.orders.create(ORDER))
    client.close()
    assert error.kind is Kind.RETRY
    assert error.reason.startswith("the request never left (ConnectionError; local, http://127.0.0.1:9:")


@pytest.mark.parametrize(
    "body", ["<html>Bad gateway</html>", "[]", "5", '{"retCode": "x"}', '{"retCode": 0, "result": {}}', ""]
)
async def test_an_answer_that_cannot_be_read_leaves_an_unknown_outcome(
    server: RestServer, rest: Rest, body: str
) -> None:
    server.will_answer(CREATE, Answer(body))
    assert (await failure(rest.orders.create(ORDER))).kind is Kind.UNKNOWN
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Kind.FATAL), (401, Kind.CONFIGURATION), (404, Kind.FATAL), (429, Kind.UNKNOWN),
                         (502, Kind.UNKNOWN), (503, Kind.UNKNOWN), (418, Kind.UNKNOWN)],
)  # fmt: skip
async def test_an_http_status_has_its_kind(server: RestServer, rest: Rest, status: int, kind: Kind) -> None:
    server.will_answer(CREATE, Answer("{}", status=status))
    error = await failure(rest.orders.create(ORDER))
    assert (error.kind, error.code) == (kind, status)


# --- limits -----------------------------------------------------------------------------------------------


async def test_too_many_visits_back_off_the_group_until_the_reset(server: RestServer, rest: Rest) -> None:
    reset = {"X-Bapi-Limit-Reset-Timestamp": str(rest.clock.now_ms() + 3_000)}
    server.will(CREATE, code=10006, headers=reset)
    error = await failure(rest.orders.create(ORDER))
    assert (error.kind, error.code) == (Kind.RETRY, 10006)
    assert 2.0 < error.retry_after <= 3.0
    assert rest.limits.groups["create"].blocked_until > 0
    assert rest.limits.groups["cancel"].blocked_until == 0


async def test_one_order_of_a_batch_that_was_too_fast_backs_off_the_group(
    server: RestServer, rest: Rest
) -> None:
    reset = {"X-Bapi-Limit-Reset-Timestamp": str(rest.clock.now_ms() + 3_000)}
    items = [{"orderId": "1", "orderLinkId": "a"}, {"orderId": "", "orderLinkId": "b"}]
    verdicts = {"list": [{"code": 0, "msg": "OK"}, {"code": 10006, "msg": "Too many visits!"}]}
    server.will("/v5/order/create-batch", {"list": items}, extra=verdicts, headers=reset)
    orders = [msgspec.structs.replace(ORDER, order_link_id=link) for link in "ab"]
    good, fast = await rest.orders.create_batch(orders)
    assert good.error is None
    assert fast.error is not None
    assert fast.error.kind is Kind.RETRY
    assert rest.limits.groups[endpoints.CREATE_BATCH.group].blocked_until > 0


@pytest.mark.parametrize("is_served", [True, False])
async def test_a_403_stops_every_request_for_a_minute_and_then_one_read_decides_about_ten(
    server: RestServer, rest: Rest, is_served: bool
) -> None:
    """It may be a ban; it may also be something on the way that was of a bad mood."""
    server.will_answer(CREATE, Answer("access too frequent", status=403))
    error = await failure(rest.orders.create(ORDER))
    assert error.kind is Kind.RETRY
    for call in (rest.orders.create(ORDER), rest.market.time_ms(), rest.account.key()):
        assert 50 < (await failure(call)).retry_after <= 60
    assert len(server.seen) == 1
    rest.limits._address.blocked_until = 0.0  # a minute later
    server._answers[CREATE].clear()
    server.will(CREATE, IDS)
    if is_served:
        server.will("/v5/market/time", {"timeSecond": "1", "timeNano": "1000000000"})
        await asyncio.gather(rest.orders.create(ORDER), rest.orders.create(ORDER))
        assert [seen.path for seen in server.seen[1:]] == ["/v5/market/time", CREATE, CREATE]
    else:
        server.will_answer("/v5/market/time", Answer("access too frequent", status=403))
        assert 590 < (await failure(rest.orders.create(ORDER))).retry_after <= 600
        assert [seen.path for seen in server.seen[1:]] == ["/v5/market/time"]


async def test_headers_teach_the_group_its_limit_and_what_is_left(server: RestServer, rest: Rest) -> None:
    server.will(CREATE, IDS, headers={"X-Bapi-Limit": "20", "X-Bapi-Limit-Status": "19"})
    await rest.orders.create(ORDER)
    group = rest.limits.groups["create"]
    assert (group.throttle.rate_limit, group.remaining) == (16, 19)


# --- secrets ----------------------------------------------------------------------------------------------


async def test_no_log_no_message_and_no_traceback_shows_the_secret(
    server: RestServer, rest: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.will(CREATE, code=10004, text="error sign! origin_string[...]")
    server.will_act(CREATE, drop)
    server.will_answer(CREATE, Answer("<html>", status=502))
    server.will_answer(CREATE, Answer("no json"))
    seen = io.StringIO()
    console = Console(file=seen, width=500)
    for _ in range(4):
        error = await failure(rest.orders.create(ORDER))
        seen.writelines(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        console.print(
            Traceback.from_exception(
                type(error), error, error.__traceback__, show_locals=True, locals_max_length=None
            )
        )
        assert error.__context__ is None or "pybit" not in type(error.__context__).__module__
    text = seen.getvalue() + caplog.text + repr(rest.transport.__dict__) + repr(CREDENTIALS)
    assert CREDENTIALS.secret not in text
    assert CREDENTIALS.key not in text


def test_pybits_own_repr_would_show_the_secret_and_ours_does_not() -> None:
    assert "very-secret" in repr(HTTP(api_key="k", api_secret="very-secret"))
    assert "very-secret" not in repr(_Http(api_key="k", api_secret="very-secret"))


def test_pybit_adds_no_handler_to_its_logger() -> None:
    assert logging.getLogger("pybit._http_manager").handlers == []


# --- market data ------------------------------------------------------------------------------------------

MINUTES = 5 * MINUTE_MS
FIRST = NOW - NOW % MINUTES


def row(start: int) -> list[str]:
    return [str(start), "1.0", "1.2", "0.9", "1.1", "10", "11"]


def klines(*starts: int, time: int = NOW) -> dict[str, Any]:
    return {
        "result": {"symbol": "XUSDT", "category": "linear", "list": [row(s) for s in starts]},
        "time": time,
    }


async def collected(rest: Rest, start: int, end: int) -> list[int]:
    return [
        row.start async for page in rest.market.closed_klines("XUSDT", MINUTES, start, end) for row in page
    ]


async def test_a_backfill_asks_page_by_page_and_yields_the_oldest_bar_first(
    server: RestServer, rest: Rest
) -> None:
    start = FIRST - 1_500 * MINUTES
    middle = start + 1_000 * MINUTES
    server.will(KLINE, **klines(middle - MINUTES, start))
    server.will(KLINE, **klines(middle + MINUTES, middle))
    assert await collected(rest, start - 1, FIRST) == [start, middle - MINUTES, middle, middle + MINUTES]
    asked = [(int(seen.params["start"]), int(seen.params["end"])) for seen in server.seen]
    assert asked == [(start, middle - MINUTES), (middle, FIRST - 1)]
    assert all(seen.params["limit"] == "1000" for seen in server.seen)


async def test_the_open_bar_is_never_given_as_closed(server: RestServer, rest: Rest) -> None:
    server.will(KLINE, **klines(FIRST, FIRST - MINUTES))
    assert await collected(rest, FIRST - MINUTES, FIRST + MINUTES) == [FIRST - MINUTES]


async def test_a_gap_in_the_history_is_stepped_over(server: RestServer, rest: Rest) -> None:
    start = FIRST - 2_500 * MINUTES
    server.will(KLINE, **klines(start))
    server.will(KLINE, **klines())
    server.will(KLINE, **klines(FIRST - MINUTES))
    assert await collected(rest, start, FIRST) == [start, FIRST - MINUTES]


@pytest.mark.parametrize("starts", [(FIRST - 3 * MINUTES,), (FIRST - MINUTES + 1,), (FIRST - MINUTES,) * 2])
async def test_bars_that_were_not_asked_for_are_an_error(
    server: RestServer, rest: Rest, starts: tuple[int, ...]
) -> None:
    server.will(KLINE, **klines(*starts))
    with pytest.raises(WireError, match="kline"):
        await collected(rest, FIRST - 2 * MINUTES, FIRST)


async def test_instruments_come_page_by_page_with_those_that_are_about_to_launch(
    server: RestServer, rest: Rest
) -> None:
    path = endpoints.INSTRUMENTS.path
    item = {
        "status": "Trading", "baseCoin": "A", "quoteCoin": "USDT", "priceFilter": {"tickSize": "0.1"},
        "lotSizeFilter": {"qtyStep": "1"}, "launchTime": "1585526400000", "deliveryTime": "0",
    }  # fmt: skip
    server.will(path, {"list": [{**item, "symbol": "AUSDT"}], "nextPageCursor": "a%3D1"})
    server.will(path, {"list": [{**item, "symbol": "BUSDT"}], "nextPageCursor": ""})
    server.will(path, {"list": [{**item, "symbol": "CUSDT", "status": "PreLaunch"}]})
    found = await rest.market.instruments()
    assert [(i.symbol, i.status) for i in found] == [
        ("AUSDT", "Trading"), ("BUSDT", "Trading"), ("CUSDT", "PreLaunch"),
    ]  # fmt: skip
    assert [seen.params.get("cursor") for seen in server.seen] == [None, "a=1", None]


async def test_funding_rates_are_paged_backwards_and_given_oldest_first(
    server: RestServer, rest: Rest
) -> None:
    step = 8 * 60 * MINUTE_MS
    rates = [
        {"symbol": "X", "fundingRate": "0.0001", "fundingRateTimestamp": str(n * step)} for n in range(250)
    ]
    server.will(endpoints.FUNDING.path, {"list": rates[:49:-1]})
    server.will(endpoints.FUNDING.path, {"list": rates[49::-1]})
    found = await rest.market.funding_rates("X", 0, 250 * step)
    assert [rate.ts for rate in found] == [n * step for n in range(250)]
    assert int(server.seen[1].params["endTime"]) == 50 * step - 1


async def test_a_cursor_that_repeats_does_not_loop_for_ever(server: RestServer, rest: Rest) -> None:
    server.will("/v5/order/realtime", {"list": [], "nextPageCursor": "same"})
    assert await rest.orders.open_orders(settle_coin="USDT") == []
    assert len(server.seen) == 2


# --- orders -----------------------------------------------------------------------------------------------


async def test_each_order_of_a_batch_has_its_own_fate(server: RestServer, rest: Rest) -> None:
    items = [{"orderId": "1", "orderLinkId": "a"}, {"orderId": "", "orderLinkId": "b"}, {"orderLinkId": "c"}]
    verdicts = {"list": [{"code": 0, "msg": "OK"}, {"code": 110007, "msg": "ab not enough"}]}
    server.will("/v5/order/create-batch", {"list": items}, extra=verdicts)
    orders = [msgspec.structs.replace(ORDER, order_link_id=link) for link in "abc"]
    good, poor, silent = await rest.orders.create_batch(orders)
    assert good.error is None
    assert poor.error is not None
    assert poor.error.kind is Kind.REFUSED
    assert silent.error is not None
    assert silent.error.kind is Kind.UNKNOWN
    assert [list(item) for item in server.seen[0].params["request"]].count("category") == 0


async def test_an_order_is_found_by_its_link_id_among_the_open_ones_or_in_the_history(
    server: RestServer, rest: Rest
) -> None:
    orders = {"orderId": "9", "orderLinkId": "t-1", "symbol": "X", "side": "Buy", "orderType": "Limit",
              "orderStatus": "Cancelled", "qty": "1", "updatedTime": "1"}  # fmt: skip
    server.will("/v5/order/realtime", {"list": []})
    server.will("/v5/order/history", {"list": [orders]})
    found = await rest.orders.find("t-1", "X")
    assert found is not None
    assert found.order_status == "Cancelled"
    assert [seen.params["orderLinkId"] for seen in server.seen] == ["t-1", "t-1"]


async def test_an_order_that_nobody_knows_is_none(server: RestServer, rest: Rest) -> None:
    for path in ("/v5/order/realtime", "/v5/order/history"):
        server.will(path, {"list": []})
    assert await rest.orders.find("t-1", "X") is None


async def test_a_stop_is_moved_for_the_whole_position(server: RestServer, rest: Rest) -> None:
    server.will("/v5/position/trading-stop", code=34040, text="not modified")
    await rest.orders.set_stop(TradingStop(symbol="X", stop_loss=Decimal("99.5"), sl_trigger_by="LastPrice"))
    assert server.seen[0].params == {
        "symbol": "X", "category": "linear", "positionIdx": 0, "tpslMode": "Full",
        "stopLoss": "99.5", "slTriggerBy": "LastPrice",
    }  # fmt: skip


async def test_an_amendment_names_only_what_changes(server: RestServer, rest: Rest) -> None:
    server.will("/v5/order/amend", IDS)
    await rest.orders.amend(Amendment(symbol="X", order_link_id="t-1", price=Decimal("5.0")))
    assert server.seen[0].params == {
        "symbol": "X",
        "category": "linear",
        "orderLinkId": "t-1",
        "price": "5.0",
    }


async def test_real_answers_arrive_typed(server: RestServer, rest: Rest) -> None:
    server.will_answer("/v5/account/wallet-balance", Answer(
        sample("rest-GET-account-wallet-balance/nautilus__http_get_wallet_balance.json").decode()
    ))  # fmt: skip
    server.will_answer("/v5/execution/list", Answer(
        sample("rest-GET-execution-list/nautilus__http_get_executions.json").decode()
    ))  # fmt: skip
    wallet = await rest.account.wallet()
    assert wallet.total_equity == Decimal("3.31216591")
    fills = await rest.orders.executions(symbol="BTCUSDT")
    assert fills[0].exec_fee == Decimal("0.0150")
