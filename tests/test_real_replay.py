"""Two real listings of 2025 through the engine, with the adaptations made in this process.

The source model is the shipped one; that it has seen later bars is no matter for what is asked here: the same
bars give the same run, and a bar knows nothing of what follows it.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bot.app import _engine
from bot.core.commands import AdaptModel, Command, ExtendChain
from bot.core.events import AdaptationFailed, BarClosed, CandidateArrived, Event
from bot.core.records import DecisionMade, LabelMatured, Record
from bot.core.types import DAY_MS, MINUTE_MS
from bot.engine.candidates import Candidates
from bot.engine.runner import Runner, moments
from bot.exchange.recorded import RecordedMarket
from bot.exchange.simulated.broker import SimulatedBroker
from bot.settings import Settings
from strategies.learning import shipped, sources
from strategies.learning.adaptation_job import Adapting
from strategies.learning.dataset import SourceReplay
from strategies.learning.registry import Registry
from strategies.transfer import TransferStrategy

KLINES = Path(__file__).parents[2] / "shared" / "data" / "klines" / "binance-usdm"
TOKENS = ["MUSDT", "PUMPUSDT"]
DAYS = 8
QUARTER = 15 * MINUTE_MS
pytestmark = [
    pytest.mark.skipif(not KLINES.exists(), reason=f"recorded market data is not at {KLINES}"),
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,
]

SETTINGS = Settings(
    adaptation={
        "first_bars": 160, "every_bars": 96, "drift_check_bars": 48, "steps": 10, "gentle_steps": 5,
        "chain_labels": 30, "chain_tail_days": 1, "chain_every_days": 2, "chain_steps": 5,
    },
    risk={"min_move_costs": 0},
    gate={"similarity": 0.01, "effective_labels": 1, "evidence": 1.00001, "full_evidence": 1.1,
          "source_accuracy": 0.500001, "confidence": 0.501, "probation_blocks": 2},
)  # fmt: skip


class Here:
    """Adapts in this process, at once, and looks at every snapshot."""

    def __init__(self, adapting: Adapting) -> None:
        self._adapting = adapting
        self._done: dict[tuple[str, int], Callable[[int], CandidateArrived | AdaptationFailed]] = {}
        self.jobs: list[AdaptModel | ExtendChain] = []

    def poll(self) -> None: ...

    def submit(self, job: AdaptModel | ExtendChain) -> None:
        self.jobs.append(job)
        assert (job.starts + QUARTER <= job.cut).all(), "a row of a bar that had not closed"
        model_id, report = self._adapting.run(job)
        report = msgspec.structs.replace(report, seconds=0.0)
        symbol, cut = job.symbol, job.cut
        self._done[symbol, cut] = lambda due: CandidateArrived(due, due, symbol, model_id, cut, report)

    def take(self, symbol: str, cut: int, due: int) -> CandidateArrived | AdaptationFailed | None:
        return self._done.pop((symbol, cut))(due)


class Notes:
    """The journal: everything that was said."""

    def __init__(self) -> None:
        self.said: list[Event | Command | Record] = []

    def write(self, message: Event | Command | Record) -> None:
        self.said.append(message)

    def commit(self) -> None: ...

    def of(self, kind: type, until: int) -> list[bytes]:
        return [msgspec.json.encode(one) for one in self.said if isinstance(one, kind) and one.ts <= until]


class Replay:
    """A run over the listings; `change` turns a bar into another one."""

    def __init__(self, directory: Path, end: int = 0, change: Callable[[BarClosed], BarClosed] = lambda b: b):
        market = RecordedMarket(
            KLINES, SETTINGS.market.sources, TOKENS, decision_interval_ms=QUARTER, costs=SETTINGS.costs,
            start=None, funding_directory=None, days_per_token=DAYS, warmup_days=0,
        )  # fmt: skip
        model = shipped.load()
        registry = Registry(directory / "models")
        assert registry.save(model.weights, model.card).model_id == model.model_id
        history = [market.history(name).between(market.start - 40 * DAY_MS, market.start)
                   for name in SETTINGS.market.sources]  # fmt: skip
        card = model.card
        built = sources.build(history, SETTINGS.label, card.statistics, card.columns)
        past = SourceReplay(tuple(built.series), market.start - 8 * DAY_MS, SETTINGS.label.horizon_bars)
        past.save(directory / "replay.npz")
        self.adapter = Here(
            Adapting(registry.directory, model.model_id, directory / "replay.npz", SETTINGS.adaptation)
        )
        models = {model.model_id: model}
        self.notes = Notes()
        self.start, self.end = market.start, end or market.end
        runner = Runner(
            _engine(SETTINGS, TransferStrategy(SETTINGS, model, models)),
            SimulatedBroker(SETTINGS.costs, market.half_spread, Decimal(10_000)),
            Candidates(self.adapter, registry, models, []),  # type: ignore[arg-type]
            self.notes,
            SETTINGS.adaptation.delay_bars * QUARTER,
        )
        for moment in moments(self._until(market.events())):
            assert not runner.is_waiting(moment[0].ts)
            runner.advance([change(one) if isinstance(one, BarClosed) else one for one in moment])

    def _until(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if event.ts > self.end:
                return
            yield event


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Replay:
    return Replay(tmp_path_factory.mktemp("whole"))


def same_until(one: Replay, other: Replay, until: int) -> None:
    for kind in (DecisionMade, LabelMatured, CandidateArrived):
        said = one.notes.of(kind, until)
        assert said == other.notes.of(kind, until)
        assert said


def test_the_run_adapts_and_trades_so_that_the_rest_says_something(whole):
    kinds = {type(job) for job in whole.adapter.jobs}
    assert kinds == {AdaptModel, ExtendChain}
    arms = {arm for one in whole.notes.said if isinstance(one, LabelMatured) for arm in one.p_up}
    assert arms >= {"frozen", "chain", "adapted", "scratch", "ensemble", "base"}
    assert len({one.arm for one in whole.notes.said if isinstance(one, DecisionMade)}) > 1


def test_two_runs_are_identical(whole, tmp_path):
    again = Replay(tmp_path)
    same_until(whole, again, whole.end)
    assert [job.summary() for job in whole.adapter.jobs] == [job.summary() for job in again.adapter.jobs]


def test_predictions_are_the_same_bits_when_the_feed_ends_after_them(whole, tmp_path):
    end = whole.start + 6 * DAY_MS + 5 * QUARTER
    same_until(whole, Replay(tmp_path, end), end)


def test_what_comes_later_is_in_no_prediction_and_no_label_before_it_is_known(whole, tmp_path):
    """After the cut every price is ten times as high or a tenth: labels that mature later are all others."""
    cut = whole.start + 5 * DAY_MS + 3 * QUARTER

    def poisoned(bar: BarClosed) -> BarClosed:
        if bar.start < cut:
            return bar
        factor = 10.0 if (bar.start // QUARTER) % 2 else 0.1
        changed = {name: factor * getattr(bar, name) for name in ("open", "high", "low", "close")}
        return msgspec.structs.replace(bar, **changed)

    other = Replay(tmp_path, whole.start + 6 * DAY_MS, poisoned)
    same_until(whole, other, cut)
    matured = [
        {one.bar_start: one.ret for one in run.notes.said if isinstance(one, LabelMatured) and one.ts > cut}
        for run in (whole, other)
    ]
    shared = matured[0].keys() & matured[1].keys()
    assert shared
    differ = np.mean([matured[0][start] != matured[1][start] for start in shared])
    assert differ > 0.9
