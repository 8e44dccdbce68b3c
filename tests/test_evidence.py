"""Evidence: errs as rarely as it says, however often one looks, and rises when there is something to find."""

import math

import numpy as np
import pytest

from strategies.learning.evidence import BLOCKS, BOUND, PairedScores, SequentialTest

STEP = 900_000
HORIZON = 8
BLOCK = HORIZON * STEP
BARS = 4_000  # six weeks
PATHS = 400


def largest(observations: np.ndarray) -> float:
    """The largest e-value of somebody who looks after every observation."""
    test, seen = SequentialTest(), 0.0
    for x in observations:
        test.add(x)
        seen = max(seen, test.e_value)
    return seen


def outcomes(rng: np.random.Generator, bars: int = BARS, drift: np.ndarray | float = 0.0) -> np.ndarray:
    """Labels of overlapping horizons on one price path: whether it rises within the next HORIZON bars."""
    moves = rng.standard_normal(bars + HORIZON) + np.pad(np.broadcast_to(drift, bars), (0, HORIZON))
    path = np.r_[0.0, np.cumsum(moves)]
    return path[HORIZON:][:bars] > path[:bars]


def score(gains: np.ndarray) -> PairedScores:
    scores = PairedScores(BLOCK, recent_blocks=60)
    for bar, gain in enumerate(gains):
        scores.add(bar * STEP, float(gain), 1 / HORIZON)
    return scores


def ever_above(gains: np.ndarray, e_value: float = 20.0) -> bool:
    """Whether somebody who looks at the test after every block sees that much evidence."""
    length = BLOCKS * HORIZON
    means = gains[: len(gains) // length * length].reshape(-1, length).mean(axis=1)
    return largest(np.clip(means / BOUND, -1, 1)) >= e_value


def test_independent_noise_is_taken_for_evidence_less_often_than_promised():
    rng = np.random.default_rng(0)

    errors = sum(largest(rng.choice([-1.0, 1.0], 300)) >= 20 for _ in range(PATHS))

    assert errors / PATHS < 0.05


@pytest.mark.parametrize("edge", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("persistent", [True, False])
def test_overlapping_labels_of_a_useless_forecast_do_not_break_the_promise(edge, persistent):
    """The worst case: a bet with expected gain 0 on labels that share their prices, one-sided or moody."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(PATHS):
        mood = np.ones(BARS) if persistent else np.repeat(rng.standard_normal(BARS // 40), 40).clip(-1.5, 1.5)
        wrong += ever_above(edge * mood * np.where(outcomes(rng), 1, -1))

    assert wrong / PATHS <= 0.05


def test_labels_of_one_horizon_taken_for_news_would_break_it():
    """Why BLOCKS is 3: neighbouring blocks of one horizon share half of their prices."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(PATHS):
        gains = 0.6 * np.where(outcomes(rng), 1, -1)
        wrong += largest(np.clip(gains.reshape(-1, HORIZON).mean(axis=1), -1, 1)) >= 20

    assert wrong / PATHS > 0.05


def test_a_useless_model_against_the_base_rate_looks_useless():
    rng = np.random.default_rng(2)
    errors = 0
    for _ in range(100):
        logit = 0.5 * np.repeat(rng.standard_normal(BARS // 20), 20)
        loss = np.logaddexp(0, np.where(outcomes(rng), -logit, logit))
        errors += ever_above(math.log(2) - loss)

    assert errors <= 1


def test_a_modest_edge_becomes_evidence():
    rng = np.random.default_rng(3)
    signal = np.repeat(rng.standard_normal(BARS // 20), 20)
    up = outcomes(rng, drift=0.15 * signal)
    loss = np.logaddexp(0, np.where(up, -0.5 * signal, 0.5 * signal))

    scores = score(math.log(2) - loss)

    assert np.mean((signal > 0) == up) < 0.65
    assert scores.e_value > 20
    assert scores.recent > 0


def test_a_worse_rival_is_no_evidence():
    assert score(np.full(BARS, -0.05)).e_value < 0.05


def test_the_e_value_starts_at_one_and_cannot_overflow():
    test = SequentialTest()
    assert test.e_value == pytest.approx(1.0)

    for _ in range(5_000):
        test.add(1.0)
    assert math.isfinite(test.e_value)


def test_one_disaster_does_not_ruin_the_gambler():
    test = SequentialTest()
    test.add(-1.0)

    assert test.e_value > 0


def test_a_block_counts_only_when_a_later_label_arrives():
    scores = PairedScores(BLOCK, recent_blocks=1)
    for bar in range(BLOCKS * HORIZON):
        scores.add(bar * STEP, 0.3, 1 / HORIZON)
    assert scores.e_value == pytest.approx(1.0)

    scores.add(BLOCKS * BLOCK, 0.3, 1 / HORIZON)

    assert scores.e_value > 1.0


def test_labels_weigh_by_their_uniqueness():
    scores = PairedScores(BLOCK, recent_blocks=1)
    scores.add(0, 0.4, 0.75)
    scores.add(STEP, 0.0, 0.25)
    scores.add(BLOCK, 0.0, 1.0)

    assert scores.recent == pytest.approx(0.3)
    assert scores.effective_labels == pytest.approx(2.0)


def test_recent_waits_for_enough_blocks_and_then_rolls():
    scores = PairedScores(BLOCK, recent_blocks=3)
    for block, gain in enumerate([-0.5, 0.1, 0.2, 0.3]):
        scores.add(block * BLOCK, gain, 1.0)
        if block < 3:
            assert math.isnan(scores.recent)
    scores.add(4 * BLOCK, 0.0, 1.0)

    assert scores.recent == pytest.approx(0.2)


def test_a_silent_stretch_is_neither_won_nor_lost():
    scores = PairedScores(BLOCK, recent_blocks=2)
    scores.add(0, 0.2, 1.0)
    scores.add(100 * BLOCK, 0.4, 1.0)
    scores.add(101 * BLOCK, 0.0, 1.0)

    assert scores.recent == pytest.approx(0.3)


def test_a_reset_forgets_the_evidence_and_keeps_the_count_of_labels():
    scores = score(np.full(BARS, 0.05))
    labels = scores.effective_labels

    scores.reset()

    assert scores.e_value == pytest.approx(1.0)
    assert math.isnan(scores.recent)
    assert scores.effective_labels == labels
