"""The verdict: what the matured labels say decides, and nothing else."""

import numpy as np
import pytest

from strategies.learning.verdict import block_length, effective_size, judge, log_loss, paired_gain

RNG = np.random.default_rng(0)
N = 240
Y = RNG.integers(0, 2, N).astype(float)
BASE = np.full(N, 0.5)


def forecaster(accuracy: float, seed: int) -> np.ndarray:
    """Says `accuracy` for a side and is right that often."""
    right = np.random.default_rng(seed).random(N) < accuracy
    return np.where((Y > 0.5) == right, accuracy, 1 - accuracy)


def verdict(frozen: float, adapted: float | None, scratch: float, forgetting: float = 0.0):
    arms = {"frozen": forecaster(frozen, 1), "scratch": forecaster(scratch, 3)}
    if adapted is not None:
        arms["adapted"] = forecaster(adapted, 2)
    return judge(arms, BASE, Y, -forgetting)


@pytest.mark.parametrize(
    ("frozen", "adapted", "scratch", "chosen"),
    [
        (0.65, 0.89, 0.80, "adapted"),  # covariate
        (0.90, 0.90, 0.82, "frozen"),  # none
        (0.50, 0.50, 0.85, "scratch"),  # reversed, calibrated; irrelevant
        (0.68, 0.65, 0.86, "scratch"),  # blind sensor
        (0.88, 0.87, 0.84, "frozen"),  # label shift
        (0.50, 0.50, 0.50, "none"),  # random walk
        (0.85, None, 0.70, "frozen"),  # nothing was adapted
    ],
)
def test_each_kind_of_market_gets_its_verdict(frozen, adapted, scratch, chosen):
    assert verdict(frozen, adapted, scratch).chosen == chosen


def test_negative_transfer_is_refused_whatever_it_gained_over_frozen():
    judged = verdict(0.5, 0.65, 0.9)

    assert judged.chosen == "scratch"
    assert any("negative transfer" in reason for reason in judged.reasons)


def test_a_model_that_forgot_the_source_is_refused():
    assert verdict(0.65, 0.89, 0.8, forgetting=0.02).chosen == "adapted"
    forgot = verdict(0.65, 0.89, 0.8, forgetting=0.05)
    assert forgot.chosen != "adapted"
    assert any("lost 5.0% accuracy on the source" in reason for reason in forgot.reasons)


def test_every_comparison_is_an_object_with_its_interval_and_a_sentence():
    judged = verdict(0.65, 0.89, 0.8)

    pairs = {(gain.arm, gain.rival) for gain in judged.gains}
    assert {("adapted", "frozen"), ("adapted", "scratch"), ("adapted", "base rate")} <= pairs
    for gain in judged.gains:
        assert gain.low <= gain.value <= gain.high
        assert 1 <= gain.labels <= N
        assert any(f"{gain.arm} over {gain.rival}" in said for said in judged.figures)
    assert "source accuracy -0.0 points" in judged.figures[-1] or "+0.0 points" in judged.figures[-1]


def test_useless_arms_are_believed_no_more_often_than_the_level_says():
    believed = 0
    for seed in range(200):
        rng = np.random.default_rng([seed, 5])
        y = rng.integers(0, 2, 100).astype(float)
        arms = {arm: rng.uniform(0.35, 0.65, 100) for arm in ("frozen", "adapted", "scratch")}
        believed += judge(arms, np.full(100, 0.5), y, 0.0, seed).chosen != "none"
    assert believed <= 14


def test_the_interval_covers_the_truth_of_a_dependent_series():
    def covers(seed: int) -> bool:
        shocks = np.random.default_rng(seed).standard_normal(302)
        gain = paired_gain("a", "b", 0.1 + shocks[2:] + 0.5 * shocks[1:-1], 0.0, seed=seed)
        return gain.low < 0.1 < gain.high

    assert sum(covers(seed) for seed in range(200)) >= 178


def test_dependence_lowers_the_effective_number_of_labels():
    rng = np.random.default_rng(0)

    assert effective_size(rng.standard_normal(1000)) > 700
    assert effective_size(np.repeat(rng.standard_normal(200), 5)) < 300
    assert effective_size(np.zeros(10)) == 10
    assert block_length(1000) == 10


def test_a_certain_mistake_costs_much_but_not_everything():
    assert log_loss(np.array([1.0, 0.0]), np.array([0.0, 0.0]))[0] == pytest.approx(13.8, abs=0.1)
