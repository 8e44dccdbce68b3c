"""One way of predicting one token, and how its predictions have fared."""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from strategies.learning.calibration import Calibrator
from strategies.learning.evidence import PairedScores
from strategies.learning.inference import Predictor
from strategies.learning.registry import Model

_SUREST = 0.98  # probabilities beyond this are cut before they are scored: one surprise must not cost all


class Arm:
    """A model with its streaming state, its calibration on this token and its out-of-sample record.

    An arm is a procedure, not one set of weights: the adapted arm keeps its record when it is adapted again,
    because every one of its predictions was made before its label was known (prequential scoring).

    But these very weights must show something as well: `probation` counts their gains over the rival alone.

    rows: (n, F) newest features since the last gap; block: as in PairedScores; recent_blocks,
    probation_blocks: how many blocks the means of the record and of the probation are over
    """

    def __init__(
        self,
        name: str,
        model: Model,
        rows: NDArray[np.float32],
        block: int,
        recent_blocks: int,
        probation_blocks: int,
    ) -> None:
        self.name = name
        self.similarity = math.nan
        self.mmd = math.nan
        self.against_base = PairedScores(block, recent_blocks)
        self.against_rival = PairedScores(block, recent_blocks)
        self.calibrator = Calibrator(model.card.temperature)
        self._new_probation = partial(PairedScores, block, probation_blocks)
        self.use(model, rows)

    def use(self, model: Model, rows: NDArray[np.float32]) -> None:
        """Take new weights; `rows` (n, F) are the newest features since the last gap."""
        self.model = model
        self.probation = self._new_probation()
        self._predictor = Predictor(model.weights, model.card.architecture)
        self._predictor.warm(rows)

    def take_over(self, other: "Arm") -> None:
        """The weights, state and calibration of `other`; the record stays, for it is the procedure's."""
        self.model, self._predictor, self.calibrator = other.model, other._predictor, other.calibrator
        self.probation = self._new_probation()
        self.similarity, self.mmd = other.similarity, other.mmd

    def reset(self) -> None:
        """A gap: nothing before it may reach a prediction."""
        self._predictor.reset()

    def predict(self, row: NDArray[np.float32]) -> tuple[float, float, float]:
        """(logit, calibrated P(up), volatility per bar) for the newest row."""
        said = self._predictor.push(row)
        return said.logit, self.calibrator.p_up(said.logit), math.exp(said.log_vol)


def log_loss(p_up: float, outcome: int) -> float:
    """Cross-entropy in nats of one forecast, bounded."""
    p = min(max(p_up, 1 - _SUREST), _SUREST)
    return -math.log(p if outcome else 1 - p)
