"""The live figures are those of the batch, from matured labels alone, in memory that does not grow."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.records import ROLLING, LabelMatured
from bot.core.types import DAY_MS, HOUR_MS
from bot.research import predictions
from strategies.contest.arm import log_loss
from strategies.quality import DAYS, OLDER, Quality, Tally, age_group
from tests.builders import START
from tests.test_token import HORIZON, KNOWS, Life

RNG = np.random.default_rng(1)
N = 4_000
BAR = HOUR_MS


def said(count: int = N) -> tuple[np.ndarray, ...]:
    """p, base rate, outcome and weight of labels, one an hour; calibrated but for sampling."""
    p = np.round(RNG.uniform(0.05, 0.95, count), 3)
    return p, np.full(count, 0.45), (RNG.random(count) < p).astype(int), RNG.uniform(0.1, 1.0, count)


def batch(p: np.ndarray, base: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, float]:
    """By the definitions, over arrays."""
    confidence, right = np.maximum(p, 1 - p), predictions.correctness(p, y)
    loss = np.array([log_loss(*one) for one in zip(p, y, strict=True)])
    base_loss = np.array([log_loss(*one) for one in zip(base, y, strict=True)])
    bins = np.searchsorted(np.linspace(0, 1, 11)[1:-1], confidence, side="left")
    gaps = [abs(((confidence - right) * w)[bins == b].sum()) for b in range(10)]
    return {
        "labels": w.sum(), "accuracy": (right * w).sum() / w.sum(),
        "skill": 1 - (loss * w).sum() / (base_loss * w).sum(), "ece": sum(gaps) / w.sum(),
    }  # fmt: skip


def same(tally: Tally, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert getattr(tally, name) == pytest.approx(value, rel=1e-9), name


def test_the_figures_are_those_of_the_batch_by_age_and_over_the_newest_days() -> None:
    p, base, y, w = said()
    quality = Quality("NEWUSDT", START)
    start = START + BAR * np.arange(N)
    matured = start + 3 * BAR
    told = []
    for one in zip(matured, start, p, base, y, w, strict=True):
        told += quality.add(*(item.item() for item in one))
    groups = np.array([age_group(int(age)) for age in start - START])
    for group in ("0-2", "3-7", "8-14", "15-30", "31-60", OLDER):
        here = groups == group
        assert here.any()
        same(quality.of_age(group), batch(p[here], base[here], y[here], w[here]))
    recent = matured // DAY_MS > matured[-1] // DAY_MS - DAYS
    same(quality.rolling, batch(p[recent], base[recent], y[recent], w[recent]))
    rolling = [one for one in told if one.age == ROLLING]
    assert len(rolling) == matured[-1] // DAY_MS - matured[0] // DAY_MS
    before = matured < rolling[-1].ts
    newest = before & (matured // DAY_MS >= rolling[-1].ts // DAY_MS - DAYS)
    assert rolling[-1].accuracy == pytest.approx(
        batch(p[newest], base[newest], y[newest], w[newest])["accuracy"]
    )


def test_with_equal_weights_the_ece_is_the_reports() -> None:
    p, base, y, _ = said()
    tally = Tally()
    for one in zip(p.tolist(), base.tolist(), y.tolist(), strict=True):
        tally.add(*one, 1.0)
    assert tally.ece == pytest.approx(predictions.ece(p, y.astype(float)))


def test_nothing_is_known_without_labels() -> None:
    assert all(math.isnan(getattr(Tally(), name)) for name in ("accuracy", "skill", "ece", "overconfidence"))


@pytest.mark.parametrize(
    ("age", "group"), [(0, "0-2"), (3, "3-7"), (7.99, "3-7"), (8, "8-14"), (60.9, "31-60"), (61, OLDER)]
)
def test_the_ages(age: float, group: str) -> None:
    assert age_group(int(age * DAY_MS)) == group


def test_chance_alone_is_no_overconfidence_and_a_boast_is() -> None:
    right, boastful, modest = Tally(), Tally(), Tally()
    for one in zip(*(part.tolist() for part in said(1_500)), strict=True):
        right.add(*one)
    rng = np.random.default_rng(2)
    for outcome in (rng.random(400) < 0.6).astype(int).tolist():
        boastful.add(0.85, 0.5, outcome, 1.0)
        modest.add(0.55, 0.5, outcome, 1.0)
    assert right.overconfidence < 0.01
    assert boastful.overconfidence == pytest.approx(0.25, abs=0.06)
    assert modest.ece > 0.02
    assert modest.overconfidence == 0.0


def test_memory_does_not_grow_with_time() -> None:
    quality = Quality("NEWUSDT", START)
    rng = np.random.default_rng(3)

    def live(days: range) -> int:
        for hour in range(days.start * 24, days.stop * 24):
            ts = START + hour * HOUR_MS
            quality.add(ts, ts - HOUR_MS, rng.random(), 0.5, int(rng.random() < 0.5), 0.5)
        return len(quality._days) + len(quality._ages) + sys.getsizeof(quality._days)

    assert live(range(70)) == live(range(70, 400))


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0.02, 0.98), st.integers(0, 1), st.floats(0.01, 1)), min_size=1
    )
)
def test_the_figures_stay_in_their_ranges(labels: list[tuple[float, float, int, float]]) -> None:
    tally = Tally()
    for label in labels:
        tally.add(*label)
    assert 0 <= tally.accuracy <= 1
    assert 0 <= tally.overconfidence <= tally.ece + 1e-12 <= 1 + 1e-9
    assert tally.skill < 1


def test_a_token_counts_what_its_champion_had_said_once_the_label_is_known() -> None:
    life = Life(gain=KNOWS)
    life.bars(300)
    labels = life.of(LabelMatured)
    quality = life.token._quality
    assert len(labels) == 300 - HORIZON
    p = np.array([label.p_up["frozen"] for label in labels])
    base = np.array([label.p_up["base"] for label in labels])
    y, w = np.array([label.outcome for label in labels]), np.array([label.weight for label in labels])
    same(quality.rolling, batch(p, base, y, w))
    assert quality.rolling.accuracy > 0.8
    assert len(life.token._spoke) <= HORIZON + 1
