"""The arms of one token: they predict every bar, are scored on labels that none had seen; one is champion.

frozen:     the pretrained model as it is
chain:      the newest model of the chain over earlier listings, as it is
adapted:    the newest accepted weights; an arm is a procedure and keeps its record over them
challenger: new weights while the adapted arm trades, on probation
scratch:    the same network trained on the token's own labels alone; it shows where transfer does harm
ensemble:   what is transferred and scratch, mixed by how their labels have fared

From top to bottom: adapted, the base (chain, or frozen where this token's labels speak against the chain),
the ensemble where it has proven better than these, and no trade at all, which the ladder decides. Every step
is a `GateDecided` with its reason.
"""

import copy
import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.core.events import AdaptationReport
from bot.core.records import GateDecided
from bot.core.types import MINUTE_MS
from bot.core.verdict import ADAPTED, BASE_RATE, ENSEMBLE, FROZEN, NONE, SCRATCH, Verdict
from bot.settings import Settings
from strategies.arm import Arm, EnsembleArm, NetworkArm, log_loss
from strategies.labels import Matured
from strategies.learning.evidence import PairedScores
from strategies.learning.registry import Model
from strategies.learning.verdict import standing

CHAINED: Final = "chain"
CHALLENGER: Final = "challenger"
SAID_BASE: Final = "base"  # the base rate, beside the arms in what was said
_KIND: Final = {ADAPTED: ADAPTED, ENSEMBLE: ENSEMBLE}  # of a champion; any other is a base

_PRIOR_LABELS: Final = 20.0  # pseudo-labels of a fair coin in the base rate


class _Said(NamedTuple):
    """What was said at one bar, until its label matures."""

    base: float  # the base rate
    arms: list[tuple[Arm, Model, float, float]]  # weights, logit and P(up); an arm may be gone by then


