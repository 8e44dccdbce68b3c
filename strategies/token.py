"""One token: its rows, labels, arms, evidence and place on the ladder."""

import copy
import math
import zlib
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.commands import AdaptModel
from bot.core.events import AdaptationReport, BarClosed, CandidateArrived
from bot.core.records import GateDecided, LabelMatured, StageChanged
from bot.core.signal import Action, Signal
from bot.core.types import MINUTE_MS, Position, Side, Stage
from bot.settings import Settings
from strategies.arm import Arm, log_loss
from strategies.base import Advice
from strategies.features.pipeline import FeatureRow
from strategies.labels import Labeler, Matured
from strategies.ladder import Evidence, climb
from strategies.learning.evidence import PairedScores
from strategies.learning.registry import Model
from strategies.learning.sources import column_indices
from strategies.memory import TokenMemory

FROZEN: Final = "frozen"
ADAPTED: Final = "adapted"
CHALLENGER: Final = "challenger"  # new weights for an adapted arm that is champion, on probation

_RIVAL: Final = {FROZEN: ADAPTED, ADAPTED: FROZEN, CHALLENGER: ADAPTED}

_PRIOR_LABELS: Final = 20.0  # pseudo-labels of a fair coin in the base rate


class _Said(NamedTuple):
    """What was said at one bar, until its label matures."""

    base: float  # the base rate
    arms: list[tuple[Arm, float, float]]  # logit and P(up) of each; an arm may be gone when it is scored


