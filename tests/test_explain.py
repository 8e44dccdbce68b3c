"""Importance finds what a model leans on; pictures keep what is apart apart."""

import numpy as np
import pytest

from strategies.learning.explain import SHOWN_MOST, permutation_importance, pictures, principal


def test_what_a_model_leans_on_costs_most_and_what_it_ignores_nothing():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4_000, 3)).astype(np.float32)
    y = (rng.random(4_000) < 1 / (1 + np.exp(-2 * x[:, 1] - 0.5 * x[:, 2]))).astype(float)

    def score(rows: np.ndarray) -> np.ndarray:
        return 2.0 * rows[:, 1].astype(float) + 0.5 * rows[:, 2]

    found = permutation_importance(score, x, y, ("nothing", "much", "little"), block=20)

    assert [one.feature for one in found] == ["much", "little", "nothing"]
    assert found[0].loss > 5 * found[1].loss > 0
    assert found[2].loss == 0


def test_rows_without_a_score_do_not_count():
    x, y = np.ones((100, 1), np.float32), np.ones(100)

    def score(rows: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(rows)) < 50, np.nan, rows[:, 0].astype(float))

    assert permutation_importance(score, x, y, ("one",), block=10)[0].loss == 0


def test_a_feature_that_misled_has_a_negative_importance():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2_000, 1)).astype(np.float32)

    found = permutation_importance(lambda rows: -3.0 * rows[:, 0], x, (x[:, 0] > 0) * 1.0, ("wrong",), 10)

    assert found[0].loss < 0


def test_the_principal_components_are_the_directions_of_most_variance():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((500, 2)) * (5.0, 2.0)
    axes = np.linalg.qr(rng.standard_normal((6, 6)))[0][:2]

    scores, share = principal(hidden @ axes + 0.01 * rng.standard_normal((500, 6)))

    assert share.sum() == pytest.approx(1.0, abs=1e-3)
    assert np.abs(np.corrcoef(scores[:, 0], hidden[:, 0])[0, 1]) > 0.98
    assert scores.mean(axis=0) == pytest.approx(0, abs=1e-9)


def test_pictures_keep_two_clouds_apart_and_leave_slow_methods_out_where_they_would_not_end():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(0, 1, (60, 8)), rng.normal(8, 1, (60, 8))])

    found = pictures(z)

    assert {"PCA", "t-SNE"} <= set(found)
    for points in found.values():
        centres = points[:60].mean(axis=0), points[60:].mean(axis=0)
        spread = max(points[:60].std(), points[60:].std())
        assert np.linalg.norm(centres[0] - centres[1]) > spread
    assert set(pictures(np.zeros((SHOWN_MOST + 1, 3)) + rng.random((SHOWN_MOST + 1, 3)))) == {"PCA"}
