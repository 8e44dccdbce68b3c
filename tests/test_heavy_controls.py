"""`transfer` on the kinds of market that it was not built on: heavy tails, other mechanisms, other shapes."""

import numpy as np
import pytest

from strategies.learning import transfer
from tests.heavy_controls import DEGREES, KINDS, World, latents

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_tails_are_heavy_and_the_same_seed_gives_the_same_windows():
    drawn = latents(np.random.default_rng(0), 2_000, 12, 3).ravel()
    assert DEGREES < 4
    assert np.mean(((drawn - drawn.mean()) / drawn.std()) ** 4) > 6
    first, again = (World(3, "tanh", 8, 2).task("covariate", 200, 100, 40, 60) for _ in range(2))
    np.testing.assert_array_equal(first.test.x, again.test.x)
    np.testing.assert_array_equal(first.matured.x, first.target.x[-40:])


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("mechanism", "bars", "sensors"),
    [("linear", 8, 2), ("tanh", 8, 2), ("linear", 32, 12), ("product", 32, 12), ("tanh", 16, 40)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_is_sane(mechanism: str, bars: int, sensors: int, kind: str):
    source, target, matured, test = World(0, mechanism, bars, sensors).task(kind, 3_000, 1_500, 240, 1_500)
    result = transfer(source.x, source.y, target.x, matured.x, matured.y, test.x, seed=0)

    def accuracy(p: np.ndarray) -> float:
        return float(np.mean((p > 0.5) == test.y))

    frozen, chosen = accuracy(result.by_arm["frozen"]), accuracy(result.probability)
    if kind in ("irrelevant", "random_walk"):
        assert result.verdict == "none"
    elif kind == "reversed":
        assert result.verdict in ("scratch", "none")
    elif kind == "covariate":  # latents that last equally long: which one decides is open where all are alike
        assert result.verdict != "none"
        assert chosen > frozen - 0.015
    elif kind in ("none", "label_shift"):
        assert result.verdict == "frozen"
    else:
        assert result.verdict != "adapted" or chosen > frozen
