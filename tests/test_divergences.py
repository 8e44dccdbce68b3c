"""Distances between samples: equal to independent references, with a gradient that trains."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from strategies.learning.divergences import (
    class_conditional_mmd,
    coral,
    fourier_mmd,
    joint_mmd,
    median_sigma,
    mmd,
    mmd_linear_time,
    proxy_a_distance,
    similarity,
)
from strategies.learning.two_sample import mmd_aggregated, permutation_p_value

ORACLES = Path(__file__).parent / "oracles"
ONE = (1.0,)


def oracle(topic: str) -> tuple[dict[str, torch.Tensor], dict]:
    with np.load(ORACLES / f"{topic}.npz") as file:
        arrays = {name: torch.from_numpy(array) for name, array in file.items()}
    return arrays, json.loads((ORACLES / f"{topic}.json").read_text())


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5])
def test_mmd_of_one_kernel_equals_the_reference(sigma):
    a, expected = oracle("mmd")
    wanted = expected[f"sigma={sigma}"]

    assert mmd(a["x"], a["y"], sigma=sigma, scales=ONE).item() == pytest.approx(wanted["biased"])
    assert mmd(a["x"], a["y"], sigma=sigma, scales=ONE, unbiased=True).item() == pytest.approx(
        wanted["unbiased"]
    )
    same_n = a["x"], a["y_same_n"]
    assert mmd(*same_n, sigma=sigma, scales=ONE).item() == pytest.approx(wanted["same_n_biased"])
    linear = mmd_linear_time(*same_n, sigma=sigma, scales=ONE)
    assert linear.item() == pytest.approx(wanted["same_n_linear_time"])


def test_the_median_width_and_the_mean_of_five_kernels_equal_the_reference():
    a, expected = oracle("mmd")
    wanted = expected["multi_kernel_sum"]

    sigma = median_sigma(torch.cat([a["x"], a["y"]]))

    assert sigma.item() == pytest.approx(expected["median_heuristic"]["sigma"])
    assert mmd(a["x"], a["y"]).item() == pytest.approx(wanted["biased_mean_of_kernels"])
    assert mmd(a["x"], a["y"], unbiased=True).item() == pytest.approx(wanted["unbiased_mean_of_kernels"])
    assert mmd(a["x"], a["y"], scales=ONE).item() == pytest.approx(expected["median_sigma"]["biased"])


def test_the_gradient_equals_the_closed_form():
    a, _ = oracle("mmd")
    y = a["y"].clone().requires_grad_()

    mmd(a["x"], y, sigma=1.0, scales=ONE).backward()

    np.testing.assert_allclose(y.grad.numpy(), a["grad_y_sigma1_biased"].numpy(), rtol=1e-9, atol=1e-15)


def test_the_gradient_of_the_five_kernels_equals_finite_differences():
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    assert torch.autograd.gradcheck(lambda a, b: mmd(a, b, sigma=1.3), (x, y))
    assert torch.autograd.gradcheck(lambda a, b: mmd(a, b, sigma=1.3, unbiased=True), (x, y))


def test_the_width_follows_the_sample_and_not_the_gradient():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    y = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)) + 0.5

    assert not median_sigma(x.clone().requires_grad_()).requires_grad
    assert mmd(10 * x, 10 * y).item() == pytest.approx(mmd(x, y).item(), rel=1e-4)


def test_mmd_sees_shapes_where_means_and_covariances_are_equal():
    a, expected = oracle("mmd")
    pair = a["same_moments_a"], a["same_moments_b"]

    value = mmd(*pair, sigma=0.5, scales=ONE).item()

    assert value == pytest.approx(expected["same_moments_sigma0.5"]["biased"])
    assert value > 0.05
    assert coral(pair[0].expand(-1, 2), pair[1].expand(-1, 2)).item() == pytest.approx(0.0, abs=1e-12)


def test_mmd_approaches_the_population_value():
    _, expected = oracle("mmd")
    wanted = expected["population_N01_vs_N(mu,1)"]
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2, 3000, 1, generator=generator, dtype=torch.float64)

    value = mmd(x, y + wanted["mu"], sigma=wanted["sigma"], scales=ONE, unbiased=True)

    assert value.item() == pytest.approx(wanted["mmd2"], abs=0.02)


def test_joint_mmd_sees_a_dependence_that_the_layers_alone_do_not_show():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 300, 2, generator=generator)
    same, other = torch.randn(2, 300, 2, generator=generator)

    dependent = joint_mmd([first, first], [same, other]).item()
    alike = joint_mmd([first, second], [same, other]).item()

    assert dependent > 5 * alike


def test_coral_equals_the_reference_and_ignores_means():
    a, expected = oracle("coral")

    assert coral(a["source"], a["target"]).item() == pytest.approx(expected["loss"])
    assert coral(a["source"] + 5, a["target"]).item() == pytest.approx(expected["loss"])
    recoloured = a["source_recoloured_centred"]
    assert coral(recoloured, a["target"]).item() == pytest.approx(0.0, abs=1e-12)


def test_the_permutation_test_rejects_different_and_keeps_equal_distributions():
    a, expected = oracle("mmd")
    wanted = expected["permutation_test"]
    generator = torch.Generator().manual_seed(0)

    assert permutation_p_value(a["x"], a["y"], generator=generator) == pytest.approx(wanted["p_value"])
    p = permutation_p_value(a["null_x"], a["null_y"], generator=generator)
    assert p == pytest.approx(wanted["same_distribution_p_value"], abs=0.05)


def test_random_fourier_features_approach_the_five_kernels_and_have_a_gradient():
    a, _ = oracle("mmd")
    generator = torch.Generator().manual_seed(0)
    y = a["y"].clone().requires_grad_()

    value = fourier_mmd(a["x"], y, features=20_000, generator=generator)
    value.backward()
    exact = a["y"].clone().requires_grad_()
    mmd(a["x"], exact).backward()

    assert value.item() == pytest.approx(mmd(a["x"], a["y"]).item(), rel=0.1)
    assert torch.cosine_similarity(y.grad.flatten(), exact.grad.flatten(), dim=0) > 0.95


def test_the_class_conditional_mmd_is_the_mean_of_the_classes_own():
    a, _ = oracle("mmd")
    x, y = a["x"], a["y"]
    p_x, p_y = torch.arange(len(x)) % 2, torch.arange(len(y)) % 3 == 0
    pooled = torch.cat([x, y])
    sigma = median_sigma(pooled[:: max(1, len(pooled) // 128)])

    value = class_conditional_mmd(x, y, p_x.double(), p_y.double())

    apart = [mmd(x[p_x == c], y[p_y == c], sigma=sigma) for c in (0, 1)]
    assert value.item() == pytest.approx(torch.stack(apart).mean().item())
    # one class moved against the other: the classes' own distance sees it, whatever the marginals
    assert class_conditional_mmd(x, x, p_x.double(), 1 - p_x.double()) > 0.0


def test_the_aggregated_test_keeps_its_level_and_sees_shapes():
    a, _ = oracle("mmd")
    generator = torch.Generator().manual_seed(0)

    def rejects(x, y):
        return mmd_aggregated(x, y, permutations=199, generator=generator).rejected

    assert rejects(a["x"], a["y"])
    assert rejects(a["same_moments_a"], a["same_moments_b"])
    assert sum(rejects(*torch.randn(2, 30, 2, generator=generator)) for _ in range(60)) <= 8


def test_the_p_value_is_uniform_when_the_distributions_are_equal():
    generator = torch.Generator().manual_seed(0)

    def p() -> float:
        x, y = torch.randn(2, 20, 2, generator=generator)
        return permutation_p_value(x, y, permutations=99, generator=generator)

    assert kstest([p() for _ in range(100)], "uniform").pvalue > 0.01


def test_blocks_keep_serial_dependence_in_the_null():
    """Two stretches of one slow series: single rows look different, blocks do not."""
    generator = torch.Generator().manual_seed(0)

    def rejections(block: int) -> int:
        count = 0
        for _ in range(40):
            levels = torch.randn(2, 12, 1, generator=generator).repeat_interleave(10, dim=1)
            x, y = levels + 0.3 * torch.randn(2, 120, 1, generator=generator)
            count += permutation_p_value(x, y, block=block, permutations=99, generator=generator) <= 0.05
        return count

    assert rejections(block=1) > 20
    assert rejections(block=10) <= 6


@pytest.mark.parametrize("kind", ["identical", "mild", "far"])
def test_the_a_distance_equals_the_reference(kind):
    a, expected = oracle("a_distance")
    source, target = a[f"{kind}_source"].numpy(), a[f"{kind}_target"].numpy()

    distance = proxy_a_distance((source[:500], target[:500]), (source[500:], target[500:]))

    assert distance == pytest.approx(expected[kind]["logistic"]["pad"], abs=0.08)
    assert similarity(distance) == pytest.approx(1 - distance / 2)


def test_the_a_distance_is_held_out_so_that_overfitting_is_no_distance():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((2, 40, 60))
    test = rng.standard_normal((2, 400, 60))

    assert proxy_a_distance((train[0], train[1]), (test[0], test[1])) < 0.2


def test_the_a_distance_does_not_depend_on_how_many_rows_a_domain_has():
    rng = np.random.default_rng(0)
    many, few = rng.standard_normal((2000, 3)), rng.standard_normal((100, 3)) + 1.0

    distance = proxy_a_distance((many[:1000], few[:50]), (many[1000:], few[50:]))

    assert distance == pytest.approx(1.2, abs=0.35)  # Bayes: 2 (1 - 2 Phi(-sqrt(3) / 2)) = 1.23
