"""Are two samples of embeddings from one distribution? Tests by permutation, for the reports.

Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012); Schrab et al., MMD Aggregated Two-Sample Test, JMLR
24 (2023). A small p-value says that the domains differ, a large one proves nothing; neither says anything
about labels.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.learning.divergences import (
    SCALES,
    gaussian_kernels,
    median_sigma,
    mmd,
    proxy_a_distance,
    similarity,
    squared_distances,
)


class Apart(NamedTuple):
    """How far two domains lie from each other, and whether that is chance."""

    mmd: float  # squared, unbiased
    p_value: float  # blocks permuted
    differs: bool  # MMDAgg at 5 %
    similarity: float  # 1 - PAD / 2


def apart(x: NDArray[np.float32], y: NDArray[np.float32], block: int) -> Apart:
    """Embeddings (n, Z) and (m, Z) in time order. block: neighbours that change sides together.

    The classifier behind the similarity is judged on the later half of each.
    """
    ours, theirs, generator = torch.from_numpy(x), torch.from_numpy(y), torch.Generator().manual_seed(0)
    p_value = permutation_p_value(ours, theirs, block=block, generator=generator)
    differs = mmd_aggregated(ours, theirs, block=block, generator=generator).rejected
    half, middle = len(x) // 2, len(y) // 2
    distance = proxy_a_distance((x[:half], y[:middle]), (x[half:], y[middle:]))
    return Apart(float(mmd(ours, theirs, unbiased=True)), p_value, differs, similarity(distance))


@torch.no_grad()
def permutation_p_value(
    x: Tensor, y: Tensor, *, block: int = 1, permutations: int = 499, generator: torch.Generator
) -> float:
    """p = (1 + #{null >= observed}) / (1 + B) of the unbiased MMD^2 under the median-width kernel.

    Whole blocks of consecutive rows change sides, so that serial dependence within a block stays in the
    null. The samples should be multiples of `block`; what is left over is not used.
    """
    x, y = x[: len(x) // block * block], y[: len(y) // block * block]
    pooled = torch.cat([x, y])
    kernel = gaussian_kernels(squared_distances(pooled, pooled), median_sigma(pooled), scales=(1.0,))
    n, total = len(x), len(pooled)
    in_x = _sides(n, total, block, permutations, generator).to(x.dtype)
    statistics = _unbiased_by_side(kernel, in_x, n, total - n)
    return float((1 + (statistics[1:] >= statistics[0]).sum()) / (1 + permutations))


class Aggregated(NamedTuple):
    """rejected: whether the domains differ at the level that was asked for; p_values: of each width alone."""

    rejected: bool
    p_values: tuple[float, ...]


@torch.no_grad()
def mmd_aggregated(
    x: Tensor,
    y: Tensor,
    *,
    level: float = 0.05,
    block: int = 1,
    permutations: int = 499,
    generator: torch.Generator,
) -> Aggregated:
    """MMDAgg: one test over all SCALES of the median width, of the level `level` as a whole.

    The widths share their permutations. A second set of permutations finds the largest correction u such that
    "some width exceeds its (1 - u) quantile" has probability `level` under the null, by bisection.
    """
    statistics = _by_width(x, y, block, 2 * permutations, generator)
    observed, first, second = (
        statistics[:, :1],
        statistics[:, 1 : permutations + 1],
        statistics[:, permutations + 1 :],
    )
    reference = torch.cat([first, observed], dim=1).sort(dim=1).values

    def exceed(u: float, values: Tensor) -> Tensor:
        rank = min(permutations, max(0, int(-(-(permutations + 1) * (1 - u) // 1)) - 1))
        return (values > reference[:, rank : rank + 1]).any(dim=0)

    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        allowed = float(exceed(middle, second).float().mean()) <= level
        low, high = (middle, high) if allowed else (low, middle)
    p_values = (1 + (first >= observed).sum(1)) / (1 + permutations)
    return Aggregated(bool(exceed(low, observed)), tuple(p_values.tolist()))


def _by_width(x: Tensor, y: Tensor, block: int, permutations: int, generator: torch.Generator) -> Tensor:
    """(widths, 1 + permutations) unbiased MMD^2, the observed one first."""
    x, y = x[: len(x) // block * block], y[: len(y) // block * block]
    pooled = torch.cat([x, y])
    distances, sigma = squared_distances(pooled, pooled), median_sigma(pooled)
    in_x = _sides(len(x), len(pooled), block, permutations, generator).to(x.dtype)
    kernels = [gaussian_kernels(distances, scale * sigma, scales=(1.0,)) for scale in SCALES]
    return torch.stack([_unbiased_by_side(kernel, in_x, len(x), len(y)) for kernel in kernels])


def _sides(n: int, total: int, block: int, permutations: int, generator: torch.Generator) -> Tensor:
    """(1 + permutations, total): 1 where a row of the pooled sample plays x; unpermuted first."""
    orders = torch.stack([torch.randperm(total // block, generator=generator) for _ in range(permutations)])
    orders = torch.cat([torch.arange(total // block)[None], orders])
    sides = torch.ones(permutations + 1, total // block)
    sides.scatter_(1, orders[:, n // block :], 0.0)
    return sides.repeat_interleave(block, dim=1)


def _unbiased_by_side(kernel: Tensor, in_x: Tensor, n: int, m: int) -> Tensor:
    """The statistic for every row of `in_x` (P, n + m), 1 where a row of the pooled sample plays x."""
    in_y = 1 - in_x
    k_x = in_x @ kernel
    diagonal = kernel.diagonal()
    xx = (k_x * in_x).sum(1) - in_x @ diagonal
    yy = (in_y @ kernel * in_y).sum(1) - in_y @ diagonal
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * (k_x * in_y).sum(1) / (n * m)
