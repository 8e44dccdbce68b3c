"""The network in torch: on whole sequences, so that one forward pass yields an embedding for every bar."""

from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from strategies.learning.architecture import KERNEL, Architecture, Weights


class Outputs(NamedTuple):
    """Of every step: the input layer's output (B, T, C), the embedding z (B, T, Z), the logit of
    P(entry-to-exit return > 0) and the log volatility per bar (B, T)."""

    lifted: Tensor
    z: Tensor
    logit: Tensor
    log_vol: Tensor


class Block(nn.Module):
    """Residual causal convolution with LayerNorm over the channels of each step.

    No BatchNorm: its statistics would mix the domains. The convolution is a matrix product over the
    shifted copies of the input, which keeps channels last and needs no transpositions.
    """

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.taps = nn.Linear(KERNEL * channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        steps = h.shape[1]
        padded = nn.functional.pad(h, (0, 0, (KERNEL - 1) * self.dilation, 0))
        shifted = [padded[:, tap * self.dilation : tap * self.dilation + steps] for tap in range(KERNEL)]
        update: Tensor = self.drop(torch.relu(self.norm(self.taps(torch.cat(shifted, dim=-1)))))
        return h + update


class Encoder(nn.Module):
    """Causal TCN: rows (B, T, F) -> Outputs, for any T >= 1; the first rows see zeros as their past.

    z_t = W [h_t, mean of h over the last `pool_bars` steps]; the heads are linear in z.
    """

    def __init__(self, architecture: Architecture, dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        width = architecture.channels
        self.input = nn.Linear(architecture.features, width)
        self.blocks = nn.ModuleList([Block(width, dilation, dropout) for dilation in architecture.dilations])
        self.project = nn.Linear(2 * width, architecture.embedding)
        self.direction = nn.Linear(architecture.embedding, 1)
        self.volatility = nn.Linear(architecture.embedding, 1)

    @classmethod
    def from_weights(cls, weights: Weights, architecture: Architecture) -> Self:
        """Raises DataError when the weights are of another shape or not finite."""
        architecture.check(weights)
        with torch.device("meta"):  # no initialisation: it would draw from the global generator
            encoder = cls(architecture)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        encoder.load_state_dict(tensors, assign=True)
        return encoder

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A detached copy of the parameters."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.state_dict().items()}

    @property
    def receptive_field(self) -> int:
        return self.architecture.receptive_field

    def forward(self, x: Tensor) -> Outputs:
        h = lifted = self.input(x)
        for block in self.blocks:
            h = block(h)
        z = self.project(torch.cat([h, self._trailing_mean(h)], dim=-1))
        return Outputs(lifted, z, self.direction(z).squeeze(-1), self.volatility(z).squeeze(-1))

    def _trailing_mean(self, h: Tensor) -> Tensor:
        """Mean over the last `pool_bars` steps, or over as many as there are."""
        pool, steps = self.architecture.pool_bars, h.shape[1]
        padded = nn.functional.pad(h, (0, 0, pool - 1, 0)).transpose(1, 2)
        total = nn.functional.avg_pool1d(padded, pool, stride=1).transpose(1, 2) * pool
        available = torch.arange(1, steps + 1, dtype=h.dtype).clamp(max=pool)
        return total / available[:, None]
