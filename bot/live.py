"""Runs on Bybit: testnet, demo and live, and paper money on its market. Builds the parts and wires them.

The past comes through the same events as in a backtest, the present through `bot.engine.live`. What we hold
is what the exchange says; why is in the journal of the runs. Each start is a run of its own. What is found
held is looked after from the first second (`bot.care`), long before the past and the model are there.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bot.app import earlier_listings, models_directory, source_model, summary, with_stop
from bot.care import Care, NoStrategy
from bot.control import Control, commanded
from bot.core.errors import DataError
from bot.core.events import (
    HISTORY,
    AdaptationFailed,
    CandidateArrived,
    EntriesAllowed,
    EntriesBlocked,
    Event,
)
from bot.core.money import exact
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
from bot.exchange.bybit.reconciliation import Opening
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams import ConnectionBudget
from bot.exchange.bybit.streams.connection import first_to_end
from bot.exchange.bybit.transfers import transfers
from bot.exchange.recorded import RecordedMarket
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import Orders, tag_of
from bot.market.bars import BarTable
from bot.market.universe import Universe
from bot.settings import Settings
from bot.storage import barfiles
from bot.storage.database import Database, Mark, Run
from bot.storage.journal import Journal
from bot.storage.lock import FileLock
from bot.storage.mailbox import Request
from bot.storage.survey import FUNDING_FOLDER
from bot.warming import compile_kernels
from bot.wiring import LEAVE_SECONDS, Wiring, watch_clock
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Strategy
from strategies.learning.dataset import LabelledSeries
from strategies.learning.registry import Model, Registry
from strategies.learning.source_choice import source_for
from strategies.learning.worker import AdaptationWorker
from strategies.transfer import TransferStrategy

_TERM: Final = 7 * DAY_MS  # the source model stays for so long: its bars end on a grid of this
_SETTLED: Final = 30_000  # ms after which the exchange certainly has a closed bar
_AUDIT_SECONDS: Final = 3.0
_GUARD_SECONDS: Final = 10.0  # for positions that are found without a stop, before anything slow begins
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
    compile_kernels(console)
    with Database.open(settings.storage.target) as database:
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
    try:
        await rest.measure_clock()
        if choice.credentials is None:
            await LiveRun(settings, choice, "", rest, database, console, control).run(stop)
            return
        key = await rest.account.key()
        warn(console, check_key(key, choice.environment, allowed=settings.bybit.allowed_permissions))
        account = str(key.user_id)
        with account_lock(choice.environment, account):
            await LiveRun(settings, choice, account, rest, database, console, control).run(stop)
    finally:
        rest.close()


def account_lock(environment: Environment, account: str) -> FileLock:
    """One bot on an account, as far as this machine can see: two would take each other's trades for errors.

    Raises RuntimeFault.
    """
    host = environment.rest.partition("//")[2].replace(":", "-")
    path = Path(tempfile.gettempdir()) / f"transfer-trader-{host}-{account}.lock"
    return FileLock(path, name=f"account {account} on {environment.name}", what="account")


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
        self._fees: tuple[float, float] | None = None  # taker and maker, as the exchange says

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
        broker, opening = await self._account()
        try:
            journal = self._journal()
            try:
                view = LineView(float(opening.balance), self._console)
                await self._watched(broker, opening, journal, view, stop)
            except BaseException:
                journal.interrupt()
                raise
            journal.finish(summary(view.state))
        finally:
            if isinstance(broker, BybitBroker):
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEAVE_SECONDS):
                        await broker.settled()
                await broker.close()

    async def _watched(
        self, broker: BybitBroker | SimulatedBroker, opening: Opening, journal: Journal, view: LineView,
        stop: asyncio.Event,
    ) -> None:  # fmt: skip
        """Prepare, with the account in care meanwhile; then trade."""
        breaker = await self._breaker(opening)
        for request in self._control.opening():
            self._deliver(request)
        engine = engine_of(
            self._settings, NoStrategy(), breaker, opening.balance, self._interval, self._started
        )
        market = self._market(opening.positions, engine.portfolio)
        care = Care(
            engine, broker, self._inbox, journal, (view.apply, self._control.apply), self._rest.clock.now_ms
        )
        watching: list[Coroutine[Any, Any, None]] = []
        if isinstance(broker, BybitBroker):
            tradable = await market.tradable()
            care.begin(item for name, item in tradable.items() if name in opening.positions)
            watching = [care.run(), broker.run(), watch_clock(self._rest, self._inbox)]
        prepared: Prepared | None = await first_to_end(
            self._prepare(broker, market, care, breaker, journal, view, stop), *watching
        )
        if prepared is not None:
            await self._trade(prepared, care, stop)

    # --- the parts ------------------------------------------------------------------------------------------

    async def _account(self) -> tuple[BybitBroker | SimulatedBroker, Opening]:
        """The broker, and the account as it is found."""
        settings, choice = self._settings, self._choice
        if choice.credentials is None:
            self._reckon_with(self.known_fees())
            balance, spread = exact(settings.account.initial_balance), settings.costs.half_spread
            broker = SimulatedBroker(self._settings.costs, lambda symbol, start: spread, balance)
            return broker, Opening(self._started, balance, {})
        warn(self._console, await self._preparation.account())
        self._reckon_with(self._preparation.fees)
        real = BybitBroker(
            choice.environment, choice.credentials, self._rest, self._inbox.put_nowait,
            BrokerSettings(orders_by_websocket=settings.bybit.orders_by_websocket),
            prepare=self._preparation.symbol, earlier=[tag_of(run.start_ts) for run in self._earlier()],
        )  # fmt: skip
        opening = await real.start()
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
        return real, opening

    def _reckon_with(self, fees: tuple[float, float] | None) -> None:
        """What the account pays counts, not what the settings guess; the journal keeps it with the run."""
        if fees is not None:
            taker, maker = fees
            costs = self._settings.costs.model_copy(update={"taker_fee": taker, "maker_fee": maker})
            self._settings = self._settings.model_copy(update={"costs": costs})
            self._fees = fees

    def known_fees(self) -> tuple[float, float] | None:
        """For paper money: what the newest run with a key found on the same exchange."""
        for run in reversed(self._database.runs()):
            choice = json.loads(run.config_json).get("choice", {})
            if choice.get("environment") == self._choice.environment.name and choice.get("fees"):
                taker, maker = choice["fees"]
                return taker, maker
        return None

    def _market(self, found: Collection[str], books: Portfolio) -> LiveMarket:
        """found: what was held at the start; books: what is held now."""
        bybit = self._settings.bybit
        universe = Universe(
            self._settings.universe, bybit.newest_days, bybit.max_tokens, frozenset(self._choice.tokens)
        )
        return LiveMarket(
            self._choice.environment, self._rest, self._settings.market.sources, universe,
            self._inbox.put_nowait, MarketSettings(bybit.bar_minutes * MINUTE_MS, self._interval),
            held=lambda: {*found, *books.positions}, budget=ConnectionBudget(),
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

    async def _prepare(
        self, broker: BybitBroker | SimulatedBroker, market: LiveMarket, care: Care, breaker: Breaker,
        journal: Journal, view: LineView, stop: asyncio.Event,
    ) -> "Prepared | None":  # fmt: skip
        """Everything slow: the past, the model, the replay. None when stopped."""
        settings = self._settings
        if bare := await care.guarded(_GUARD_SECONDS):
            warn(self._console, [f"without a stop still, and tried again: {', '.join(bare)}"])
        followed = await market.open()
        if isinstance(broker, BybitBroker):
            tokens = [item.symbol for item in followed if item.symbol not in settings.market.sources]
            warn(self._console, await self._preparation.symbols(tokens))
        past = await self._past(followed)
        source = source_for(past.sources, settings, models_directory(settings))
        pretrained = await source_model(source, settings, self._console, stop)
        if pretrained is None or stop.is_set():
            return None
        models = {pretrained.model_id: pretrained}
        registry = Registry(models_directory(settings))
        worker = AdaptationWorker(
            registry.directory, pretrained.model_id, source.replay_path, settings.adaptation
        )
        candidates = Candidates(
            worker, registry, models, self._stored(pretrained, registry), faults_are_facts=True
        )
        strategy = TransferStrategy(settings, pretrained, models, past.earlier(settings, pretrained))
        balance = care.engine.portfolio.balance
        wiring = Wiring(
            self._rest, self._inbox, market, broker,
            engine_of(settings, strategy, breaker, balance, self._interval, self._started), journal, view,
            candidates, settings.adaptation.delay_bars * self._interval, control=self._control,
            flatten_at_stop=settings.live.on_stop == "flatten", opened=self._opened,
            tell_audit=self._tell_audit, log=care.log,
        )  # fmt: skip
        try:
            await self._replay(wiring, past, stop)
        except BaseException:
            worker.close()
            raise
        return Prepared(wiring, worker, followed, past)

    async def _trade(self, prepared: "Prepared", care: Care, stop: asyncio.Event) -> None:
        wiring = prepared.wiring
        try:
            wiring.engine.take_over(care.engine)
            if not stop.is_set():
                self._begin(wiring.market, prepared.followed, prepared.past)
                await wiring.live(stop)
            if self._control.killed is None:
                await self._audit(wiring)
        finally:
            prepared.worker.close()

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
        wiring.replaying = True
        wiring.runner.advance([EntriesBlocked(now, now, HISTORY, "the past is being replayed")])
        if past.market is not None:
            self._console.print(f"Replaying {past.market.title} …", highlight=False)
            await drive(wiring.runner, past.market.events(), stop, wiring.journal.commit, lambda _: None)
        wiring.replaying = False

    def _begin(self, market: LiveMarket, followed: Sequence[Instrument], past: "Past") -> None:
        """From the end of the past on, the market tells."""
        now = self._rest.clock.now_ms()
        for item in followed:
            market.follow(item, past.end_of(item))
        self._inbox.put_nowait(EntriesAllowed(now, now, HISTORY))

    # --- storage --------------------------------------------------------------------------------------------

    async def _breaker(self, opening: Opening) -> Breaker:
        """With what the account's earlier runs saw: no restart makes good a loss or ends a halt.

        What came or went since then, while a run was there or not, is neither gain nor loss.
        """
        risk, database = self._settings.risk, self._database
        breaker = Breaker(risk, float(opening.balance))
        if self._choice.credentials is None:
            return breaker
        runs = [run.id for run in self._earlier()]
        cleared, today = database.cleared(runs), self._started // DAY_MS * DAY_MS
        first = database.opening_equity(runs, max(cleared, today))
        highs = database.highs(runs, max(cleared, today - risk.rolling_days * DAY_MS))
        peak, halts = database.peak(runs, cleared), database.halts(runs)
        marks = [mark for mark in (first, peak, *highs.values()) if mark is not None]
        moved = []
        if marks:
            moved = await transfers(self._rest, min(mark.ts for mark in marks), opening.ts)

        def now_worth(mark: Mark) -> float:
            later = [line.change or 0 for line in moved if line.transaction_time > mark.ts]
            return mark.equity + float(sum(later))

        breaker.restore(
            self._started,
            now_worth(first) if first else None,
            {day: now_worth(mark) for day, mark in highs.items()},
            now_worth(peak) if peak else None,
            halts,
        )
        for halt in halts:
            if not halt.until or halt.until > self._started:
                end = "the next UTC day, or `bot resume`" if halt.until else "`bot resume`"
                warn(self._console, [f"an earlier run halted: {halt.reason}. No entries before {end}"])
        return breaker

    def _earlier(self) -> list[Run]:
        """The runs of this installation on this account, oldest first."""
        return [
            run
            for run in self._database.runs()
            if run.kind == self._choice.kind
            and json.loads(run.config_json)["choice"].get("account") == self._account_id
        ]

    def _journal(self) -> Journal:
        config = self._settings.model_dump(mode="json", exclude={"storage"})
        config["choice"] = {
            "environment": self._choice.environment.name, "tokens": self._choice.tokens,
            "account": self._account_id, "fees": self._fees,
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
            if isinstance(item, CandidateArrived) and registry.origin(item.model_id) == pretrained.model_id
        ]


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that the slow part of the start has made."""

    wiring: Wiring
    worker: AdaptationWorker
    followed: Sequence[Instrument]
    past: "Past"


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

    def earlier(self, settings: Settings, pretrained: Model) -> Iterable[LabelledSeries]:
        """What is on disk of tokens that are followed no more: the chain goes on learning from them."""
        return earlier_listings(settings, self.market, self.sources, pretrained) if self.market else ()

    def end_of(self, item: Instrument) -> int:
        return self.ends.get(item.symbol, item.launch_time)


def preparation_of(settings: Settings, rest: Rest) -> Preparation:
    bybit = settings.bybit
    return Preparation(
        rest, settings.market.sources[0], exact(bybit.leverage), bybit.margin_mode,
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
        RiskManager(settings.risk, settings.gate, settings.costs, breaker, live=True),
        breaker,
        Portfolio(balance),
        Orders(tag_of(started)),
        settings.risk,
        interval,
        settings.execution,
    )
