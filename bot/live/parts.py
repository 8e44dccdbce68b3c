"""What a run on Bybit is to be, and its parts as the settings say."""

import asyncio
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.console import Console

from bot.core.events import Event
from bot.core.money import exact
from bot.core.types import MINUTE_MS
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.environment import Credentials, Environment
from bot.exchange.bybit.live_market import LiveMarket, MarketSettings
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.preparation import Preparation
from bot.exchange.bybit.rest import Rest
from bot.execution.orders import Orders
from bot.market.universe import Universe
from bot.settings import Settings
from bot.storage.database import Database
from bot.storage.journal import Journal
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Strategy


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run is to be. `credentials` None: paper money. `tokens` empty: the newest ones."""

    kind: str  # "paper", "testnet", "demo", "live", "rehearsal"
    environment: Environment
    credentials: Credentials | None
    tokens: tuple[str, ...] = ()


def preparation_of(settings: Settings, rest: Rest, owners: Ownership) -> Preparation:
    bybit = settings.bybit
    return Preparation(
        rest, settings.market.sources[0], exact(bybit.leverage), bybit.margin_mode,
        settings.costs.taker_fee, bybit.may_switch_modes, owners,
    )  # fmt: skip


def market_of(
    settings: Settings, choice: Choice, rest: Rest, inbox: "asyncio.Queue[Event]", found: Collection[str],
    books: Portfolio,
) -> LiveMarket:  # fmt: skip
    """found: what was held at the start; books: what is held now."""
    bybit = settings.bybit
    universe = Universe(settings.universe, bybit.newest_days, bybit.max_tokens, frozenset(choice.tokens))
    return LiveMarket(
        choice.environment, rest, settings.market.sources, universe, inbox.put_nowait,
        MarketSettings(bybit.bar_minutes * MINUTE_MS, settings.market.decision_minutes * MINUTE_MS),
        held=lambda: {*found, *books.positions},
    )  # fmt: skip


def engine_of(
    settings: Settings, strategy: Strategy, breaker: Breaker, portfolio: Portfolio, orders: Orders,
    interval: int,
) -> Engine:  # fmt: skip
    """`interval`: of decision bars, ms."""
    return Engine(
        strategy,
        RiskManager(settings.risk, settings.gate, settings.costs, breaker, live=True),
        breaker,
        portfolio,
        orders,
        settings.risk,
        interval,
        settings.execution,
    )


def journal_of(
    settings: Settings, choice: Choice, account: str, fees: tuple[float, float] | None, database: Database,
    started: int, salt: int,
) -> Journal:  # fmt: skip
    """`account`: the exchange's number of it; `fees`: taker and maker, as the exchange says, if it did;
    `started` and `salt` make the tag of its orders.
    """
    config = settings.model_dump(mode="json", exclude={"storage"})
    config["choice"] = {
        "environment": choice.environment.name, "tokens": choice.tokens, "account": account, "fees": fees,
    }  # fmt: skip
    return Journal.start(
        database, kind=choice.kind, title=f"Bybit {choice.environment.name}",
        simulated=choice.environment.name == "local", config_json=json.dumps(config, sort_keys=True),
        seed=salt, started=int(time.time() * 1_000), start_ts=started, end_ts=started,
        durable=choice.credentials is not None,
    )  # fmt: skip


def warn(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False)
