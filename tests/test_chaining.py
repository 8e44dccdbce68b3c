"""A step of the chain on synthetic listings with a known shift: what it learns, and what it may not know."""

import math
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from bot import settings
from bot.core.commands import ExtendChain
from bot.core.errors import DataError
from bot.core.events import AdaptationReport
from bot.core.types import DAY_MS
from strategies.features.spec import VERSION
from strategies.learning.architecture import Weights
from strategies.learning.chaining import _mean_by_days, extend
from strategies.learning.dataset import LabelledSeries
from strategies.learning.registry import Model, ModelCard
from tests.controls import HORIZON, STEP
from tests.test_adaptation import Lab

pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = settings.Adaptation(chain_steps=60, chain_learning_rate=2e-3, chain_l2sp=1e-3, chain_tail_days=2)
TAIL = 2 * DAY_MS // STEP  # bars


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab.build(2)


def source_of(lab: Lab, weights: Weights | None = None) -> Model:
    card = ModelCard(
        kind="pretrained", architecture=lab.trained.architecture, features=VERSION,
        columns=tuple("abcdefghij"), location=(0.0,), scale=(1.0,), symbols=("SOURCE",), since=0, until=1,
        temperature=lab.trained.temperature, metrics={},
    )  # fmt: skip
    return Model("source", lab.trained.weights if weights is None else weights, card)


def listings(lab: Lab, kind: str = "covariate", count: int = 3) -> list[LabelledSeries]:
    """Tokens that live at the same time, as much of them as is known at the last bar's close."""
    starts = STEP * (10_000_000 + np.arange(1200, dtype=np.int64))
    known = starts + (HORIZON + 1) * STEP
    tokens = [lab.world.series(f"T{part}", 1200, kind, 10 + part) for part in range(count)]
    tokens = [replace(one, starts=starts, t_known=known) for one in tokens]
    return [one.without_labels(known > cut_of(one)) for one in tokens]


def cut_of(series: LabelledSeries) -> int:
    return int(series.starts[-1]) + STEP


def job(tokens: list[LabelledSeries], **changes: object) -> ExtendChain:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in tokens])

    cut = max(map(cut_of, tokens))
    made = ExtendChain(
        cut, cut, "source", "source", 1, tuple((one.symbol, len(one)) for one in tokens), joined("x"),
        joined("starts"), joined("y"), joined("weight"), joined("log_vol"),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def step(
    lab: Lab, tokens: list[LabelledSeries], rival: Weights | None = None
) -> tuple[Mapping[str, np.ndarray], AdaptationReport]:
    weights, temperature, report = extend(
        source_of(lab), source_of(lab, rival), lab.replay, job(tokens), PLAN
    )
    assert temperature >= 1
    return weights, report


@pytest.fixture(scope="module")
def extended(lab: Lab) -> tuple[Mapping[str, np.ndarray], AdaptationReport]:
    return step(lab, listings(lab))


def test_a_token_that_it_has_never_seen_is_understood_better_from_its_first_bar(lab, extended):
    weights, report = extended

    assert lab.won_back(weights) > 0.5
    assert report.gain > 0.05
    assert 0 < report.gain_error < report.gain / 2
    assert report.gain_labels == pytest.approx(3 * (TAIL - 2 * HORIZON) / HORIZON, rel=0.1)
    assert report.target_labels == pytest.approx(3 * (1200 - TAIL - HORIZON) / HORIZON, rel=0.05)
    assert report.source_accuracy_after > report.source_accuracy_before - 0.03


def test_the_error_of_a_gain_counts_days_and_not_the_tokens_that_move_together():
    """Against the spread of the mean over worlds of five days whose tokens all share the day's gain."""
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(400):
        day = np.repeat(rng.standard_normal(5), 96)
        value = np.tile(day, 10) + 0.1 * rng.standard_normal(4_800)
        starts = np.tile(np.arange(480) * 900_000, 10)
        mean, error = _mean_by_days(value, np.full(4_800, 0.125), starts)
        means.append(mean)
        errors.append(error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.15)
    assert math.isnan(_mean_by_days(np.ones(3), np.ones(3), np.arange(3))[1])


def test_the_next_step_is_judged_against_the_one_before(lab, extended):
    _, report = step(lab, listings(lab), rival=extended[0])

    assert report.gain == pytest.approx(0.0, abs=1e-9)


def test_a_step_over_listings_that_teach_nothing_is_worse_than_what_was_there(lab, extended):
    past, newest = listings(lab, "irrelevant"), listings(lab)
    tail = slice(-TAIL - HORIZON, None)
    mixed = [
        replace(one, x=np.concatenate([one.x[: tail.start], true.x[tail]]),
                y=np.concatenate([one.y[: tail.start], true.y[tail]]))
        for one, true in zip(past, newest, strict=True)
    ]  # fmt: skip
    _, report = step(lab, mixed, rival=extended[0])

    assert report.gain < -0.05


def test_the_same_job_gives_the_same_bits_and_leaves_the_source_alone(lab, extended):
    before = {name: array.copy() for name, array in lab.trained.weights.items()}
    again, report = step(lab, listings(lab))

    for name, array in extended[0].items():
        np.testing.assert_array_equal(again[name], array)
        np.testing.assert_array_equal(lab.trained.weights[name], before[name])
    assert msgspec.structs.replace(report, seconds=0.0) == msgspec.structs.replace(extended[1], seconds=0.0)


def test_labels_of_the_tail_judge_and_do_not_teach(lab, extended):
    def poisoned(one: LabelledSeries) -> LabelledSeries:
        y = one.y.copy()
        y[-TAIL:] = np.where(y[-TAIL:] >= 0, 1 - y[-TAIL:], -1)
        return replace(one, y=y)

    weights, report = step(lab, [poisoned(one) for one in listings(lab)])

    for name, array in extended[0].items():
        np.testing.assert_array_equal(weights[name], array)
    assert report.gain < 0 < extended[1].gain


def test_a_label_that_nobody_could_know_at_the_cut_is_refused(lab):
    tokens = listings(lab)
    early = replace(tokens[0], y=np.where(tokens[0].y < 0, np.int8(1), tokens[0].y))

    with pytest.raises(DataError, match=rf"{HORIZON} labels of the listings were not known at the cut"):
        step(lab, [early, *tokens[1:]])


def test_a_snapshot_that_does_not_add_up_or_holds_nan_is_refused(lab):
    tokens = listings(lab, count=1)
    broken = job(tokens, listings=(("T0", 7),))
    with pytest.raises(DataError, match="1200 rows for listings of 7"):
        extend(source_of(lab), source_of(lab), lab.replay, broken, PLAN)
    x = tokens[0].x.copy()
    x[5, 2] = np.nan
    with pytest.raises(DataError, match="T0: feature 2 holds NaN"):
        step(lab, [replace(tokens[0], x=x)])
