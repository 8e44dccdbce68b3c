"""The rival that has the token's labels alone: it learns what they say, repeatably, nothing without them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bot import settings
from strategies.learning import scratch
from strategies.learning.architecture import Architecture, Weights
from strategies.learning.encoder import Encoder
from strategies.learning.sequences import Sequences
from tests.controls import World, replay, snapshot

pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = settings.Adaptation()
SHAPE = Architecture(features=10, channels=16, blocks=4, pool_bars=8, embedding=16)
WORLD = World(2)


def like() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SHAPE)


def trained(kind: str = "reversed", *, labels: bool = True, seed: int = 1) -> Weights | None:
    token = WORLD.series("NEW", 2_000, kind, 3, labels=labels)
    source = WORLD.series("SOURCE", 200, "source", 0)
    return scratch.train(like(), replay(source, int(source.starts[100])), snapshot(token, seed), PLAN)


def accuracy(weights: Weights, kind: str) -> float:
    fresh = WORLD.series("FRESH", 4_000, kind, 7)
    encoder = Encoder.from_weights(weights, SHAPE)
    logit = Sequences([fresh], encoder.receptive_field - 1).measure(encoder).logit
    known = np.isfinite(logit)
    return float(np.mean((logit[known] > 0) == fresh.y[known]))


def test_it_learns_a_token_on_which_the_source_is_wrong():
    weights = trained()
    assert weights is not None
    assert accuracy(weights, "reversed") > 0.6


def test_without_labels_there_is_no_such_model():
    assert trained(labels=False) is None


def test_the_same_job_gives_the_same_bits_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    first = trained()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    second = trained()
    assert first is not None
    assert second is not None
    assert all(np.array_equal(first[name], second[name]) for name in first)
    other = trained(seed=2)
    assert other is not None
    assert not np.array_equal(first["project.weight"], other["project.weight"])


def test_labels_of_the_held_out_tail_do_not_teach():
    """They only say when to stop, and there is but one look at them here."""
    token = WORLD.series("NEW", 2_000, "reversed", 3, labels=True)
    source = WORLD.series("SOURCE", 200, "source", 0)
    many = replay(source, int(source.starts[100]))
    tail = np.arange(2_000) > 1_900
    hidden = replace(token, y=np.where(tail, np.int8(-1), token.y))
    brief = settings.Adaptation(steps=10)
    models = [scratch.train(like(), many, snapshot(one), brief) for one in (token, hidden)]
    assert models[0] is not None
    assert models[1] is not None
    np.testing.assert_array_equal(models[0]["input.weight"], models[1]["input.weight"])
