"""Second moments made equal: what one covariance leaves open, covariances over time decide."""

import numpy as np
import pytest
from scipy.signal import lfilter

from strategies.learning.moments import Moments, matching_map, moments

MEMORY = (0.9, 0.3, 0.6)


def windows(n: int, seed: int, mixing: np.ndarray | None = None, noise: float = 0.1) -> np.ndarray:
    """(n, 24, 5): three factors of other memories, and two directions that hold little but `noise`."""
    rng = np.random.default_rng(seed)
    x = noise * rng.standard_normal((n, 24, 5))
    for column, memory in enumerate(MEMORY):
        shocks = rng.standard_normal((n, 48)) * np.sqrt(1 - memory**2)
        x[..., column] += lfilter([1.0], [1.0, -memory], shocks, axis=1)[:, 24:]
    return (x @ (np.eye(5) if mixing is None else mixing)).astype(np.float32)


def of(x: np.ndarray) -> Moments:
    return moments(x, np.ones(len(x)))


def turned(angle: float) -> np.ndarray:
    """Turns the first factor into the second: no covariance of single bars changes."""
    mixing = np.eye(5)
    mixing[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    return mixing


def test_a_turn_that_no_single_covariance_shows_is_turned_back():
    source, target = of(windows(800, 1)), of(windows(800, 2, turned(0.5)))
    np.testing.assert_allclose(source.covariances[0], target.covariances[0], atol=0.05)

    a, b = matching_map(source, target)

    assert np.abs(turned(0.5) @ a - np.eye(5))[:3, :3].max() < 0.06
    assert np.abs(b).max() < 0.1


def test_equal_markets_are_left_alone():
    a, b = matching_map(of(windows(800, 1)), of(windows(800, 2)))

    assert np.abs(a - np.eye(5))[:3, :3].max() < 0.05
    assert np.abs(b).max() < 0.1


def test_noise_where_the_source_is_quiet_is_silenced_and_offsets_are_taken_back():
    loud = np.diag([1.0, 1.0, 1.0, 30.0, 30.0])
    target = windows(800, 2, loud) + 2.0

    a, b = matching_map(of(windows(800, 1)), of(target))
    mended = target @ a + b

    assert mended.std(axis=(0, 1))[3:].max() < 0.3
    assert np.abs(mended.mean(axis=(0, 1))).max() < 0.05


def test_windows_count_by_their_weight():
    x = np.concatenate([windows(50, 1), windows(50, 2) + 7.0])

    half = moments(x, np.repeat([1.0, 0.0], 50))

    np.testing.assert_allclose(half.mean, of(x[:50]).mean)
    np.testing.assert_allclose(half.covariances, of(x[:50]).covariances, atol=1e-12)


@pytest.mark.parametrize(("bars", "matrices"), [(8, 4), (12, 5), (24, 6)])
def test_short_windows_know_fewer_lags(bars, matrices):
    assert len(of(windows(20, 1)[:, :bars]).covariances) == matrices


def test_a_sensor_that_stands_still_does_no_harm():
    still = windows(100, 2)
    still[..., 4] = 0.0

    a, b = matching_map(of(windows(100, 1)), of(still))

    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
