"""Labelled series as tensors: batches of chunks for training, one pass over everything for measuring."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.learning.dataset import Chunks, LabelledSeries, chunks
from strategies.learning.encoder import Encoder, Outputs

VOLATILITY_WEIGHT = (
    0.3  # of the volatility head in the task loss: it steadies the encoder, direction is the task
)
MEASURED_ROWS = 448  # outputs per chunk when nothing is learnt: longer chunks waste less context


class Batch(NamedTuple):
    """x (B, context + L, F); the rest (B, L), for the outputs after the context. rows are row numbers."""

    x: Tensor
    rows: Tensor
    counts: Tensor  # bool: an output that exists
    y: Tensor  # float 0/1, 0 where there is no label
    weight: Tensor  # of the label, 0 where there is none
    log_vol: Tensor  # NaN where unknown


class Measured(NamedTuple):
    """Outputs for all rows of all series, in order; NaN for rows without enough context."""

    z: NDArray[np.float32]
    logit: NDArray[np.float32]
    log_vol: NDArray[np.float32]


class Sequences:
    """Several series end to end. `context` rows before each output warm the network up."""

    def __init__(self, series: Sequence[LabelledSeries], context: int) -> None:
        self.series = tuple(series)
        self.context = context
        self.starts = np.concatenate([one.starts for one in series])
        self.x = torch.from_numpy(np.concatenate([one.x for one in series]))
        y = torch.from_numpy(np.concatenate([one.y for one in series]))
        self.y = y.clamp_min(0).float()
        self.weight = torch.from_numpy(
            np.concatenate([np.where(one.y >= 0, one.weight, 0) for one in series])
        ).float()
        self.log_vol = torch.from_numpy(np.concatenate([one.log_vol for one in series])).float()
        self._first = np.cumsum([0, *(len(one) for one in series)])

    def __len__(self) -> int:
        return len(self.x)

    def cut(self, length: int, offset: int = 0) -> Chunks:
        """Chunks over all series; row numbers count through the concatenation."""
        parts = [chunks(one, self.context, length, offset) for one in self.series]
        rows = [part.rows + first for part, first in zip(parts, self._first, strict=False)]
        return Chunks(np.concatenate(rows), np.concatenate([part.counts for part in parts]))

    def batch(self, cut: Chunks, picked: slice | NDArray[np.int64] | Tensor) -> Batch:
        every_row = torch.from_numpy(cut.rows[picked])
        rows = every_row[:, self.context :]
        counts = torch.from_numpy(cut.counts[picked])[:, self.context :]
        return Batch(
            self.x[every_row], rows, counts, self.y[rows], self.weight[rows] * counts, self.log_vol[rows]
        )

    @torch.no_grad()
    def measure(self, encoder: Encoder) -> Measured:
        encoder.eval()
        z = np.full((len(self), encoder.architecture.embedding), np.nan, np.float32)
        logit, log_vol = np.full((2, len(self)), np.nan, np.float32)
        cut = self.cut(MEASURED_ROWS)
        for begin in range(0, len(cut.rows), 8):
            batch = self.batch(cut, slice(begin, begin + 8))
            outputs = after(self.context, encoder(batch.x))
            rows = batch.rows[batch.counts].numpy()
            z[rows] = outputs.z[batch.counts].numpy()
            logit[rows] = outputs.logit[batch.counts].numpy()
            log_vol[rows] = outputs.log_vol[batch.counts].numpy()
        return Measured(z, logit, log_vol)

    @property
    def share_up(self) -> float:
        """Uniqueness-weighted share of "up" among the labels."""
        return float(self.weight @ self.y / self.weight.sum())


def after(context: int, outputs: Outputs) -> Outputs:
    """The outputs without those of the warm-up rows."""
    return Outputs(*(part[:, context:] for part in outputs))


def direction_loss(logit: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean cross-entropy in nats; 0 without any weight."""
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, y, weight, reduction="sum")
    return loss / weight.sum().clamp_min(1e-9)


def volatility_loss(predicted: Tensor, log_vol: Tensor, counts: Tensor) -> Tensor:
    """Mean Huber loss where the volatility is known: outliers of realised volatility are the rule."""
    known = counts & log_vol.isfinite()
    loss = torch.nn.functional.huber_loss(predicted[known], log_vol[known], reduction="sum")
    return loss / known.sum().clamp_min(1)