class Token:
    """Everything the strategy knows of one token. Pure: driven by rows, labels and candidates."""

    def __init__(self, symbol: str, settings: Settings, pretrained: Model) -> None:
        self.symbol = symbol
        self.stage = Stage.OBSERVE
        self._settings = settings
        self._pretrained = pretrained
        self._interval = settings.market.decision_minutes * MINUTE_MS
        self._columns = column_indices(pretrained.card.columns)
        self._memory = TokenMemory(len(self._columns), settings.adaptation.window_bars)
        self._labeler = Labeler(settings.label.horizon_bars, settings.label.barrier_sigmas)
        self._arms: dict[str, Arm] = {}
        self._champion = FROZEN
        self._waits_for = ""
        self._said: dict[int, _Said] = {}
        self._ups = self._labels = 0.0  # uniqueness-weighted
        self._reversal = PairedScores(
            settings.label.horizon_bars * self._interval, settings.gate.drift_blocks
        )
        self._mean_logit = 0.0  # of the frozen model on this token, over the matured labels
        self._rows = self._rows_at_adaptation = 0
        self._last_row = 0

    # --- a decision bar ------------------------------------------------------------------------------------

    def on_row(
        self, bar: BarClosed, row: FeatureRow, position: Position | None, *, late: bool = False
    ) -> list[Advice]:
        """Labels first, then predictions: what matures now may teach, what is predicted now may not look.

        late: the moment of the bar is over, its price may be gone: nothing is opened on it
        """
        out: list[Advice] = []
        for matured in self._labeler.update(bar, row.sigma if row.ready else None):
            out += self._learn(bar.ts, matured)
        if not row.ready:
            return out + self._blind(bar, position)
        x = row.x[self._columns]
        if self._last_row != bar.start - self._interval:
            for arm in self._arms.values():
                arm.reset()
        self._last_row = bar.start
        if not self._arms:
            self._arms[FROZEN] = self._new_arm(FROZEN, self._pretrained)
        self._memory.add(bar.start, x)
        self._rows += 1
        predictions = self._predict(bar.start, x)
        out += self._move_on_ladder(bar.ts)
        signal = self._signal(bar, row.sigma, predictions[self._champion], position)
        if late and signal.action is Action.ENTER:
            reason = "decided late, without the bars of the sources"
            signal = msgspec.structs.replace(signal, action=Action.NONE, reason=reason)
        out.append(signal)
        out += self._maybe_adapt(bar)
        return out

    def _predict(self, start: int, x: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
        """(P(up), volatility) of every arm, remembered until the label matures."""
        said = self._said[start] = _Said(self._base_rate, [])
        predictions = {}
        for name, arm in self._arms.items():
            logit, p_up, volatility = arm.predict(x)
            said.arms.append((arm, logit, p_up))
            predictions[name] = p_up, volatility
        return predictions

    def _signal(
        self, bar: BarClosed, sigma: float, prediction: tuple[float, float], position: Position | None
    ) -> Signal:
        p_up, volatility = prediction
        side = Side.BUY if p_up >= 0.5 else Side.SELL
        confidence = max(p_up, 1 - p_up)
        action, reason = self._wish(bar, side, confidence, position)
        champion = self._arms[self._champion]
        horizon = self._settings.label.horizon_bars
        return Signal(
            ts=bar.ts,
            symbol=self.symbol,
            action=action,
            side=side,
            bar_start=bar.start,
            price=bar.close,
            stage=self.stage,
            arm=champion.name,
            model_id=champion.model.model_id,
            p_up=p_up,
            confidence=confidence,
            similarity=champion.similarity,
            mmd=champion.mmd,
            effective_labels=champion.against_base.effective_labels,
            sigma=sigma,
            expected_move=volatility * math.sqrt(horizon),
            horizon_bars=horizon,
            reason=reason,
            waits_for=self._waits_for,
        )

    def _wish(
        self, bar: BarClosed, side: Side, confidence: float, position: Position | None
    ) -> tuple[Action, str]:
        sure = confidence >= self._settings.gate.confidence
        if position is None:
            if sure:
                return Action.ENTER, f"{side} with confidence {confidence:.3f}"
            return Action.NONE, f"confidence {confidence:.3f} < {self._settings.gate.confidence:g}"
        if sure and side is not position.side:
            return Action.EXIT, f"the model turned to {side} with confidence {confidence:.3f}"
        trusted = self.stage in (Stage.SMALL, Stage.FULL)
        if self._is_over(bar, position) and not (sure and trusted):
            return Action.EXIT, f"held for {self._settings.label.horizon_bars} bars"
        return Action.HOLD, f"{position.side} since {(bar.ts - position.opened) // self._interval} bars"

    def _blind(self, bar: BarClosed, position: Position | None) -> list[Advice]:
        """No features, no opinion: nothing is opened, and a position ends when its time is over."""
        if position is None or not self._is_over(bar, position):
            return []
        return [
            self._bare_exit(bar.ts, bar.start, bar.close, "its time is over and the features are not ready")
        ]

    def _is_over(self, bar: BarClosed, position: Position) -> bool:
        return bar.ts - position.opened >= self._settings.label.horizon_bars * self._interval

    def _bare_exit(self, ts: int, start: int, price: float, reason: str) -> Signal:
        return Signal(
            ts=ts, symbol=self.symbol, action=Action.EXIT, side=None, bar_start=start, price=price,
            stage=self.stage, reason=reason,
        )  # fmt: skip

    # --- labels and evidence -------------------------------------------------------------------------------

    @property
    def _base_rate(self) -> float:
        """Share of "up" among the labels so far, shrunk to a half: the rival without any model."""
        return (self._ups + _PRIOR_LABELS / 2) / (self._labels + _PRIOR_LABELS)

    def _learn(self, ts: int, matured: Matured) -> list[Advice]:
        self._memory.label(matured.start, matured.outcome, matured.weight)
        self._ups += matured.outcome * matured.weight
        self._labels += matured.weight
        for stale in [start for start in self._said if start < matured.start]:
            del self._said[stale]  # a gap ended its label
        said = self._said.pop(matured.start, None)
        if said is None:
            return []
        self._test_reversal(matured, said)
        losses = {arm.name: log_loss(p_up, matured.outcome) for arm, _, p_up in said.arms}
        base_loss = log_loss(said.base, matured.outcome)
        for arm, logit, _ in said.arms:
            loss, rival = losses[arm.name], _RIVAL[arm.name]
            arm.calibrator.observe(logit, matured.outcome, matured.weight)
            arm.against_base.add(matured.start, base_loss - loss, matured.weight)
            if rival in losses:
                arm.against_rival.add(matured.start, losses[rival] - loss, matured.weight)
        record = LabelMatured(
            ts, self.symbol, matured.start, matured.t_entry, matured.outcome, matured.ret, matured.weight,
            {arm.name: p_up for arm, _, p_up in said.arms} | {"base": said.base},
        )  # fmt: skip
        return [record, *self._crown(ts)]

    def _test_reversal(self, matured: Matured, said: _Said) -> None:
        """Negative transfer: does the pretrained model, prior aside, point the wrong way?

        The bet is on outcomes opposite to the side of its own mean on which it spoke; the mean and the base
        rate are those of before the label.
        """
        logit = next(logit for arm, logit, _ in said.arms if arm.name == FROZEN)
        wrong_way = math.copysign(1.0, self._mean_logit - logit)
        self._reversal.add(matured.start, wrong_way * (matured.outcome - said.base), matured.weight)
        self._mean_logit += (logit - self._mean_logit) * matured.weight / self._labels

    def _crown(self, ts: int) -> list[Advice]:
        """The frozen model is champion until the adapted one proves better, and again when that fails."""
        adapted = self._arms.get(ADAPTED)
        if adapted is None:
            return []
        proof, gate = adapted.against_rival, self._settings.gate
        if self._champion == FROZEN and proof.e_value >= gate.evidence:
            self._champion = ADAPTED
            fall = self._begin_again(ts)
            reason = f"evidence {proof.e_value:.3g} that its log loss is below the frozen model's"
            return [self._verdict(ts, adapted, "promoted", (reason,)), *fall]
        if self._champion == ADAPTED and proof.recent < 0:
            self._champion = FROZEN
            proof.reset()
            fall = self._begin_again(ts)
            reason = "worse than the frozen model over the newest labels"
            rolled_back = self._verdict(ts, adapted, "rolled_back", (reason,))
            challenger = self._arms.pop(CHALLENGER, None)
            if challenger is not None:  # in shadow again, where the newest weights are the ones to watch
                adapted.take_over(challenger)
            return [rolled_back, *fall]
        return self._end_probation(ts, adapted)

    def _end_probation(self, ts: int, adapted: Arm) -> list[Advice]:
        """New weights trade only after they were not worse than the champion's, on labels new to both."""
        challenger = self._arms.get(CHALLENGER)
        if challenger is None or math.isnan(challenger.against_rival.recent):
            return []
        del self._arms[CHALLENGER]
        skill = challenger.against_rival.recent
        blocks = self._settings.gate.probation_blocks
        reason = f"mean gain over the champion {skill:+.4f} nats in {blocks} blocks of labels"
        verdict = "promoted" if skill >= 0 else "discarded"
        record = self._verdict(ts, challenger, verdict, (reason,))
        if skill >= 0:
            adapted.take_over(challenger)
        return [record]

    def _begin_again(self, ts: int) -> list[Advice]:
        """Another champion must earn every step itself: what the last one had shown is not its own."""
        if self.stage not in (Stage.SMALL, Stage.FULL):
            return []
        changed = StageChanged(ts, self.symbol, self.stage, Stage.SHADOW, ("another champion",))
        self.stage = Stage.SHADOW
        return [changed]

    def _move_on_ladder(self, ts: int) -> list[Advice]:
        champion = self._arms[self._champion]
        proof = champion.against_base
        evidence = Evidence(
            ready=True,
            similarity=champion.similarity,
            effective_labels=proof.effective_labels,
            e_value=proof.e_value,
            recent_skill=proof.recent,
            source_accuracy=self._pretrained.card.source_accuracy,
            reversal=self._reversal.e_value,
        )
        stage, reasons = climb(self.stage, evidence, self._settings.gate)
        self._waits_for = "; ".join(reasons)
        if stage is self.stage:
            return []
        changed = StageChanged(ts, self.symbol, self.stage, stage, reasons)
        if stage is Stage.SHADOW and proof.recent < 0:
            proof.reset()  # skill that was lost must be shown again
        self.stage = stage
        return [changed]

    # --- adaptation ----------------------------------------------------------------------------------------

    def _maybe_adapt(self, bar: BarClosed) -> list[Advice]:
        plan = self._settings.adaptation
        if self._rows < plan.first_bars:
            return []
        if self._rows_at_adaptation and self._rows - self._rows_at_adaptation < plan.every_bars:
            return []
        if CHALLENGER in self._arms:  # one at a time, or none would ever be judged
            return []
        self._rows_at_adaptation = self._rows
        rows, starts, labels, weights = self._memory.newest(plan.window_bars)
        seed = zlib.crc32(f"{self.symbol}:{bar.ts}".encode())
        model_id = self._pretrained.model_id
        return [AdaptModel(bar.ts, self.symbol, bar.ts, model_id, seed, rows, starts, labels, weights)]

    def on_candidate(self, event: CandidateArrived, model: Model) -> list[Advice]:
        """New weights, if the guards let them pass: in shadow first, whatever the MMD says.

        They are the adapted arm's at once while that arm only watches; where it is champion they are on
        probation beside it.
        """
        report = event.report
        self._arms[FROZEN].similarity = report.similarity_before
        self._arms[FROZEN].mmd = report.mmd_before
        faults = self._faults(report)
        if faults:
            return [self._gate_record(event.ts, model.model_id, ADAPTED, report, "discarded", faults, 0.0)]
        arm = self._shadow(model)
        arm.similarity, arm.mmd = report.similarity_after, report.mmd_after
        reasons = (
            f"MMD² {report.mmd_before:.4f} → {report.mmd_after:.4f}",
            f"similarity {report.similarity_before:.2f} → {report.similarity_after:.2f}",
            f"source accuracy {report.source_accuracy_before:.3f} → {report.source_accuracy_after:.3f}",
        )
        labels = arm.against_base.effective_labels
        return [self._gate_record(event.ts, model.model_id, arm.name, report, "shadow", reasons, labels)]

    def _shadow(self, model: Model) -> Arm:
        """The arm in which new weights are watched."""
        adapted = self._arms.get(ADAPTED)
        if adapted is None:
            arm = self._arms[ADAPTED] = self._new_arm(ADAPTED, model)
        elif self._champion == ADAPTED:
            blocks = self._settings.gate.probation_blocks
            arm = self._arms[CHALLENGER] = self._new_arm(CHALLENGER, model, blocks)
            arm.calibrator = copy.deepcopy(adapted.calibrator)  # as it would trade
        else:
            arm = adapted
            arm.use(model, self._recent_rows(model))
        return arm

    def _faults(self, report: AdaptationReport) -> tuple[str, ...]:
        measured = (report.mmd_after, report.similarity_after, report.source_accuracy_after)
        if not all(math.isfinite(value) for value in measured):
            return ("a measurement of the candidate is not finite",)
        forgotten = report.source_accuracy_before - report.source_accuracy_after
        if not forgotten <= self._settings.gate.forgetting:
            return (
                f"source accuracy fell by {forgotten:.3f} > {self._settings.gate.forgetting:g}: forgetting",
            )
        return ()

    def suspend(self, ts: int, reason: str) -> list[Advice]:
        changed = StageChanged(ts, self.symbol, self.stage, Stage.SUSPENDED, (reason,))
        self.stage = Stage.SUSPENDED
        return [changed]

    # --- small parts ---------------------------------------------------------------------------------------

    def _new_arm(self, name: str, model: Model, recent_blocks: int | None = None) -> Arm:
        block = self._settings.label.horizon_bars * self._interval
        recent_blocks = recent_blocks or self._settings.gate.drift_blocks
        return Arm(name, model, self._recent_rows(model), block, recent_blocks)

    def _recent_rows(self, model: Model) -> NDArray[np.float32]:
        return self._memory.newest_unbroken(model.card.architecture.receptive_field, self._interval)

    def _verdict(self, ts: int, arm: Arm, verdict: str, reasons: tuple[str, ...]) -> GateDecided:
        return GateDecided(
            ts, self.symbol, arm.model.model_id, arm.name, verdict, reasons, arm.similarity, math.nan,
            arm.mmd, arm.against_base.effective_labels,
        )  # fmt: skip

    def _gate_record(
        self,
        ts: int,
        model_id: str,
        arm: str,
        report: AdaptationReport,
        verdict: str,
        reasons: tuple[str, ...],
        labels: float,
    ) -> GateDecided:
        return GateDecided(
            ts, self.symbol, model_id, arm, verdict, reasons, report.similarity_after, report.mmd_before,
            report.mmd_after, labels,
        )  # fmt: skip
