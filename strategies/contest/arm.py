"""Ways of predicting one token, and how their predictions have fared."""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from strategies.learning.calibration import Calibrator
from strategies.learning.evidence import PairedScores
from strategies.learning.inference import Predictor
from strategies.learning.registry import Model

HALF_LIFE = 50.0  # effective labels after which a label counts half for the ensemble
_SUREST = 0.98  # probabilities beyond this are cut before they are scored: one surprise must not cost all


class Arm:
    """A model with its calibration on this token and its out-of-sample record.

    An arm is a procedure, not one set of weights: the adapted arm keeps its record when it is adapted again,
    because every one of its predictions was made before its label was known (prequential scoring).

    But these very weights must show something as well: `probation` counts their gains over the rival alone.

    block: as in PairedScores; recent_blocks, probation_blocks: how many blocks the means of the record and of
    the probation are over
    """

    def __init__(
        self, name: str, model: Model, block: int, recent_blocks: int, probation_blocks: int
    ) -> None:
        self.name = name
        self.similarity = math.nan
        self.mmd = math.nan
        self.backward_transfer = math.nan  # accuracy on the source that the adaptation gained
        self.against_base = PairedScores(block, recent_blocks)
        self.against_rival = PairedScores(block, recent_blocks)
        self.calibrator = Calibrator(model.card.temperature)
        self._new_probation = partial(PairedScores, block, probation_blocks)
        self._begin(model)

    def _begin(self, model: Model) -> None:
        """Other weights, which have shown nothing yet."""
        self.model = model
        self.probation = self._new_probation()


class NetworkArm(Arm):
    """One network with its streaming state. Give it weights by `use` before anything else."""

    def use(self, model: Model, rows: NDArray[np.float32]) -> None:
        """Take new weights; `rows` (n, F) are the newest features since the last gap."""
        self._begin(model)
        self._predictor = Predictor(model.weights, model.card.architecture)
        self._predictor.warm(rows)

    def take_over(self, other: "NetworkArm") -> None:
        """The weights, state and calibration of `other`; the record stays, for it is the procedure's."""
        self._begin(other.model)
        self._predictor, self.calibrator = other._predictor, other.calibrator
        self.similarity, self.mmd = other.similarity, other.mmd
        self.backward_transfer = other.backward_transfer

    def reset(self) -> None:
        """A gap: nothing before it may reach a prediction."""
        self._predictor.reset()

    def predict(self, row: NDArray[np.float32]) -> tuple[float, float, float]:
        """(logit, calibrated P(up), volatility per bar) for the newest row."""
        said = self._predictor.push(row)
        return said.logit, self.calibrator.p_up(said.logit), math.exp(said.log_vol)


class EnsembleArm(Arm):
    """What a transferred arm and the scratch arm say, mixed by how their labels have fared of late.

    The weights are those of Bayes' rule over the two, likelihoods to the power of a label's uniqueness, the
    past fading by half in HALF_LIFE effective labels.
    """

    def __init__(
        self, name: str, model: Model, block: int, recent_blocks: int, probation_blocks: int
    ) -> None:
        super().__init__(name, model, block, recent_blocks, probation_blocks)
        self.calibrator = Calibrator(1.0, math.inf)  # the members are calibrated: it only keeps the sets
        self.share = 0.5  # of the transferred arm
        self._lead = 0.0  # faded gain of the transferred arm over the scratch arm, nats

    def predict(self, transferred: Arm, p_up: float, scratch_p_up: float) -> tuple[float, float]:
        """(logit, calibrated P(up)) of the mixture of what the two arms have said."""
        self.model, self.similarity, self.mmd = transferred.model, transferred.similarity, transferred.mmd
        p = self.share * p_up + (1 - self.share) * scratch_p_up
        p = min(max(p, 1 - _SUREST), _SUREST)
        logit = math.log(p / (1 - p))
        return logit, self.calibrator.p_up(logit)

    def weigh(self, gain: float, weight: float) -> None:
        """A label matured. gain: of the transferred arm over scratch, nats; weight: its uniqueness."""
        self._lead = self._lead * 0.5 ** (weight / HALF_LIFE) + gain * weight
        self.share = 1 / (1 + math.exp(-self._lead))


def log_loss(p_up: float, outcome: int) -> float:
    """Cross-entropy in nats of one forecast, bounded."""
    p = min(max(p_up, 1 - _SUREST), _SUREST)
    return -math.log(p if outcome else 1 - p)
