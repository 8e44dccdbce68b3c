"""Starts that find a full account: fifty positions, two hundred orders, and Bybit's own limits."""

import asyncio
import time

import pytest

from bot.core.types import DAY_MS
from bot.exchange.bybit.broker import BrokerSettings
from bot.exchange.bybit.environment import Credentials, local
from bot.exchange.bybit.order_desk import DeskSettings
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.streams import ConnectionBudget
from bot.exchange.local import assets
from bot.exchange.local.assets import Asset
from bot.execution.orders import Orders, tag_of
from tests.builders import START
from tests.crash_child import STREAMS
from tests.live_desk import live_desk
from tests.local_exchange import KEY, SECRET, LocalExchange, local_exchange
from tests.test_live_loop import MINUTE_MS, bar_now, in_and_out

POSITIONS = 50  # each has a stop loss and a take profit: 100 orders
SECONDS = 10.0


def symbols(now: int) -> list[Asset]:
    names = [f"T{number:02}USDT" for number in range(POSITIONS)]
    return [assets.plain(name, 100.0, now - 30 * DAY_MS, turnover=8e8) for name in names]


def fill_up(exchange: LocalExchange, foreign: int, entries: int) -> None:
    """As earlier runs, a person (at the first symbols) and time have left it."""
    engine, account = exchange.venue.world.engine, exchange.account
    ids = Orders(tag_of(START, 1))

    def create(symbol: str, **more: str) -> None:
        body = {"category": "linear", "symbol": symbol, "side": "Buy", "qty": "1", **more}
        engine.create(account, body, exchange.venue.world.now)

    def all_of_them() -> None:
        held = list(exchange.venue.world.listed)
        for name in held:
            create(name, orderType="Market", stopLoss="90", takeProfit="120")
        links = [(held[number % 10], f"by-hand-{number}") for number in range(foreign)]
        links += [(name, ids.next_id(name)) for name in held * (entries // len(held) + 1)][:entries]
        for name, link in links:
            create(name, orderType="Limit", price="95", timeInForce="GTC", orderLinkId=link)

    exchange.do(all_of_them)


@pytest.mark.slow
@pytest.mark.parametrize(("foreign", "entries"), [(60, 40), (20, 200)])
async def test_a_restart_with_fifty_positions_and_hundreds_of_orders_trades_within_ten_seconds(
    foreign: int, entries: int
) -> None:
    with local_exchange(symbols, manual=False, rate_limit_scale=1.0, balance=1_000_000) as exchange:
        await asyncio.to_thread(fill_up, exchange, foreign, entries)
        assert len(exchange.account.open_orders) == 2 * POSITIONS + foreign + entries
        began = time.monotonic()
        async with live_desk(
            local(exchange.url), Credentials(KEY, SECRET), in_and_out, MINUTE_MS,
            settings=BrokerSettings(desk=DeskSettings(), patience=60.0), streams=STREAMS,
            budget=ConnectionBudget(1_000_000), owners=Ownership(earlier=[tag_of(START, 1)]),
            instruments=[item.contract.instrument for item in exchange.venue.world.listed.values()],
        ) as desk:  # fmt: skip
            desk.tell(bar_now(symbol="T00USDT"))
            await desk.until(lambda: desk.log.finished != set(), 60.0, "an order that is filled")
            took = time.monotonic() - began
            positions = desk.engine.portfolio.positions
            assert len(positions) == POSITIONS - 1  # the first was closed
            assert all(item.stop is not None for item in positions.values())
            left = [order.link_id for order in exchange.account.open_orders.values() if not order.stop_type]
            assert len(left) == sum(link.startswith("by-hand-") for link in left) == foreign
        assert took <= SECONDS, f"{took:.1f} s"
