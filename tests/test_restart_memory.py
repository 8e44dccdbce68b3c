"""What a restart must not forget: entries of the day, since when we hold, and what was lost meanwhile."""

import json
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from bot.core.commands import PlaceOrder
from bot.core.events import PositionAdopted
from bot.core.types import DAY_MS, HOUR_MS, OrderRequest, OrderType, Side
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.account_book import Held
from bot.exchange.bybit.environment import local
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.reconciliation import Opening
from bot.exchange.bybit.requests import NewOrder
from bot.exchange.bybit.rest import Rest
from bot.execution.orders import Orders
from bot.live.account import earlier_runs
from bot.live.memory import Memory
from bot.settings import Risk
from bot.storage.database import Database
from bot.storage.journal import Journal
from risk.breaker import Breaker
from tests.builders import fill
from tests.local_exchange import LocalExchange, local_exchange
from tests.test_care import KEYS

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def traded(database: Database, now: int) -> None:
    """An earlier run that entered three times in the last day and once before it."""
    config = json.dumps({"choice": {"account": "1", "environment": "local"}})
    started = now - 2 * DAY_MS
    journal = Journal.start(
        database, kind="testnet", title="", simulated=True, config_json=config, seed=0, started=started,
        start_ts=started, end_ts=started,
    )  # fmt: skip
    for ago, symbol in ((30, "ETHUSDT"), (5, "BTCUSDT"), (3, "ETHUSDT"), (2, "BTCUSDT")):
        ts, link = now - ago * HOUR_MS, f"o{ago}"
        request = OrderRequest(
            link_id=link, symbol=symbol, side=Side.BUY, type=OrderType.MARKET, qty=Decimal(1),
            stop_loss=Decimal(1),
        )  # fmt: skip
        journal.write(PlaceOrder(ts, request))
        journal.write(replace(fill(Side.BUY, "1", "100", symbol=symbol, ts=ts), link_id=link))
    journal.finish({})


async def lose(exchange: LocalExchange, rest: Rest, symbol: str) -> None:
    """Buy, and sell at a lower price."""
    for side, reduces in (("Buy", False), ("Sell", True)):
        order = NewOrder(
            symbol=symbol, side=side, order_type="Market", qty=Decimal("0.1"), reduce_only=reduces or None
        )
        await rest.orders.create(order)
        exchange.move(symbol, 0.99)


async def test_a_restart_counts_entries_ages_and_losses_from_where_the_last_run_was(tmp_path: Path) -> None:
    with local_exchange() as exchange, Database.open(tmp_path / "bot.sqlite") as database:
        exchange.advance(500)
        rest = Rest(local(exchange.url), KEYS)
        await rest.measure_clock()
        await lose(exchange, rest, "BTCUSDT")  # while no bot ran, say
        now = max(rest.clock.now_ms(), exchange.venue.world.now) + 1  # its market was moved on
        traded(database, now)
        breaker, books, orders = Breaker(Risk(), 10_000), Portfolio(Decimal(10_000)), Orders()
        opening = Opening(now, Decimal(10_000), {"ETHUSDT": Held(Decimal(1)), "BTCUSDT": Held(Decimal(-1))})
        memory = Memory(Risk(), database, earlier_runs(database, "testnet", "1"), now, Ownership())
        await memory.restore(rest, opening, breaker, books, orders, Console(quiet=True))
        rest.close()
        assert orders.entries_since(now - DAY_MS) == 3
        assert set(books.last_loss) == {"BTCUSDT"}
        assert now - books.last_loss["BTCUSDT"] < HOUR_MS
        for symbol in SYMBOLS:
            books.adopt(
                PositionAdopted(now, now, symbol, opening.positions[symbol].qty, Decimal(1), None, "held")
            )
        assert books.positions["ETHUSDT"].opened == now - 3 * HOUR_MS
        assert books.positions["BTCUSDT"].opened == now  # it is short, and we had bought
        lost = float(10_000 - exchange.account.wallet)
        assert lost > 10
        almost = 50 - lost + 1e-6  # of the 50 that a token may lose on a day
        assert breaker.mark_token(now, "BTCUSDT", 0.01 - almost, 10_000) == []
        assert breaker.mark_token(now, "BTCUSDT", -almost, 10_000) != []
        assert breaker.mark_token(now, "ETHUSDT", -almost, 10_000) == []
