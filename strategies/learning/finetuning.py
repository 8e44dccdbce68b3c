"""Which weights the matured labels may change, in which order and how fast; proven by checksum.

Head only, partial and full fine-tuning; progressive unfreezing from the top with falling rates and
discriminative rates (Howard & Ruder, ULMFiT, ACL 2018); the L2-SP anchor (Li, Grandvalet & Davoine, ICML
2018); and a three-phase curriculum of all of these. The choice follows the number of effective labels.
"""

import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from bot.core.errors import RuntimeFault, UsageError
from strategies.learning.encoder import Encoder

CLIP: Final = 5.0
HEAD_ONLY: Final = "head_only"
SLOWER: Final = 0.1  # rate of a layer relative to the one above it


class Phase(NamedTuple):
    """share of the steps; layers: how many change, counted from the head (0 = all); rate: relative to the
    strategy's; slower: rate of each layer relative to the one above; anchor, decay: strength of L2-SP on the
    pretrained layers and of plain L2 on the head."""

    share: float
    layers: int
    rate: float = 1.0
    slower: float = 1.0
    anchor: float = 0.0
    decay: float = 1e-3


STRATEGIES: Final[dict[str, tuple[Phase, ...]]] = {
    HEAD_ONLY: (Phase(1.0, 1),),
    "partial": (Phase(1.0, 3, rate=0.3),),
    "full": (Phase(1.0, 0, rate=0.1),),
    "progressive": (
        Phase(0.4, 1),
        Phase(0.3, 2, rate=0.3),
        Phase(0.2, 3, rate=0.1),
        Phase(0.1, 0, rate=0.03),
    ),
    "discriminative": (Phase(1.0, 0, slower=SLOWER),),
    "l2sp": (Phase(1.0, 0, rate=0.1, anchor=0.1),),
    "curriculum": (
        Phase(0.4, 1, decay=1e-2),
        Phase(0.3, 3, rate=0.3, anchor=0.1),
        Phase(0.3, 0, rate=0.1, slower=0.5, anchor=0.01, decay=1e-4),
    ),
}

# effective labels from which a strategy is the default; fewer change the prior alone
LADDER: Final = ((1_000.0, "discriminative"), (200.0, "curriculum"), (30.0, HEAD_ONLY))


def select(effective_labels: float) -> str | None:
    """The strategy for that many matured, uniqueness-weighted labels; None: too few for any weight."""
    return next((name for least, name in LADDER if effective_labels >= least), None)


class Changed(NamedTuple):
    """The parameters that a phase was allowed to change; every other one is bit for bit what it was."""

    phase: Phase
    parameters: tuple[str, ...]


def layers(encoder: Encoder) -> list[list[str]]:
    """Names of the parameters layer by layer, the direction head first and the input last.

    The volatility head belongs to another task and is in no layer: it never changes here.
    """
    below = [f"blocks.{number}." for number in reversed(range(len(encoder.blocks)))]
    names = [name for name, _ in encoder.named_parameters()]
    return [
        [name for name in names if name.startswith(prefix)]
        for prefix in ("direction.", "project.", *below, "input.")
    ]


def fine_tune(
    encoder: Encoder, loss: Callable[[Encoder], Tensor], strategy: str, steps: int, rate: float = 1e-3
) -> list[Changed]:
    """Change `encoder` in place by `steps` steps on `loss`, a new batch at every call; says what it changed.

    Raises RuntimeFault when training diverges or when a frozen weight has moved.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"no strategy {strategy!r}; choose from {', '.join(STRATEGIES)}")
    anchor = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    done = []
    try:
        for phase in STRATEGIES[strategy]:
            before = checksums(encoder)
            free = _unfreeze(encoder, phase)
            optimiser = _optimiser(encoder, phase, rate)
            for _ in range(max(1, round(phase.share * steps))):
                _step(encoder, loss(encoder) + _pull(encoder, anchor, free, phase), optimiser)
            _assert_only(free, before, checksums(encoder))
            done.append(Changed(phase, free))
    finally:
        encoder.requires_grad_(True)
        encoder.eval()
    return done


def checksums(module: nn.Module) -> dict[str, str]:
    """SHA-256 of every parameter's bytes."""
    return {
        name: hashlib.sha256(p.detach().numpy().tobytes()).hexdigest()
        for name, p in module.named_parameters()
    }


def l2sp(parameters: list[Tensor], anchor: list[Tensor]) -> Tensor:
    """Sum of the squared distances from the pretrained values: the whole sum, not half of it."""
    return torch.stack([(p - a).square().sum() for p, a in zip(parameters, anchor, strict=True)]).sum()


def _unfreeze(encoder: Encoder, phase: Phase) -> tuple[str, ...]:
    """Frozen layers have no gradient and no dropout; returns the names of the free parameters."""
    stacked = layers(encoder)
    open_layers = stacked[: phase.layers or len(stacked)]
    free = tuple(name for layer in open_layers for name in layer)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name in free)
    for module in encoder.modules():
        module.training = any(parameter.requires_grad for parameter in module.parameters())
    for block in encoder.blocks:  # a dropout has no parameters: it follows its block
        for part in block.modules():
            part.training = block.training
    return free


def _optimiser(encoder: Encoder, phase: Phase, rate: float) -> torch.optim.Optimizer:
    """One group per layer, every free parameter in exactly one."""
    parameters = dict(encoder.named_parameters())
    groups, grouped = [], 0
    for depth, layer in enumerate(layers(encoder)):
        free = [parameters[name] for name in layer if parameters[name].requires_grad]
        if free:
            groups.append({"params": free, "lr": rate * phase.rate * phase.slower**depth})
            grouped += len(free)
    assert grouped == sum(p.requires_grad for p in parameters.values())
    return torch.optim.Adam(groups)


def _pull(encoder: Encoder, anchor: dict[str, Tensor], free: tuple[str, ...], phase: Phase) -> Tensor:
    """L2-SP on what was pretrained, plain L2 on the head."""
    parameters = dict(encoder.named_parameters())
    head = [name for name in free if name.startswith("direction.")]
    body = [name for name in free if not name.startswith("direction.")]
    pull = phase.decay * l2sp([parameters[n] for n in head], [torch.zeros_like(anchor[n]) for n in head])
    if body and phase.anchor:
        pull = pull + phase.anchor * l2sp([parameters[n] for n in body], [anchor[n] for n in body])
    return pull


def _step(encoder: Encoder, loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    free = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    if not torch.isfinite(clip_grad_norm_(free, CLIP)):
        raise RuntimeFault("fine-tuning diverged; lower the learning rate")
    optimiser.step()


def _assert_only(free: tuple[str, ...], before: dict[str, str], after: dict[str, str]) -> None:
    moved = {name for name, digest in before.items() if after[name] != digest}
    if not moved <= set(free):
        raise RuntimeFault(f"frozen weights have moved: {', '.join(sorted(moved - set(free)))}")
