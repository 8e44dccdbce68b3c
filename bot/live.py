"""Runs on Bybit: testnet, demo and live, and paper money on its market. Builds the parts and wires them.

The past comes through the same events as in a backtest, the present through `bot.engine.live`. What we hold
is what the exchange says; why is in the journal of the runs. Each start is a run of its own.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from rich.console import Console

from bot.app import DATABASE, models_directory, source_model, summary, with_stop
from bot.control import Control, commanded
from bot.core.errors import DataError
from bot.core.events import AdaptationFailed, CandidateArrived, EntriesAllowed, EntriesBlocked, Event
from bot.core.types import DAY_MS, MINUTE_MS, Instrument
from bot.dashboard.audit_table import audit_table
from bot.dashboard.lines import LineView
from bot.engine.candidates import Candidates
from bot.engine.driver import drive
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.audit import Line
from bot.exchange.bybit.broker import BrokerSettings, BybitBroker
from bot.exchange.bybit.download import BarDownload, FundingDownload
from bot.exchange.bybit.environment import Credentials, Environment, check_key
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.live_market import LiveMarket, MarketSettings
from bot.exchange.bybit.preparation import Preparation
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import ConnectionBudget
from bot.exchange.recorded import RecordedMarket
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import Orders, tag_of
from bot.market.bars import BarTable
from bot.settings import Settings
from bot.storage import barfiles
from bot.storage.database import Database
from bot.storage.journal import Journal
from bot.storage.mailbox import Request
from bot.storage.survey import FUNDING_FOLDER
from bot.wiring import Wiring
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Strategy
from strategies.learning.pretraining_job import Pretraining
from strategies.learning.registry import Model, Registry
from strategies.learning.worker import AdaptationWorker
from strategies.transfer import TransferStrategy

_TERM: Final = 7 * DAY_MS  # the source model stays for so long: its bars end on a grid of this
_SETTLED: Final = 30_000  # ms after which the exchange certainly has a closed bar
_LEAVE_SECONDS: Final = 1.0  # for commands under way when the run is given up
_AUDIT_SECONDS: Final = 3.0
_STOP_SECONDS: Final = 9.5  # from SIGTERM to the end, whatever happens


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run is to be. `credentials` None: paper money. `tokens` empty: the newest ones."""

    kind: str  # "paper", "testnet", "demo", "live", "rehearsal"
    environment: Environment
    credentials: Credentials | None
    tokens: tuple[str, ...] = ()


def run_live(settings: Settings, choice: Choice) -> None:
    """Trade until stopped. Raises BotError."""
    console = Console()
    with Database.open(settings.storage.database or settings.storage.directory / DATABASE) as database:
        control = Control(database, choice.kind)
        control.begin()
        asyncio.run(
            with_stop(
                lambda stop: _session(settings, choice, database, console, control, stop), _STOP_SECONDS
            )
        )
        control.require_alive()


async def _session(
    settings: Settings, choice: Choice, database: Database, console: Console, control: Control,
    stop: asyncio.Event,
) -> None:  # fmt: skip
    rest = Rest(choice.environment, choice.credentials)
    account = ""
    try:
        await rest.measure_clock()
        if choice.credentials is not None:
            key = await rest.account.key()
            account = str(key.user_id)
            warn(console, check_key(key, choice.environment, allowed=settings.bybit.allowed_permissions))
        await LiveRun(settings, choice, account, rest, database, console, control).run(stop)
    finally:
        rest.close()


