"""The account as a run finds it: whose it is, what it pays, what its earlier runs left open."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from bot.core.events import Event
from bot.core.money import exact
from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.environment import Credentials, Environment
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.preparation import Preparation
from bot.exchange.bybit.reconciliation import Opening
from bot.exchange.bybit.rest import Rest
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import tag_of
from bot.live.parts import warn
from bot.settings import Settings
from bot.storage.database import Database, Run
from bot.storage.lock import FileLock

_LOST: Final = (
    "Another bot looks after it, or nobody does, if this one has lost its database: "
    '`bybit.foreign_positions = "adopt"` takes it over'
)


def account_lock(environment: Environment, account: str) -> FileLock:
    """One bot on an account, as far as this machine can see: two would take each other's trades for errors.

    Raises RuntimeFault.
    """
    host = environment.rest.partition("//")[2].replace(":", "-")
    path = Path(tempfile.gettempdir()) / f"transfer-trader-{host}-{account}.lock"
    return FileLock(path, name=f"account {account} on {environment.name}", what="account")


def earlier_runs(database: Database, kind: str, account: str) -> list[Run]:
    """The runs of this installation on this account, oldest first."""
    return [
        run
        for run in database.runs()
        if run.kind == kind and json.loads(run.config_json)["choice"].get("account") == account
    ]


def ownership_of(settings: Settings, database: Database, earlier: Sequence[Run], started: int) -> Ownership:
    """Whose the symbols of the account are, by what is on record; every order is, before it leaves.

    earlier: the runs of this installation on the account; started: of the run that asks, ms
    """
    runs = [run.id for run in earlier]
    return Ownership(
        leave=settings.bybit.foreign_positions == "leave",
        earlier=[tag_of(run.start_ts, run.seed) for run in earlier],
        past=database.spans(runs),
        unfilled=database.unfilled(runs),
        started=started,
    )


def known_fees(database: Database, environment: Environment) -> tuple[float, float] | None:
    """For paper money: what the newest run with a key found on the same exchange; taker and maker."""
    for run in reversed(database.runs()):
        choice = json.loads(run.config_json).get("choice", {})
        if choice.get("environment") == environment.name and choice.get("fees"):
            taker, maker = choice["fees"]
            return taker, maker
    return None


def with_fees(settings: Settings, fees: tuple[float, float] | None) -> Settings:
    """What the account pays counts, not what the settings guess; the journal keeps it with the run."""
    if fees is None:
        return settings
    taker, maker = fees
    costs = settings.costs.model_copy(update={"taker_fee": taker, "maker_fee": maker})
    return settings.model_copy(update={"costs": costs})


def paper_broker(settings: Settings, started: int) -> tuple[SimulatedBroker, Opening]:
    balance, spread = exact(settings.account.initial_balance), settings.costs.half_spread
    broker = SimulatedBroker(settings.costs, lambda symbol, start: spread, balance)
    return broker, Opening(started, balance, {})


async def bybit_broker(
    settings: Settings, environment: Environment, credentials: Credentials, rest: Rest,
    tell: Callable[[Event], None], preparation: Preparation, owners: Ownership, console: Console,
) -> tuple[BybitBroker, Opening]:  # fmt: skip
    """The broker, started, and what it found, which is told."""
    broker = BybitBroker(
        environment, credentials, rest, tell,
        BrokerSettings(orders_by_websocket=settings.bybit.orders_by_websocket),
        prepare=preparation.symbol, owners=owners,
    )  # fmt: skip
    opening = await broker.start()
    console.print(
        f"{environment.name}: {opening.balance:,.2f} USDT, {len(opening.positions)} positions",
        highlight=False,
    )
    if opening.cancelled:
        warn(console, [f"entries of an earlier run, cancelled: {', '.join(opening.cancelled)}"])
    if opening.others:
        held = ", ".join(f"{symbol} {item.qty:+f}" for symbol, item in sorted(opening.others.items()))
        warn(console, [f"positions of others, left alone (`bybit.foreign_positions`): {held}"])
    if owners.relatives:
        names = ", ".join(sorted(owners.relatives))
        warn(console, [f"{names}: opened by this program, and not on record here. {_LOST}"])
    if opening.leftovers:
        console.print(f"Open orders that are left alone: {', '.join(opening.leftovers)}", style="yellow")
    return broker, opening
