"""The encoder on windows (n, T, F): one embedding per window, and a projection of the token's own sensors."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from strategies.learning.architecture import Architecture, Weights
from strategies.learning.encoder import Encoder

CHANNELS = 24
EMBEDDING = 24
MOST_BLOCKS = 3
PASS = 512  # windows per forward pass when nothing is learnt


class Embedded(NamedTuple):
    """Of n windows: sensors (n, T, F) as the encoder gets them, the input layer's last and mean step
    (n, 2 C), the embedding z (n, Z) and the logit of P(y = 1), (n,)."""

    sensors: Tensor
    lifted: Tensor
    z: Tensor
    logit: Tensor

    def split(self, first: int) -> "tuple[Embedded, Embedded]":
        return Embedded(*(part[:first] for part in self)), Embedded(*(part[first:] for part in self))


class Projection(nn.Module):
    """x -> x + x A + b of every bar, at first the identity: a token's sensors in the source's terms."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.zeros(features, features))
        self.offset = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x + x @ self.mixing + self.offset


class WindowNet(nn.Module):
    """`encoder` reads both domains; the token's windows pass `projection` before it and `correction` between
    its blocks and its last layer, both the identity until something trains them. scale: of all inputs."""

    def __init__(self, architecture: Architecture, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = scale
        self.encoder = Encoder(architecture, dropout)
        self.projection = Projection(architecture.features)
        self.correction = Projection(2 * architecture.channels)

    def copy(self, dropout: float = 0.0) -> "WindowNet":
        """The same weights, detached."""
        twin = WindowNet(self.encoder.architecture, self.scale, dropout)
        twin.load_state_dict(self.state_dict())
        return twin

    def weights(self) -> Weights:
        return {name: tensor.detach().numpy().copy() for name, tensor in self.state_dict().items()}

    def prepared(self, x: Tensor, *, own: bool) -> Tensor:
        """own: windows of the token rather than the source."""
        return self.projection(x * self.scale) if own else x * self.scale

    def forward(self, sensors: Tensor) -> Embedded:
        lifted, deep = self.trunk(sensors)
        return self.top(sensors, lifted, deep)

    def trunk(self, sensors: Tensor) -> tuple[Tensor, Tensor]:
        """Last and mean step, (n, 2 C), of the input layer and of the last block."""
        h = lifted = self.encoder.input(sensors)
        for block in self.encoder.blocks:
            h = block(h)
        return _ends(lifted), _ends(h)

    def top(self, sensors: Tensor, lifted: Tensor, deep: Tensor) -> Embedded:
        z = self.encoder.project(deep)
        return Embedded(sensors, lifted, z, self.encoder.direction(z).squeeze(1))

    @torch.no_grad()
    def measure(self, x: Tensor, *, own: bool) -> Embedded:
        """All windows, dropout off. Of `sensors` only the last bar is kept, (n, 1, F)."""
        training = self.training
        self.eval()
        parts = []
        for part in torch.split(x, PASS):
            sensors = self.prepared(part, own=own)
            lifted, deep = self.trunk(sensors)
            parts.append(self.top(sensors[:, -1:], lifted, self.correction(deep) if own else deep))
        self.train(training)
        return Embedded(*(torch.cat(group) for group in zip(*parts, strict=True)))


def _ends(h: Tensor) -> Tensor:
    return torch.cat([h[:, -1], h.mean(1)], dim=1)


def architecture_for(bars: int, features: int) -> Architecture:
    """Blocks for the window's length, pooled over the whole window."""
    return Architecture(
        features=features,
        channels=CHANNELS,
        blocks=min(MOST_BLOCKS, max(1, int(math.log2(bars)) - 2)),
        pool_bars=bars,
        embedding=EMBEDDING,
    )


def scale_of(x: np.ndarray) -> float:
    """1 / root mean square of the source's windows about their means: one number for all sensors, because a
    scale of its own for each would blow up those that the source hardly moves."""
    return float(1 / np.sqrt(np.mean(np.var(x.astype(np.float64), axis=(0, 1)))))
