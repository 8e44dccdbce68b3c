"""What an interrupted pretraining leaves: enough to go on from its last epoch and reach the same bits."""

import io
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from strategies.learning.files import write_atomically


class Unfinished:
    """A training's state in one file, replaced after every epoch: weights, optimiser, chance, the best.

    It holds tensors and numbers alone, and nothing else is read. Without a path nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> dict[str, Any] | None:
        """None where there is none, or a damaged one: then the training begins anew."""
        if self._path is None or not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, weights_only=True)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError):
            return None
        torch.set_rng_state(state["random"])
        return state

    def save(
        self,
        encoder: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        numbers: dict[str, Any],
    ) -> None:
        """numbers: whatever else the loop must know, as numbers and tensors."""
        if self._path is None:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "encoder": encoder.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "random": torch.get_rng_state(),
                **numbers,
            },
            buffer,
        )
        write_atomically(self._path, buffer.getvalue())

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
