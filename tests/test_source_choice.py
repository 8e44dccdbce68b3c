"""The source model of a live run: one that is there, if it fits; and what a person must know of it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bot.market.bars import COLUMNS, BarTable
from bot.settings import Settings
from strategies.learning import shipped
from strategies.learning.champions import Champions
from strategies.learning.dataset import SourceReplay
from strategies.learning.pretraining_job import Pretraining
from strategies.learning.registry import Model, Registry
from strategies.learning.source_choice import KeptSource, misfit, source_for

STEP = 900_000
BARS = 1_600
SETTINGS = Settings()


def table(symbol: str, end: int, seed: int) -> BarTable:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.003, BARS)))
    opened = np.r_[100.0, close[:-1]]
    volume = np.exp(rng.normal(5, 0.5, BARS))
    columns = dict(
        zip(
            COLUMNS,
            (
                opened, np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999, close, volume,
                volume * close,
            ),
            strict=True,
        )
    )  # fmt: skip
    return BarTable(symbol, STEP, end - STEP * np.arange(BARS, 0, -1), **columns)


@pytest.fixture(scope="module")
def model() -> Model:
    return shipped.load()


@pytest.fixture(scope="module")
def tables(model: Model) -> list[BarTable]:
    """Bars of BTC and ETH, the last one a hundred days after what the shipped model has seen."""
    end = model.card.until + 100 * 96 * STEP
    return [table(symbol, end, seed) for seed, symbol in enumerate(model.card.symbols)]


def stored(registry: Registry, model: Model, **changes: object) -> str:
    return registry.save(model.weights, msgspec.structs.replace(model.card, **changes)).model_id


def chosen(tables: list[BarTable], directory: Path) -> str:
    found = source_for(tables, SETTINGS, directory)
    if isinstance(found, Pretraining):
        return "trained"
    kept = found.find()
    assert kept is not None
    return kept.model_id


def test_a_first_run_begins_with_the_shipped_model_and_its_own_statistics(model, tables, tmp_path):
    source = source_for(tables, SETTINGS, tmp_path)

    kept = source.find()

    assert kept is not None
    assert kept.model_id == model.model_id
    assert Registry(tmp_path).load(model.model_id).card == model.card, "the worker loads it from there"
    replay = SourceReplay.load(source.replay_path)
    assert [one.symbol for one in replay.series] == list(model.card.symbols)
    assert replay.series[0].x.shape[1] == len(model.card.columns) == model.card.architecture.features
    assert replay.horizon == SETTINGS.label.horizon_bars
    for one in replay.series:
        assert one.starts[0] < replay.cut < one.starts[-1], "rows to rehearse, and rows to measure forgetting"
    written = source.replay_path.stat().st_mtime_ns
    assert source.find() is not None
    assert source.replay_path.stat().st_mtime_ns == written, "made once"


def test_the_rows_are_normalised_by_the_models_statistics_and_not_by_the_bars(model, tables, tmp_path):
    """The first rows after the warm-up are shrunk most to the statistics: other ones, other rows."""
    first = source_for(tables, SETTINGS, tmp_path / "a")
    moved = msgspec.structs.replace(model.card, location=tuple(value + 1 for value in model.card.location))
    other = KeptSource(Model("0" * 16, model.weights, moved), tables, SETTINGS, Registry(tmp_path / "b"))

    ours, theirs = (SourceReplay.load(_made(job)).series[0].x for job in (first, other))

    assert not np.allclose(ours[0], theirs[0])


def _made(source) -> Path:
    source.find()
    return source.replay_path


def test_the_age_the_range_and_what_the_gate_will_say_are_told(model, tables, tmp_path):
    source = source_for(tables, SETTINGS, tmp_path)
    now = model.card.until + 160 * 96 * STEP  # of which the run replays sixty days

    text = source.told(model, now)

    assert "has seen BTCUSDT and ETHUSDT until 2026-01-01, 160 days ago" in text
    assert "pretrain again" in text
    assert "the gate asks for 60% (gate.source_accuracy)" in text
    assert "opens nothing" in text
    good = msgspec.structs.replace(model.card.metrics["accuracy_confident"], value=0.65)
    card = msgspec.structs.replace(model.card, metrics={**model.card.metrics, "accuracy_confident": good})
    assert "gate" not in source.told(Model(model.model_id, model.weights, card), now)


def test_a_newer_kept_model_wins_over_the_shipped_one_and_a_champion_over_both(model, tables, tmp_path):
    registry = Registry(tmp_path)
    older = stored(registry, model, until=model.card.until - 1, seed=2)
    assert chosen(tables, tmp_path) == model.model_id
    newer = stored(registry, model, until=model.card.until + 1, seed=3)
    assert chosen(tables, tmp_path) == newer
    Champions(registry).promote(older)
    assert chosen(tables, tmp_path) == older


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "adapted"}, "no source model"),
        ({"features": "000000000000"}, "other features"),
        ({"symbols": ("BTCUSDT",)}, "other sources"),
        ({"step": 300_000}, "other decision bars"),
        ({"horizon": 16}, "other labels"),
        ({"barrier_sigmas": 2.0}, "other labels"),
        ({"until": 10**14}, "has seen what the run replays"),
    ],
)
def test_a_model_that_does_not_fit_is_not_chosen(model, tables, tmp_path, changes, reason):
    card = msgspec.structs.replace(model.card, **changes)
    end = int(tables[0].start[-1]) + STEP
    assert reason in misfit(card, tables, SETTINGS, end)
    assert misfit(model.card, tables, SETTINGS, end) == ""
    Registry(tmp_path).save(model.weights, card)
    assert chosen(tables, tmp_path) == model.model_id


def test_other_settings_an_earlier_start_or_no_history_end_with_a_training(model, tables, tmp_path):
    wider = SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update={"channels": 16})})
    assert isinstance(source_for(tables, wider, tmp_path), Pretraining)
    nothing = [one.rows(slice(0, 0)) for one in tables]
    assert isinstance(source_for(nothing, SETTINGS, tmp_path), Pretraining), "it says what is missing"
    early = [replace(one, start=one.start - 200 * 96 * STEP) for one in tables]
    assert isinstance(source_for(early, SETTINGS, tmp_path), Pretraining)


def test_a_damaged_one_is_passed_over(model, tables, tmp_path):
    registry = Registry(tmp_path)
    newer = stored(registry, model, until=model.card.until + 1)
    Champions(registry).promote(newer)
    path = tmp_path / f"{newer}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert chosen(tables, tmp_path) == model.model_id


def test_choosing_does_not_load_torch():
    script = "import sys, strategies.learning.source_choice; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0
