"""Adapt a model to one token: align its embeddings with the source's, rehearsing the source.

loss = source task + w_t target labels + lambda(p) joint MK-MMD^2 + beta ||theta - theta_0||^2

How strongly depends on where it begins. Between the source itself and a token there is a shift to mend, and
nothing but many large steps will do. A model of the chain has seen how tokens differ from the source, and
power does harm there: few small steps with a strong anchor, to which the token's labels add when there are
enough of them, first through the head alone, then through every layer (the thresholds of `finetuning`).

The MMD compares source and target embeddings, jointly with the first layer's output (Long et al., JAN, ICML
2017): on the embedding alone, noise that the source never showed can take the place of the signal and the
marginals still agree. The ramp is that of Ganin & Lempitsky (ICML 2015), the L2-SP anchor that of Li,
Grandvalet & Davoine (ICML 2018); they leave a new head out of it, but here the task is the source's, the
head is kept, and so it is anchored like the rest.

Source labels are reweighted, and source embeddings drawn, so that their classes have the token's estimated
prior: aligning the marginals of domains with different priors would pull the classes into each other.

A falling MMD is no success: it falls as well when the labels are reversed. The report says how the features
changed; whether the candidate is better is for the gate, on labels that it has not seen.
"""

import math
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

from bot import settings
from bot.core.commands import AdaptModel
from bot.core.errors import TrainingFailed
from bot.core.events import AdaptationReport
from strategies.learning.alignment import ramp
from strategies.learning.architecture import Architecture, Weights
from strategies.learning.dataset import Chunks, SourceReplay
from strategies.learning.divergences import joint_mmd
from strategies.learning.domains import PRIOR_LABELS, Domains, compare, prepare, report_of
from strategies.learning.encoder import Encoder, Outputs
from strategies.learning.finetuning import HEAD_ONLY, select
from strategies.learning.listing_training import Pace
from strategies.learning.sequences import (
    VOLATILITY_WEIGHT,
    Batch,
    Sequences,
    after,
    direction_loss,
    volatility_loss,
)
from strategies.learning.stopping import CHECK_EVERY, EarlyStopping

CHUNK = 128  # outputs of one chunk
CHUNKS = 4  # per domain and step
INPUT_RATE = 3.0  # learning rate of the input layer relative to the rest
Floats = NDArray[np.float64]
EVERYTHING = "full"  # of the network may learn from the labels
MIN_ENTROPY = 0.05  # mean entropy of the predictions / log 2 below which a model is certain of everything


def adapt(
    base: Weights,
    architecture: Architecture,
    source: SourceReplay,
    snapshot: AdaptModel,
    model: settings.Adaptation,
    seed: int,
    *,
    gently: bool = False,
) -> tuple[Weights, AdaptationReport]:
    """Adapted weights and what was measured; the same arguments give the same bits on one machine.

    gently: `base` is a model of the chain.

    Stops where the loss on the newest labels has risen by more than its standard error and returns the best
    weights seen; steps = 0 are the pretrained ones. Raises DataError when the snapshot is too short or
    broken, TrainingFailed when training diverges or the predictions collapse.
    """
    began = time.process_time()
    encoder = Encoder.from_weights(base, architecture)
    domains = prepare(source, snapshot, model.window_bars, architecture.receptive_field - 1)
    before, said = compare(encoder, domains), _logits(encoder, domains)
    objective = _Objective(domains, model, torch.Generator().manual_seed(seed), gently=gently)
    steps = _train(encoder, domains, objective, _pace(model, gently=gently), model.clip)
    refuse_collapse(said, _logits(encoder, domains), model.collapse)
    now = compare(encoder, domains, before)
    return encoder.weights(), report_of(before, now, domains, steps, began)


def _pace(model: settings.Adaptation, *, gently: bool) -> Pace:
    if gently:
        return Pace(model.gentle_steps, model.gentle_rate, model.gentle_l2sp)
    return Pace(model.steps, model.learning_rate, model.l2sp)


def _train(encoder: Encoder, domains: Domains, objective: "_Objective", pace: Pace, clip: float) -> int:
    """Change the encoder in place; returns the number of steps that its weights have seen."""
    anchor = parameters_to_vector(encoder.parameters()).detach()
    optimiser = _optimiser(encoder, pace.rate)
    stopping = EarlyStopping(encoder, domains.target_tail)
    encoder.train()
    for step in range(1, pace.steps + 1):
        moved = parameters_to_vector(encoder.parameters()) - anchor
        loss = objective(encoder, ramp(step / pace.steps)) + pace.l2sp * moved.square().sum()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = clip_grad_norm_(encoder.parameters(), clip)
        if not torch.isfinite(norm):
            raise TrainingFailed(f"adaptation diverged at step {step}; lower adaptation.learning_rate")
        optimiser.step()
        if step % CHECK_EVERY == 0 and stopping.rises(step):
            return stopping.restore_best()
    return pace.steps


