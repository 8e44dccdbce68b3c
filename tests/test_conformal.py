"""Conformal sets hold what happens as often as asked, also when the market turns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.learning.conformal import KEPT, AdaptiveConformal


def run(p_up: np.ndarray, y: np.ndarray, misses: float) -> tuple[AdaptiveConformal, np.ndarray]:
    sets, held = AdaptiveConformal(misses), []
    for p, outcome in zip(p_up.tolist(), y.tolist(), strict=True):
        held.append(outcome in sets.directions(p))
        sets.observe(p, outcome, 1.0)
    return sets, np.array(held)


@pytest.mark.parametrize("misses", [0.1, 0.35])
def test_sets_hold_what_happens_as_often_as_asked(misses):
    rng = np.random.default_rng(0)
    p = rng.beta(2, 2, 4_000)

    _, held = run(p, (rng.random(4_000) < p).astype(int), misses)

    assert held.mean() == pytest.approx(1 - misses, abs=0.02)


def test_also_when_the_model_is_suddenly_wrong():
    """After the turn what was likely is unlikely: the level, not the quantile, keeps the promise."""
    rng = np.random.default_rng(1)
    p = rng.beta(2, 2, 6_000)
    likely = (rng.random(6_000) < p).astype(int)

    sets, held = run(p, np.where(np.arange(6_000) < 3_000, likely, 1 - likely), 0.2)

    assert held[4_000:].mean() == pytest.approx(0.8, abs=0.03)
    assert not sets.is_opinion(0.6), "it was wrong whenever it thought so"


def test_who_has_seen_nothing_rules_nothing_out():
    sets = AdaptiveConformal(0.35)

    assert sets.directions(0.99) == {0, 1}
    assert not sets.is_opinion(0.99)


def test_a_model_that_knows_nothing_has_no_opinion_but_at_its_surest():
    rng = np.random.default_rng(2)
    p = rng.uniform(0.3, 0.7, 2_000)

    sets, _ = run(p, rng.integers(0, 2, 2_000), 0.2)

    assert not sets.is_opinion(0.55)
    assert sets.is_opinion(0.95)
    assert sets.is_opinion(0.05)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.5))
def test_the_opinion_is_the_likelier_direction_and_grows_with_confidence(seed, misses):
    rng = np.random.default_rng(seed)
    sets, _ = run(rng.random(60), rng.integers(0, 2, 60), misses)

    for p in rng.random(20).tolist():
        if sets.is_opinion(p):
            assert sets.directions(p) == {int(p >= 0.5)}
        assert sets.directions(p) == {1 - one for one in sets.directions(1 - p)}


def test_overlapping_labels_move_the_level_by_their_uniqueness():
    whole, thin = AdaptiveConformal(0.2), AdaptiveConformal(0.2)
    for _ in range(16):
        whole.observe(0.9, 1, 1.0)
        thin.observe(0.9, 1, 1 / 16)

    assert whole.level - 0.2 == pytest.approx(16 * (thin.level - 0.2))


def test_only_the_newest_labels_are_kept():
    sets = AdaptiveConformal(0.3)
    for number in range(KEPT + 50):
        sets.observe(0.1 if number < 50 else 0.6, 1, 0.0)

    assert len(sets._ordered) == KEPT
    assert set(sets._ordered) == {1 - 0.6}
