"""With fewer than a hundred labels: class prototypes in the embedding, and mixing what models say.

Snell, Swersky & Zemel, Prototypical Networks, NIPS 2017; exponential weights with a fading memory (Cesa-
Bianchi & Lugosi 2006) for the ensemble of the transferred and the scratch model.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError

Floats = NDArray[np.float64]

LEARNING_RATE: Final = 1.0  # of the weights: 1 is Bayes' rule for models that are right or wrong as a whole
MEMORY: Final = 200.0  # effective labels after which a loss counts 1 / e


class Prototypes:
    """Mean embedding of each class among the support; a query's log odds fall with its squared distances."""

    def __init__(self, z: Floats, y: NDArray[np.int64]) -> None:
        """z (n, d), y (n,) 0 or 1. Raises DataError unless both classes are there."""
        if not len(y) or y.min() == y.max():
            raise DataError("prototypes need labels of both classes; wait for more")
        self.means = np.stack([z[y == label].mean(axis=0) for label in (0, 1)])
        spread = np.concatenate([z[y == label] - self.means[label] for label in (0, 1)])
        self._variance = float(np.mean(spread**2)) + 1e-12

    def distances(self, z: Floats) -> Floats:
        """(n, 2) squared distances to the prototypes of down and up."""
        return np.asarray(((z[:, None, :] - self.means) ** 2).sum(axis=2))

    def logit(self, z: Floats) -> Floats:
        """(n,) log odds of up under equal spherical Gaussians about the prototypes and equal priors."""
        down, up = self.distances(z).T
        return np.asarray((down - up) / (2 * self._variance))


def ensemble_weights(losses: Mapping[str, Floats], weight: Floats) -> dict[str, float]:
    """Shares of the models by their losses on matured labels: (n,) nats each, oldest first; sum 1.

    weight (n,): uniqueness of the labels. Old losses fade; without labels all models count the same.
    """
    newer = weight.sum() - np.cumsum(weight)
    counted = weight * np.exp(-newer / MEMORY)
    score = np.array([-LEARNING_RATE * float(counted @ loss) for loss in losses.values()])
    share = np.exp(score - score.max())
    return dict(zip(losses, (share / share.sum()).tolist(), strict=True))


def mixed(probabilities: Mapping[str, Floats], shares: Mapping[str, float]) -> Floats:
    """(n,) the weighted mean of the models' P(up): its loss is at most the best one's plus ln(models) / n."""
    return np.asarray(sum(shares[name] * p for name, p in probabilities.items()))
