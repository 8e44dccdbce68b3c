"""Builds the objects, wires them and runs them: the only place that knows all the rooms."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from rich.console import Console

from bot.control import Control, Wishes
from bot.core.errors import BotError, RuntimeFault, UsageError
from bot.core.money import exact
from bot.core.types import MINUTE_MS
from bot.dashboard.progress import WorkProgress
from bot.dashboard.state import DashboardState
from bot.dashboard.terminal import TerminalView
from bot.dashboard.wording import money
from bot.engine.candidates import Candidates
from bot.engine.driver import STOP_SECONDS, at_speed, drive, stopped_by_signals
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.market import HistoricalMarket
from bot.exchange.recorded import RecordedMarket, discover
from bot.exchange.simulated.broker import SimulatedBroker
from bot.exchange.simulated.market import SimulatedMarket
from bot.execution.orders import Orders
from bot.market.bars import BarTable
from bot.settings import Settings
from bot.storage import barfiles
from bot.storage.database import Database, Run, config_hash
from bot.storage.journal import Journal
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.learning import sources
from strategies.learning.champions import Champions
from strategies.learning.dataset import LabelledSeries
from strategies.learning.pretraining_job import Pretraining
from strategies.learning.registry import Model, Registry
from strategies.learning.source_choice import SourceJob
from strategies.learning.worker import AdaptationWorker
from strategies.transfer import TransferStrategy

T = TypeVar("T")


# --- the commands ------------------------------------------------------------------------------------------


def run_paper(settings: Settings, recorded: Mapping[str, Any] | None, *, fresh: bool, speed: float) -> None:
    """Paper trading: resumes the stored run of this market, or starts one."""
    market = _market(settings, recorded)
    with Database.open(settings.storage.target) as database:
        stored = None if fresh else database.latest("paper", market.title)
        config = _config_json(settings, recorded, market)
        if stored is not None:
            _check_same(stored, config, settings.storage.option)
            if stored.state == "finished":
                _show_finished(stored, settings, database)
                return
        control = Control(database, "paper", option=settings.storage.option)
        control.begin()
        _run(settings, market, database, "paper", config, stored, speed, control)


def run_backtest(settings: Settings, recorded: Mapping[str, Any] | None) -> None:
    """The same run from the beginning, without waiting for anything."""
    market = _market(settings, recorded)
    with Database.open(settings.storage.target) as database:
        _run(settings, market, database, "backtest", _config_json(settings, recorded, market), None, 0.0)


def run_pretrain(
    settings: Settings, data: Path | None, until: int | None, export: Path | None = None
) -> None:
    """Pretrain on the sources alone and print the model's card. export: where to write a copy."""
    sources, interval = settings.market.sources, settings.market.decision_minutes * MINUTE_MS
    models = settings.storage.models(simulated=data is None)
    if data is None:
        market = SimulatedMarket.of(settings)
        tables = [market.history(name) for name in sources]
    else:
        tables = [barfiles.read(barfiles.find(data, name, interval)) for name in sources]
    if until is not None:
        tables = [table.between(int(table.start[0]), until) for table in tables]
    console = Console()
    job = Pretraining([table.resampled(interval) for table in tables], settings, models)
    model = asyncio.run(with_stop(lambda stop: source_model(job, settings, console, stop)))
    if model is not None:
        console.print(msgspec.json.format(msgspec.json.encode(model.card)).decode(), highlight=False)
        if data is not None:
            Champions(Registry(models)).promote(model.model_id)
        if export is not None:
            Registry(export).save(model.weights, model.card)
        console.print(f"Kept as {model.model_id} in {models}", highlight=False)


