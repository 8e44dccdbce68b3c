"""Probabilities that mean what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from strategies.learning.calibration import (
    REFIT_EVERY,
    Calibrator,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)

ORACLES = Path(__file__).parent / "oracles"


@pytest.fixture(scope="module")
def reference():
    with np.load(ORACLES / "calibration.npz") as file:
        logits, y = file["logits"], file["y"].astype(float)
    return logits[:, 1] - logits[:, 0], y, json.loads((ORACLES / "calibration.json").read_text())


def test_the_temperature_equals_the_reference(reference):
    logit, y, expected = reference

    temperature = fit_temperature(logit, y)

    assert temperature == pytest.approx(expected["temperature"], rel=1e-6)
    assert negative_log_likelihood(logit, y) == pytest.approx(expected["nll_before"])
    assert negative_log_likelihood(logit / temperature, y) == pytest.approx(expected["nll_after"])


def test_calibration_error_and_confident_share_equal_the_reference(reference):
    logit, y, expected = reference
    before, after = expit(logit), expit(logit / expected["temperature"])

    assert expected_calibration_error(before, y) == pytest.approx(expected["ece10_before"])
    assert expected_calibration_error(after, y) == pytest.approx(expected["ece10_after"])
    share = np.mean(np.maximum(after, 1 - after) >= 0.65)
    assert share == pytest.approx(expected["share_conf_ge_0.65_after"])


def test_reliability_bins_hold_every_prediction():
    p = np.array([0.0, 0.5, 0.55, 0.62, 1.0])
    confidence, accuracy, count = reliability(p, np.array([0.0, 1.0, 1.0, 0.0, 1.0]))

    assert count.sum() == 5
    assert count[9] == 2
    assert accuracy[9] == 1.0
    assert confidence[6] == pytest.approx(0.62)
    assert np.isnan(accuracy[0])


def test_a_weight_counts_like_repetition():
    rng = np.random.default_rng(0)
    logit, y = rng.normal(0, 2, 50), rng.integers(0, 2, 50).astype(float)
    times = rng.integers(0, 4, 50)

    weighted = fit_temperature(logit, y, times.astype(float))

    assert weighted == pytest.approx(fit_temperature(np.repeat(logit, times), np.repeat(y, times)), rel=1e-4)


def test_without_labels_the_temperature_is_one():
    assert fit_temperature(np.empty(0), np.empty(0)) == 1.0
    assert fit_temperature(np.ones(3), np.ones(3), np.zeros(3)) == 1.0


def fed(n: int, *, slope: float, intercept: float, card: float = 1.0, seed: int = 0) -> Calibrator:
    """After n labels of a token whose truth is expit(intercept + slope logit)."""
    rng = np.random.default_rng(seed)
    calibrator = Calibrator(card)
    for logit in rng.normal(0, 1, n):
        calibrator.observe(logit, int(rng.random() < expit(intercept + slope * logit)), 1.0)
    return calibrator


def test_a_young_token_is_calibrated_like_the_source():
    calibrator = Calibrator(2.0)

    assert calibrator.p_up(1.0) == pytest.approx(expit(0.5))
    calibrator.observe(1.0, 0, 1.0)
    assert calibrator.p_up(1.0) == pytest.approx(expit(0.5))


def test_an_old_token_is_calibrated_by_its_own_labels():
    calibrator = fed(REFIT_EVERY * 125, slope=0.5, intercept=-0.6)

    assert calibrator.temperature == pytest.approx(2.0, rel=0.15)
    assert calibrator.intercept == pytest.approx(-0.6, abs=0.15)


def test_trust_in_the_token_grows_with_its_labels():
    few, many = (fed(n, slope=1.0, intercept=-1.0) for n in (REFIT_EVERY * 2, REFIT_EVERY * 60))

    assert -0.45 < few.intercept < 0.0
    assert many.intercept < -0.6


def test_the_calibrator_of_the_source_is_its_own_fixed_point():
    calibrator = fed(REFIT_EVERY * 100, slope=1 / 1.7, intercept=0.0, card=1.7)

    assert calibrator.temperature == pytest.approx(1.7, rel=0.15)
    assert calibrator.intercept == pytest.approx(0.0, abs=0.1)


def test_separable_and_one_sided_labels_stay_finite():
    separable, one_sided = Calibrator(1.0), Calibrator(1.0)
    for number in range(REFIT_EVERY * 20):
        logit = 1.0 if number % 2 else -1.0
        separable.observe(logit, int(logit > 0), 1.0)
        one_sided.observe(logit, 1, 1.0)

    assert 0.5 < separable.p_up(1.0) < 1.0
    assert 0.5 < one_sided.p_up(-1.0) < 1.0


def test_a_reversed_model_is_flattened_and_never_flipped():
    calibrator = fed(REFIT_EVERY * 60, slope=-1.0, intercept=0.0)

    assert calibrator.temperature > 2.0
    assert calibrator.p_up(1.0) > calibrator.p_up(-1.0)
