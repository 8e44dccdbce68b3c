"""With fewer than a hundred labels: class prototypes in the embedding, and mixing what models say.

Snell, Swersky & Zemel, Prototypical Networks, NIPS 2017; exponential weights with a fading memory (Cesa-
Bianchi & Lugosi 2006) for the ensemble of the transferred and the scratch model.
"""

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


def mixture(p: Floats, y: Floats, weight: Floats, known: NDArray[np.int64]) -> Floats:
    """(n,) mean of the models' P(up), p (models, n), weighted by their losses on matured labels.

    Walks forward: at row i, y (0 or 1) and weight (uniqueness, 0 without a label) of the first `known[i]`
    rows are known. w ~ exp(-rate x loss so far), a label counting its uniqueness and fading with MEMORY; all
    models count the same at first. But for the fading, no worse than the best one plus ln(models) / n.
    """
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    loss = -(y * np.log(clipped) + (1 - y) * np.log1p(-clipped)) * weight
    age = np.concatenate([[0.0], np.cumsum(weight)]) / MEMORY
    grown = np.concatenate([np.zeros((len(p), 1)), np.cumsum(loss * np.exp(age[1:]), axis=1)], axis=1)
    summed = (grown * np.exp(-age))[:, known]
    belief = np.exp(-LEARNING_RATE * (summed - summed.min(axis=0)))
    return np.asarray((belief * p).sum(axis=0) / belief.sum(axis=0))
