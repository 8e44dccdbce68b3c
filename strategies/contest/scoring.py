"""What the arms say at each bar, scored when its label matures (prequential, Dawid 1984)."""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.core.verdict import ENSEMBLE, FROZEN, SCRATCH
from strategies.contest.arm import Arm, log_loss
from strategies.contest.roster import Roster
from strategies.labels import Matured
from strategies.learning.evidence import PairedScores
from strategies.learning.registry import Model

SAID_BASE: Final = "base"  # the base rate, beside the arms in what was said

_PRIOR_LABELS: Final = 20.0  # pseudo-labels of a fair coin in the base rate


class _Said(NamedTuple):
    """What an arm said, and by which weights; it may have others when the label matures, or be gone."""

    arm: Arm
    model: Model
    logit: float
    p_up: float
    volatility: float


class Scoring:
    """Feed it each label before the row of the bar that matured it."""

    def __init__(self, roster: Roster, block: int, recent_blocks: int) -> None:
        """block, recent_blocks: as in PairedScores"""
        self._roster = roster
        self._said: dict[int, tuple[float, dict[str, _Said]]] = {}  # the base rate and the arms, by bar
        self._ups = self._labels = 0.0  # uniqueness-weighted
        self._reversal = PairedScores(block, recent_blocks)
        self._mean_logit = 0.0  # of the frozen model on this token, over the matured labels

    @property
    def reversal(self) -> float:
        """Anytime-valid evidence that the pretrained model orders this token's outcomes the wrong way."""
        return self._reversal.e_value

    def predict(self, start: int, x: NDArray[np.float32]) -> tuple[float, float]:
        """(P(up), volatility per bar) of the champion; what each arm says is kept until its label matures."""
        roster = self._roster
        said = {name: _Said(arm, arm.model, *arm.predict(x)) for name, arm in roster.networks.items()}
        ensemble = roster.ensemble
        if ensemble is not None:
            member = said[roster.member.name]
            logit, p_up = ensemble.predict(member.arm, member.p_up, said[SCRATCH].p_up)
            said[ENSEMBLE] = _Said(ensemble, ensemble.model, logit, p_up, member.volatility)
        self._said[start] = self._base_rate, said
        champion = said[roster.champion.name]
        return champion.p_up, champion.volatility

    def score(self, matured: Matured) -> dict[str, float] | None:
        """P(up) that each arm and the base rate had given, now scored; None if nothing was said then."""
        self._ups += matured.outcome * matured.weight
        self._labels += matured.weight
        for stale in [start for start in self._said if start < matured.start]:
            del self._said[stale]  # its label was lost in a gap
        if matured.start not in self._said:
            return None
        base_rate, said = self._said.pop(matured.start)
        self._test_reversal(matured, base_rate, said[FROZEN].logit)
        losses = {name: log_loss(one.p_up, matured.outcome) for name, one in said.items()}
        base_loss = log_loss(base_rate, matured.outcome)
        ensemble, member = self._roster.ensemble, self._roster.member.name
        if ensemble is not None and SCRATCH in losses and member in losses:
            ensemble.weigh(losses[SCRATCH] - losses[member], matured.weight)
        for name, (arm, model, logit, _, _) in said.items():
            loss, rival = losses[name], losses.get(self._roster.rival_of(name))
            arm.against_base.add(matured.start, base_loss - loss, matured.weight)
            if rival is not None:
                arm.against_rival.add(matured.start, rival - loss, matured.weight)
            if arm.model is not model:  # it has other weights by now, which did not say this
                continue
            arm.calibrator.observe(logit, matured.outcome, matured.weight)
            if rival is not None:
                arm.probation.add(matured.start, rival - loss, matured.weight)
        return {name: one.p_up for name, one in said.items()} | {SAID_BASE: base_rate}

    @property
    def _base_rate(self) -> float:
        """Share of "up" among the labels so far, shrunk to a half: the rival without any model."""
        return (self._ups + _PRIOR_LABELS / 2) / (self._labels + _PRIOR_LABELS)

    def _test_reversal(self, matured: Matured, base_rate: float, logit: float) -> None:
        """Negative transfer: does the pretrained model, prior aside, point the wrong way?

        The bet is on outcomes opposite to the side of its own mean on which it spoke; the mean and the base
        rate are those of before the label.
        """
        wrong_way = math.copysign(1.0, self._mean_logit - logit)
        self._reversal.add(matured.start, wrong_way * (matured.outcome - base_rate), matured.weight)
        self._mean_logit += (logit - self._mean_logit) * matured.weight / self._labels