def run_report(
    settings: Settings, run_id: int | None, output: Path | None, listings: Path | None = None
) -> None:
    """Write the report of a stored run again. listings: the bars of its tokens, for a table by their age."""
    with Database.open(settings.storage.target, readonly=True) as database:
        runs = database.runs()
        if not runs:
            raise UsageError("no run is stored yet; `bot paper` makes one")
        run = runs[-1] if run_id is None else next((run for run in runs if run.id == run_id), None)
        if run is None:
            raise UsageError(f"there is no run {run_id}; stored are {', '.join(str(run.id) for run in runs)}")
        path = _report(settings, database, run, output)
        if listings is not None:
            from bot.research.listings_table import lines, rows_of  # here: trees and tables take a second
            from bot.research.report_data import load

            data, models = load(database, run.id), settings.storage.models(simulated=run.simulated)
            for line in lines(rows_of(data, listings, models), data):
                Console(highlight=False).print(line, soft_wrap=True, markup=False)
    _show(run, path)


# --- one run -----------------------------------------------------------------------------------------------


def _run(
    settings: Settings,
    market: HistoricalMarket,
    database: Database,
    kind: str,
    config: str,
    stored: Run | None,
    speed: float,
    control: Control | None = None,
) -> None:
    """`control`: what a person may tell the run by; None for a backtest, which hears nobody."""
    console = Console()
    for note in market.notes:
        console.print(f"Note: {note}", highlight=False, soft_wrap=True)
    models = settings.storage.models(simulated=market.simulated)
    pretraining = Pretraining(_histories(settings, market), settings, models)
    view = TerminalView(
        market.title,
        simulated=market.simulated,
        start=market.start,
        end=market.end,
        balance=settings.account.initial_balance,
        console=console,
    )

    wishes = Wishes(control)

    async def session(stop: asyncio.Event) -> bool | None:
        pretrained = await source_model(pretraining, settings, console, stop)
        if pretrained is None:
            return None
        journal = _journal(database, stored, kind, market, settings, config)
        if stored is not None:
            console.print(f"Resuming run {stored.id}: replaying what is stored …", highlight=False)
        return await _trade(
            settings, market, database, journal, pretrained, pretraining, view, speed, wishes, stop
        )

    async def controlled(stop: asyncio.Event) -> bool | None:
        async with wishes.serving():
            return await session(stop)

    finished = asyncio.run(with_stop(controlled))
    if control is not None:
        control.require_alive()
    if finished is None:
        console.print("Stopped before the run began; nothing was traded.")
        raise KeyboardInterrupt
    run = database.latest(kind, market.title)
    assert run is not None
    if not finished:
        view.summary("stopped; the next start goes on from here")
        raise KeyboardInterrupt
    try:
        report = _report(settings, database, run, None)
    except BotError:
        view.summary("finished, but without its report")
        raise
    view.summary("finished", report)


async def _trade(
    settings: Settings,
    market: HistoricalMarket,
    database: Database,
    journal: Journal,
    pretrained: Model,
    pretraining: Pretraining,
    view: TerminalView,
    speed: float,
    wishes: Wishes,
    stop: asyncio.Event,
) -> bool:
    """Whether the run came to its end; on the way out nothing is lost."""
    models = {pretrained.model_id: pretrained}
    registry = Registry(settings.storage.models(simulated=market.simulated))
    worker = AdaptationWorker(
        registry.directory, pretrained.model_id, pretraining.replay_path, settings.adaptation
    )
    candidates = Candidates(worker, registry, models, database.candidates(journal.run_id))
    interval = settings.market.decision_minutes * MINUTE_MS
    earlier = earlier_listings(settings, market, _histories(settings, market), pretrained)
    engine = _engine(settings, TransferStrategy(settings, pretrained, models, earlier))
    heard = wishes.begin(engine, database.operator(journal.run_id), lambda: journal.replaying)
    runner = Runner(
        engine,
        SimulatedBroker(settings.costs, market.half_spread, _balance(settings)),
        candidates,
        journal,
        settings.adaptation.delay_bars * interval,
        (view.apply, *heard),
    )
    try:
        with view:
            pace = at_speed(speed, lambda: journal.replaying)
            finished = await drive(runner, market.events(), stop, journal.commit, view.tick, pace, wishes.at)
            if finished:
                view.tick(market.end)
    except BaseException:
        with suppress(RuntimeFault):  # a full disk; the next start sees that the run was interrupted
            journal.interrupt()
        raise
    finally:
        worker.close()
    if finished:
        journal.finish(summary(view.state))
        wishes.finish()
    else:
        journal.interrupt()
    return finished


