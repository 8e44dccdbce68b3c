"""Gentle training on listings: the chain from the sources to earlier listings, and from there to one token.

Overlapping labels weigh their uniqueness; steps are few and small, and L2-SP (Li, Grandvalet & Davoine, ICML
2018) holds the weights near where they came from: on a young token power does harm.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

from bot.core.errors import TrainingFailed
from strategies.learning.alignment import alignment
from strategies.learning.dataset import Chunks
from strategies.learning.divergences import joint_mmd
from strategies.learning.encoder import Encoder, Outputs
from strategies.learning.sequences import (
    VOLATILITY_WEIGHT,
    Batch,
    Sequences,
    after,
    direction_loss,
    volatility_loss,
)
from strategies.learning.window_net import Embedded

CHUNK: Final = 128  # outputs of one chunk
ALIGNED: Final = 192  # embeddings of each domain per step
CLIP: Final = 5.0
Floats = NDArray[np.float64]


class Pace(NamedTuple):
    """steps of `chunks` chunks; rate: of Adam; l2sp: pull towards the anchor."""

    steps: int
    rate: float
    l2sp: float = 0.0
    chunks: int = 4


class Trainer:
    """An encoder that learns in instalments, with one optimiser and one stream of chance."""

    def __init__(
        self,
        encoder: Encoder,
        rate: float,
        l2sp: float,
        seed: int,
        decay: float = 0.0,
        extra: Sequence[nn.Parameter] = (),
    ) -> None:
        """extra: parameters of a loss that learn beside the encoder's."""
        self.encoder = encoder
        self._l2sp = l2sp
        self._anchor = parameters_to_vector(encoder.parameters()).detach().clone()
        parameters = [*encoder.parameters(), *extra]
        self._optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        self._generator = torch.Generator().manual_seed(seed)

    def learn(self, data: Sequences, steps: int, chunks: int = 4) -> None:
        """`steps` steps on the labels of `data`; nothing happens without labels."""
        cut = with_labels(data)
        if not len(cut.rows):
            return
        self.encoder.train()
        for _ in range(steps):
            self.step(task_loss(self.encoder, draw(data, cut, chunks, self._generator), data.context))

    def step(self, loss: Tensor) -> None:
        if self._l2sp:
            moved = parameters_to_vector(self.encoder.parameters()) - self._anchor
            loss = loss + self._l2sp * moved.square().sum()
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = clip_grad_norm_(self.encoder.parameters(), CLIP)
        if not torch.isfinite(norm):
            raise TrainingFailed("training on a listing diverged; its features or labels are not finite")
        self._optimiser.step()


