"""How far two samples of embeddings are apart. All MMD values here are MMD squared.

Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012); Long et al., Deep Adaptation Networks, ICML 2015
(several bandwidths at once); Sun & Saenko, Deep CORAL, ECCV 2016; Ben-David et al., A theory of learning
from different domains, Machine Learning 79 (2010) (A-distance).

Samples are tensors (n, d) and (m, d), one row per embedding.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

Floats = NDArray[np.float64]

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # kernel widths as multiples of sigma


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(n, m) squared Euclidean distances, never negative."""
    return (
        torch.addmm(b.square().sum(1)[None, :], a, b.T, alpha=-2).add(a.square().sum(1)[:, None]).clamp_min(0)
    )


@torch.no_grad()
def median_sigma(pooled: Tensor) -> Tensor:
    """sqrt of the median squared distance between different rows of the pooled sample, without gradient.

    A width that the gradient could reach would let the encoder lower the MMD by stretching the scale.
    """
    distances = squared_distances(pooled, pooled)
    upper = torch.ones_like(distances, dtype=torch.bool).triu(1)
    # unlike torch's, numpy's median interpolates even counts
    median = float(np.median(distances[upper].numpy()))
    return torch.tensor(max(median, 1e-12), dtype=pooled.dtype).sqrt()


class _MeanOfGaussians(torch.autograd.Function):
    """Mean over the scales of exp(-d^2 / (2 (scale sigma)^2)), elementwise, and its slope in one pass.

    With the default scales each kernel is the fourth power of the next wider one: one exp serves all five.
    Autograd through the powers would cost three times as much as the rest of the MMD.
    """

    @staticmethod
    def forward(ctx: Any, distances: Tensor, sigma: float, scales: tuple[float, ...]) -> Tensor:
        total, slope = torch.zeros_like(distances), torch.zeros_like(distances)
        kernel = torch.empty_like(distances)
        for number, scale in enumerate(reversed(scales)):
            rate = -1 / (2 * (scale * sigma) ** 2)
            if number and scales == SCALES:
                kernel.square_().square_()
            else:
                torch.mul(distances, rate, out=kernel).exp_()
            total.add_(kernel, alpha=1 / len(scales))
            slope.add_(kernel, alpha=rate / len(scales))
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


def gaussian_kernels(distances: Tensor, sigma: Tensor | float, scales: tuple[float, ...] = SCALES) -> Tensor:
    """Mean over the scales of exp(-d^2 / (2 (scale sigma)^2)) of squared distances."""
    kernel: Tensor = _MeanOfGaussians.apply(distances, float(sigma), scales)  # type: ignore[no-untyped-call]
    return kernel


def mmd(
    x: Tensor,
    y: Tensor,
    *,
    sigma: Tensor | float | None = None,
    scales: tuple[float, ...] = SCALES,
    unbiased: bool = False,
) -> Tensor:
    """MMD^2 under the mean of Gaussian kernels of widths scales x sigma (None: median heuristic).

    Biased (V-statistic, Gretton 2012 eq. 5): never negative, the loss. Unbiased (U-statistic, eq. 3): the
    estimate, may be negative. Differentiable in x and y.
    """
    if sigma is None:
        sigma = median_sigma(torch.cat([x, y]).detach())

    def k(a: Tensor, b: Tensor) -> Tensor:
        return gaussian_kernels(squared_distances(a, b), sigma, scales)

    within_x, within_y, between = k(x, x), k(y, y), k(x, y).mean()
    if not unbiased:
        return within_x.mean() + within_y.mean() - 2 * between
    n, m = len(x), len(y)
    pairs_x = (within_x.sum() - within_x.diagonal().sum()) / (n * (n - 1))
    pairs_y = (within_y.sum() - within_y.diagonal().sum()) / (m * (m - 1))
    return pairs_x + pairs_y - 2 * between


