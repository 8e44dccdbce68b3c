"""Prototypes, mixtures, the prior and the choice without labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from bot.core.errors import DataError
from strategies.learning.few_shot import Prototypes, mixture
from strategies.learning.label_free import density_ratio, effective_windows, estimated_risk
from strategies.learning.prior import intercepts, share_up

ORACLES = Path(__file__).parent / "oracles"


def oracle(topic: str) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(ORACLES / f"{topic}.npz") as file:
        return dict(file), json.loads((ORACLES / f"{topic}.json").read_text())


def test_prototypes_and_distances_equal_the_reference():
    a, _ = oracle("prototypes")
    support = a["support"].reshape(-1, 4)
    prototypes = Prototypes(support, np.repeat([0, 1], 5))

    np.testing.assert_allclose(prototypes.means, a["prototypes"])
    distances = prototypes.distances(a["query"])
    np.testing.assert_allclose(-np.sqrt(distances), a["logits_euclidean"])
    np.testing.assert_allclose(expit(distances[:, 0] - distances[:, 1]), a["prob_sq_euclidean"][:, 1])
    assert ((prototypes.logit(a["query"]) > 0) == (a["prob_euclidean"][:, 1] > 0.5)).all()


def test_prototypes_of_gaussian_classes_give_calibrated_log_odds():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 40_000)
    z = rng.standard_normal((40_000, 3)) + 0.7 * y[:, None]

    p = expit(Prototypes(z[:20_000], y[:20_000]).logit(z[20_000:]))

    assert p.mean() == pytest.approx(y[20_000:].mean(), abs=0.03)
    sure = p > 0.8
    assert y[20_000:][sure].mean() == pytest.approx(p[sure].mean(), abs=0.04)


def test_prototypes_of_one_class_are_refused():
    with pytest.raises(DataError, match="both classes"):
        Prototypes(np.zeros((5, 2)), np.ones(5, np.int64))


def loss(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.log(np.where(y == 1, p, 1 - p))


def test_the_ensemble_follows_the_better_model_and_is_never_far_from_it():
    y = np.random.default_rng(0).integers(0, 2, 300)
    good, poor = np.where(y == 1, 0.7, 0.3), np.full(300, 0.5)

    p = mixture(np.stack([good, poor]), y.astype(float), np.ones(300), np.arange(300))

    assert p[0] == pytest.approx((good[0] + 0.5) / 2)
    assert np.abs(p[-50:] - good[-50:]).max() < 0.01
    assert loss(p, y).mean() < loss(good, y).mean() + np.log(2) / 300 + 0.01


def test_new_losses_count_more_than_old_ones():
    """The one was right 400 times and was then wrong a hundred times, as sure of it; the other never knew."""
    y = np.ones(500)
    hero = np.r_[np.full(400, 0.6), np.full(100, 0.2)]

    p = mixture(np.stack([hero, np.full(500, 0.5)]), y, np.ones(500), np.arange(500))

    assert p[390:400] == pytest.approx(hero[390:400], abs=1e-3)
    assert p[-1] > 0.49


def test_the_prior_is_the_missing_intercept_shrunk_to_the_pooled_one():
    rng = np.random.default_rng(0)
    score = rng.normal(0, 2, 4000)
    y = (rng.random(4000) < expit(score + 1.2)).astype(float)
    b = intercepts(score, y, np.ones(4000), np.arange(4000), np.full(4000, 0.3))

    assert b[0] == pytest.approx(0.3, abs=1e-6)
    assert 0.3 < b[100] < 1.2
    assert b[-1] == pytest.approx(1.2, abs=0.15)


def test_the_prior_of_a_single_class_is_finite():
    b = intercepts(np.zeros(4000), np.ones(4000), np.ones(4000), np.arange(4000), np.zeros(4000))

    assert 1 < b[-1] <= 4


def test_the_share_of_ups_is_pulled_to_the_pooled_one():
    y = np.ones(20)

    assert share_up(y, np.ones(20), 0.5, pseudo_labels=20) == pytest.approx(0.75)


def test_the_risk_without_labels_equals_the_reference():
    a, expected = oracle("dev_risk")

    risk = estimated_risk(a["weights"], a["losses"])

    assert risk.iwcv == pytest.approx(expected["iwcv"])
    assert risk.eta == pytest.approx(expected["eta"])
    assert risk.dev == pytest.approx(expected["dev"])
    assert effective_windows(np.ones(7)) == pytest.approx(7)


def test_the_density_ratio_moves_the_sources_mean_to_the_tokens():
    rng = np.random.default_rng(0)
    ours, theirs, held = (
        rng.normal(0, 1, (3000, 2)),
        rng.normal([0.5, 0], 1, (1000, 2)),
        rng.normal(0, 1, (3000, 2)),
    )

    weights = density_ratio((ours, theirs), held)

    assert np.average(held[:, 0], weights=weights) == pytest.approx(0.5, abs=0.1)
    assert weights.mean() == pytest.approx(1.0, abs=0.1)


def test_domains_that_separate_allow_no_choice_without_labels():
    rng = np.random.default_rng(0)

    with pytest.raises(DataError, match="too far apart"):
        density_ratio((rng.normal(0, 1, (300, 2)), rng.normal(6, 1, (300, 2))), rng.normal(0, 1, (300, 2)))
