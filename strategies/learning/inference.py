"""The network without torch: one new bar costs one step, not a window.

Every layer keeps those of its inputs that its dilated taps will read again, so a step multiplies each weight
once. Sums run in one fixed order: the outputs depend on the rows, never on how they were fed.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bot.core.errors import DataError
from strategies.learning.architecture import KERNEL, Architecture, Weights

Floats = NDArray[np.float32]

NORM_EPSILON = np.float32(1e-5)  # torch's LayerNorm


class Prediction(NamedTuple):
    """logit of P(entry-to-exit return > 0), uncalibrated; log volatility per bar; embedding (Z,)."""

    logit: float
    log_vol: float
    z: Floats


class Sequence(NamedTuple):
    """Predictions of n rows: logit (n,), log_vol (n,), z (n, Z)."""

    logit: Floats
    log_vol: Floats
    z: Floats


class Parameters(NamedTuple):
    """All weights, inputs before outputs: the inner loops then run along the outputs, in memory order."""

    input: Floats  # (F, C)
    input_bias: Floats  # (C,)
    taps: Floats  # (blocks, KERNEL, C, C)
    taps_bias: Floats  # (blocks, C)
    gain: Floats  # (blocks, C), of the LayerNorm, like the next
    shift: Floats  # (blocks, C)
    project: Floats  # (2 C, Z)
    project_bias: Floats  # (Z,)
    heads: Floats  # (Z, 2), direction and volatility
    heads_bias: Floats  # (2,)


class Predictor:
    """One model on one token's rows. Push every decision bar in order; `reset` or `warm` after a gap."""

    def __init__(self, weights: Weights, architecture: Architecture) -> None:
        """Raises DataError when the weights are of another shape or not finite."""
        architecture.check(weights)
        self.architecture = architecture
        self._parameters = _parameters(weights, architecture)
        depth = (KERNEL - 1) * architecture.dilations[-1] + 1
        self._past = np.zeros((architecture.blocks, depth, architecture.channels), np.float32)
        self._pool = np.zeros((architecture.pool_bars, architecture.channels), np.float32)
        self._steps = 0

    @property
    def steps(self) -> int:
        """Rows since the last gap; before the receptive field is full, the missing past counts as zeros."""
        return self._steps

    def reset(self) -> None:
        """A gap: forget the past."""
        self._past[:] = 0
        self._pool[:] = 0
        self._steps = 0

    def push(self, row: Floats) -> Prediction:
        """The next decision bar's features, (F,)."""
        logit, log_vol, z = self._run(row[None])
        return Prediction(float(logit[0]), float(log_vol[0]), z[0])

    def warm(self, rows: Floats) -> None:
        """Rebuild the past from the rows (n, F) since the last gap; only the receptive field matters."""
        self.reset()
        self._run(rows[-self.architecture.receptive_field :])

    def predict(self, rows: Floats) -> Sequence:
        """All predictions of a gap-free sequence (n, F), from no past; the state is then that of its end."""
        self.reset()
        return self._run(rows)

    def _run(self, rows: Floats) -> Sequence:
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.shape[1:] != (self.architecture.features,) or not np.isfinite(rows).all():
            raise DataError(f"rows of {self.architecture.features} finite features needed, got {rows.shape}")
        z = np.empty((len(rows), self.architecture.embedding), np.float32)
        heads = np.empty((len(rows), 2), np.float32)
        _run_steps(rows, self._parameters, self._past, self._pool, self._steps, z, heads)
        self._steps += len(rows)
        return Sequence(heads[:, 0], heads[:, 1], z)


def _parameters(weights: Weights, architecture: Architecture) -> Parameters:
    width = architecture.channels

    def stacked(name: str) -> Floats:
        return np.stack([weights[f"blocks.{block}.{name}"] for block in range(architecture.blocks)])

    parameters = Parameters(
        input=weights["input.weight"].T,
        input_bias=weights["input.bias"],
        taps=stacked("taps.weight").reshape(-1, width, KERNEL, width).transpose(0, 2, 3, 1),
        taps_bias=stacked("taps.bias"),
        gain=stacked("norm.weight"),
        shift=stacked("norm.bias"),
        project=weights["project.weight"].T,
        project_bias=weights["project.bias"],
        heads=np.concatenate([weights["direction.weight"], weights["volatility.weight"]]).T,
        heads_bias=np.concatenate([weights["direction.bias"], weights["volatility.bias"]]),
    )
    return Parameters(*(np.ascontiguousarray(array, np.float32) for array in parameters))


@njit(cache=True)
def _add_product(total: Floats, values: Floats, matrix: Floats) -> None:
    """total += values @ matrix, input after input; four at a time only spares loads and stores."""
    inputs, outputs = matrix.shape
    even = inputs - inputs % 4
    for i in range(0, even, 4):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        for o in range(outputs):
            partial = (total[o] + a * matrix[i, o]) + b * matrix[i + 1, o]
            total[o] = (partial + c * matrix[i + 2, o]) + d * matrix[i + 3, o]
    for i in range(even, inputs):
        for o in range(outputs):
            total[o] += values[i] * matrix[i, o]


@njit(cache=True)
def _add_block(h: Floats, update: Floats, gain: Floats, bias: Floats) -> None:
    """h += relu(LayerNorm(update))."""
    width = update.shape[0]
    mean = np.float32(0.0)
    for c in range(width):
        mean += update[c]
    mean /= np.float32(width)
    variance = np.float32(0.0)
    for c in range(width):
        variance += (update[c] - mean) * (update[c] - mean)
    scale = np.float32(1.0) / np.sqrt(variance / np.float32(width) + NORM_EPSILON)
    for c in range(width):
        h[c] += max((update[c] - mean) * scale * gain[c] + bias[c], np.float32(0.0))


@njit(cache=True)
def _run_steps(
    rows: Floats, w: Parameters, past: Floats, pool: Floats, steps: int, z: Floats, heads: Floats
) -> None:
    """Run the rows (n, F) through the network; `past` and `pool` are rings indexed by step number."""
    blocks, kernel, width = w.taps.shape[0], w.taps.shape[1], w.taps.shape[2]
    both = np.empty(2 * width, np.float32)
    h, mean = both[:width], both[width:]
    update = np.empty(width, np.float32)
    size = pool.shape[0]
    for n in range(rows.shape[0]):
        t = steps + n
        h[:] = w.input_bias
        _add_product(h, rows[n], w.input)
        for block in range(blocks):
            dilation = 1 << block
            ring = (kernel - 1) * dilation + 1
            past[block, t % ring] = h
            update[:] = w.taps_bias[block]
            for tap in range(kernel):
                age = (kernel - 1 - tap) * dilation
                _add_product(update, past[block, (t + ring - age) % ring], w.taps[block, tap])
            _add_block(h, update, w.gain[block], w.shift[block])
        pool[t % size] = h
        available = min(t + 1, size)
        mean[:] = 0
        for age in range(available - 1, -1, -1):
            slot = (t + size - age) % size
            for c in range(width):
                mean[c] += pool[slot, c]
        mean /= np.float32(available)
        z[n] = w.project_bias
        _add_product(z[n], both, w.project)
        heads[n] = w.heads_bias
        _add_product(heads[n], z[n], w.heads)
