"""Adaptation on markets whose right answer is known: it mends what can be mended and approves of nothing."""

from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import torch

from bot import settings
from bot.core.errors import DataError, TrainingFailed
from bot.core.events import AdaptationReport
from strategies.learning.adaptation import adapt, refuse_collapse
from strategies.learning.alignment import ramp
from strategies.learning.architecture import Weights
from strategies.learning.dataset import LabelledSeries, SourceReplay
from strategies.learning.domains import prepare
from strategies.learning.encoder import Encoder
from strategies.learning.pretraining import Pretrained, pretrain
from strategies.learning.sequences import Sequences
from tests.controls import HORIZON, World, replay, snapshot

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = settings.Model(channels=16, blocks=4, epochs=12)
DEFAULT = settings.Adaptation()
BRIEF = settings.Adaptation(steps=20)
UNALIGNED = settings.Adaptation(mmd_weight=0.0)


class Lab(NamedTuple):
    """A world with its pretrained model."""

    world: World
    trained: Pretrained
    replay: SourceReplay
    source_accuracy: float

    @classmethod
    def build(cls, seed: int) -> "Lab":
        world = World(seed)
        source = world.series("SOURCE", 8000, "source", 0)
        trained = pretrain([source], MODEL, HORIZON, seed)
        lab = cls(world, trained, replay(source, trained.cut), 0.0)
        return lab._replace(source_accuracy=lab.accuracy(trained.weights, "source"))

    def accuracy(self, weights: Weights, kind: str) -> float:
        """On 4000 fresh bars of the kind."""
        fresh = self.world.series("FRESH", 4000, kind, 7)
        encoder = Encoder.from_weights(weights, self.trained.architecture)
        logit = Sequences([fresh], encoder.receptive_field - 1).measure(encoder).logit
        known = np.isfinite(logit)
        return float(np.mean((logit[known] > 0) == fresh.y[known]))

    def adapt(
        self, token: LabelledSeries, how: settings.Adaptation = DEFAULT, seed: int = 1
    ) -> tuple[Weights, AdaptationReport]:
        trained = self.trained
        return adapt(trained.weights, trained.architecture, self.replay, snapshot(token), how, seed)

    def token(self, kind: str, n: int = 2000, *, labels: bool = False) -> LabelledSeries:
        return self.world.series("NEW", n, kind, 3, labels=labels)

    def won_back(self, weights: Weights) -> float:
        """Share of what the frozen model loses on the covariate kind."""
        frozen = self.accuracy(self.trained.weights, "covariate")
        return (self.accuracy(weights, "covariate") - frozen) / (self.source_accuracy - frozen)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab.build(2)


@pytest.fixture(scope="module")
def aligned(lab) -> tuple[Weights, AdaptationReport]:
    """Without a single label of the token."""
    return lab.adapt(lab.token("covariate"))


def test_a_shift_of_the_sensors_is_won_back_without_labels(lab, aligned):
    frozen = lab.accuracy(lab.trained.weights, "covariate")

    assert lab.source_accuracy - frozen > 0.10
    assert lab.won_back(aligned[0]) > 0.6


def test_the_report_says_what_the_alignment_did(aligned):
    report = aligned[1]

    assert report.mmd_after < 0.3 * report.mmd_before
    assert report.similarity_before < 0.3
    assert report.similarity_after > report.similarity_before + 0.3
    assert report.source_accuracy_after > report.source_accuracy_before - 0.03
    assert (report.target_labels, report.steps) == (0.0, DEFAULT.steps)


def test_the_same_steps_without_the_mmd_win_nothing_back(lab):
    weights, report = lab.adapt(lab.token("covariate"), UNALIGNED)

    assert abs(lab.won_back(weights)) < 0.25
    assert report.mmd_after > 0.7 * report.mmd_before


def test_reversed_labels_stay_wrong_although_every_distance_falls(lab):
    """Only labels can tell: nothing in the report may be taken for approval."""
    weights, report = lab.adapt(lab.token("reversed"))

    assert lab.accuracy(weights, "reversed") < 0.35
    assert report.mmd_after < 0.3 * report.mmd_before


def test_a_token_that_shows_nothing_cannot_be_learnt(lab):
    weights, _ = lab.adapt(lab.token("blind"), settings.Adaptation(steps=60))

    assert lab.accuracy(weights, "blind") == pytest.approx(0.5, abs=0.05)


def test_a_token_like_the_source_is_not_harmed(lab):
    weights, report = lab.adapt(lab.token("none"))

    assert lab.accuracy(weights, "none") > lab.accuracy(lab.trained.weights, "none") - 0.02
    assert report.mmd_before == pytest.approx(0.0, abs=0.02)


def test_another_share_of_ups_is_learnt_from_labels_and_not_aligned_away(lab):
    weights, report = lab.adapt(lab.token("label_shift", labels=True))

    assert lab.accuracy(weights, "label_shift") > lab.accuracy(lab.trained.weights, "label_shift")
    assert report.source_accuracy_after > report.source_accuracy_before - 0.03


