"""Ways to make a token's windows look like the source's: each is a loss of two embedded batches.

Each is called with the source's and the token's batch and the training's progress in [0, 1].
"""

import math
from collections.abc import Callable
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from strategies.learning.divergences import class_conditional_mmd, coral, fourier_mmd, joint_mmd, mmd
from strategies.learning.window_net import Embedded

MEAN_WEIGHT: Final = 0.1  # of the means beside the covariances, which CORAL is blind to
HIDDEN: Final = 32  # units of the discriminator


class Alignment(Protocol):
    """What is minimised beside the task; `parameters` are its own, if it has any."""

    def __call__(self, source: Embedded, target: Embedded, progress: float) -> Tensor: ...

    def parameters(self) -> list[nn.Parameter]: ...


def ramp(progress: float) -> float:
    """lambda(p) = 2 / (1 + exp(-10 p)) - 1 of Ganin & Lempitsky: 0 at the start, 1 at the end."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Divergence:
    """A distance without parameters of its own, under the ramp."""

    def __init__(self, distance: Callable[[Embedded, Embedded], Tensor], generator: torch.Generator) -> None:
        self._distance = distance
        self._generator = generator

    def __call__(self, source: Embedded, target: Embedded, progress: float) -> Tensor:
        return ramp(progress) * self._distance(source, target)

    def parameters(self) -> list[nn.Parameter]:
        return []


class _Reversed(torch.autograd.Function):
    """The identity whose gradient is turned round (Ganin & Lempitsky, ICML 2015)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None  # type: ignore[attr-defined]


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """x; what flows back is multiplied by -strength."""
    reversed_: Tensor = _Reversed.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


class Adversarial:
    """A discriminator learns to tell the domains apart, the encoder that it cannot."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        self._discriminator = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        for parameter in self._discriminator.parameters():
            bound = 1 / math.sqrt(parameter.shape[-1])
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def __call__(self, source: Embedded, target: Embedded, progress: float) -> Tensor:
        seen = torch.cat([_deep(source), _deep(target)])
        logit = self._discriminator(reverse_gradient(seen, ramp(progress))).squeeze(1)
        domain = torch.cat([torch.zeros(len(source.z)), torch.ones(len(target.z))])
        return nn.functional.binary_cross_entropy_with_logits(logit, domain)

    def parameters(self) -> list[nn.Parameter]:
        return list(self._discriminator.parameters())


class _Sum:
    """Several alignments at once, each with its weight."""

    def __init__(self, *parts: tuple[float, Alignment]) -> None:
        self._parts = parts

    def __call__(self, source: Embedded, target: Embedded, progress: float) -> Tensor:
        return torch.stack([weight * part(source, target, progress) for weight, part in self._parts]).sum()

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for _, part in self._parts for parameter in part.parameters()]


def _deep(batch: Embedded) -> Tensor:
    return torch.cat([batch.lifted, batch.z], dim=1)


def _bars(batch: Embedded) -> Tensor:
    """One bar of each window, another one in each: (n, F)."""
    n, bars, _ = batch.sensors.shape
    rows = torch.arange(n)
    return batch.sensors[rows, (rows * 7919) % bars]


def _bars_move(target: Embedded) -> bool:
    """Whether training can reach the sensors: else the distance of bars is a constant, and costs time."""
    return target.sensors.requires_grad


def _mmd(source: Embedded, target: Embedded) -> Tensor:
    """Joint over input layer and embedding: on the embedding alone, noise that the source never showed can
    take the place of the signal and the marginals still agree (Long et al., JAN, ICML 2017). Single bars
    beside it tie the sensors down."""
    joint = joint_mmd([source.lifted, source.z], [target.lifted, target.z])
    return joint + mmd(_bars(source), _bars(target)) if _bars_move(target) else joint


def _mmd_detached(source: Embedded, target: Embedded) -> Tensor:
    """The famous mistake, kept as a control: the number is there, its gradient is not."""
    return _mmd(source, target).detach()


def _mmd_by_class(source: Embedded, target: Embedded) -> Tensor:
    """Classes apart: the source's by what the head says as well, so that both sides are soft alike."""
    by_class = class_conditional_mmd(
        _deep(source), _deep(target), source.logit.detach().sigmoid(), target.logit.detach().sigmoid()
    )
    return by_class + mmd(_bars(source), _bars(target)) if _bars_move(target) else by_class


def _coral(source: Embedded, target: Embedded) -> Tensor:
    total = torch.zeros(())
    pairs = [(source.lifted, target.lifted), (source.z, target.z)]
    if _bars_move(target):
        pairs.append((_bars(source), _bars(target)))
    for a, b in pairs:
        total = total + a.shape[1] * (coral(a, b) + MEAN_WEIGHT * (a.mean(0) - b.mean(0)).square().mean())
    return total


METHODS: Final = (
    "frozen", "normalise", "moments", "coral", "mmd", "fourier_mmd", "class_mmd", "adversarial", "combined",
    "mmd_detached", "cached",
)  # fmt: skip


def alignment(method: str, width: int, generator: torch.Generator) -> Alignment:
    """The loss of a method that trains. width: of the input layer's ends and the embedding together."""

    def fourier(source: Embedded, target: Embedded) -> Tensor:
        return fourier_mmd(_deep(source), _deep(target), generator=generator) + fourier_mmd(
            _bars(source), _bars(target), generator=generator
        )

    distances = {
        "mmd": _mmd, "mmd_detached": _mmd_detached, "class_mmd": _mmd_by_class, "coral": _coral,
        "fourier_mmd": fourier,
    }  # fmt: skip
    if method == "adversarial":
        return Adversarial(width, generator)
    if method == "combined":
        parts = [(0.6, _Divergence(_mmd, generator)), (0.3, _Divergence(_coral, generator))]
        return _Sum(*parts, (0.1, Adversarial(width, generator)))
    return _Divergence(distances[method], generator)
