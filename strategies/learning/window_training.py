"""Training on windows: the source's model, its adaptation to a token, and the scratch rival."""

import math
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import clip_grad_norm_

from bot.core.errors import TrainingFailed
from strategies.learning.alignment import Alignment, alignment
from strategies.learning.moments import matching_map, moments
from strategies.learning.window_net import PASS, Embedded, Projection, WindowNet, architecture_for

VALIDATION: Final = 0.15  # newest share of the source: when to stop, temperature, forgetting
EPOCHS: Final = 14
BATCH: Final = 128
RATE: Final = 4e-3  # peak of the one-cycle schedule (Smith 2018)
DECAY: Final = 1e-2
DROPOUT: Final = 0.2
CLIP: Final = 5.0

STEPS: Final = 300  # of an adaptation, and of the scratch rival: the same budget
CACHED_STEPS: Final = 500
ALIGNED: Final = 192  # windows of each domain per step
ENCODER_RATE: Final = 3e-4
MIXING_RATE: Final = 4e-3  # of the projection; what it turns and stretches
OFFSET_RATE: Final = 3e-2  # what it moves: offsets may be many standard deviations
GENTLY: Final = 0.2  # of these rates where the moments agree already
UNSTARTED: Final = ("adversarial", "mmd_detached")  # begin at the identity
WEIGHT: Final = 3.0  # of the alignment
HALF_LIFE: Final = (
    1 / 3
)  # of the token's windows, in the length of its stream: the newest are what comes next

SCRATCH_BATCH: Final = 64
SCRATCH_DECAY: Final = 0.05

_Pair = tuple[Tensor, Tensor]  # of the source and of the token


def train_source(x: Tensor, y: Tensor, scale: float, seed: int) -> WindowNet:
    """The network with the lowest loss on the newest windows, (n, T, F) and float (n,), in time order."""
    torch.manual_seed(seed)
    net = WindowNet(architecture_for(*x.shape[1:]), scale, DROPOUT)
    learnt = len(x) - tail_of(len(x))
    size = min(BATCH, max(16, learnt // 8))
    parameters = list(net.encoder.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=RATE / 2, weight_decay=DECAY)
    batches = learnt // size
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS * batches)
    best, best_loss = net.copy(), math.inf
    for _ in range(EPOCHS):
        for picked in torch.split(torch.randperm(learnt)[: batches * size], size):
            said = net(net.prepared(x[picked], own=False)).logit
            _step(optimiser, binary_cross_entropy_with_logits(said, y[picked]), parameters)
            cycle.step()
        loss = float(binary_cross_entropy_with_logits(net.measure(x[learnt:], own=False).logit, y[learnt:]))
        if loss < best_loss:
            best, best_loss = net.copy(), loss
    return best


def tail_of(n: int) -> int:
    """How many of the source's n windows are held out, the newest."""
    return max(8, int(n * VALIDATION))


def adapt(
    net: WindowNet, source: Tensor, source_y: Tensor, target: Tensor, share_up: float, method: str, seed: int
) -> WindowNet:
    """A copy whose embeddings of the token's windows look like the source's. No label of the token is used
    but for `share_up`, its estimated share of "up": the source's batches are balanced to it, or aligning the
    marginals would pull the classes into each other.

    "normalise" only shifts and stretches every sensor; all others but UNSTARTED begin with the projection
    that makes second moments agree, and "moments" ends there. "cached" runs the frozen encoder once and
    trains before and after it with random Fourier features; the other methods train everything.
    """
    if method == "normalise":
        return _normalised(net, source, target)
    of_class, recency = _class_weight(source_y, share_up), _recency(len(target))
    adapted = net.copy()
    if method not in UNSTARTED:
        _match_moments(adapted, source, target, (of_class, recency))
    if method == "moments":
        return adapted
    generator = torch.Generator().manual_seed(seed)
    if method == "cached":
        return _adapt_cached(adapted, source, target, (of_class, recency), generator)
    width = 2 * net.encoder.architecture.channels + net.encoder.architecture.embedding
    apart = alignment(method, width, generator)
    parameters = [*adapted.parameters(), *apart.parameters()]
    optimiser = _optimiser(adapted, apart, 1.0 if method in UNSTARTED else GENTLY)
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine)
    for step in range(1, STEPS + 1):
        ours = torch.multinomial(of_class, ALIGNED, generator=generator, replacement=True)
        theirs = torch.multinomial(recency, ALIGNED, generator=generator, replacement=True)
        both = [adapted.prepared(source[ours], own=False), adapted.prepared(target[theirs], own=True)]
        of_source, of_target = adapted(torch.cat(both)).split(ALIGNED)
        task = binary_cross_entropy_with_logits(of_source.logit, source_y[ours])
        _step(optimiser, task + WEIGHT * apart(of_source, of_target, step / STEPS), parameters)
        decay.step()
    return adapted


def _match_moments(adapted: WindowNet, source: Tensor, target: Tensor, weights: _Pair) -> None:
    """Put the projection where the bars' second moments are the source's."""
    sides = [
        moments((x * adapted.scale).numpy(), weight.numpy())
        for x, weight in zip((source, target), weights, strict=True)
    ]
    mixing, offset = (torch.from_numpy(part).float() for part in matching_map(*sides))
    with torch.no_grad():
        adapted.projection.mixing.copy_(mixing - torch.eye(len(mixing)))
        adapted.projection.offset.copy_(offset)


