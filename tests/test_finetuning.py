"""Fine-tuning changes exactly the weights that it says; the number of labels decides how many those are."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bot.core.errors import RuntimeFault, UsageError
from strategies.learning.architecture import Architecture
from strategies.learning.encoder import Encoder
from strategies.learning.finetuning import (
    STRATEGIES,
    checksums,
    fine_tune,
    l2sp,
    layers,
    select,
)

pytestmark = pytest.mark.usefixtures("one_thread")

ORACLES = Path(__file__).parent / "oracles"
ARCHITECTURE = Architecture(features=5, channels=8, blocks=3, pool_bars=4, embedding=6)


def encoder() -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder(ARCHITECTURE, dropout=0.1)


class Task:
    """Batches whose label is the sign of the last reading of the first sensor."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self, network: Encoder) -> Tensor:
        x = torch.randn(64, 8, 5, generator=self.generator)
        y = (x[:, -1, 0] > 0).float()
        return torch.nn.functional.binary_cross_entropy_with_logits(network(x).logit[:, -1], y)


HEAD = {"direction.weight", "direction.bias"}
PROJECT = {"project.weight", "project.bias"}
BLOCK_2 = {"blocks.2.taps.weight", "blocks.2.taps.bias", "blocks.2.norm.weight", "blocks.2.norm.bias"}
VOLATILITY = {"volatility.weight", "volatility.bias"}
ALL = set(checksums(encoder())) - VOLATILITY


@pytest.mark.parametrize(
    ("strategy", "phases"),
    [
        ("head_only", [HEAD]),
        ("partial", [HEAD | PROJECT | BLOCK_2]),
        ("full", [ALL]),
        ("progressive", [HEAD, HEAD | PROJECT, HEAD | PROJECT | BLOCK_2, ALL]),
        ("discriminative", [ALL]),
        ("l2sp", [ALL]),
        ("curriculum", [HEAD, HEAD | PROJECT | BLOCK_2, ALL]),
    ],
)
def test_every_phase_changes_exactly_the_parameters_that_it_claims(strategy, phases):
    network, before = encoder(), checksums(encoder())

    done = fine_tune(network, Task(), strategy, steps=20, rate=1e-2)

    assert [set(changed.parameters) for changed in done] == phases
    after = checksums(network)
    assert {name for name in after if after[name] != before[name]} == set().union(*phases)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_learns(strategy):
    network, task = encoder(), Task()
    before = float(task(network.eval()).detach())

    fine_tune(network, task, strategy, steps=150, rate=2e-2)

    assert float(task(network).detach()) < before - 0.02


def test_all_parameters_but_the_other_tasks_head_are_in_exactly_one_layer():
    names = [name for layer in layers(encoder()) for name in layer]

    assert len(names) == len(set(names))
    assert set(names) == ALL


def test_a_frozen_weight_that_moves_is_a_fault():
    network = encoder()

    def meddling(one: Encoder) -> Tensor:
        with torch.no_grad():
            one.input.weight.add_(1.0)
        return Task()(one)

    with pytest.raises(RuntimeFault, match=r"frozen weights have moved: input\.weight"):
        fine_tune(network, meddling, "head_only", steps=2)


def test_frozen_layers_drop_nothing_out():
    """The head's own loss is then the same function at every step."""
    network, fixed = encoder(), torch.randn(4, 8, 5)
    seen = []

    def watch(one: Encoder) -> Tensor:
        seen.append(one(fixed).z.detach())
        return Task()(one)

    fine_tune(network, watch, "head_only", steps=3)

    assert torch.equal(seen[0], seen[1])


def test_discriminative_rates_move_the_upper_layers_more():
    network, before = encoder(), encoder()

    fine_tune(network, Task(), "discriminative", steps=5, rate=1e-2)

    after, start = dict(network.state_dict()), dict(before.state_dict())
    moved = [max(float((after[n] - start[n]).abs().max()) for n in layer) for layer in layers(network)]
    assert all(upper > 3 * lower for upper, lower in pairwise(moved))


def test_the_anchor_is_a_constant_copy_and_holds():
    def distance(strategy: str) -> float:
        network, start = encoder(), encoder()
        fine_tune(network, Task(), strategy, steps=60, rate=3e-2)
        body = [n for n in ALL if n not in HEAD]
        ours, theirs = dict(network.named_parameters()), dict(start.named_parameters())
        return float(l2sp([ours[n] for n in body], [theirs[n] for n in body]).detach())

    assert distance("l2sp") < 0.8 * distance("full")


def test_l2sp_equals_the_reference():
    with np.load(ORACLES / "l2sp.npz") as file:
        w0, w = (torch.from_numpy(file[name]) for name in ("w0", "w"))
    expected = json.loads((ORACLES / "l2sp.json").read_text())

    assert l2sp([w], [w0]).item() == pytest.approx(expected["sum_sq"])
    assert l2sp([w], [w0]).item() / 2 == pytest.approx(expected["half_sum_sq"])


@pytest.mark.parametrize(
    ("labels", "strategy"),
    [
        (0, None),
        (29, None),
        (30, "head_only"),
        (199, "head_only"),
        (200, "curriculum"),
        (1000, "discriminative"),
    ],
)
def test_the_number_of_effective_labels_selects_the_strategy(labels, strategy):
    assert select(labels) == strategy


def test_divergence_and_unknown_strategies_are_told():
    with pytest.raises(RuntimeFault, match="diverged"):
        fine_tune(encoder(), lambda one: Task()(one) * float("nan"), "full", steps=1)
    with pytest.raises(UsageError, match="no strategy 'all'; choose from head_only"):
        fine_tune(encoder(), Task(), "all", steps=1)