def _optimiser(encoder: Encoder, learning_rate: float) -> torch.optim.Optimizer:
    """A shift of the inputs is mended where they enter (Lee et al., Surgical Fine-Tuning, ICLR 2023)."""
    first = list(encoder.input.parameters())
    rest = [parameter for name, parameter in encoder.named_parameters() if not name.startswith("input.")]
    groups = [{"params": first, "lr": INPUT_RATE * learning_rate}, {"params": rest, "lr": learning_rate}]
    return torch.optim.Adam(groups, fused=True)


class _Objective:
    """The loss of one random batch of both domains, without the anchor."""

    def __init__(
        self, domains: Domains, model: settings.Adaptation, generator: torch.Generator, *, gently: bool
    ) -> None:
        self._domains = domains
        self._model = model
        self._generator = generator
        self._source_cut = _with_labels(domains.source)
        self._target_cut = domains.target.cut(CHUNK)
        self._class_weight = _class_weight(domains)
        # few labels say little about the token and much about chance
        self._target_weight = model.target_weight * domains.labels / (domains.labels + PRIOR_LABELS)
        self._taught = select(domains.labels) if gently else EVERYTHING

    def __call__(self, encoder: Encoder, alignment: float) -> Tensor:
        source = self._draw(self._domains.source, self._source_cut)
        target = self._draw(self._domains.target, self._target_cut)
        outputs = after(self._domains.source.context, encoder(torch.cat([source.x, target.x])))
        of_source = Outputs(*(part[: len(source.x)] for part in outputs))
        of_target = Outputs(*(part[len(source.x) :] for part in outputs))
        weight = source.weight * self._class_weight[source.y.long()]
        alike = joint_mmd(self._sample(of_source, weight), self._sample(of_target, target.counts.float()))
        return (
            direction_loss(of_source.logit, source.y, weight)
            + VOLATILITY_WEIGHT * volatility_loss(of_source.log_vol, source.log_vol, source.counts)
            + self._of_labels(encoder, of_target, target)
            + self._model.mmd_weight * alignment * alike
        )

    def _of_labels(self, encoder: Encoder, outputs: Outputs, target: Batch) -> Tensor:
        """What the token's labels say, to as much of the network as they are enough for."""
        if self._taught is None:
            return torch.zeros(())
        logit = outputs.logit
        if self._taught == HEAD_ONLY:
            logit = encoder.direction(outputs.z.detach()).squeeze(-1)
        return self._target_weight * direction_loss(logit, target.y, target.weight)

    def _draw(self, domain: Sequences, cut: Chunks) -> Batch:
        return domain.batch(cut, torch.randperm(len(cut.rows), generator=self._generator)[:CHUNKS].numpy())

    def _sample(self, outputs: Outputs, chances: Tensor) -> list[Tensor]:
        """What is aligned, at random positions: the first layer, where a shift enters, and the embedding."""
        count = min(self._model.batch, int((chances > 0).sum()))
        drawn = torch.multinomial(chances.flatten(), count, generator=self._generator)
        return [layer.flatten(0, 1)[drawn] for layer in (outputs.lifted, outputs.z)]


def _with_labels(domain: Sequences) -> Chunks:
    """The chunks that can teach; the last bars before a gap have no labels."""
    cut = domain.cut(CHUNK)
    taught = (cut.counts & (domain.weight.numpy()[cut.rows] > 0)).any(axis=1)
    return Chunks(cut.rows[taught], cut.counts[taught])


def _class_weight(domains: Domains) -> Tensor:
    """[down, up] weights that turn the source's class shares into the token's estimated ones."""
    source_up = domains.source.share_up
    token_up = 1 / (1 + (1 - source_up) / source_up * math.exp(-domains.prior_logit))
    return torch.tensor([(1 - token_up) / (1 - source_up), token_up / source_up])


def _logits(encoder: Encoder, domains: Domains) -> Floats:
    """Of all the token's rows that have their context."""
    measured = [part.measure(encoder).logit for part in (domains.target, domains.target_tail)]
    logit = np.concatenate(measured).astype(np.float64)
    return logit[np.isfinite(logit)]


def refuse_collapse(before: Floats, now: Floats, least: float) -> None:
    """Raise TrainingFailed for predictions that say the same of every row, or are certain of every row.

    before, now: (n,) logits of one token's rows, of the model that the adaptation began with and of what it
    has become. The spread is compared with what it was, so a model that never distinguished much, whose rows
    may well lie on one side of the token's prior, is not taken for one that has forgotten how to.
    """
    spread, was = float(now.std()), float(before.std())
    p = 1 / (1 + np.exp(-now))
    entropy = float(np.mean(np.logaddexp(0, now) - p * now)) / math.log(2)
    if entropy < MIN_ENTROPY or spread < least * was:
        raise TrainingFailed(
            f"predictions collapsed: the spread of the logits is {spread:.2g} after {was:.2g}, mean entropy "
            f"{entropy:.2f}; the model before stays"
        )