def _engine(settings: Settings, strategy: TransferStrategy) -> Engine:
    breaker = Breaker(settings.risk, settings.account.initial_balance)
    return Engine(
        strategy,
        RiskManager(settings.risk, settings.gate, settings.costs, breaker),
        breaker,
        Portfolio(_balance(settings)),
        Orders(),
        settings.risk,
        settings.market.decision_minutes * MINUTE_MS,
        settings.execution,
    )


# --- parts -------------------------------------------------------------------------------------------------


def summary(state: DashboardState) -> dict[str, float]:
    return {
        "equity": state.equity,
        "profit": state.profit,
        "fees": state.fees,
        "funding": state.funding,
        "worst_drawdown": state.worst_drawdown,
        "fills": state.fills,
    }


async def with_stop(
    body: Callable[[asyncio.Event], Coroutine[Any, Any, T]], seconds: float = STOP_SECONDS
) -> T:
    """Run `body` with an event that Ctrl-C and SIGTERM set; it has `seconds` to end after that."""
    stop = asyncio.Event()
    with stopped_by_signals(stop, seconds):
        return await body(stop)


async def source_model(
    job: SourceJob, settings: Settings, console: Console, stop: asyncio.Event
) -> Model | None:
    """The source model: kept from an earlier run, or trained now in a child process; None when stopped."""
    kept = await asyncio.to_thread(job.find)  # it may compute features of a year of bars
    if kept is not None:
        console.print(job.told(kept, int(time.time() * 1_000)), highlight=False, soft_wrap=True)
        return kept
    if job.replay_path.exists():
        console.print(
            "The source model of these bars is not whole (damaged, or stopped in training): made again"
        )
    epochs = settings.model.epochs
    with WorkProgress("pretraining", epochs, console) as progress:

        def on_epoch(done: int, loss: float, tail_loss: float) -> None:
            progress.reached(done, f"epoch {done} of {epochs}  loss {loss:.4f}  tail {tail_loss:.4f}")

        return await job.run(stop, on_epoch)


def _journal(
    database: Database,
    stored: Run | None,
    kind: str,
    market: HistoricalMarket,
    settings: Settings,
    config: str,
) -> Journal:
    if stored is not None:
        return Journal.resume(database, stored.id, durable=False)
    return Journal.start(
        database,
        kind=kind,
        title=market.title,
        simulated=market.simulated,
        config_json=config,
        seed=settings.simulation.seed,
        started=int(time.time() * 1000),
        start_ts=market.start,
        end_ts=market.end,
        durable=False,  # no order leaves this machine: what a power cut takes, the replay makes again
    )


def _market(settings: Settings, recorded: Mapping[str, Any] | None) -> HistoricalMarket:
    if recorded is None:
        return SimulatedMarket.of(settings)
    directory, sources = recorded["directory"], settings.market.sources
    interval = settings.market.decision_minutes * MINUTE_MS
    tokens = recorded["tokens"] or [found.symbol for found in discover(directory, sources, interval)]
    return RecordedMarket(
        directory,
        sources,
        tokens,
        decision_interval_ms=interval,
        costs=settings.costs,
        start=recorded["start"],
        funding_directory=recorded["funding"],
        days_per_token=recorded["days"],
        warmup_days=0,
    )


def _report(settings: Settings, database: Database, run: Run, output: Path | None) -> Path:
    from bot.reporting import write  # here: a process that trades has no use for 70 MB of charts and tables

    return write(database, run, output or _report_path(settings, run))


