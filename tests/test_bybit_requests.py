"""Our requests are those that ccxt sends for the same intents: path, method, parameters.

ccxt is an independent client; what it sent was recorded at its HTTP layer (../shared/bybit/fixtures).
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import pytest

from bot.core.commands import MoveStop
from bot.core.types import HOUR_MS, MINUTE_MS, OrderRequest, OrderType, Side, TimeInForce, Trigger
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.requests import (
    Amendment,
    Cancellation,
    NewOrder,
    TradingStop,
    new_order,
    params,
    trading_stop,
)
from bot.exchange.bybit.rest import Rest
from tests.bybit_fixtures import ccxt_requests, needs_fixtures
from tests.bybit_server import CREDENTIALS, RestServer

LIMIT, MARKET = OrderType.LIMIT, OrderType.MARKET
BUY, SELL = Side.BUY, Side.SELL
SOME_ID = "8caeea8c-cf80-4b06-83e8-bb7df45fc122"
SPOT_ID = "1513125485218108928"

Intent = Callable[[Rest], Awaitable[object]]


def d(value: str | float) -> Decimal:
    return Decimal(str(value))


def order(
    symbol: str, side: Side, kind: OrderType, qty: float, price: float | None = None, **more: Any
) -> Intent:
    decimals = {
        key: d(value)
        if isinstance(value, int | float) and key.endswith(("price", "profit", "loss"))
        else value
        for key, value in more.items()
    }
    limit = None if price is None else d(price)
    request = NewOrder(symbol=symbol, side=side, order_type=kind, qty=d(qty), price=limit, **decimals)
    return lambda rest: rest.orders.create(request)


def stop(**fields: Any) -> Intent:
    request = TradingStop(symbol="BTCUSDT", **fields)
    return lambda rest: rest.orders.set_stop(request)


async def funding(rest: Rest) -> None:
    await rest.market.funding_rates("ZRXUSDT", 1769529863000, 1769616263000)


SPOT = {"category": "spot"}
TRIGGERED = {"trigger_direction": 2, "reduce_only": True}

# In the order of the file; each is what a caller of ours writes for the same intent.
INTENTS: list[Intent] = [
    funding,
    lambda rest: rest.orders.amend(
        Amendment(symbol="LTCUSDT", category="spot", order_link_id="bybit1", qty=d("0.22"), price=d(73))
    ),
    order("ADAUSDT", BUY, LIMIT, 50, 0.1, **SPOT),
    order("ETHUSDT", SELL, MARKET, 0.1, trigger_price=4000, **TRIGGERED),
    order("LTCUSDT", SELL, LIMIT, 0.1, 100, trigger_direction=1, trigger_price=110, reduce_only=True),
    order("ETHUSDT", SELL, LIMIT, 0.1, 10000, trigger_direction=1, trigger_price=10000, reduce_only=True),
    stop(trailing_stop=d(1000)),
    order("ADAUSDT", BUY, LIMIT, 50, 0.2, stop_loss=0.1, tpsl_mode="Partial", sl_order_type=LIMIT,
          sl_limit_price=0.1, take_profit=5, tp_order_type=LIMIT, tp_limit_price=5, **SPOT),
    order("BTCUSDT", BUY, LIMIT, 0.001, 37000, trigger_direction=1, trigger_price=37000),
    stop(stop_loss=d(100000), sl_order_type=MARKET, sl_size=d("0.001"), take_profit=d(80123),
         tp_order_type=MARKET, tp_size=d("0.001"), tpsl_mode="Partial"),
    order("TRXUSDT", BUY, MARKET, 1, stop_loss=0.04, take_profit=1),
    order("BTCUSDT", BUY, LIMIT, 0.001, 30000, position_idx=1),
    order("BTCUSDT", SELL, MARKET, 0.001, position_idx=1),  # in hedge mode a sell of side 1 can only reduce
    order("ADAUSDT", BUY, MARKET, 10, **SPOT),
    order("BTCUSDT", BUY, LIMIT, 0.001, 41000, trigger_direction=1, trigger_price=40000, stop_loss=39500),
    order("LTCUSDT", SELL, LIMIT, 0.1, 100, reduce_only=True, time_in_force=TimeInForce.POST_ONLY),
    order("LTCUSDT", SELL, MARKET, 0.2, order_filter="tpslOrder", market_unit="baseCoin", trigger_price=90,
          **TRIGGERED, **SPOT),
    stop(stop_loss=d(100000), sl_order_type=LIMIT, sl_limit_price=d(100123), sl_size=d("0.001"),
         take_profit=d(80123), tp_order_type=LIMIT, tp_limit_price=d(80000), tp_size=d("0.001"),
         tpsl_mode="Partial"),
    order("ADAUSDT", BUY, LIMIT, 50, 0.2, stop_loss=0.1, sl_order_type=MARKET, **SPOT),
    order("XRPUSDT", BUY, MARKET, 10, order_filter="StopOrder", trigger_price=55, **SPOT),
    order("LTCUSDT", BUY, MARKET, 0.2, market_unit="baseCoin", **SPOT),
    order("LTCUSDT", SELL, MARKET, 3, market_unit="quoteCoin", **SPOT),
    order("BTCUSDT", BUY, LIMIT, 0.1, 36000, order_filter="StopOrder", trigger_price=36001, **SPOT),
    order("DOGEUSDT", BUY, MARKET, 12.45, **SPOT),
    order("LTCUSDT", SELL, MARKET, 5, market_unit="quoteCoin", **SPOT),
    lambda rest: rest.orders.create_batch([
        NewOrder(symbol="LTCUSDT", category="spot", side=BUY, order_type=LIMIT, qty=d("0.1"), price=d(50)),
        NewOrder(symbol="LTCUSDT", category="spot", side=SELL, order_type=LIMIT, qty=d("0.11"), price=d(70)),
    ]),
    lambda rest: rest.orders.cancel(Cancellation(symbol="LTCUSDT", order_id=SOME_ID)),
    lambda rest: rest.orders.cancel(
        Cancellation(symbol="LTCUSDT", category="spot", order_id=SPOT_ID, order_filter="Order")
    ),
    lambda rest: rest.orders.cancel_batch(
        [Cancellation(symbol="LTCUSDT", category="spot", order_id=SPOT_ID)]
    ),
    lambda rest: rest.orders.cancel_batch([Cancellation(symbol="LTCUSDT", order_id=SOME_ID)]),
    lambda rest: rest.orders.cancel_all(symbol="BTCUSDT", order_filter="StopOrder"),
    lambda rest: rest.orders.cancel_all(symbol="BTCUSDT"),
    lambda rest: rest.orders.open_orders(symbol="BTCUSDT"),
    lambda rest: rest.orders.open_orders(symbol="BTCUSDT", category="spot", order_filter="StopOrder"),
    lambda rest: rest.orders.open_orders(symbol="LTCUSDT", category="spot"),
    lambda rest: rest.orders.history(status="Filled"),
    lambda rest: rest.orders.history(status="Cancelled"),
    lambda rest: rest.orders.executions(symbol="LTCUSDT", kind="Trade", category="spot"),
    lambda rest: rest.account.wallet(),
    lambda rest: rest.account.set_leverage("LTCUSDT", d(6)),
    lambda rest: rest.account.set_position_mode(hedge=True, symbol="BTCUSDT"),
    lambda rest: rest.account.set_margin_mode("ISOLATED_MARGIN"),
    lambda rest: rest.market.tickers(category="spot"),
    lambda rest: rest.market.tickers("BTCUSDT"),
    lambda rest: rest.market.klines("BTCUSDT", HOUR_MS, limit=5, category="spot"),
    lambda rest: rest.market.klines(
        "BTCUSDT", MINUTE_MS, start=1704067200000, end=1704067800000, category="spot"
    ),
    lambda rest: rest.market.klines("BTCUSDT", MINUTE_MS, category="spot"),
    lambda rest: rest.market.order_book("BTCUSDT", 50),
    lambda rest: rest.market.recent_trades("BTCUSDT", 10),
    lambda rest: rest.market.time_ms(),
    lambda rest: rest.account.fee_rates("BTCUSDT"),
    lambda rest: rest.account.positions("BTCUSDT"),
]  # fmt: skip

OUR_DEFAULTS = {"positionIdx": "0", "tpslMode": "Full"}  # always said aloud; the exchange assumes the same
READ_TO_THE_END = (
    "/v5/market/funding/history",
    "/v5/order/realtime",
    "/v5/order/history",
    "/v5/execution/list",
)


def flat(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return [flat(item) for item in value] if isinstance(value, list) else str(value)


def normalised(path: str, sent: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Without what carries no meaning: page sizes of lists read to the end, and defaults said aloud."""
    result: dict[str, Any] = flat(sent)
    result.pop("clientOrderId", None)  # ccxt's own name, which leaks
    if path in READ_TO_THE_END:
        result.pop("limit", None)
    for name, default in OUR_DEFAULTS.items():
        if name not in other and result.get(name) == default:
            del result[name]
    if isinstance(result.get("request"), list):
        theirs = other.get("request") or [{}]
        result["request"] = [
            normalised("", item, twin) for item, twin in zip(result["request"], theirs, strict=False)
        ]
    return result


