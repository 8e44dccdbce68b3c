"""The shape of the network: what torch trains, what the registry checks and what the live process runs."""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError

KERNEL: Final = 3  # taps of every causal convolution; block i has dilation 2**i

Weights = Mapping[str, NDArray[np.float32]]  # parameter name -> array, as in the encoder's state dict


class Architecture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Causal dilated TCN (Bai, Kolter & Koltun 2018) with a causal pool and two heads."""

    features: int
    channels: int
    blocks: int
    pool_bars: int
    embedding: int

    @property
    def dilations(self) -> tuple[int, ...]:
        return tuple(2**block for block in range(self.blocks))

    @property
    def receptive_field(self) -> int:
        """Rows that one output depends on, its own included: by default 63 of the stack + 15 of the pool."""
        return 1 + (KERNEL - 1) * sum(self.dilations) + self.pool_bars - 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter with its shape."""
        width = self.channels
        shapes: dict[str, tuple[int, ...]] = {"input.weight": (width, self.features), "input.bias": (width,)}
        for block in range(self.blocks):
            shapes[f"blocks.{block}.taps.weight"] = (width, KERNEL * width)
            shapes[f"blocks.{block}.taps.bias"] = (width,)
            shapes[f"blocks.{block}.norm.weight"] = (width,)
            shapes[f"blocks.{block}.norm.bias"] = (width,)
        shapes["project.weight"] = (self.embedding, 2 * width)
        shapes["project.bias"] = (self.embedding,)
        for head in ("direction", "volatility"):
            shapes[f"{head}.weight"] = (1, self.embedding)
            shapes[f"{head}.bias"] = (1,)
        return shapes

    def check(self, weights: Weights) -> None:
        """Raise DataError unless `weights` are exactly this network's parameters, finite."""
        found = {name: array.shape for name, array in weights.items()}
        expected = self.shapes()
        if found != expected:
            wrong = sorted(
                name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
            )
            raise DataError(
                f"the weights do not fit the architecture: {', '.join(wrong[:5])}; train the model again"
            )
        broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
        if broken:
            raise DataError(
                f"the weights hold NaN or infinity in {', '.join(broken[:5])}; train the model again"
            )