class Contest:
    """Feed it each label before the row of the bar that matured it."""

    def __init__(self, symbol: str, settings: Settings, pretrained: Model, chained: Model) -> None:
        """chained: the model of the chain so far; `pretrained` itself where there is none."""
        self._symbol = symbol
        self._gate = settings.gate
        self._block = settings.label.horizon_bars * settings.market.decision_minutes * MINUTE_MS
        self._lengths = self._block, settings.gate.drift_blocks, settings.gate.probation_blocks
        self._said: dict[int, _Said] = {}
        self._ups = self._labels = 0.0  # uniqueness-weighted
        self._reversal = PairedScores(self._block, settings.gate.drift_blocks)
        self._mean_logit = 0.0  # of the frozen model on this token, over the matured labels
        nothing = np.empty((0, pretrained.card.architecture.features), np.float32)
        self._arms = {FROZEN: self._new_arm(FROZEN, pretrained, nothing)}
        self._ensemble: EnsembleArm | None = None  # as soon as there is a scratch arm
        self._base = self._champion = self._member = FROZEN  # the member: of the ensemble, beside scratch
        if chained is not pretrained:
            self._arms[CHAINED] = self._new_arm(CHAINED, chained, nothing)
            self._base = self._champion = self._member = CHAINED

    @property
    def champion(self) -> Arm:
        if self._champion == ENSEMBLE:
            assert self._ensemble is not None
            return self._ensemble
        return self._arms[self._champion]

    @property
    def base(self) -> NetworkArm:
        """Where adaptation starts, and what the adapted arm must beat."""
        return self._arms[self._base]

    @property
    def watched(self) -> Arm:
        """The arm whose weights are replaced next: a rise of its losses asks for an adaptation."""
        return self._arms[self._transferred]

    @property
    def _transferred(self) -> str:
        return ADAPTED if ADAPTED in self._arms else self._base

    @property
    def scratch(self) -> str:
        """The id of the weights with which the scratch arm goes on learning; "" while there are none."""
        return self._arms[SCRATCH].model.model_id if SCRATCH in self._arms else ""

    @property
    def is_judging(self) -> bool:
        """Weights on which a decision is near; were they replaced now, none would ever be judged."""
        adapted = self._arms.get(ADAPTED)
        if adapted is None or CHALLENGER in self._arms:
            return adapted is not None
        is_proven = self._champion != ADAPTED and adapted.against_rival.e_value >= self._gate.evidence
        return is_proven and math.isnan(adapted.probation.recent)

    @property
    def reversal(self) -> float:
        """Anytime-valid evidence that the pretrained model orders this token's outcomes the wrong way."""
        return self._reversal.e_value

    def verdict(self, proof: str) -> Verdict:
        """Whether what is transferred helps this token. proof: why the champion is the champion."""
        harm = []
        if self.reversal >= self._gate.evidence:
            harm.append(f"the source's knowledge works against this token: evidence {self.reversal:.3g}")
        if self._negative_transfer >= self._gate.evidence:
            harm.append(f"scratch beats what is transferred: evidence {self._negative_transfer:.3g}")
        is_proven = self.champion.against_base.most >= self._gate.evidence
        reason = proof if is_proven else "nothing has beaten the base rate yet"
        arms: list[Arm] = [*self._arms.values(), *([self._ensemble] if self._ensemble else [])]
        arms.sort(key=lambda arm: arm.name != self._champion)
        pairs = [
            pair
            for arm in arms
            for pair in (
                (arm.name, BASE_RATE, arm.against_base),
                (arm.name, self._rival_of(arm.name), arm.against_rival),
            )
        ]
        chosen = _KIND.get(self._champion, FROZEN) if is_proven else NONE
        adapted = self._arms.get(ADAPTED)
        lost = math.nan if adapted is None else adapted.backward_transfer
        return standing(chosen, (reason, *harm), pairs, lost)

    # --- predicting and scoring ----------------------------------------------------------------------------

    def reset(self) -> None:
        """A gap: nothing before it may reach a prediction."""
        for arm in self._arms.values():
            arm.reset()

    def predict(self, start: int, x: NDArray[np.float32]) -> tuple[float, float]:
        """(P(up), volatility per bar) of the champion; what each arm says is kept until its label matures."""
        said = self._said[start] = _Said(self._base_rate, [])
        spoken: dict[str, tuple[float, float]] = {}
        for name, arm in self._arms.items():
            logit, p_up, volatility = arm.predict(x)
            said.arms.append((arm, arm.model, logit, p_up))
            spoken[name] = p_up, volatility
        ensemble = self._ensemble
        if ensemble is not None:
            p_up, volatility = spoken[self._member]
            logit, p_up = ensemble.predict(self._arms[self._member], p_up, spoken[SCRATCH][0])
            said.arms.append((ensemble, ensemble.model, logit, p_up))
            spoken[ENSEMBLE] = p_up, volatility
        return spoken[self._champion]

    def score(self, matured: Matured) -> dict[str, float] | None:
        """P(up) that each arm and the base rate had given, now scored; None if nothing was said then."""
        said = self._recall(matured)
        if said is None:
            return None
        self._test_reversal(matured, said)
        losses = {arm.name: log_loss(p_up, matured.outcome) for arm, _, _, p_up in said.arms}
        base_loss = log_loss(said.base, matured.outcome)
        if self._ensemble is not None and SCRATCH in losses and self._member in losses:
            self._ensemble.weigh(losses[SCRATCH] - losses[self._member], matured.weight)
        for arm, model, logit, _ in said.arms:
            loss, rival = losses[arm.name], losses.get(self._rival_of(arm.name))
            arm.against_base.add(matured.start, base_loss - loss, matured.weight)
            if rival is not None:
                arm.against_rival.add(matured.start, rival - loss, matured.weight)
            if arm.model is not model:  # it has other weights by now, which did not say this
                continue
            arm.calibrator.observe(logit, matured.outcome, matured.weight)
            if rival is not None:
                arm.probation.add(matured.start, rival - loss, matured.weight)
        return {arm.name: p_up for arm, _, _, p_up in said.arms} | {SAID_BASE: said.base}

    def _rival_of(self, name: str) -> str:
        """Who leads is measured against the base, who wants to lead against who leads."""
        if name in (ADAPTED, ENSEMBLE):
            return self._base if name == self._champion else self._champion
        return {FROZEN: CHAINED, CHAINED: FROZEN, CHALLENGER: ADAPTED, SCRATCH: self._transferred}[name]

    def _recall(self, matured: Matured) -> _Said | None:
        """What was said at the label's bar; whatever is older lost its label in a gap."""
        self._ups += matured.outcome * matured.weight
        self._labels += matured.weight
        for stale in [start for start in self._said if start < matured.start]:
            del self._said[stale]
        return self._said.pop(matured.start, None)

    @property
    def _base_rate(self) -> float:
        """Share of "up" among the labels so far, shrunk to a half: the rival without any model."""
        return (self._ups + _PRIOR_LABELS / 2) / (self._labels + _PRIOR_LABELS)

    def _test_reversal(self, matured: Matured, said: _Said) -> None:
        """Negative transfer: does the pretrained model, prior aside, point the wrong way?

        The bet is on outcomes opposite to the side of its own mean on which it spoke; the mean and the base
        rate are those of before the label.
        """
        logit = next(logit for arm, _, logit, _ in said.arms if arm.name == FROZEN)
        wrong_way = math.copysign(1.0, self._mean_logit - logit)
        self._reversal.add(matured.start, wrong_way * (matured.outcome - said.base), matured.weight)
        self._mean_logit += (logit - self._mean_logit) * matured.weight / self._labels

    # --- who is champion -----------------------------------------------------------------------------------

    def crown(self, ts: int) -> list[GateDecided]:
        """The base is champion until the adapted arm proves better, and again when that fails.

        Better: the procedure by its evidence, over all its weights, and these weights by their probation.
        None where scratch has proven better than what is transferred: there the ensemble may prove itself.
        """
        out = self._choose_base(ts)
        adapted = self._arms.get(ADAPTED)
        if adapted is not None:
            out += self._judge_adapted(ts, adapted)
        if self._ensemble is not None:
            out += self._judge_ensemble(ts, self._ensemble)
        return out

    def _judge_adapted(self, ts: int, adapted: NetworkArm) -> list[GateDecided]:
        proof, harm = adapted.against_rival, self._negative_transfer
        if self._champion == ADAPTED:
            if proof.recent < 0:
                return [self._roll_back(ts, adapted)]
        elif (
            proof.e_value >= self._gate.evidence
            and adapted.probation.recent >= 0
            and harm < self._gate.evidence
        ):
            reason = f"evidence {proof.e_value:.3g} that its log loss is below the {self._champion} model's"
            self._lead(ADAPTED)
            return [self._verdict(ts, adapted, "promoted", reason)]
        return self._end_probation(ts, adapted)

    @property
    def _adapted_trades(self) -> bool:
        return self._champion == ADAPTED or (self._champion, self._member) == (ENSEMBLE, ADAPTED)

    @property
    def _negative_transfer(self) -> float:
        """Evidence that scratch, which knows nothing but this token, is better than what is transferred."""
        scratch = self._arms.get(SCRATCH)
        return 0.0 if scratch is None else scratch.against_rival.e_value

    def _judge_ensemble(self, ts: int, ensemble: EnsembleArm) -> list[GateDecided]:
        proof = ensemble.against_rival
        if self._champion == ENSEMBLE:
            if not proof.recent < 0:
                return []
            self._lead(self._base)
            self._watch_challenger()
            reason = f"worse than the {self._base} model over the newest labels"
            return [self._verdict(ts, ensemble, "rolled_back", reason)]
        if proof.e_value < self._gate.evidence:
            return []
        reason = (
            f"evidence {proof.e_value:.3g} that its log loss is below the {self._champion} model's, "
            f"{1 - ensemble.share:.0%} of it scratch"
        )
        self._lead(ENSEMBLE)
        return [self._verdict(ts, ensemble, "promoted", reason)]

    def _lead(self, name: str) -> None:
        """Another champion, so another rival for the others; an ensemble trades with the member it has."""
        if ENSEMBLE in (self._champion, name) and ADAPTED in self._arms:
            self._arms[ADAPTED].against_rival.reset()
        self._champion = name
        if self._ensemble is not None:
            self._ensemble.against_rival.reset()
        if name != ENSEMBLE:
            self._member = self._transferred

    def _choose_base(self, ts: int) -> list[GateDecided]:
        """Frozen instead of the chain, or the chain again, where the token's labels have proven it better."""
        if CHAINED not in self._arms:
            return []
        other = self._arms[FROZEN if self._base == CHAINED else CHAINED]
        if other.against_rival.e_value < self._gate.evidence:
            return []
        evidence = other.against_rival.e_value
        reason = f"evidence {evidence:.3g} that its log loss is below the {self._base} model's"
        self._make_base(other.name)
        return [self._verdict(ts, other, "promoted", reason)]

    def _make_base(self, name: str) -> None:
        """The adapted arm has another rival then, and must beat that one too."""
        led, self._base = self._champion == self._base, name
        for arm in self._arms.values():
            if arm.name != CHALLENGER:
                arm.against_rival.reset()
        self._lead(name if led else self._champion)

    def _roll_back(self, ts: int, adapted: NetworkArm) -> GateDecided:
        self._lead(self._base)
        adapted.against_rival.reset()
        reason = f"worse than the {self._base} model over the newest labels"
        record = self._verdict(ts, adapted, "rolled_back", reason)
        self._watch_challenger()
        return record

    def _watch_challenger(self) -> None:
        """The adapted arm is in shadow again, where the newest weights are the ones to watch."""
        challenger = self._arms.pop(CHALLENGER, None)
        if challenger is not None:
            self._arms[ADAPTED].take_over(challenger)

    def _end_probation(self, ts: int, adapted: NetworkArm) -> list[GateDecided]:
        """New weights trade only after they were not worse than the champion's, on labels new to both."""
        challenger = self._arms.get(CHALLENGER)
        if challenger is None or math.isnan(challenger.probation.recent):
            return []
        del self._arms[CHALLENGER]
        skill, blocks = challenger.probation.recent, self._gate.probation_blocks
        is_good = skill >= 0
        reason = f"mean gain over the champion {skill:+.4f} nats in {blocks} blocks of labels"
        record = self._verdict(ts, challenger, "promoted" if is_good else "discarded", reason)
        if is_good:
            adapted.take_over(challenger)
        return [record]

    # --- new weights ---------------------------------------------------------------------------------------

    def rebase(self, model: Model, rows: NDArray[np.float32], *, in_trade: bool) -> None:
        """The chain has gone a step further; its gate, on labels that were new to it, was its probation.

        Where the token has had no chain it becomes the base at once, but not under a position: a champion
        that has earned its trade is replaced by evidence only. rows: as for `enter`.
        """
        arm = self._arms.get(CHAINED)
        if arm is not None:
            arm.use(model, rows)
            return
        self._arms[CHAINED] = self._new_arm(CHAINED, model, rows)
        if not in_trade:
            self._make_base(CHAINED)

    def enter(
        self,
        ts: int,
        model: Model,
        report: AdaptationReport,
        rows: NDArray[np.float32],
        scratch: Model | None = None,
    ) -> GateDecided:
        """New weights, if the guards let them pass: in shadow first, whatever the MMD says.

        They are the adapted arm's at once while that arm only watches; where it trades they are on probation
        beside it. rows: (n, F) newest features since the last gap, for the network's past. scratch: what the
        same labels alone have made
        """
        if scratch is not None:
            self._take_scratch(scratch, rows)
        began = self._origin(model)
        if began is not None:
            began.similarity, began.mmd = report.similarity_before, report.mmd_before
        fault = self._fault(report)
        if fault is not None:
            return self._entered(ts, model, ADAPTED, report, "discarded", (fault,), 0.0)
        arm = self._shadow(model, rows)
        arm.similarity, arm.mmd = report.similarity_after, report.mmd_after
        arm.backward_transfer = report.source_accuracy_after - report.source_accuracy_before
        reasons = (
            f"MMD² {report.mmd_before:.4f} → {report.mmd_after:.4f}",
            f"similarity {report.similarity_before:.2f} → {report.similarity_after:.2f}",
            f"source accuracy {report.source_accuracy_before:.3f} → {report.source_accuracy_after:.3f}",
        )
        labels = arm.against_base.effective_labels
        return self._entered(ts, model, arm.name, report, "shadow", reasons, labels)

    def _origin(self, model: Model) -> Arm | None:
        """The arm that has the weights at which the adaptation began; it may have others by now."""
        known = {arm.model.model_id: arm for name, arm in self._arms.items() if name in (FROZEN, CHAINED)}
        return known.get(model.model_id) or known.get(model.card.parent)

    def _take_scratch(self, model: Model, rows: NDArray[np.float32]) -> None:
        """Its newest weights; those that trade as a part of the ensemble stay."""
        arm = self._arms.get(SCRATCH)
        if arm is None:
            arm = self._arms[SCRATCH] = self._new_arm(SCRATCH, model, rows)
            self._ensemble = EnsembleArm(ENSEMBLE, model, *self._lengths)
        elif self._champion != ENSEMBLE:
            arm.use(model, rows)

    def _shadow(self, model: Model, rows: NDArray[np.float32]) -> NetworkArm:
        """The arm in which new weights are watched."""
        adapted = self._arms.get(ADAPTED)
        if adapted is None:
            arm = self._arms[ADAPTED] = self._new_arm(ADAPTED, model, rows)
            if SCRATCH in self._arms:  # it has another rival now
                self._arms[SCRATCH].against_rival.reset()
            if self._champion != ENSEMBLE:
                self._member = ADAPTED
        elif self._adapted_trades:
            arm = self._new_arm(CHALLENGER, model, rows)
            arm.calibrator = copy.deepcopy(adapted.calibrator)  # as it would trade
            self._arms[CHALLENGER] = arm
        else:
            arm = adapted
            arm.use(model, rows)
        return arm

    def _fault(self, report: AdaptationReport) -> str | None:
        measured = (report.mmd_after, report.similarity_after, report.source_accuracy_after)
        if not all(math.isfinite(value) for value in measured):
            return "a measurement of the candidate is not finite"
        forgotten, most = report.source_accuracy_before - report.source_accuracy_after, self._gate.forgetting
        if not forgotten <= most:
            return f"source accuracy fell by {forgotten:.3f} > {most:g}: forgetting"
        return None

    def _new_arm(self, name: str, model: Model, rows: NDArray[np.float32]) -> NetworkArm:
        arm = NetworkArm(name, model, *self._lengths)
        arm.use(model, rows)
        return arm

    # --- records -------------------------------------------------------------------------------------------

    def _verdict(self, ts: int, arm: Arm, verdict: str, reason: str) -> GateDecided:
        return GateDecided(
            ts, self._symbol, arm.model.model_id, arm.name, verdict, (reason,), arm.similarity, math.nan,
            arm.mmd, arm.against_base.effective_labels,
        )  # fmt: skip

    def _entered(
        self,
        ts: int,
        model: Model,
        arm: str,
        report: AdaptationReport,
        verdict: str,
        reasons: tuple[str, ...],
        labels: float,
    ) -> GateDecided:
        return GateDecided(
            ts, self._symbol, model.model_id, arm, verdict, reasons, report.similarity_after,
            report.mmd_before, report.mmd_after, labels,
        )  # fmt: skip
