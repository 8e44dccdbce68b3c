"""When to stop training on a token: the newest matured labels say so, and nothing else uses them."""

import math

import torch
from torch import Tensor

from strategies.learning.encoder import Encoder
from strategies.learning.sequences import Sequences

CHECK_EVERY = 10  # steps between looks at the held-out labels
ENOUGH_LABELS = 20.0  # effective held-out labels; fewer stop nothing


class EarlyStopping:
    """One-standard-error rule (Breiman et al. 1984) on the newest matured labels, which nothing else uses."""

    def __init__(self, encoder: Encoder, tail: Sequences) -> None:
        self._encoder = encoder
        self._tail = tail
        self._enough = float(tail.weight.sum()) >= ENOUGH_LABELS
        self._best = self._losses()
        self._best_step = 0
        self._best_weights = encoder.weights()

    def rises(self, step: int) -> bool:
        """Whether the loss lies above the best one by more than the standard error of their difference."""
        if not self._enough:
            return False
        losses, weight = self._losses(), self._tail.weight
        excess = losses - self._best
        mean = float((excess * weight).sum() / weight.sum())
        variance = float(((excess - mean).square() * weight).sum() / weight.sum())
        if mean < 0:
            self._best, self._best_step, self._best_weights = losses, step, self._encoder.weights()
        return mean > math.sqrt(variance / float(weight.sum()))

    def restore_best(self) -> int:
        self._encoder.load_state_dict({name: torch.from_numpy(w) for name, w in self._best_weights.items()})
        return self._best_step

    def _losses(self) -> Tensor:
        """(n,) cross-entropy of every row; rows without a label weigh nothing."""
        logit = torch.from_numpy(self._tail.measure(self._encoder).logit).nan_to_num(0.0)
        self._encoder.train()
        return torch.nn.functional.binary_cross_entropy_with_logits(logit, self._tail.y, reduction="none")