def _adapt_cached(
    adapted: WindowNet, source: Tensor, target: Tensor, chances: _Pair, generator: torch.Generator
) -> WindowNet:
    """The encoder is frozen and runs once. First the sensors' projection is learnt on a summary of each
    window, which a linear map commutes with; then a correction of what the frozen blocks made of it."""
    bars = _summary(source * adapted.scale, generator), _summary(target * adapted.scale, generator)
    _align_cached(adapted.projection, bars, chances, generator, GENTLY)
    deep = _trunk(adapted, source, own=False), _trunk(adapted, target, own=True)
    _align_cached(adapted.correction, deep, chances, generator)
    return adapted


def _align_cached(
    learnt: Projection, both: _Pair, chances: _Pair, generator: torch.Generator, speed: float = 1.0
) -> None:
    """Half of the steps. both: (n, k, d) of source and token, k views of every window, aligned jointly."""
    apart = alignment("fourier_mmd", 0, generator)
    optimiser = torch.optim.Adam(_rates(learnt, speed))
    steps = CACHED_STEPS // 2
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _cosine(step, steps))
    for step in range(1, steps + 1):
        drawn = [
            torch.multinomial(chance, ALIGNED, generator=generator, replacement=True) for chance in chances
        ]
        views = both[0][drawn[0]], learnt(both[1][drawn[1]])
        sides = [Embedded(v, v.flatten(1), v[:, 0], v[:, 0, 0]) for v in views]
        _step(optimiser, WEIGHT * apart(sides[0], sides[1], step / steps), list(learnt.parameters()))
        decay.step()


def _summary(x: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 4, F): the last bar, the mean bar and two neighbouring bars, of every window others."""
    at = torch.randint(x.shape[1] - 1, (len(x),), generator=generator)
    rows = torch.arange(len(x))
    return torch.stack([x[:, -1], x.mean(1), x[rows, at], x[rows, at + 1]], dim=1)


@torch.no_grad()
def _trunk(net: WindowNet, x: Tensor, *, own: bool) -> Tensor:
    """(n, 1, 2 C): what the frozen blocks give, as one view of every window."""
    return torch.cat([net.trunk(net.prepared(part, own=own))[1] for part in torch.split(x, PASS)])[:, None]


def _class_weight(y: Tensor, share_up: float) -> Tensor:
    """(n,) chances that draw a share `share_up` of ups."""
    return torch.where(y > 0.5, share_up / y.mean(), (1 - share_up) / (1 - y.mean()))


def _recency(n: int) -> Tensor:
    return torch.from_numpy(0.5 ** (np.arange(n)[::-1] / (HALF_LIFE * n)))


def _cosine(step: int, steps: int = STEPS) -> float:
    """Learning rates fall along half a cosine to a fiftieth."""
    return 0.02 + 0.5 * (1 + math.cos(math.pi * step / steps))


def train_scratch(x: Tensor, y: Tensor, scale: float, seed: int) -> WindowNet:
    """The rival: the same network and the same number of steps, on the token's matured windows alone."""
    torch.manual_seed(seed)
    net = WindowNet(architecture_for(*x.shape[1:]), scale, DROPOUT)
    parameters = list(net.encoder.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=RATE / 2, weight_decay=SCRATCH_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE / 2, total_steps=STEPS)
    size = min(SCRATCH_BATCH, len(x))
    for _ in range(STEPS):
        picked = torch.randint(len(x), (size,))
        said = net(net.prepared(x[picked], own=False)).logit
        _step(optimiser, binary_cross_entropy_with_logits(said, y[picked]), parameters)
        cycle.step()
    return net.copy()


def _rates(learnt: Projection, speed: float) -> list[dict[str, Any]]:
    return [
        {"params": [learnt.mixing], "lr": speed * MIXING_RATE},
        {"params": [learnt.offset], "lr": speed * OFFSET_RATE},
    ]


def _optimiser(net: WindowNet, apart: Alignment, speed: float) -> torch.optim.Optimizer:
    groups = [
        *_rates(net.projection, speed), {"params": list(net.encoder.parameters()), "lr": ENCODER_RATE},
    ]  # fmt: skip
    if own := apart.parameters():
        groups.append({"params": own, "lr": MIXING_RATE})
    return torch.optim.Adam(groups)


def _step(optimiser: torch.optim.Optimizer, loss: Tensor, parameters: list[torch.nn.Parameter]) -> None:
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    norm = clip_grad_norm_(parameters, CLIP)
    if not torch.isfinite(norm):
        raise TrainingFailed("training diverged; are the windows of the order of 1, as model-ready ones are?")
    optimiser.step()


def _normalised(net: WindowNet, source: Tensor, target: Tensor) -> WindowNet:
    """Every sensor of the token gets the source's mean and standard deviation (AdaBN, Li et al. 2018)."""
    twin = net.copy()
    (mean_s, sd_s), (mean_t, sd_t) = (_moments(x * net.scale) for x in (source, target))
    gain = sd_s / sd_t.clamp_min(1e-6 * float(sd_s.max()))
    with torch.no_grad():
        twin.projection.mixing.copy_(torch.diag(gain - 1))
        twin.projection.offset.copy_(mean_s - mean_t * gain)
    return twin


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=(0, 1)), x.std(dim=(0, 1))