@pytest.fixture
async def server() -> AsyncIterator[RestServer]:
    async with RestServer() as running:
        yield running


@needs_fixtures
@pytest.mark.parametrize(
    ("case", "intent"),
    list(zip(ccxt_requests(), INTENTS, strict=False)),
    ids=[f"{case['call']}-{n}" for n, case in enumerate(ccxt_requests())][: len(INTENTS)],
)
async def test_our_request_is_that_of_ccxt(case: dict[str, Any], intent: Intent, server: RestServer) -> None:
    server.will(case["path"], code=10005)  # the answer does not matter
    rest = Rest(server.environment, CREDENTIALS)
    with pytest.raises(ExchangeError):
        await intent(rest)
    rest.close()
    (ours,) = server.seen
    theirs = json.loads(case["body"]) if case["body"] else dict(parse_qsl(case["query"]))
    assert (ours.method, ours.path) == (case["http_method"], case["path"])
    assert normalised(case["path"], ours.params, theirs) == normalised(case["path"], theirs, ours.params)


@needs_fixtures
def test_every_recorded_request_of_ccxt_has_its_intent_of_ours() -> None:
    assert len(ccxt_requests()) == len(INTENTS)


# --- from an approved order -------------------------------------------------------------------------------


def approved(**changes: Any) -> OrderRequest:
    values = {"link_id": "t-1", "symbol": "XUSDT", "side": BUY, "type": MARKET, "qty": d("1.0"), **changes}
    return OrderRequest(**values)


