"""The network: causal, windows and sequences agree, any shape works."""

import numpy as np
import pytest
import torch

from bot.core.errors import DataError
from strategies.learning.architecture import Architecture
from strategies.learning.encoder import Encoder

SHAPE = Architecture(features=5, channels=8, blocks=3, pool_bars=4, embedding=6)


def encoder(architecture: Architecture = SHAPE, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(architecture).eval()


def rows(n: int, features: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, n, features, generator=torch.Generator().manual_seed(seed))


def test_by_default_an_output_depends_on_78_rows():
    assert Architecture(features=24, channels=32, blocks=5, pool_bars=16, embedding=32).receptive_field == 78


def test_nothing_after_a_step_changes_its_output():
    net, x = encoder(), rows(60)
    changed = x.clone()
    changed[:, 40:] = 1e3

    for before, after in zip(net(x), net(changed), strict=True):
        torch.testing.assert_close(before[:, :40], after[:, :40], rtol=0, atol=0)


def test_an_output_depends_on_exactly_its_receptive_field():
    net, x = encoder(), rows(60).requires_grad_()

    net(x).z[0, 50].sum().backward()

    used = torch.nonzero(x.grad[0].abs().sum(1)).squeeze(1)
    assert used.max() == 50
    assert used.min() == 50 - net.receptive_field + 1


def test_the_last_output_of_a_window_equals_that_of_the_sequence():
    net, x = encoder(), rows(100)
    window = x[:, 100 - net.receptive_field :]

    for whole, part in zip(net(x), net(window), strict=True):
        torch.testing.assert_close(whole[:, -1], part[:, -1], rtol=1e-5, atol=1e-6)


def test_the_pool_averages_the_steps_that_there_are():
    net = encoder()
    h = rows(6, features=8)

    mean = net._trailing_mean(h)

    torch.testing.assert_close(mean[:, 0], h[:, 0])
    torch.testing.assert_close(mean[:, 1], h[:, :2].mean(1))
    torch.testing.assert_close(mean[:, 5], h[:, 2:6].mean(1))


@pytest.mark.parametrize("steps", [8, 9, 77, 78, 300])
@pytest.mark.parametrize("features", [2, 24])
def test_any_length_and_width_gives_one_output_per_step(steps, features):
    architecture = Architecture(features=features, channels=32, blocks=5, pool_bars=16, embedding=32)

    outputs = encoder(architecture)(torch.randn(3, steps, features))

    assert outputs.z.shape == (3, steps, 32)
    assert outputs.logit.shape == outputs.log_vol.shape == (3, steps)


def test_every_parameter_is_in_the_architecture_and_gets_a_gradient():
    net = encoder()
    outputs = net(rows(40))
    (outputs.logit.sum() + outputs.log_vol.sum()).backward()

    assert {name: tuple(p.shape) for name, p in net.named_parameters()} == SHAPE.shapes()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_weights_survive_the_way_through_numpy():
    net, x = encoder(), rows(40)

    again = Encoder.from_weights(net.weights(), SHAPE).eval()

    torch.testing.assert_close(again(x).logit, net(x).logit, rtol=0, atol=0)


def test_weights_are_a_copy():
    net = encoder()
    kept = net.weights()
    before = kept["project.weight"].copy()

    with torch.no_grad():
        net.project.weight.add_(1.0)

    np.testing.assert_array_equal(kept["project.weight"], before)


def test_weights_of_another_shape_or_with_nan_are_refused():
    weights = encoder().weights()

    with pytest.raises(DataError, match=r"do not fit.*direction\.bias"):
        Encoder.from_weights({k: v for k, v in weights.items() if k != "direction.bias"}, SHAPE)
    weights["input.bias"][0] = np.nan
    with pytest.raises(DataError, match=r"NaN or infinity in input\.bias"):
        Encoder.from_weights(weights, SHAPE)
