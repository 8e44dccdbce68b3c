"""The local exchange's objects have the fields that Bybit's have, each of the same JSON type."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.core.types import HOUR_MS
from bot.exchange.local import account_api, market_api, orders_api, statistics_api
from bot.exchange.local.api import Answer, Asked
from bot.exchange.local.gate import Key
from bot.exchange.local.world import World
from tests.local_exchange import two_symbols

FIXTURES = Path(__file__).parents[2] / "shared" / "bybit" / "fixtures"
NOW = 1_764_000_000_000
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="../shared/bybit/fixtures is not here")


@pytest.fixture(scope="module")
def asked() -> Asked:
    """A customer who has bought with a stop, watched by a stream."""
    world = World(two_symbols(NOW), 1, NOW)
    account = world.engine.add_account(Decimal(10_000), NOW)
    account.watchers = 1
    order = {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "0.01", "stopLoss": "50000"}
    world.engine.create(account, order, NOW)
    return Asked(world, Key("key", "secret", account, False), {"category": "linear"}, NOW)


def objects(folder: str) -> Iterator[dict[str, Any]]:
    """The innermost objects of the documented answers and messages."""
    for path in sorted((FIXTURES / folder).glob("docs__*.json")) + sorted(
        (FIXTURES / folder).glob("nautilus__*.json")
    ):
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
        ("ws-order", streamed("order")),
        ("ws-execution", streamed("execution")),
    ],
)
def test_every_documented_field_is_there_and_of_its_type(
    asked: Asked, folder: str, view: Callable[[Asked], Any]
) -> None:
    params = {"category": "linear", "settleCoin": "USDT", "symbol": "BTCUSDT"}
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