def joint_mmd(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    """Biased MMD^2 of the joint distribution of several layers (Long et al., JAN, ICML 2017).

    x, y: per layer (n, d_l) and (m, d_l). The kernels are products over the layers, each layer measured in
    its own median distance; that is one kernel on the layers side by side.
    """
    scaled_x, scaled_y = [], []
    for of_x, of_y in zip(x, y, strict=True):
        pooled = torch.cat([of_x, of_y]).detach()
        # a width needs no more than a hundred rows
        sigma = median_sigma(pooled[:: max(1, len(pooled) // 128)]) * len(x) ** 0.5
        scaled_x.append(of_x / sigma)
        scaled_y.append(of_y / sigma)
    return mmd(torch.cat(scaled_x, dim=1), torch.cat(scaled_y, dim=1), sigma=1.0)


def mmd_linear_time(
    x: Tensor, y: Tensor, *, sigma: Tensor | float | None = None, scales: tuple[float, ...] = SCALES
) -> Tensor:
    """MMD^2 from the pairs (0, 1), (2, 3), ... (Gretton 2012, lemma 14): O(n), unbiased, noisier. n = m."""
    if sigma is None:
        sigma = median_sigma(torch.cat([x, y]).detach())
    pairs = len(x) // 2 * 2
    x1, x2, y1, y2 = x[0:pairs:2], x[1:pairs:2], y[0:pairs:2], y[1:pairs:2]

    def k(a: Tensor, b: Tensor) -> Tensor:
        return gaussian_kernels((a - b).square().sum(1), sigma, scales)

    return (k(x1, x2) + k(y1, y2) - k(x1, y2) - k(x2, y1)).mean()


def coral(x: Tensor, y: Tensor) -> Tensor:
    """||C_x - C_y||_F^2 / (4 d^2) of the covariances (ddof 1); blind to means and to shape."""
    width = x.shape[1]
    return (torch.cov(x.T) - torch.cov(y.T)).square().sum() / (4 * width * width)


def fourier_mmd(
    x: Tensor,
    y: Tensor,
    *,
    features: int = 256,
    sigma: Tensor | float | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Biased MMD^2 by random Fourier features (Rahimi & Recht, NIPS 2007): O((n + m) features).

    Every feature has the width of one of the SCALES, so that its expectation is the mean of the five kernels.
    """
    if sigma is None:
        pooled = torch.cat([x, y]).detach()
        sigma = median_sigma(pooled[:: max(1, len(pooled) // 128)])
    scales = torch.tensor(SCALES, dtype=x.dtype).repeat(features // len(SCALES) + 1)[:features]
    frequency = torch.randn(x.shape[1], features, generator=generator, dtype=x.dtype) / (scales * sigma)
    phase = 2 * torch.pi * torch.rand(features, generator=generator, dtype=x.dtype)
    apart = torch.cos(torch.addmm(phase, x, frequency)).mean(0) - torch.cos(
        torch.addmm(phase, y, frequency)
    ).mean(0)
    return 2 * apart.square().mean()


def class_conditional_mmd(x: Tensor, y: Tensor, p_x: Tensor, p_y: Tensor) -> Tensor:
    """Mean over the two classes of the biased MMD^2 between what belongs to the class on either side.

    p_x (n,), p_y (m,): P(class 1) of each row: 0 or 1 where the label is known, a prediction elsewhere (Zhu
    et al., Deep Subdomain Adaptation, IEEE TNNLS 2021).
    """
    pooled = torch.cat([x, y])
    sigma = median_sigma(pooled.detach()[:: max(1, len(pooled) // 128)])
    kernel = gaussian_kernels(squared_distances(pooled, pooled), sigma)
    sides = []
    for of_x, of_y in ((p_x, p_y), (1 - p_x, 1 - p_y)):
        sides.append(torch.cat([of_x / of_x.sum().clamp_min(1e-6), -of_y / of_y.sum().clamp_min(1e-6)]))
    return torch.stack([side @ kernel @ side for side in sides]).mean()


def proxy_a_distance(
    train: tuple[NDArray[np.floating], NDArray[np.floating]],
    test: tuple[NDArray[np.floating], NDArray[np.floating]],
) -> float:
    """2 (1 - 2 err), err of a linear classifier that tells the domains apart; 0 = alike, 2 = separable.

    train, test: (source, target) embeddings, each (n, d). The error is held out: in-sample it would be a
    distance for identical domains too. Test windows must be later than the training windows and spaced, or
    neighbours give the answer away. Domains weigh the same whatever their counts.
    """
    learnt, counts = np.concatenate(train).astype(np.float64), np.array([len(part) for part in train])
    mean, scale = learnt.mean(axis=0), learnt.std(axis=0)
    scale[scale == 0] = 1.0
    side, balance = np.repeat([0.0, 1.0], counts), np.repeat(len(learnt) / (2 * counts), counts)
    line = _separating((learnt - mean) / scale, side, balance)
    said = [(part - mean) / scale @ line[:-1] + line[-1] > 0 for part in test]
    error = float(np.mean([said[0].mean(), 1 - said[1].mean()]))
    return 2 * (1 - 2 * min(error, 1 - error))


def _separating(x: Floats, side: Floats, weight: Floats) -> Floats:
    """Slopes and, last, intercept of the logistic regression of side (n,) on x (n, d), the slopes pulled to 0
    by half their square. Not scikit-learn's: that loads pandas, 130 MB of the adaptation process."""

    def loss(line: Floats) -> tuple[float, Floats]:
        score = x @ line[:-1] + line[-1]
        error = weight * (expit(score) - side)
        value = weight @ (np.logaddexp(0, score) - side * score) + line[:-1] @ line[:-1] / 2
        return float(value), np.append(x.T @ error + line[:-1], error.sum())

    return np.asarray(minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x)


def similarity(a_distance: float) -> float:
    """1 - A-distance / 2: 1 = nobody can tell the domains apart, 0 = a line separates them."""
    return 1 - a_distance / 2
