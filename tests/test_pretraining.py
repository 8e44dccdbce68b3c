"""Pretraining: learns what there is, says honestly how much, and refuses data that teach nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bot import settings
from bot.core.errors import DataError, TrainingFailed
from strategies.learning.encoder import Encoder
from strategies.learning.pretraining import Pretrained, Progress, pretrain
from strategies.learning.sequences import Sequences
from tests.controls import HORIZON, World

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = settings.Model(channels=12, blocks=3, pool_bars=4, embedding=8, epochs=8, min_source_bars=500)
WORLD = World(0)
SOURCES = [WORLD.series("A", 2500, "source", 0), WORLD.series("B", 2500, "source", 0)]


@pytest.fixture(scope="module")
def run() -> tuple[Pretrained, list[Progress]]:
    progress: list[Progress] = []
    return pretrain(SOURCES, SMALL, HORIZON, 1, progress.append), progress


def test_it_learns_the_direction_and_the_volatility(run):
    trained, _ = run
    fresh = WORLD.series("A", 3000, "source", 9)
    encoder = Encoder.from_weights(trained.weights, trained.architecture)
    measured = Sequences([fresh], encoder.receptive_field - 1).measure(encoder)
    known = np.isfinite(measured.logit)

    assert np.mean((measured.logit > 0)[known] == fresh.y[known]) > 0.78
    assert np.corrcoef(measured.log_vol[known], fresh.log_vol[known])[0, 1] > 0.8


def test_the_metrics_agree_with_data_that_it_never_saw(run):
    trained, _ = run
    accuracy, confident = trained.metrics["accuracy"], trained.metrics["accuracy_confident"]

    assert accuracy.low < 0.84 < accuracy.high
    assert confident.value > accuracy.value
    assert trained.metrics["skill"].low > 0
    assert trained.metrics["auc"].value > 0.85


def test_the_effective_number_of_labels_counts_overlap(run):
    trained, _ = run
    reported_rows = 0.15 / 2 * sum(len(one) for one in SOURCES)

    assert trained.metrics["accuracy"].n == pytest.approx(reported_rows / HORIZON, rel=0.1)


def test_progress_is_told_after_every_epoch(run):
    trained, progress = run

    assert [at.epoch for at in progress] == list(range(1, len(progress) + 1))
    assert progress[0].epochs == SMALL.epochs
    assert progress[-1].loss < progress[0].loss
    best = min(progress, key=lambda at: at.validation_loss)
    assert trained.epochs == best.epoch


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(run):
    trained, _ = run
    state = torch.get_rng_state()

    again = pretrain(SOURCES, SMALL, HORIZON, 1)

    assert torch.equal(torch.get_rng_state(), state)
    for name, array in trained.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    assert again.metrics == trained.metrics


def test_an_interrupted_training_goes_on_where_it_was_and_reaches_the_same_bits(run, tmp_path):
    whole, _ = run
    path = tmp_path / "unfinished.pt"

    def interrupt(at: Progress) -> None:
        if at.epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(SOURCES, SMALL, HORIZON, 1, interrupt, path)
    assert path.exists()
    told: list[Progress] = []
    resumed = pretrain(SOURCES, SMALL, HORIZON, 1, told.append, path)

    assert told[0].epoch == 4
    assert not path.exists()
    assert resumed.epochs == whole.epochs
    for name, weight in whole.weights.items():
        np.testing.assert_array_equal(resumed.weights[name], weight)


def test_a_damaged_remainder_begins_the_training_anew(tmp_path):
    path = tmp_path / "unfinished.pt"
    path.write_bytes(b"PK damaged")
    told: list[Progress] = []

    pretrain(SOURCES, SMALL.model_copy(update={"epochs": 1}), HORIZON, 1, told.append, path)

    assert told[0].epoch == 1


def test_another_seed_gives_other_weights(run):
    trained, _ = run

    other = pretrain(SOURCES, SMALL.model_copy(update={"epochs": 1}), HORIZON, 2)

    assert not np.array_equal(other.weights["input.weight"], trained.weights["input.weight"])


def test_nothing_after_the_cut_reaches_the_weights():
    """Labels and features of the second half of the tail are rewritten: only the report may change."""
    once = SMALL.model_copy(update={"epochs": 2})
    trained = pretrain(SOURCES, once, HORIZON, 1)
    late = slice(int(2500 * (1 - 0.15 / 2)) + HORIZON + 1, None)

    def poisoned(series):
        x, y = series.x.copy(), series.y.copy()
        x[late], y[late] = 10 * x[late], 1 - y[late]
        return replace(series, x=x, y=y)

    again = pretrain([poisoned(one) for one in SOURCES], once, HORIZON, 1)

    for name, array in trained.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)
    assert again.temperature == trained.temperature
    assert again.metrics != trained.metrics


def test_shuffled_labels_teach_nothing():
    rng = np.random.default_rng(0)
    shuffled = [replace(one, y=rng.permutation(one.y)) for one in SOURCES]

    metrics = pretrain(shuffled, SMALL.model_copy(update={"epochs": 4}), HORIZON, 1).metrics

    assert metrics["accuracy"].low < 0.5 < metrics["accuracy"].high
    assert metrics["auc"].low < 0.5 < metrics["auc"].high
    assert metrics["skill"].value < 0.02


def test_the_temperature_calibrates(run):
    trained, _ = run

    assert 0.5 < trained.temperature < 2.0


def bad(change: str):
    one = SOURCES[0]
    if change == "short":
        return replace(one, y=np.where(np.arange(2500) < 300, one.y, -1).astype(np.int8))
    if change == "nan":
        x = one.x.copy()
        x[5, 0] = np.nan
        return replace(one, x=x)
    if change == "one class":
        return replace(one, y=np.ones(2500, np.int8))
    return replace(one, x=np.ones_like(one.x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("short", r"A: 300 labelled bars, 500 are needed \(model\.min_source_bars\)"),
        ("nan", "A: feature 0 holds NaN"),
        ("one class", "one class teaches nothing"),
        ("constant", "A: every feature is constant"),
    ],
)
def test_data_that_teach_nothing_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        pretrain([bad(change)], SMALL, HORIZON, 1)


def test_no_source_is_an_error():
    with pytest.raises(DataError, match=r"market\.sources"):
        pretrain([], SMALL, HORIZON, 1)


def test_divergence_is_said_and_not_saved():
    exploding = [replace(one, x=one.x * np.float32(1e30)) for one in SOURCES]

    with pytest.raises(TrainingFailed, match="diverged"):
        pretrain(exploding, SMALL, HORIZON, 1)