def test_the_same_job_gives_the_same_bits(lab):
    first, report = lab.adapt(lab.token("covariate"), BRIEF)
    torch.manual_seed(99)
    second, again = lab.adapt(lab.token("covariate"), BRIEF)
    third, _ = lab.adapt(lab.token("covariate"), BRIEF, seed=2)

    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
    assert msgspec.structs.replace(report, seconds=0.0) == msgspec.structs.replace(again, seconds=0.0)
    assert not np.array_equal(first["input.weight"], third["input.weight"])


def test_a_job_neither_changes_the_pretrained_weights_nor_the_global_generator(lab):
    before = {name: array.copy() for name, array in lab.trained.weights.items()}
    state = torch.get_rng_state()

    lab.adapt(lab.token("covariate"), BRIEF)

    assert torch.equal(torch.get_rng_state(), state)
    for name, array in before.items():
        np.testing.assert_array_equal(lab.trained.weights[name], array)


def test_the_anchor_holds_all_weights_the_heads_included(lab):
    def moved(strength: float) -> dict[str, float]:
        weights, _ = lab.adapt(lab.token("covariate"), settings.Adaptation(l2sp=strength, steps=30))
        return {name: np.abs(weights[name] - base).sum() for name, base in lab.trained.weights.items()}

    free, held = moved(0.0), moved(30.0)

    assert all(held[name] < 0.6 * free[name] for name in free)


GENTLE = settings.Adaptation(gentle_steps=9)
ONE_STEP = settings.Adaptation(gentle_steps=1, clip=1e6)  # the common clip would tie the layers together


def gently(lab: Lab, token: LabelledSeries, how: settings.Adaptation = GENTLE) -> Weights:
    trained = lab.trained
    job = snapshot(token)
    return adapt(trained.weights, trained.architecture, lab.replay, job, how, 1, gently=True)[0]


def with_labels(lab: Lab, bars: int, *, mirrored: bool = False) -> LabelledSeries:
    """The first `bars` bars have labels; mirrored: the same ones in the opposite order."""
    token = lab.token("covariate", labels=True)
    y = token.y[:bars][::-1] if mirrored else token.y[:bars]
    weight = np.where(np.arange(2000) < bars, token.weight, 0).astype(np.float32)
    return replace(token, y=np.append(y, np.full(2000 - bars, -1, np.int8)), weight=weight)


def changed(one: Weights, other: Weights) -> set[str]:
    return {name for name in one if not np.array_equal(one[name], other[name])}


def test_from_the_chain_few_labels_say_nothing_more_the_head_and_many_all_layers(lab):
    """200, 800 and 1640 labels that overlap eightfold."""

    def taught_by(bars: int) -> set[str]:
        """What a single step on these labels changes otherwise than one on the same in another order."""
        one, other = (with_labels(lab, bars, mirrored=mirrored) for mirrored in (False, True))
        return changed(gently(lab, one, ONE_STEP), gently(lab, other, ONE_STEP))

    taught = [taught_by(bars) for bars in (200, 800, 1640)]

    head = {"direction.weight", "direction.bias"}
    assert taught[0] == set()
    assert taught[1]
    assert taught[1] <= head
    assert {"input.weight", "blocks.0.taps.weight"} <= taught[2]


def test_from_the_chain_a_model_moves_little(lab):
    def moved(weights: Weights) -> float:
        return max(float(np.abs(weights[name] - base).max()) for name, base in lab.trained.weights.items())

    gentle = moved(gently(lab, lab.token("covariate", labels=True)))

    assert 0 < gentle < 0.01
    assert gentle < 0.1 * moved(lab.adapt(lab.token("covariate", labels=True), BRIEF)[0])


def poisoned(series: LabelledSeries, rows: slice) -> LabelledSeries:
    y = series.y.copy()
    y[rows] = 1 - y[rows]
    return replace(series, y=y)


def test_labels_of_the_held_out_tail_do_not_reach_the_weights(lab):
    """They may only stop the training: twenty steps are too few for that here."""
    few = settings.Adaptation(steps=9)
    token = lab.token("covariate", labels=True)

    weights, _ = lab.adapt(token, few)
    again, _ = lab.adapt(poisoned(token, slice(1650, None)), few)

    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array)


def test_labels_that_reach_into_the_tail_are_purged(lab):
    token = snapshot(lab.token("covariate", labels=True))
    context = lab.trained.architecture.receptive_field - 1

    domains = prepare(lab.replay, token, 2000, context)

    learnt = domains.target.starts[domains.target.weight.numpy() > 0]
    held = domains.target_tail.starts[domains.target_tail.weight.numpy() > 0]
    step = lab.replay.series[0].step
    assert held.min() - learnt.max() >= 2 * HORIZON * step
    source = domains.source.starts[domains.source.weight.numpy() > 0]
    assert source.max() + (HORIZON + 1) * step <= lab.replay.cut


