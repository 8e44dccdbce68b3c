"""The local exchange's objects have the fields that Bybit's have, each of the same JSON type."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.core.types import DAY_MS, HOUR_MS
from bot.exchange.local import account_api, funds_api, market_api, orders_api, statistics_api
from bot.exchange.local.api import Answer, Asked
from bot.exchange.local.endpoints import ENDPOINTS
from bot.exchange.local.gate import Key
from bot.exchange.local.orders import Refused
from bot.exchange.local.world import World
from tests.local_exchange import two_symbols

FIXTURES = Path(__file__).parents[2] / "shared" / "bybit" / "fixtures"
NOW = 1_764_000_000_000
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="../shared/bybit/fixtures is not here")


@pytest.fixture(scope="module")
def asked() -> Asked:
    """A customer who has bought with a stop and sold a part, watched by a stream; funding was paid."""
    world = World(two_symbols(NOW), 1, NOW)
    account = world.engine.add_account(Decimal(10_000), NOW)
    account.watchers = 1
    order = {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "0.01", "stopLoss": "50000"}
    world.engine.create(account, order, NOW)
    sold = {"symbol": "BTCUSDT", "side": "Sell", "orderType": "Market", "qty": "0.004", "reduceOnly": True}
    world.engine.create(account, sold, NOW)
    world.listed["BTCUSDT"].funding.append((NOW, Decimal("0.0001")))
    return Asked(world, Key("key", "secret", account, False), {"category": "linear"}, NOW)


def objects(folder: str) -> Iterator[dict[str, Any]]:
    """The innermost objects of the documented answers and messages."""
    sources = ("docs", "nautilus", "bybitnet")
    for path in sorted(path for name in sources for path in (FIXTURES / folder).glob(f"{name}__*.json")):
        document = json.loads(path.read_text())
        inside = document.get("result", document.get("data", document))
        rows = inside.get("list", [inside]) if isinstance(inside, dict) else inside
        yield from (row for row in rows if row)


def kind(value: object) -> str:
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, int | float) else type(value).__name__


def listed(handler: Callable[[Asked], Answer]) -> Callable[[Asked], Any]:
    return lambda asked: handler(asked).result["list"][0]


def public(handler: Callable[[World, Any], Any]) -> Callable[[Asked], Any]:
    return lambda asked: handler(asked.world, {"period": "1h", **asked.params})["list"][0]


def streamed(topic: str) -> Callable[[Asked], Any]:
    return lambda asked: next(view for _, name, view in asked.world.engine.outbox if name == topic)


@needs_fixtures
@pytest.mark.parametrize(
    ("folder", "view"),
    [
        ("rest-GET-position-list", listed(account_api.positions)),
        ("rest-GET-order-history", listed(orders_api.order_history)),
        ("rest-GET-order-realtime", listed(orders_api.open_orders)),
        ("rest-GET-execution-list", listed(orders_api.executions)),
        ("rest-GET-account-fee-rate", listed(account_api.fee_rates)),
        ("rest-GET-user-query-api", lambda asked: account_api.key_information(asked).result),
        ("rest-GET-position-closed-pnl", listed(account_api.closed_pnl)),
        ("rest-GET-position-symbol-info", listed(funds_api.symbol_leverage)),
        ("rest-GET-account-transaction-log", listed(account_api.transactions)),
        ("rest-GET-account-collateral-info", listed(funds_api.collateral)),
        ("rest-GET-account-info", lambda asked: account_api.account_info(asked).result),
        ("rest-GET-account-smp-group", lambda asked: funds_api.trade_prevention_group(asked).result),
        ("rest-GET-account-user-setting-config", lambda asked: funds_api.user_settings(asked).result),
        ("rest-GET-account-withdrawal", lambda asked: funds_api.withdrawable(asked).result),
        ("rest-GET-market-adlAlert", public(statistics_api.adl_alert)),
        ("rest-GET-market-account-ratio", public(statistics_api.account_ratio)),
        ("rest-GET-market-funding-history", public(market_api.funding_history)),
        ("rest-GET-market-recent-trade", public(market_api.recent_trades)),
        ("rest-GET-market-risk-limit", public(market_api.risk_limits)),
        ("ws-order", streamed("order")),
        ("ws-execution", streamed("execution")),
    ],
)
def test_every_documented_field_is_there_and_of_its_type(
    asked: Asked, folder: str, view: Callable[[Asked], Any]
) -> None:
    params = {"category": "linear", "settleCoin": "USDT", "symbol": "BTCUSDT", "coinName": "USDT"}
    ours = view(asked._replace(params=params))
    found = list(objects(folder))
    assert found
    for theirs in found:
        assert set(theirs) <= set(ours), set(theirs) - set(ours)
        wrong = {
            name: (value, ours[name])
            for name, value in theirs.items()
            if value is not None and kind(value) != kind(ours[name])
        }
        assert not wrong
        if "permissions" in theirs:
            assert set(theirs["permissions"]) <= set(ours["permissions"])


def test_open_interest_has_a_row_at_each_interval_and_half_of_it_is_the_single_one(asked: Asked) -> None:
    params = {"symbol": "BTCUSDT", "intervalTime": "1h", "limit": "3"}
    rows = statistics_api.open_interest(asked.world, params)["list"]
    times = [int(row["timestamp"]) for row in rows]
    last = NOW // HOUR_MS * HOUR_MS
    assert times == [last, last - HOUR_MS, last - 2 * HOUR_MS]
    [ticker] = market_api.tickers(asked.world, {"category": "linear", "symbol": "BTCUSDT"})["list"]
    for row in rows:
        assert row["openInterest"] == ticker["openInterest"]
        assert row["singleOpenInterest"] == ticker["singleOpenInterest"]
    bounded = {**params, "startTime": str(last - HOUR_MS), "endTime": str(last - 1)}
    assert [row["timestamp"] for row in statistics_api.open_interest(asked.world, bounded)["list"]] == [
        str(last - HOUR_MS)
    ]


def test_open_interest_is_paged_back_to_the_launch(asked: Asked) -> None:
    params = {"symbol": "BTCUSDT", "intervalTime": "1d", "limit": "12"}
    times, cursor = [], ""
    for _ in range(4):
        page = statistics_api.open_interest(asked.world, {**params, "cursor": cursor})
        times += [int(row["timestamp"]) for row in page["list"]]
        cursor = page["nextPageCursor"]
        if not cursor:
            break
    assert times == sorted(set(times), reverse=True)
    assert len(times) == 30


@pytest.mark.parametrize(
    "ask", [account_api.transactions, orders_api.order_history, funds_api.account_instruments]
)
def test_a_cursor_that_nobody_gave_is_refused(asked: Asked, ask: Callable[[Asked], Answer]) -> None:
    with pytest.raises(Refused, match="cursor invalid"):
        ask(asked._replace(params={"category": "linear", "cursor": "garbage"}))


@pytest.mark.parametrize(
    ("unit", "tolerance"),
    [("TickSize", "0"), ("TickSize", "10001"), ("TickSize", "1.5"), ("Percent", "0"), ("Percent", "10.01"),
     ("Percent", "0.015"), ("Ticks", "5")],
)  # fmt: skip
def test_a_slippage_tolerance_out_of_its_range_is_refused(asked: Asked, unit: str, tolerance: str) -> None:
    order = {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "0.01"}
    with pytest.raises(Refused, match="slippageTolerance"):
        asked.world.engine.create(
            asked.account, {**order, "slippageToleranceType": unit, "slippageTolerance": tolerance}, NOW
        )


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("order/pre-check", 10032), ("account/set-limit-px-action", 10032),
        ("position/switch-isolated", 100028), ("position/set-tpsl-mode", 100028),
        ("position/set-risk-limit", 100028), ("asset/transfer/inter-transfer", 131212),
        ("account/borrow-history", 0), ("account/mmp-state", 0), ("asset/coin-greeks", 0),
        ("position/move-history", 0),
    ],
)  # fmt: skip
def test_what_is_not_there_is_answered_all_the_same(asked: Asked, path: str, code: int) -> None:
    handler = ENDPOINTS[f"/v5/{path}"].handler
    if code:
        with pytest.raises(Refused) as caught:
            handler(asked)
        assert caught.value.code == code
    else:
        assert not any(handler(asked).result.values())


def test_the_ledger_adds_up_and_names_the_executions(asked: Asked) -> None:
    rows = account_api.transactions(asked).result["list"]
    trades = orders_api.executions(asked._replace(params={"category": "linear"})).result["list"]
    assert [row["tradeId"] for row in rows] == [row["execId"] for row in trades]
    everything = account_api.transactions(asked._replace(params={})).result["list"]
    assert [row["type"] for row in everything] == ["TRADE", "TRADE", "TRANSFER_IN"]
    for row in everything:
        flows = [Decimal(row[name] or 0) for name in ("cashFlow", "funding", "fee")]
        assert Decimal(row["change"]) == flows[0] + flows[1] - flows[2]
    for name, value in (
        ("category", "spot"),
        ("currency", "BTC"),
        ("baseCoin", "ETH"),
        ("type", "SETTLEMENT"),
    ):
        assert account_api.transactions(asked._replace(params={name: value})).result["list"] == []
    later = asked._replace(now=NOW + DAY_MS + 1, params={})
    assert account_api.transactions(later).result["list"] == []
    too_long = {"startTime": NOW - 8 * DAY_MS, "endTime": NOW}
    with pytest.raises(Refused, match="7 days"):
        account_api.transactions(asked._replace(params=too_long))


def test_executions_of_an_order_ignore_every_other_filter(asked: Asked) -> None:
    def count(**params: str) -> int:
        answer = orders_api.executions(asked._replace(params={"category": "linear", **params}))
        return len(answer.result["list"])

    [order_id, *_] = asked.account.orders
    assert count(orderId=order_id, symbol="ETHUSDT", baseCoin="ETH", execType="Funding") == 1
    assert (count(baseCoin="BTC"), count(baseCoin="ETH"), count(symbol="BTCUSDT", baseCoin="ETH")) == (
        2,
        0,
        2,
    )
    assert (count(category="spot"), count(execType="Funding")) == (0, 0)
