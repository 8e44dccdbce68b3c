"""`bot rehearse`: the real client against the local exchange, in real time, through its restarts.

The exchange is a process of its own. Streams, REST, order entry, journal and engine are those of a live run;
only the strategy is one that trades at every bar (`strategies.exercise`): a rehearsal is about orders.
"""

import asyncio
import json
import math
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
from rich.console import Console

from bot.app import summary, with_stop
from bot.care import NoAdaptation
from bot.core.errors import RuntimeFault
from bot.core.events import Event
from bot.core.types import MINUTE_MS
from bot.dashboard.audit_table import audit_table
from bot.dashboard.lines import LineView
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit import wire
from bot.exchange.bybit.audit import Line
from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.environment import Environment, check_key, credentials, local
from bot.exchange.bybit.live_market import LiveMarket, MarketSettings
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams.connection import first_to_end
from bot.execution.orders import SALTS, Orders, tag_of
from bot.live.parts import engine_of, preparation_of, warn
from bot.market.universe import Universe
from bot.settings import Settings
from bot.settings import Universe as Limits
from bot.storage.database import Database
from bot.storage.journal import Journal
from bot.wiring import Wiring
from risk.breaker import Breaker
from strategies.exercise import Exercise

_READY: Final = re.compile(r"http://127\.0\.0\.1:\d+")
_READY_SECONDS: Final = 60.0
_BAR: Final = MINUTE_MS
_LISTED: Final = "LATEUSDT"
EVERYTHING: Final = Universe(Limits(min_turnover=0, min_depth=0, max_spread=0.5), days=math.inf, most=100)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rehearsal does. `restarts` of the exchange are spread evenly over the `minutes`."""

    minutes: float = 5.0
    seed: int = 7
    restarts: int = 2
    restart_ms: int = 3_000
    orders_by_websocket: bool = False


def run_rehearsal(settings: Settings, plan: Plan, directory: Path) -> None:
    """Raises RuntimeFault when at the end our books are not the exchange's."""
    console = Console()
    with Database.open(directory / "rehearsal.sqlite") as database:
        lines, sent = asyncio.run(with_stop(lambda stop: _rehearse(settings, plan, database, console, stop)))
    console.print(audit_table(lines))
    if not sent:
        console.print("No order was sent: rehearse for longer (--minutes 3).", style="yellow")
    if not all(line.equal for line in lines):
        raise RuntimeFault("the rehearsal ended with books that differ from the exchange's")


async def _rehearse(
    settings: Settings, plan: Plan, database: Database, console: Console, stop: asyncio.Event
) -> tuple[list[Line], int]:
    """Our books beside the exchange's at the end, and how many orders were sent."""
    async with local_exchange(settings, plan.seed) as exchange:
        console.print(f"Local exchange at {exchange.url}, {plan.minutes:g} minutes", highlight=False)
        trading = _connect(settings, plan, local(exchange.url), database, console, stop)
        done: tuple[list[Line], int] = await first_to_end(exchange.until_it_dies(), trading)
        return done


async def _connect(
    settings: Settings, plan: Plan, environment: Environment, database: Database, console: Console,
    stop: asyncio.Event,
) -> tuple[list[Line], int]:  # fmt: skip
    keys = credentials(environment, {})
    rest = Rest(environment, keys)
    try:
        await rest.measure_clock()
        check_key(await rest.account.key(), environment)
        return await _trade(settings, plan, environment, rest, database, console, stop)
    finally:
        rest.close()