def test_an_entry_carries_its_stop() -> None:
    sent = params(new_order(approved(stop_loss=d("0.97"))))
    assert sent == {
        "symbol": "XUSDT", "category": "linear", "side": "Buy", "orderType": "Market", "qty": "1.0",
        "orderLinkId": "t-1", "positionIdx": 0, "stopLoss": "0.97", "slTriggerBy": "LastPrice",
    }  # fmt: skip


def test_a_market_order_sends_neither_price_nor_time_in_force() -> None:
    sent = params(new_order(approved(price=d(5))))
    assert not {"price", "timeInForce"} & set(sent)


def test_a_limit_order_sends_both() -> None:
    sent = params(new_order(approved(type=LIMIT, price=d(5), time_in_force=TimeInForce.POST_ONLY)))
    assert (sent["price"], sent["timeInForce"]) == ("5", "PostOnly")


@pytest.mark.parametrize(("trigger", "direction"), [("101", 1), ("99", 2)])
def test_a_conditional_order_knows_whether_the_price_must_rise_or_fall(trigger: str, direction: int) -> None:
    sent = params(new_order(approved(trigger_price=d(trigger), reduce_only=True), last_price=d(100)))
    assert (sent["triggerDirection"], sent["triggerBy"], sent["reduceOnly"]) == (direction, "LastPrice", True)


def test_a_conditional_order_without_the_last_price_is_refused() -> None:
    with pytest.raises(ValueError, match="last price"):
        new_order(approved(trigger_price=d(1)))


def test_stops_name_the_price_that_sets_them_off() -> None:
    sent = params(new_order(approved(stop_loss=d("0.97"), take_profit=d(2), trigger_by=Trigger.MARK)))
    assert (sent["slTriggerBy"], sent["tpTriggerBy"]) == ("MarkPrice", "MarkPrice")
    moved = params(trading_stop(MoveStop(1, "NEWUSDT", d("0.97"), Trigger.MARK)))
    assert (moved["stopLoss"], moved["slTriggerBy"], "takeProfit" in moved) == ("0.97", "MarkPrice", False)
