"""Supervised pretraining on the source: direction and volatility from every bar of BTC, ETH, ...

The newest `validation_share` of the history is held out by time, purged and embargoed, and halved: the
first half decides when to stop and fits the temperature, the second half decides nothing and is what the
metrics report.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bot import settings
from bot.core.errors import DataError, TrainingFailed
from strategies.learning.architecture import Architecture, Weights
from strategies.learning.calibration import fit_temperature, negative_log_likelihood
from strategies.learning.dataset import LabelledSeries, cut_time, split
from strategies.learning.encoder import Encoder
from strategies.learning.pretext import initialise
from strategies.learning.sequences import VOLATILITY_WEIGHT, Sequences, after, direction_loss, volatility_loss
from strategies.learning.skill import Estimate, Floats, measure
from strategies.learning.unfinished import Unfinished

CHUNK = 128  # outputs of one chunk
CHUNKS = 16  # most per step
STEPS = 20  # wanted per epoch: a short history makes smaller batches rather than fewer steps
CLIP = 5.0
PRETEXT_EPOCHS = 10
BLOCK_HORIZONS = 4  # block of the bootstrap, in horizons of the label


class Progress(NamedTuple):
    epoch: int
    epochs: int
    loss: float  # training, direction and volatility
    validation_loss: float  # direction, nats


class Pretrained(NamedTuple):
    """metrics: on the second half of the held-out tail. cut: ms, nothing later was learnt from."""

    weights: Weights
    architecture: Architecture
    temperature: float
    base_rate: float  # share of "up" in training, uniqueness-weighted
    metrics: dict[str, Estimate]
    cut: int
    epochs: int


def pretrain(
    series: Sequence[LabelledSeries],
    model: settings.Model,
    horizon: int,
    seed: int,
    progress: Callable[[Progress], None] = lambda _: None,
    unfinished: Path | None = None,
) -> Pretrained:
    """Train the encoder; the same arguments give the same bits on one machine and thread count.

    unfinished: file of this training alone; an interrupted one goes on from there after its last epoch.

    model.method: "supervised" learns from the labels alone, any other is the pretext task that initialises
    the encoder on the training rows first.

    Raises DataError for too little history, NaN, a single class or features that never change, and
    TrainingFailed when training diverges.
    """
    _check(series, model.min_source_bars)
    architecture = Architecture(
        features=series[0].x.shape[1],
        channels=model.channels,
        blocks=model.blocks,
        pool_bars=model.pool_bars,
        embedding=model.embedding,
    )
    cut = cut_time(series, model.validation_share)
    middle = cut_time([one.labelled_from(cut) for one in series], 0.5)
    halves = [split(one, cut, horizon) for one in series]
    reserved = [split(tail, middle, horizon) for _, tail in halves]
    context = architecture.receptive_field - 1
    train = Sequences([learnt for learnt, _ in halves], context)
    validation = Sequences([choosing.since(cut, context) for choosing, _ in reserved], context)
    report = Sequences([judging.since(middle, context) for _, judging in reserved], context)

    state = Unfinished(unfinished)
    encoder, epochs = _fit(architecture, train, validation, model, seed, progress, state)
    chosen = _scored(encoder, validation)
    temperature = fit_temperature(chosen.logit, chosen.y, chosen.weight)
    judged = _scored(encoder, report)
    block = judged.starts // (BLOCK_HORIZONS * horizon * series[0].step)
    metrics = measure(judged.logit / temperature, judged.y, judged.weight, block, train.share_up, seed)
    state.remove()
    return Pretrained(encoder.weights(), architecture, temperature, train.share_up, metrics, cut, epochs)


def _check(series: Sequence[LabelledSeries], need: int) -> None:
    if not series:
        raise DataError("no source series; name at least one symbol in market.sources")
    for one in series:
        one.check()
        labelled = int((one.y >= 0).sum())
        if labelled < need:
            raise DataError(
                f"{one.symbol}: {labelled} labelled bars, {need} are needed (model.min_source_bars); "
                "give it a longer history"
            )
        if not (np.ptp(one.x, axis=0) > 0).any():
            raise DataError(f"{one.symbol}: every feature is constant; the bars do not move")
    outcomes = np.concatenate([one.y[one.y >= 0] for one in series])
    if outcomes.min() == outcomes.max():
        raise DataError(
            f"all {len(outcomes)} labels are {outcomes[0]}: one class teaches nothing; check the bars"
        )


def _fit(
    architecture: Architecture,
    train: Sequences,
    validation: Sequences,
    model: settings.Model,
    seed: int,
    progress: Callable[[Progress], None],
    state: Unfinished,
) -> tuple[Encoder, int]:
    """The encoder with the lowest validation loss, and the number of epochs that it saw."""
    with torch.random.fork_rng(devices=[]):  # initialisation and dropout draw from the global generator
        torch.manual_seed(seed)
        encoder = Encoder(architecture, model.dropout)
        before = state.load()
        if model.method != "supervised" and before is None:
            initialise(encoder, train, model.method, PRETEXT_EPOCHS, torch.Generator().manual_seed(seed))
        nn.init.zeros_(encoder.direction.weight)
        nn.init.constant_(encoder.volatility.bias, float(train.log_vol.nanmean()))
        optimiser = torch.optim.AdamW(
            encoder.parameters(), lr=model.learning_rate, weight_decay=model.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, model.epochs)
        best_loss, best_epoch, best, done = math.inf, 0, encoder.weights(), 0
        if before is not None:
            encoder.load_state_dict(before["encoder"])
            optimiser.load_state_dict(before["optimiser"])
            schedule.load_state_dict(before["schedule"])
            best_loss, best_epoch, done = before["best_loss"], before["best_epoch"], before["done"]
            best = {name: tensor.numpy() for name, tensor in before["best"].items()}
        for epoch in range(done + 1, model.epochs + 1):
            loss = _epoch(encoder, train, optimiser)
            schedule.step()
            scored = _scored(encoder, validation)
            validation_loss = negative_log_likelihood(scored.logit, scored.y, scored.weight)
            progress(Progress(epoch, model.epochs, loss, validation_loss))
            if validation_loss < best_loss:
                best_loss, best_epoch, best = validation_loss, epoch, encoder.weights()
            if epoch - best_epoch >= model.patience:
                break
            kept = {name: torch.from_numpy(array) for name, array in best.items()}
            numbers = {"done": epoch, "best_loss": best_loss, "best_epoch": best_epoch, "best": kept}
            state.save(encoder, optimiser, schedule, numbers)
    return Encoder.from_weights(best, architecture), best_epoch


def _epoch(encoder: Encoder, train: Sequences, optimiser: torch.optim.Optimizer) -> float:
    """One pass in random order; returns the mean loss. Chunk boundaries move from epoch to epoch."""
    encoder.train()
    cut = train.cut(CHUNK, offset=int(torch.randint(CHUNK, ())))
    per_step = max(1, min(CHUNKS, len(cut.rows) // STEPS))
    losses = []
    for picked in torch.split(torch.randperm(len(cut.rows)), per_step):
        batch = train.batch(cut, picked.numpy())
        outputs = after(train.context, encoder(batch.x))
        loss = direction_loss(outputs.logit, batch.y, batch.weight)
        loss = loss + VOLATILITY_WEIGHT * volatility_loss(outputs.log_vol, batch.log_vol, batch.counts)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(encoder.parameters(), CLIP)
        if not torch.isfinite(norm):
            raise TrainingFailed("pretraining diverged; lower model.learning_rate")
        optimiser.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


class _Scored(NamedTuple):
    """The labelled rows that have an output."""

    logit: Floats
    y: Floats
    weight: Floats
    starts: NDArray[np.int64]


def _scored(encoder: Encoder, data: Sequences) -> _Scored:
    logit = data.measure(encoder).logit
    weight = data.weight.numpy()
    judged = np.isfinite(logit) & (weight > 0)
    if not judged.any():
        raise DataError("no label of the held-out tail has enough bars before it; give a longer history")
    y = data.y.numpy()[judged].astype(np.float64)
    return _Scored(
        logit[judged].astype(np.float64), y, weight[judged].astype(np.float64), data.starts[judged]
    )