async def _trade(
    settings: Settings, plan: Plan, environment: Environment, rest: Rest, database: Database,
    console: Console, stop: asyncio.Event,
) -> tuple[list[Line], int]:  # fmt: skip
    inbox: asyncio.Queue[Event] = asyncio.Queue()
    started = rest.clock.now_ms()
    owners = Ownership(leave=settings.bybit.foreign_positions == "leave")
    preparation = preparation_of(settings, rest, owners)
    warn(console, await preparation.account())
    broker = BybitBroker(
        environment, credentials(environment, {}), rest, inbox.put_nowait,
        BrokerSettings(orders_by_websocket=plan.orders_by_websocket), prepare=preparation.symbol,
        owners=owners,
    )  # fmt: skip
    sources = settings.market.sources
    market = LiveMarket(
        environment, rest, sources, EVERYTHING, inbox.put_nowait,
        MarketSettings(interval=_BAR, decision_interval=_BAR, instruments=5.0),
    )  # fmt: skip
    try:
        opening = await broker.start()
        breaker = Breaker(settings.risk, float(opening.balance))
        orders = Orders(tag_of(started, secrets.randbelow(SALTS)))
        wiring = Wiring(
            rest, inbox, market, broker,
            engine_of(settings, Exercise(sources), breaker, Portfolio(opening.balance), orders, _BAR),
            _journal(database, settings, plan, started),
            LineView(float(opening.balance), console, unknown=wire.unknown), NoAdaptation(), 0,
            opened=opening.ts,
        )  # fmt: skip
        for item in await market.open():
            market.follow(item, started // _BAR * _BAR)  # the bar that is open now is the first
        await first_to_end(wiring.live(stop), _make_trouble(environment.rest, plan, console, stop))
        lines = await wiring.close()
        wiring.journal.finish(summary(wiring.view.state))
        return lines, len(wiring.log.sent)
    finally:
        await broker.close()


async def _make_trouble(url: str, plan: Plan, console: Console, stop: asyncio.Event) -> NoReturn:
    """A listing at once, restarts on the way, the end of the listing announced after the first; then stop.

    It never returns: the run ends when it has stopped. Raises RuntimeFault when the exchange does not listen.
    """
    pause = plan.minutes * 60 / (plan.restarts + 1)
    async with aiohttp.ClientSession(trust_env=False) as session:
        await _switch(session, url, "list", {"symbol": _LISTED, "price": 3.0})
        for number in range(1, plan.restarts + 1):
            await asyncio.sleep(pause)
            console.print(f"The exchange restarts ({number} of {plan.restarts})", style="yellow")
            await _switch(session, url, "faults", {"kind": "restart", "ms": plan.restart_ms})
            if number == 1:
                await _switch(session, url, "delist", {"symbol": _LISTED, "in_ms": 10 * MINUTE_MS})
        await asyncio.sleep(pause)
    stop.set()
    await asyncio.Event().wait()
    raise AssertionError("an event that nobody sets")


async def _switch(session: aiohttp.ClientSession, url: str, what: str, body: dict[str, Any]) -> None:
    try:
        async with session.post(f"{url}/admin/{what}", json=body) as answer:
            if answer.status != 200:
                raise RuntimeFault(f"the local exchange refuses {what} {body}: {await answer.text()}")
    except aiohttp.ClientError as error:
        raise RuntimeFault(f"the local exchange does not answer to {what}: {error}") from None


@dataclass(frozen=True, slots=True)
class LocalExchange:
    """One that runs, in a process of its own."""

    url: str
    process: asyncio.subprocess.Process

    async def until_it_dies(self) -> NoReturn:
        """Raises RuntimeFault then."""
        code = await self.process.wait()
        raise RuntimeFault(f"the local exchange ended on its own (exit code {code}); the rehearsal is void")


@asynccontextmanager
async def local_exchange(settings: Settings, seed: int) -> AsyncIterator[LocalExchange]:
    """Raises RuntimeFault when it does not start."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "exchange.toml"
        config.write_text(_config_of(settings))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot", "exchange", "--port", "0", "--seed", str(seed), "-c", str(config),
            stdout=asyncio.subprocess.PIPE, env=_without_settings(os.environ),
            start_new_session=True,  # Ctrl-C is for us: the exchange must outlive our last questions
        )  # fmt: skip
        try:
            yield LocalExchange(await _address(process), process)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _config_of(settings: Settings) -> str:
    """The sources and the exchange of this run, but for the account: it is the one that we trade with."""
    key = credentials(local("http://127.0.0.1"), {})
    exchange = settings.exchange
    return f"""
[market]
sources = {json.dumps(settings.market.sources)}

[exchange]
history_days = 1
latency_ms = {exchange.latency_ms}
rate_limit_scale = {exchange.rate_limit_scale}

[[exchange.accounts]]
key = {json.dumps(key.key)}
secret = {json.dumps(key.secret)}
balance = {exchange.accounts[0].balance}
"""


def _without_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """A variable would win over the file."""
    return {name: value for name, value in variables.items() if not name.startswith("BOT_")}


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_SECONDS):
            line = (await process.stdout.readline()).decode()
    except TimeoutError:
        line = ""
    found = _READY.search(line)
    if found is None:
        raise RuntimeFault(f"the local exchange did not start: {line.strip() or 'it said nothing'}")
    return found.group()


def _journal(database: Database, settings: Settings, plan: Plan, started: int) -> Journal:
    config = settings.model_dump(mode="json", exclude={"storage"}) | {"plan": {"minutes": plan.minutes}}
    return Journal.start(
        database, kind="rehearsal", title="local exchange", simulated=True,
        config_json=json.dumps(config, sort_keys=True), seed=plan.seed, started=int(time.time() * 1_000),
        start_ts=started, end_ts=started,
    )  # fmt: skip
