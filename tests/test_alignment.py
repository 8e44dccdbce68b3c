"""The ways to align, behind one interface: each reaches the token's windows, and only as far as it may."""

import numpy as np
import pytest
import torch

from strategies.learning import window_training
from strategies.learning.alignment import METHODS, alignment, reverse_gradient
from strategies.learning.controls import World
from strategies.learning.encoder import Outputs
from strategies.learning.finetuning import checksums
from strategies.learning.listing_training import _embedded, draw, with_labels
from strategies.learning.sequences import Sequences
from strategies.learning.window_net import Embedded, WindowNet, architecture_for, scale_of
from strategies.learning.window_training import adapt
from tests.controls import World as Listings

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINED = [method for method in METHODS if method not in ("frozen", "normalise", "moments", "cached")]


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, bars=8, sensors=6)


@pytest.fixture(scope="module")
def network() -> WindowNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WindowNet(architecture_for(8, 6), 1.0)


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(window_training, "STEPS", 6)
    monkeypatch.setattr(window_training, "CACHED_STEPS", 12)


def adapted(network: WindowNet, world: World, method: str, kind: str = "covariate") -> WindowNet:
    source, target = world.windows("source", 400, 1), world.windows(kind, 300, 2)
    x, y = torch.from_numpy(source.x), torch.from_numpy(source.y).float()
    return adapt(network, x, y, torch.from_numpy(target.x), 0.5, method, 0)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("method", [m for m in METHODS if m != "frozen"])
def test_every_method_but_the_detached_one_reaches_the_tokens_projection(network, world, method):
    moved = adapted(network, world, method).projection

    assert (float(moved.offset.detach().abs().max()) > 0) == (method != "mmd_detached")


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("method", ["cached", "normalise", "moments"])
def test_what_is_frozen_keeps_its_bits(network, world, method):
    before = checksums(network.encoder)

    assert checksums(adapted(network, world, method).encoder) == before
    assert checksums(network.encoder) == before


def embedded(n: int, shift: float, seed: int) -> Embedded:
    generator = torch.Generator().manual_seed(seed)
    sensors = torch.randn(n, 8, 6, generator=generator) + shift
    lifted, z = (
        torch.randn(n, 10, generator=generator) + shift,
        torch.randn(n, 4, generator=generator) + shift,
    )
    return Embedded(sensors, lifted, z, z[:, 0])


@pytest.mark.parametrize("method", [m for m in TRAINED if m != "adversarial"])
def test_a_loss_grows_with_the_shift_and_with_the_ramp(method):
    def loss(shift: float, progress: float) -> float:
        apart = alignment(method, 14, torch.Generator().manual_seed(0))
        return float(apart(embedded(200, 0.0, 1), embedded(200, shift, 2), progress).detach())

    assert loss(1.0, 1.0) > loss(0.0, 1.0)
    if method != "combined":  # its discriminator speaks before it is reversed
        assert loss(1.0, 0.0) == 0.0


def test_the_reversal_turns_gradients_round_and_nothing_else():
    x = torch.ones(3, requires_grad=True)

    y = reverse_gradient(x, 0.5)
    y.sum().backward()

    assert torch.equal(y, x)
    assert x.grad.tolist() == [-0.5, -0.5, -0.5]


def test_the_discriminator_learns_while_the_encoder_is_told_the_opposite():
    apart = alignment("adversarial", 14, torch.Generator().manual_seed(0))
    ours, theirs = embedded(200, 0.0, 1), embedded(200, 1.0, 2)
    z = theirs.z.clone().requires_grad_()
    optimiser = torch.optim.Adam(apart.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = apart(ours, theirs._replace(z=z), 1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.5 * losses[0]
    z.grad = None
    apart(ours, theirs._replace(z=z), 1.0).backward()
    with torch.no_grad():
        # a step down the reversed gradient is a step up the discriminator's loss
        after = apart(ours, theirs._replace(z=z - 50 * z.grad), 1.0)
    assert float(after) > losses[-1]


def test_normalising_undoes_other_gains_and_offsets_of_the_sensors(network, world):
    twin = adapted(network, world, "normalise", "affine")
    source, target = (torch.from_numpy(world.windows(kind, 400, 5).x) for kind in ("source", "affine"))

    ours, theirs = twin.prepared(source, own=False), twin.prepared(target, own=True)

    np.testing.assert_allclose(theirs.detach().mean((0, 1)), ours.mean((0, 1)), atol=0.1)
    np.testing.assert_allclose(theirs.detach().std((0, 1)), ours.std((0, 1)), rtol=0.1)


def test_one_scale_serves_all_sensors():
    x = np.random.default_rng(0).normal(3.0, [1.0, 7.0], (500, 8, 2)).astype(np.float32)

    assert scale_of(x) == pytest.approx(1 / 5.0, rel=0.05)


def test_embeddings_are_drawn_as_their_classes_are_weighted():
    """A study's source is balanced to the token's share of ups in what is aligned too."""
    data = Sequences([Listings(0).series("S", 3_000, "source", 1)], context=8)
    batch = draw(data, with_labels(data), 8, torch.Generator().manual_seed(0))
    outputs = Outputs(lifted=batch.y[..., None], z=batch.y[..., None], logit=batch.y, log_vol=batch.y)
    chance = batch.weight * torch.tensor([0.2, 1.8])[batch.y.long()]

    drawn = _embedded(outputs, batch, chance, torch.Generator().manual_seed(0))

    assert float(drawn.z.mean()) == pytest.approx(0.9, abs=0.08)
    np.testing.assert_array_equal(drawn.z[:, 0], drawn.logit)


@pytest.mark.campaign
def test_the_cached_adaptation_wins_back_as_much_as_the_whole_one():
    def won(method: str, seed: int) -> float:
        task = World(seed).task("covariate")
        x, y = torch.from_numpy(task.source.x), torch.from_numpy(task.source.y).float()
        net = window_training.train_source(x, y, scale_of(task.source.x), seed)

        def accuracy(one: WindowNet) -> float:
            said = one.measure(torch.from_numpy(task.test.x), own=True).logit.numpy()
            return float(np.mean((said > 0) == task.test.y))

        return accuracy(adapt(net, x, y, torch.from_numpy(task.target.x), 0.5, method, seed)) - accuracy(net)

    whole, cached = ([won(method, seed) for seed in range(3)] for method in ("mmd", "cached"))
    assert np.mean(cached) > np.mean(whole) - max(0.02, float(np.std(whole)))
