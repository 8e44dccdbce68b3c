"""How new weights come into a contest: those of an adaptation, its scratch rival, a step of the chain."""

import copy
import math

import numpy as np
from numpy.typing import NDArray

from bot.core.events import AdaptationReport
from bot.core.records import GateDecided
from bot.core.verdict import ADAPTED, FROZEN, SCRATCH
from bot.settings import Gate
from strategies.contest.arm import NetworkArm
from strategies.contest.roster import CHAINED, CHALLENGER, Roster
from strategies.learning.registry import Model


class Admission:
    """In every method, rows: (n, F) newest features since the last gap, for the network's past."""

    def __init__(self, symbol: str, gate: Gate, roster: Roster) -> None:
        self._symbol = symbol
        self._gate = gate
        self._roster = roster

    def rebase(self, model: Model, rows: NDArray[np.float32], *, in_trade: bool) -> None:
        """The chain has gone a step further; its gate, on labels that were new to it, was its probation.

        Where the token has had no chain it becomes the base at once, but not under a position: a champion
        that has earned its trade is replaced by evidence only.
        """
        arm = self._roster.networks.get(CHAINED)
        if arm is not None:
            arm.use(model, rows)
            return
        arm = self._roster.add(CHAINED, model, rows)
        if not in_trade:
            self._roster.make_base(arm)

    def enter(
        self,
        ts: int,
        model: Model,
        report: AdaptationReport,
        rows: NDArray[np.float32],
        scratch: Model | None = None,
    ) -> GateDecided:
        """New weights, if the guards let them pass: in shadow first, whatever the MMD says.

        scratch: what the same labels alone have made
        """
        if scratch is not None:
            self._take_scratch(scratch, rows)
        self._measure_origin(model, report)
        fault = self._fault(report)
        reasons: tuple[str, ...]
        if fault is not None:
            name, verdict, reasons, labels = ADAPTED, "discarded", (fault,), 0.0
        else:
            arm = self._shadow(model, rows)
            arm.similarity, arm.mmd = report.similarity_after, report.mmd_after
            arm.backward_transfer = report.source_accuracy_after - report.source_accuracy_before
            name, verdict, labels = arm.name, "shadow", arm.against_base.effective_labels
            reasons = (
                f"MMD² {report.mmd_before:.4f} → {report.mmd_after:.4f}",
                f"similarity {report.similarity_before:.2f} → {report.similarity_after:.2f}",
                f"source accuracy {report.source_accuracy_before:.3f} → {report.source_accuracy_after:.3f}",
            )
        return GateDecided(
            ts, self._symbol, model.model_id, name, verdict, reasons, report.similarity_after,
            report.mmd_before, report.mmd_after, labels,
        )  # fmt: skip

    def _take_scratch(self, model: Model, rows: NDArray[np.float32]) -> None:
        """Its newest weights; those that trade as a part of the ensemble stay."""
        arm = self._roster.networks.get(SCRATCH)
        if arm is None:
            self._roster.add_scratch(model, rows)
        elif self._roster.champion is not self._roster.ensemble:
            arm.use(model, rows)

    def _measure_origin(self, model: Model, report: AdaptationReport) -> None:
        """Of the arm that has the weights at which the adaptation began; it may have others by now."""
        networks = self._roster.networks
        known = {
            networks[name].model.model_id: networks[name] for name in (FROZEN, CHAINED) if name in networks
        }
        origin = known.get(model.model_id) or known.get(model.card.parent)
        if origin is not None:
            origin.similarity, origin.mmd = report.similarity_before, report.mmd_before

    def _fault(self, report: AdaptationReport) -> str | None:
        measured = (report.mmd_after, report.similarity_after, report.source_accuracy_after)
        if not all(math.isfinite(value) for value in measured):
            return "a measurement of the candidate is not finite"
        forgotten, most = report.source_accuracy_before - report.source_accuracy_after, self._gate.forgetting
        if not forgotten <= most:
            return f"source accuracy fell by {forgotten:.3f} > {most:g}: forgetting"
        return None

    def _shadow(self, model: Model, rows: NDArray[np.float32]) -> NetworkArm:
        """The arm in which new weights are watched: on probation beside the adapted arm where that trades."""
        roster = self._roster
        adapted = roster.networks.get(ADAPTED)
        if adapted is None:
            if SCRATCH in roster.networks:  # it has another rival now
                roster.networks[SCRATCH].against_rival.reset()
            return roster.add(ADAPTED, model, rows)
        if roster.champion is not roster.base and roster.member is adapted:  # alone or in the ensemble
            challenger = roster.add(CHALLENGER, model, rows)
            challenger.calibrator = copy.deepcopy(adapted.calibrator)  # as it would trade
            return challenger
        adapted.use(model, rows)
        return adapted