def chain(
    encoder: Encoder, source: Sequences, listings: Sequences, pace: Pace, mmd_weight: float, seed: int
) -> None:
    """From the sources to earlier listings: their labels, the sources' rehearsed, the embeddings aligned."""
    trainer = Trainer(encoder, pace.rate, pace.l2sp, seed)
    generator = torch.Generator().manual_seed(seed)
    cuts = with_labels(source), with_labels(listings)
    encoder.train()
    for _ in range(pace.steps):
        near = draw(source, cuts[0], pace.chunks // 2, generator)
        far = draw(listings, cuts[1], pace.chunks, generator)
        outputs = after(source.context, encoder(torch.cat([near.x, far.x])))
        of_near, of_far = _parted(outputs, len(near.x))
        loss = _task(of_far, far) + 0.5 * _task(of_near, near)
        if mmd_weight:
            a = _embedded(of_near, near, near.counts, generator)
            b = _embedded(of_far, far, far.counts, generator)
            loss = loss + mmd_weight * joint_mmd([a.lifted, a.z], [b.lifted, b.z])
        trainer.step(loss)


def align(
    encoder: Encoder,
    source: Sequences,
    target: Sequences,
    method: str,
    pace: Pace,
    weight: float,
    share_up: float,
    seed: int,
) -> None:
    """Make the token's embeddings look like the source's, without any label of the token.

    method: of `alignment`; "mmd_detached" takes the same steps without aligning. The source's labels are
    weighted, and its embeddings drawn, so that their share of "up" is `share_up`, else different priors would
    be pulled into each other.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = encoder.architecture
    apart = alignment(method, shape.channels + shape.embedding, generator)
    trainer = Trainer(encoder, pace.rate, pace.l2sp, seed, extra=apart.parameters())
    source_cut, target_cut = with_labels(source), target.cut(CHUNK)
    own = source.share_up
    of_class = torch.tensor([(1 - share_up) / (1 - own), share_up / own])
    encoder.train()
    for step in range(1, pace.steps + 1):
        near = draw(source, source_cut, pace.chunks, generator)
        near = near._replace(weight=near.weight * of_class[near.y.long()])
        far = draw(target, target_cut, pace.chunks, generator)
        outputs = after(source.context, encoder(torch.cat([near.x, far.x])))
        of_near, of_far = _parted(outputs, len(near.x))
        drawn_near = _embedded(of_near, near, near.weight, generator)
        drawn_far = _embedded(of_far, far, far.counts, generator)
        trainer.step(_task(of_near, near) + weight * apart(drawn_near, drawn_far, step / pace.steps))


def _embedded(outputs: Outputs, batch: Batch, chance: Tensor, generator: torch.Generator) -> Embedded:
    """What is aligned, at random positions: the row, the first layer and the embedding. chance (B, L): of
    each position."""
    chances = chance.float().flatten()
    drawn = torch.multinomial(chances, min(ALIGNED, int((chances > 0).sum())), generator=generator)
    rows = batch.x[:, -chance.shape[1] :].flatten(0, 1)[drawn]
    lifted, z = outputs.lifted.flatten(0, 1)[drawn], outputs.z.flatten(0, 1)[drawn]
    return Embedded(rows[:, None], lifted, z, outputs.logit.flatten()[drawn])


def with_labels(data: Sequences) -> Chunks:
    """The chunks that can teach."""
    cut = data.cut(CHUNK)
    taught = (cut.counts & (data.weight.numpy()[cut.rows] > 0)).any(axis=1)
    return Chunks(cut.rows[taught], cut.counts[taught])


def draw(data: Sequences, cut: Chunks, chunks: int, generator: torch.Generator) -> Batch:
    return data.batch(cut, torch.randint(len(cut.rows), (chunks,), generator=generator).numpy())


def task_loss(encoder: Encoder, batch: Batch, context: int) -> Tensor:
    return _task(after(context, encoder(batch.x)), batch)


def labelled_batches(data: Sequences, chunks: int, seed: int) -> Callable[[Encoder], Tensor]:
    """The loss of a network on a new random batch of labelled chunks at every call."""
    cut, generator = with_labels(data), torch.Generator().manual_seed(seed)
    return lambda encoder: task_loss(encoder, draw(data, cut, chunks, generator), data.context)


def _task(outputs: Outputs, batch: Batch) -> Tensor:
    return direction_loss(outputs.logit, batch.y, batch.weight) + VOLATILITY_WEIGHT * volatility_loss(
        outputs.log_vol, batch.log_vol, batch.counts
    )


def _parted(outputs: Outputs, first: int) -> tuple[Outputs, Outputs]:
    return Outputs(*(part[:first] for part in outputs)), Outputs(*(part[first:] for part in outputs))


def fit_head(
    z: Floats, y: Floats, weight: Floats, anchor: Floats, strength: float, iterations: int = 8
) -> Floats:
    """Logistic regression on embeddings, pulled to the head that it starts from (L2-SP in closed form).

    z (n, Z); y (n,) 0 or 1; weight (n,) uniqueness; anchor (Z + 1,): weights and, last, the bias, which is
    pulled ten times less; returns the same shape. Newton's method with the Fisher information.
    """
    design = np.column_stack([z, np.ones(len(z))])
    pull = np.full(len(anchor), strength)
    pull[-1] = strength / 10
    head = anchor.copy()
    for _ in range(iterations):
        p = expit(design @ head)
        gradient = design.T @ (weight * (p - y)) + pull * (head - anchor)
        information = (design * (weight * p * (1 - p))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(information, gradient)
        head = head - step
        if np.abs(step).max() < 1e-8:
            break
    return head


def fresh_encoder(like: Encoder, dropout: float, mean_log_vol: float, seed: int) -> Encoder:
    """A new network of the same shape that knows nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(like.architecture, dropout)
    nn.init.zeros_(encoder.direction.weight)
    nn.init.constant_(encoder.volatility.bias, mean_log_vol)
    return encoder


def seed_everything(seed: int) -> None:
    """Before each job: dropout draws from the process's own generator, whatever ran there before."""
    torch.manual_seed(seed)


def use_one_thread() -> None:
    """For worker processes: as many of them as cores, each deterministic."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
