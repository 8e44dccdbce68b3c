"""The rival that has the token's labels alone: it learns what they say, repeatably, nothing without them."""

import numpy as np
import pytest
import torch

from bot import settings
from strategies.learning import scratch
from strategies.learning.architecture import Architecture, Weights
from strategies.learning.dataset import LabelledSeries
from strategies.learning.encoder import Encoder
from strategies.learning.registry import Model, ModelCard
from strategies.learning.sequences import Sequences
from tests.controls import World, replay, snapshot

pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = settings.Adaptation()
SHAPE = Architecture(features=10, channels=16, blocks=4, pool_bars=8, embedding=16)
WORLD = World(2)


def like() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SHAPE)


def token(n: int = 2_000, *, labels: bool = True) -> LabelledSeries:
    """The first n bars of one token."""
    return WORLD.series("NEW", 5_000, "reversed", 3, labels=labels).rows(slice(n))


def trained(series: LabelledSeries, seed: int = 1, before: Model | None = None) -> Weights | None:
    source = WORLD.series("SOURCE", 200, "source", 0)
    job = snapshot(series, seed)
    return scratch.train(like(), replay(source, int(source.starts[100])), job, PLAN, before)


def kept(weights: Weights | None, until: int) -> Model:
    assert weights is not None
    card = ModelCard(
        kind="scratch", architecture=SHAPE, features="1", columns=(), location=(), scale=(), symbols=("NEW",),
        since=0, until=until, temperature=1.0, metrics={},
    )  # fmt: skip
    return Model("last", weights, card)


def accuracy(weights: Weights) -> float:
    fresh = WORLD.series("FRESH", 4_000, "reversed", 7)
    encoder = Encoder.from_weights(weights, SHAPE)
    logit = Sequences([fresh], encoder.receptive_field - 1).measure(encoder).logit
    known = np.isfinite(logit)
    return float(np.mean((logit[known] > 0) == fresh.y[known]))


def spread(weights: Weights) -> float:
    """Of the logits on fresh bars."""
    encoder = Encoder.from_weights(weights, SHAPE)
    fresh = WORLD.series("FRESH", 1_000, "reversed", 7)
    return float(np.nanstd(Sequences([fresh], encoder.receptive_field - 1).measure(encoder).logit))


def test_in_two_months_it_learns_a_token_on_which_the_source_is_wrong():
    last = None
    for rows in range(500, 5_001, 500):
        part = token(rows)
        last = kept(trained(part, before=last), int(part.starts[-1]) + part.step)
    assert last is not None
    assert accuracy(last.weights) > 0.65


def test_without_labels_there_is_no_such_model():
    assert trained(token(labels=False)) is None


def test_few_labels_move_it_little():
    few, many = trained(token(160)), trained(token())
    assert few is not None
    assert many is not None
    assert spread(few) < 0.3 * spread(many)


def test_the_same_job_gives_the_same_bits_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    first = trained(token())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    second = trained(token())
    assert first is not None
    assert second is not None
    assert all(np.array_equal(first[name], second[name]) for name in first)
    other = trained(token(), seed=2)
    assert other is not None
    assert not np.array_equal(first["project.weight"], other["project.weight"])


def test_it_goes_on_from_what_it_was_on_labels_that_are_new_to_it():
    half = token(1_000)
    last = kept(trained(half), int(half.starts[-1]) + half.step)
    on, afresh = trained(token(), before=last), trained(token())
    assert on is not None
    assert afresh is not None
    assert not np.array_equal(on["input.weight"], afresh["input.weight"])
    assert accuracy(on) > accuracy(last.weights)


def test_labels_that_it_has_learnt_from_buy_no_steps_again():
    whole = token()
    until = int(whole.starts[-1]) + whole.step
    assert trained(whole, before=kept(trained(whole), until)) is None
    few_new = kept(trained(whole), until - 40 * whole.step)
    assert trained(whole, before=few_new) is None
    enough_new = kept(trained(whole), until - 90 * whole.step)
    moved = trained(whole, before=enough_new)
    assert moved is not None
    assert 0 < np.abs(moved["input.weight"] - enough_new.weights["input.weight"]).max() < 0.01