def _report_path(settings: Settings, run: Run) -> Path:
    return settings.storage.directory / "reports" / f"{run.kind}-{run.id}.html"


def _config_json(settings: Settings, recorded: Mapping[str, Any] | None, market: HistoricalMarket) -> str:
    """What the run depends on: the settings (not where things are kept), the recorded market's choice and
    what had to be inferred or left out of it."""
    config = settings.model_dump(mode="json", exclude={"storage", "exchange", "live"})
    if recorded is not None:
        config["recorded"] = {
            name: value if value is None else str(value) for name, value in recorded.items()
        }
        config["recorded"]["notes"] = market.notes
    return json.dumps(config, sort_keys=True)


def _check_same(stored: Run, config: str, option: str) -> None:
    """Raises UsageError with the keys that differ if the stored run was made with another configuration.

    option: of the command line, by which its database is found.
    """
    if stored.config_hash == config_hash(config):
        return
    old, new = json.loads(stored.config_json), json.loads(config)
    changed = {
        f"{section}.{key}": (was, now)
        for section in sorted(old.keys() | new.keys())
        for key in sorted(old.get(section, {}).keys() | new.get(section, {}).keys())
        if (was := old.get(section, {}).get(key)) != (now := new.get(section, {}).get(key))
    }
    finished = stored.state == "finished"
    wish, back = "see it" if finished else "go on with it", "undo the change"
    if stored.simulated and changed.keys() <= {"simulation.days", "simulation.seed"}:
        given = (f" --{key.partition('.')[2]} {was}" for key, (was, _) in changed.items())
        back = f"type `bot paper{''.join(given)}{option}`"
    raise UsageError(
        f"run {stored.id} of this market is {'finished' if finished else 'not finished'}, "
        "and was made with other settings:\n"
        + "".join(f"  {key}: {was} -> {now}\n" for key, (was, now) in changed.items())
        + f"begin a new one with --fresh (make fresh), or {back} to {wish}"
    )


def _show_finished(run: Run, settings: Settings, database: Database) -> None:
    """Its results; the report is written again when it is not there (Ctrl-C or a full disk took it)."""
    path = _report_path(settings, run)
    if not path.exists():
        _report(settings, database, run, None)
    _show(run, path)
    Console().print("Start a new run with --fresh (make fresh).", highlight=False)


def _show(run: Run, report: Path) -> None:
    console = Console(highlight=False)
    console.print(f"Run {run.id} ({run.kind}, {run.title}) is {run.state}.", soft_wrap=True)
    for name, value in (run.summary_json or {}).items():
        if name == "worst_drawdown":
            console.print(f"  {'deepest drawdown':<20} {value:,.2%}")
        else:
            console.print(f"  {name:<20} {value:,.0f}" if name == "fills" else f"  {name:<20} {money(value)}")
    console.print(f"Report {report}", soft_wrap=True)


def _histories(settings: Settings, market: HistoricalMarket) -> list[BarTable]:
    interval = settings.market.decision_minutes * MINUTE_MS
    return [market.history(name).resampled(interval) for name in settings.market.sources]


def earlier_listings(
    settings: Settings, market: HistoricalMarket, references: Sequence[BarTable], pretrained: Model
) -> Iterator[LabelledSeries]:
    """What was known of the listings before the run: the chain learns from them from its first day on.

    references: decision bars of the sources up to the start of the run
    """
    plan, card = settings.adaptation, pretrained.card
    tables = market.earlier(plan.chain_tokens, plan.chain_days) if plan.chain_tokens else []
    interval = settings.market.decision_minutes * MINUTE_MS
    return sources.listings(
        (table.resampled(interval) for table in tables), references, card.statistics, card.columns,
        settings.label,
    )  # fmt: skip


def _balance(settings: Settings) -> Decimal:
    return exact(settings.account.initial_balance)