class LiveRun:
    """One run, from the account as it is found to the stop."""

    def __init__(
        self, settings: Settings, choice: Choice, account: str, rest: Rest, database: Database,
        console: Console, control: Control,
    ) -> None:  # fmt: skip
        """`account`: the exchange's number of it, "" for paper money."""
        self._account_id = account
        self._settings = settings
        self._choice = choice
        self._rest = rest
        self._database = database
        self._console = console
        self._control = control
        self._interval = settings.market.decision_minutes * MINUTE_MS
        self._data = settings.storage.directory / "bars" / choice.environment.name
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._started = self._opened = rest.clock.now_ms()
        self._preparation = preparation_of(settings, rest)

    async def run(self, stop: asyncio.Event) -> None:
        async with self._control.serving(self._deliver, self._on_deaf):
            await self._run(stop)

    def _deliver(self, request: Request) -> None:
        self._inbox.put_nowait(commanded(request, self._rest.clock.now_ms()))

    def _on_deaf(self, fault: str) -> None:
        """Nobody could stop us: no entries while the mailbox cannot be read."""
        now = self._rest.clock.now_ms()
        self._inbox.put_nowait(
            EntriesBlocked(now, now, "mailbox", fault) if fault else EntriesAllowed(now, now, "mailbox")
        )

    async def _run(self, stop: asyncio.Event) -> None:
        broker, balance, held = await self._account()
        try:
            market = self._market(held)
            followed = await market.open()
            if isinstance(broker, BybitBroker):
                tokens = [
                    item.symbol for item in followed if item.symbol not in self._settings.market.sources
                ]
                warn(self._console, await self._preparation.symbols(tokens))
            past = await self._past(followed)
            pretraining = Pretraining(past.sources, self._settings, models_directory(self._settings))
            pretrained = await source_model(pretraining, self._settings, self._console, stop)
            if pretrained is not None and not stop.is_set():
                await self._trade(broker, balance, market, followed, past, pretraining, pretrained, stop)
        finally:
            if isinstance(broker, BybitBroker):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LEAVE_SECONDS):
                        await broker.settled()
                await broker.close()

    # --- the parts ------------------------------------------------------------------------------------------

    async def _account(self) -> tuple[BybitBroker | SimulatedBroker, Decimal, set[str]]:
        """The broker, the balance, and the symbols that are held already."""
        settings, choice = self._settings, self._choice
        if choice.credentials is None:
            balance = Decimal(repr(settings.account.initial_balance))
            spread = settings.costs.half_spread
            return SimulatedBroker(settings.costs, lambda symbol, start: spread, balance), balance, set()
        warn(self._console, await self._preparation.account())
        broker = BybitBroker(
            choice.environment, choice.credentials, self._rest, self._inbox.put_nowait,
            BrokerSettings(orders_by_websocket=settings.bybit.orders_by_websocket),
            prepare=self._preparation.symbol,
        )  # fmt: skip
        opening = await broker.start()
        self._opened = opening.ts
        self._console.print(
            f"{choice.environment.name}: {opening.balance:,.2f} USDT, {len(opening.positions)} positions",
            highlight=False,
        )
        if opening.cancelled:
            warn(self._console, [f"entries of an earlier run, cancelled: {', '.join(opening.cancelled)}"])
        if opening.leftovers:
            self._console.print(
                f"Open orders that are left alone: {', '.join(opening.leftovers)}", style="yellow"
            )
        return broker, opening.balance, set(opening.positions)

    def _market(self, held: set[str]) -> LiveMarket:
        chosen, newest = {*self._choice.tokens, *held}, self._settings.bybit.newest_days * DAY_MS
        by_age = not self._choice.tokens

        def wanted(item: Instrument, now: int) -> bool:
            return item.symbol in chosen or (by_age and item.launch_time > now - newest)

        return LiveMarket(
            self._choice.environment, self._rest, self._settings.market.sources, wanted,
            self._inbox.put_nowait,
            MarketSettings(self._settings.bybit.bar_minutes * MINUTE_MS, self._interval),
            most=self._settings.bybit.max_tokens + len(held), budget=ConnectionBudget(),
        )  # fmt: skip

    async def _past(self, followed: Sequence[Instrument]) -> "Past":
        """Download what is missing of the past and open it as a recorded market."""
        bybit, sources = self._settings.bybit, self._settings.market.sources
        now = self._rest.clock.now_ms()
        until = (now - _SETTLED) // self._interval * self._interval
        start = (now - bybit.newest_days * DAY_MS) // _TERM * _TERM
        funding = self._data / FUNDING_FOLDER
        for item in followed:
            since = start - bybit.history_days * DAY_MS if item.symbol in sources else start
            since = max(since, item.launch_time)
            if since + self._interval > until:
                continue
            bars = BarDownload(self._rest.market, self._data, item.symbol, self._interval, since, until)
            table = await bars.run(lambda _: None)
            await FundingDownload(
                self._rest.market, funding, item.symbol, since, until, item.funding_interval_ms
            ).run(lambda _: None)
            self._console.print(f"{item.symbol}: {len(table or ()):,} bars of history", highlight=False)
        return Past.of(self._data, [item.symbol for item in followed], start, self._settings)

    # --- the run --------------------------------------------------------------------------------------------

    async def _trade(
        self, broker: BybitBroker | SimulatedBroker, balance: Decimal, market: LiveMarket,
        followed: Sequence[Instrument], past: "Past", pretraining: Pretraining, pretrained: Model,
        stop: asyncio.Event,
    ) -> None:  # fmt: skip
        settings, models = self._settings, {pretrained.model_id: pretrained}
        registry = Registry(models_directory(settings))
        worker = AdaptationWorker(
            registry.directory, pretrained.model_id, pretraining.replay_path, settings.adaptation
        )
        stored = self._stored(pretrained, registry)
        candidates = Candidates(worker, registry, models, stored, faults_are_facts=True)
        strategy = TransferStrategy(settings, pretrained, models)
        breaker = self._breaker(balance)
        wiring = Wiring(
            self._rest, self._inbox, market, broker,
            engine_of(settings, strategy, breaker, balance, self._interval, self._started), self._journal(),
            LineView(float(balance), self._console), candidates,
            settings.adaptation.delay_bars * self._interval, control=self._control,
            flatten_at_stop=settings.live.on_stop == "flatten", opened=self._opened,
            tell_audit=self._tell_audit,
        )  # fmt: skip
        for request in self._control.opening():
            self._deliver(request)
        try:
            await self._replay(wiring, past, stop)
            if not stop.is_set():
                self._begin(market, followed, past)
                await wiring.live(stop)
            if self._control.killed is None:
                await self._audit(wiring)
        except BaseException:
            wiring.journal.interrupt()
            raise
        finally:
            worker.close()
        wiring.journal.finish(summary(wiring.view.state))

    async def _audit(self, wiring: Wiring) -> None:
        with suppress(ExchangeError, TimeoutError):
            async with asyncio.timeout(_AUDIT_SECONDS):
                lines = await wiring.close()
            if lines:
                self._tell_audit(lines)

    def _tell_audit(self, lines: Sequence[Line]) -> None:
        self._console.print(audit_table(lines))

    async def _replay(self, wiring: Wiring, past: "Past", stop: asyncio.Event) -> None:
        """The past, without entries."""
        now = self._rest.clock.now_ms()
        wiring.view.quiet = True
        wiring.runner.advance([EntriesBlocked(now, now, "history", "the past is being replayed")])
        if past.market is not None:
            self._console.print(f"Replaying {past.market.title} …", highlight=False)
            await drive(wiring.runner, past.market.events(), stop, wiring.journal.commit, lambda _: None)
        wiring.view.quiet = False

    def _begin(self, market: LiveMarket, followed: Sequence[Instrument], past: "Past") -> None:
        """From the end of the past on, the market tells."""
        now = self._rest.clock.now_ms()
        for item in followed:
            market.follow(item, past.end_of(item))
        self._inbox.put_nowait(EntriesAllowed(now, now, "history"))

    # --- storage --------------------------------------------------------------------------------------------

    def _breaker(self, balance: Decimal) -> Breaker:
        """With the day of the account's earlier runs: no restart makes good a loss or ends a halt."""
        breaker = Breaker(self._settings.risk.daily_drawdown, float(balance))
        if self._choice.credentials is None:
            return breaker
        runs = [
            run.id
            for run in self._database.runs()
            if run.kind == self._choice.kind
            and json.loads(run.config_json)["choice"].get("account") == self._account_id
        ]
        opening = self._database.opening_equity(runs, self._started // DAY_MS * DAY_MS)
        reason, until = self._database.halt(runs) or ("", None)
        breaker.restore(self._started, opening, until)
        if breaker.halted:
            end = "before `bot resume`" if not until else "before the next UTC day, or `bot resume`"
            warn(self._console, [f"an earlier run halted: {reason}. No entries {end}"])
        return breaker

    def _journal(self) -> Journal:
        config = self._settings.model_dump(mode="json", exclude={"storage"})
        config["choice"] = {
            "environment": self._choice.environment.name, "tokens": self._choice.tokens,
            "account": self._account_id,
        }  # fmt: skip
        return Journal.start(
            self._database, kind=self._choice.kind, title=f"Bybit {self._choice.environment.name}",
            simulated=self._choice.environment.name == "local",
            config_json=json.dumps(config, sort_keys=True), seed=0, started=int(time.time() * 1_000),
            start_ts=self._started, end_ts=self._started, durable=self._choice.credentials is not None,
        )  # fmt: skip

    def _stored(self, pretrained: Model, registry: Registry) -> list[CandidateArrived | AdaptationFailed]:
        """What earlier runs adapted from the same source model need not be adapted again."""
        stored = []
        for run in self._database.runs():
            if run.kind == self._choice.kind:
                stored += self._database.candidates(run.id)
        return [
            item
            for item in stored
            if isinstance(item, CandidateArrived) and _base_of(registry, item.model_id) == pretrained.model_id
        ]


@dataclass(frozen=True, slots=True)
class Past:
    """What was before: the sources' bars for pretraining, and the tokens' as a market; None without any."""

    sources: list[BarTable]
    market: RecordedMarket | None
    ends: Mapping[str, int]  # close of the last bar, ms
    interval: int

    @classmethod
    def of(cls, data: Path, symbols: Sequence[str], start: int, settings: Settings) -> "Past":
        interval, sources = settings.market.decision_minutes * MINUTE_MS, settings.market.sources
        tables = {}
        for symbol in symbols:
            with suppress(DataError):  # too young to have a bar
                tables[symbol] = barfiles.read(barfiles.find(data, symbol, interval))
        if missing := [name for name in sources if name not in tables]:
            raise DataError(f"the exchange has no bars of {', '.join(missing)}, which market.sources names")
        tokens = [name for name in tables if name not in sources]
        market = None
        if tokens:
            market = RecordedMarket(
                data, sources, tokens, decision_interval_ms=interval, costs=settings.costs, start=start,
                funding_directory=data / FUNDING_FOLDER, warmup_days=0,
            )  # fmt: skip
        until = start if market is None else market.start
        return cls(
            [tables[name].between(int(tables[name].start[0]), until) for name in sources],
            market,
            {name: int(table.start[-1]) + interval for name, table in tables.items()},
            interval,
        )

    def end_of(self, item: Instrument) -> int:
        return self.ends.get(item.symbol, item.launch_time)


def preparation_of(settings: Settings, rest: Rest) -> Preparation:
    bybit = settings.bybit
    return Preparation(
        rest, settings.market.sources[0], Decimal(repr(bybit.leverage)), bybit.margin_mode,
        settings.costs.taker_fee, bybit.may_switch_modes,
    )  # fmt: skip


def warn(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False)


def engine_of(
    settings: Settings, strategy: Strategy, breaker: Breaker, balance: Decimal, interval: int, started: int
) -> Engine:
    """`interval`: of decision bars, ms; `started`: of the run, ms UTC, for ids that are never used again."""
    return Engine(
        strategy,
        RiskManager(settings.risk, settings.gate, settings.costs, breaker),
        breaker,
        Portfolio(balance),
        Orders(tag_of(started)),
        settings.risk,
        interval,
    )


def _base_of(registry: Registry, model_id: str) -> str:
    try:
        return registry.load(model_id).card.parent
    except DataError:
        return ""
