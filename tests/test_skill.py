"""Skill and its intervals."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from strategies.learning.skill import measure, weighted_auc


def sample(n: int, seed: int = 0, slope: float = 1.0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1, n)
    y = (rng.random(n) < expit(slope * logit)).astype(float)
    return logit, y, rng.uniform(0.1, 1, n)


def test_the_weighted_auc_equals_the_reference():
    logit, y, weight = sample(500)

    assert weighted_auc(logit, y, weight) == pytest.approx(roc_auc_score(y, logit, sample_weight=weight))


def test_ties_count_half():
    logit, y, weight = sample(500)

    rounded = weighted_auc(np.round(logit), y, weight)

    assert rounded == pytest.approx(roc_auc_score(y, np.round(logit), sample_weight=weight))
    assert weighted_auc(np.zeros(500), y, weight) == pytest.approx(0.5)


def test_one_class_has_no_auc():
    assert np.isnan(weighted_auc(np.arange(3.0), np.ones(3), np.ones(3)))


def test_every_measure_equals_its_definition():
    logit, y, weight = sample(1000)
    measured = measure(logit, y, weight, np.arange(1000) // 8, base_rate=0.4, seed=0)

    right = (logit > 0) == (y > 0.5)
    sure = np.abs(logit) >= np.quantile(np.abs(logit), 0.9)
    skill = 1 - sklearn_log_loss(y, expit(logit), sample_weight=weight) / sklearn_log_loss(
        y, np.full(1000, 0.4), sample_weight=weight
    )
    assert measured["accuracy"].value == pytest.approx(np.average(right, weights=weight))
    assert measured["accuracy_confident"].value == pytest.approx(
        np.average(right[sure], weights=weight[sure])
    )
    assert measured["accuracy_confident"].n == pytest.approx(weight[sure].sum())
    assert measured["skill"].value == pytest.approx(skill)
    assert measured["auc"].n == pytest.approx(weight.sum())


def test_the_interval_covers_the_truth_as_often_as_it_says():
    covered = 0
    for seed in range(60):
        logit, y, _ = sample(400, seed)
        interval = measure(logit, y, np.ones(400), np.arange(400) // 4, 0.5, seed)["accuracy"]
        covered += interval.low <= 0.6945 <= interval.high  # E expit(|N(0, 1)|)

    assert 51 <= covered <= 60


def test_labels_that_say_the_same_widen_the_interval():
    logit, y, weight = sample(300)
    eight_times = [np.repeat(column, 8) for column in (logit, y, weight)]

    independent = measure(*eight_times, np.arange(2400), 0.5, 0)["accuracy"]
    blocked = measure(*eight_times, np.arange(2400) // 8, 0.5, 0)["accuracy"]

    assert blocked.high - blocked.low > 2 * (independent.high - independent.low)
