"""Runs on Bybit: testnet, demo and live, and paper money on its market. Puts the parts together.

The past comes through the same events as in a backtest, the present through `bot.engine.live`. What we hold
is what the exchange says; why is in the journal of the runs. Each start is a run of its own. What is found
held is looked after from the first second (`bot.care`), long before the past and the model are there.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from bot.app import models_directory, source_model, summary
from bot.care import Care, NoStrategy
from bot.control import Control, commanded
from bot.core.errors import BotError
from bot.core.events import (
    HISTORY,
    OPERATOR,
    AdaptationFailed,
    CandidateArrived,
    EntriesAllowed,
    EntriesBlocked,
    Event,
)
from bot.core.types import MINUTE_MS, Instrument
from bot.dashboard.audit_table import audit_table
from bot.dashboard.lines import LineView
from bot.ending import LEAVE_SECONDS
from bot.engine.candidates import Candidates
from bot.engine.driver import drive
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.audit import Line
from bot.exchange.bybit.broker import BybitBroker
from bot.exchange.bybit.errors import ExchangeError
from bot.exchange.bybit.live_market import LiveMarket
from bot.exchange.bybit.reconciliation import Opening
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.streams.connection import first_to_end
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import SALTS, Orders, tag_of
from bot.live.account import (
    bybit_broker,
    earlier_runs,
    known_fees,
    ownership_of,
    paper_broker,
    with_fees,
)
from bot.live.memory import Memory
from bot.live.parts import Choice, engine_of, journal_of, market_of, preparation_of, warn
from bot.live.past import Past, download_past
from bot.settings import Settings
from bot.storage.database import Database
from bot.storage.journal import Journal
from bot.storage.mailbox import Request
from bot.wiring import Wiring, watch_clock
from risk.breaker import Breaker
from strategies.learning.registry import Model, Registry
from strategies.learning.source_choice import source_for
from strategies.learning.worker import AdaptationWorker
from strategies.transfer import TransferStrategy

_AUDIT_SECONDS: Final = 3.0
_GUARD_SECONDS: Final = 10.0  # for positions that are found without a stop, before anything slow begins
_GIVE_UP_SECONDS: Final = 0.5  # after a stop, for what is being prepared


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
        self._salt = secrets.randbelow(SALTS)
        self._earlier = earlier_runs(database, choice.kind, account)
        self._owners = ownership_of(settings, database, self._earlier, self._started)
        self._preparation = preparation_of(settings, rest, self._owners)
        self._fees: tuple[float, float] | None = None  # taker and maker, as the exchange says
        self._books: Portfolio | None = None  # of the account, when it is in our care

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
            journal = journal_of(
                self._settings, self._choice, self._account_id, self._fees, self._database, self._started,
                self._salt,
            )  # fmt: skip
            try:
                view = LineView(float(opening.balance), self._console)
                await self._watched(broker, opening, journal, view, stop)
            except BaseException as error:
                journal.interrupt()
                if isinstance(error, BotError):
                    warn(self._console, self._unattended())
                raise
            journal.finish(summary(view.state))
        finally:
            if isinstance(broker, BybitBroker):
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEAVE_SECONDS):
                        await broker.settled()
                await broker.close()

    def _unattended(self) -> list[str]:
        """What is held at the end of a run that fails, for people."""
        held = self._books.positions.values() if self._books is not None else ()
        stops = [
            f"{item.symbol} {item.qty:+f} "
            + (f"with its stop at {item.stop:f}" if item.stop else "WITHOUT A STOP")
            for item in held
        ]
        if not stops:
            return []
        return [f"nobody looks after {', '.join(stops)} until the bot is started again, or `bot flatten`"]

    async def _watched(
        self, broker: BybitBroker | SimulatedBroker, opening: Opening, journal: Journal, view: LineView,
        stop: asyncio.Event,
    ) -> None:  # fmt: skip
        """Prepare, with the account in care meanwhile; then trade."""
        risk = self._settings.risk
        breaker, books = Breaker(risk, float(opening.balance)), Portfolio(opening.balance, opening.ledger)
        orders = Orders(tag_of(self._started, self._salt))
        if isinstance(broker, BybitBroker):
            memory = Memory(risk, self._database, self._earlier, self._started, self._owners)
            for told in await memory.restore(self._rest, opening, breaker, books, orders, self._console):
                journal.write(told)
                view.apply(told)
            self._books = books
            if memory.unseen:  # before any request: a resume that waits ends it
                self._inbox.put_nowait(EntriesBlocked(self._started, self._started, OPERATOR, memory.unseen))
        for request in self._control.opening():
            self._deliver(request)
        engine = engine_of(self._settings, NoStrategy(), breaker, books, orders, self._interval)
        market = market_of(self._settings, self._choice, self._rest, self._inbox, opening.positions, books)
        care = Care(
            engine, broker, self._inbox, journal, (view.apply, self._control.apply), self._rest.clock.now_ms
        )
        watching: list[Coroutine[Any, Any, None]] = []
        if isinstance(broker, BybitBroker):
            tradable = await market.tradable()
            care.begin(item for name, item in tradable.items() if name in opening.positions)
            watching = [care.run(), broker.run(), watch_clock(self._rest, self._inbox)]
        prepared: Prepared | None = await first_to_end(
            self._prepare(broker, market, care, breaker, journal, view, stop), _given_up(stop), *watching
        )
        if prepared is not None and not stop.is_set():
            await self._trade(prepared, care, stop)
            return
        if prepared is not None:
            prepared.worker.close()
        if isinstance(broker, BybitBroker) and self._control.killed is None:
            ending = care.ending(self._rest, broker)
            if self._settings.live.on_stop == "flatten":
                await ending.flatten()
            await self._audit(ending.look(self._opened))

    async def _account(self) -> tuple[BybitBroker | SimulatedBroker, Opening]:
        """The broker, and the account as it is found; its fees are those of the run."""
        choice = self._choice
        if choice.credentials is None:
            self._fees = known_fees(self._database, choice.environment)
            self._settings = with_fees(self._settings, self._fees)
            return paper_broker(self._settings, self._started)
        warn(self._console, await self._preparation.account())
        self._fees = self._preparation.fees
        self._settings = with_fees(self._settings, self._fees)
        broker, opening = await bybit_broker(
            self._settings, choice.environment, choice.credentials, self._rest, self._inbox.put_nowait,
            self._preparation, self._owners, self._console,
        )  # fmt: skip
        self._opened = opening.ts
        return broker, opening

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
        past = await download_past(settings, self._rest, self._data, followed, self._console)
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
        books = Portfolio(care.engine.portfolio.balance)  # of the past; the account's are taken over
        wiring = Wiring(
            self._rest, self._inbox, market, broker,
            engine_of(settings, strategy, breaker, books, Orders(), self._interval), journal, view,
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
            prepared.worker.limit(self._settings.live.adaptation_seconds)
            self._begin(wiring.market, prepared.followed, prepared.past)
            await wiring.live(stop)
            if self._control.killed is None:
                await self._audit(wiring.close())
        finally:
            prepared.worker.close()

    async def _audit(self, last_look: Coroutine[Any, Any, Sequence[Line]]) -> None:
        with suppress(ExchangeError, TimeoutError):
            async with asyncio.timeout(_AUDIT_SECONDS):
                lines = await last_look
            if lines:
                self._tell_audit(lines)

    def _tell_audit(self, lines: Sequence[Line]) -> None:
        self._console.print(audit_table(lines))

    async def _replay(self, wiring: Wiring, past: Past, stop: asyncio.Event) -> None:
        """The past, without entries."""
        now = self._rest.clock.now_ms()
        wiring.replaying = True
        wiring.runner.advance([EntriesBlocked(now, now, HISTORY, "the past is being replayed")])
        if past.market is not None:
            self._console.print(f"Replaying {past.market.title} …", highlight=False)
            await drive(wiring.runner, past.market.events(), stop, wiring.journal.commit, lambda _: None)
        wiring.replaying = False

    def _begin(self, market: LiveMarket, followed: Sequence[Instrument], past: Past) -> None:
        """From the end of the past on, the market tells."""
        now = self._rest.clock.now_ms()
        for item in followed:
            market.follow(item, past.end_of(item))
        self._inbox.put_nowait(EntriesAllowed(now, now, HISTORY))

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


async def _given_up(stop: asyncio.Event) -> None:
    """A stop does not wait for a download."""
    await stop.wait()
    await asyncio.sleep(_GIVE_UP_SECONDS)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that the slow part of the start has made."""

    wiring: Wiring
    worker: AdaptationWorker
    followed: Sequence[Instrument]
    past: Past