def test_training_stops_when_the_newest_labels_say_so(lab):
    """The tail contradicts what the rest teaches; the best weights seen are given back."""
    token = lab.token("covariate", labels=True)
    strong = settings.Adaptation(target_weight=5.0, steps=200)

    _, report = lab.adapt(poisoned(token, slice(1600, None)), strong)

    assert report.steps < 100
    assert report.steps % 10 == 0


def test_few_labels_weigh_little_and_a_single_class_is_no_catastrophe(lab):
    token = lab.token("covariate", labels=True)
    y = np.where(np.arange(2000) < 100, 1, -1).astype(np.int8)

    weights, report = lab.adapt(replace(token, y=y, weight=np.where(y >= 0, token.weight, 0)))

    assert report.target_labels == pytest.approx(100 / HORIZON)
    assert lab.won_back(weights) > 0.5


def test_a_snapshot_with_gaps_is_used_around_them(lab):
    token = lab.token("covariate")
    late = token.step * np.array([(np.arange(2000) >= gap) for gap in (300, 310, 900)]).sum(axis=0)

    _, report = lab.adapt(replace(token, starts=token.starts + late), BRIEF)

    assert report.mmd_after < report.mmd_before


def test_only_the_newest_rows_of_the_window_are_used(lab):
    token = lab.token("covariate")
    context = lab.trained.architecture.receptive_field - 1

    domains = prepare(lab.replay, snapshot(token), 500, context)

    assert domains.target.starts.min() == token.starts[1500]


def test_a_snapshot_that_is_too_short_says_what_is_missing(lab):
    with pytest.raises(
        DataError, match=r"NEW: \d+ rows with \d+ unbroken rows before each, 72 are needed; wait for"
    ):
        lab.adapt(lab.token("covariate", 100))


def test_a_young_token_can_be_adapted(lab):
    need = lab.trained.architecture.receptive_field - 1 + 72

    _, report = lab.adapt(lab.token("covariate", need), BRIEF)

    assert np.isfinite([report.mmd_after, report.similarity_after, report.source_accuracy_after]).all()


def test_nan_and_another_number_of_features_are_refused(lab):
    token = lab.token("covariate")
    x = token.x.copy()
    x[1000, 3] = np.nan

    with pytest.raises(DataError, match="feature 3 holds NaN"):
        lab.adapt(replace(token, x=x))
    with pytest.raises(DataError, match="9 features, the source has 10"):
        lab.adapt(replace(token, x=token.x[:, :9]))


def test_divergence_is_refused(lab):
    with pytest.raises(TrainingFailed, match=r"diverged at step \d+; lower adaptation\.learning_rate"):
        lab.adapt(lab.token("covariate"), settings.Adaptation(learning_rate=1e30))


def test_predictions_that_say_the_same_of_every_row_or_are_certain_of_all_are_refused():
    said = np.random.default_rng(0).normal(0.2, 0.3, 1_000)
    with pytest.raises(TrainingFailed, match=r"collapsed: the spread of the logits is 0\.015 after 0\.29"):
        refuse_collapse(said, 0.05 * said, 0.1)
    with pytest.raises(TrainingFailed, match=r"collapsed: .* mean entropy 0\.0"):
        refuse_collapse(said, 200 * said, 0.1)


def test_a_learnt_prior_is_no_collapse_nor_is_a_model_that_never_said_much():
    said = np.random.default_rng(0).normal(0.2, 0.3, 1_000)
    refuse_collapse(said, said - 1.5, 0.1)
    refuse_collapse(0.01 * said + 0.1, 0.01 * said + 0.1, 0.1)
    refuse_collapse(said * 0, said * 0, 0.1)


def test_an_adaptation_that_presses_all_bars_into_one_is_refused(lab):
    pressed = settings.Adaptation(steps=200, learning_rate=0.05, mmd_weight=0.0, l2sp=0.0)
    constant = replace(lab.token("covariate", labels=True), y=np.ones(2_000, np.int8))
    with pytest.raises(TrainingFailed, match=r"collapsed|diverged"):
        lab.adapt(constant, pressed.model_copy(update={"target_weight": 1e4}))


def test_the_ramp_begins_at_nothing_and_ends_at_the_whole_weight():
    assert ramp(0.0) == 0.0
    assert ramp(0.5) > 0.95
    assert ramp(1.0) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
def test_five_worlds_agree():
    won, unaligned = [], []
    for seed in range(5):
        lab = Lab.build(seed)
        token = lab.token("covariate")
        won.append(lab.won_back(lab.adapt(token)[0]))
        unaligned.append(lab.won_back(lab.adapt(token, UNALIGNED)[0]))
        assert lab.accuracy(lab.adapt(lab.token("reversed"))[0], "reversed") < 0.4

    assert np.mean(won) > 0.6
    assert abs(np.mean(unaligned)) < 0.2
