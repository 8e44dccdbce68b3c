"""One token: its rows, labels and place on the ladder, and what it wishes to hold."""

import math
import zlib
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.commands import AdaptModel
from bot.core.events import BarClosed, CandidateArrived
from bot.core.records import LabelMatured, StageChanged
from bot.core.signal import Action, Signal
from bot.core.types import MINUTE_MS, Position, Side, Stage
from bot.core.verdict import SCRATCH
from bot.settings import Settings
from strategies.base import Advice
from strategies.chain import Chain
from strategies.contest.admission import Admission
from strategies.contest.arm import log_loss
from strategies.contest.promotion import Promotion
from strategies.contest.roster import Roster
from strategies.contest.scoring import SAID_BASE, Scoring
from strategies.features.pipeline import FeatureRow
from strategies.labels import Labeler, Matured
from strategies.ladder import Evidence, climb
from strategies.learning.registry import Model
from strategies.learning.sources import column_indices
from strategies.memory import TokenMemory
from strategies.quality import Quality
from strategies.rungs import Rungs
from strategies.soundness import Concerning, Soundness
from strategies.triggers import Triggers


class Token:
    """Everything the strategy knows of one token. Pure: driven by rows, labels and candidates."""

    def __init__(
        self, symbol: str, settings: Settings, pretrained: Model, chain: Chain, launched: int = 0
    ) -> None:
        """launched: ms UTC"""
        self.symbol = symbol
        self.stage = Stage.OBSERVE
        self._settings = settings
        self._pretrained = pretrained
        self._interval = settings.market.decision_minutes * MINUTE_MS
        self._columns = column_indices(pretrained.card.columns)
        self._memory = TokenMemory(len(self._columns), settings.adaptation.window_bars)
        self._labeler = Labeler(settings.label.horizon_bars, settings.label.barrier_sigmas)
        self._listings = chain.listings
        gate, block = settings.gate, settings.label.horizon_bars * self._interval
        self._roster = Roster(pretrained, chain.base, block, gate)
        self._scoring = Scoring(self._roster, block, gate.drift_blocks)
        self._promotion = Promotion(symbol, gate, self._roster)
        self._admission = Admission(symbol, gate, self._roster)
        self._quality = Quality(symbol, launched)
        self._spoke: dict[int, str] = {}  # the champion of each bar whose label has not matured
        self._soundness = Soundness(settings, self._interval, launched)
        self._ready = False
        self._rungs = Rungs(symbol)
        self._proof = "no adapted model has proven better"  # why the champion is champion
        self._verdict = self._promotion.verdict(self._scoring.reversal, self._proof)
        self._waits_for = ""
        self._triggers = Triggers(settings.adaptation, block)
        self._last_row = 0

    # --- a decision bar ------------------------------------------------------------------------------------

    def on_row(
        self, bar: BarClosed, row: FeatureRow, position: Position | None, *, late: bool = False
    ) -> list[Advice]:
        """Labels first, then predictions: what matures now may teach, what is predicted now may not look.

        late: the moment of the bar is over, its price may be gone: nothing is opened on it
        """
        out: list[Advice] = []
        self._ready = row.ready
        self._soundness.on_bar(bar)
        for matured in self._labeler.update(bar, row.sigma if row.ready else None):
            out += self._learn(bar.ts, matured)
        if not row.ready:
            return out + self._step(bar.ts) + self._blind(bar, position)
        x = row.x[self._columns]
        if self._last_row != bar.start - self._interval:
            for arm in self._roster.networks.values():
                arm.reset()
        self._last_row = bar.start
        self._memory.add(bar.start, x)
        self._listings.add(self.symbol, bar.start, x)
        prediction = self._scoring.predict(bar.start, x)
        self._spoke[bar.start] = self._roster.champion.name
        out += self._step(bar.ts)
        signal = self._signal(bar, row, prediction, position)
        if late and signal.action is Action.ENTER:
            reason = "decided late, without the bars of the sources"
            signal = msgspec.structs.replace(signal, action=Action.NONE, reason=reason)
        out.append(signal)
        out += self._maybe_adapt(bar)
        return out

    def _signal(
        self, bar: BarClosed, row: FeatureRow, prediction: tuple[float, float], position: Position | None
    ) -> Signal:
        p_up, volatility = prediction
        side = Side.BUY if p_up >= 0.5 else Side.SELL
        confidence = max(p_up, 1 - p_up)
        action, reason = self._wish(bar, side, confidence, position)
        champion = self._roster.champion
        vetoed = self._settings.gate.conformal and not champion.calibrator.conformal.is_opinion(p_up)
        if action is Action.ENTER and vetoed:
            action, reason = Action.NONE, "the token's conformal set does not rule the other direction out"
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
            model_age=max(0, bar.ts - champion.model.card.until),
            effective_labels=champion.against_base.effective_labels,
            statistics_until=row.until,
            sigma=row.sigma,
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

    def _learn(self, ts: int, matured: Matured) -> list[Advice]:
        self._memory.label(matured.start, matured.outcome, matured.weight)
        self._listings.label(self.symbol, matured)
        said = self._scoring.score(matured)
        if said is None:
            return []
        out: list[Advice] = [
            LabelMatured(
                ts, self.symbol, matured.start, matured.t_entry, matured.outcome, matured.ret, matured.weight,
                said,
            )
        ]  # fmt: skip
        out += self._measure(ts, matured, said)
        p_up = said.get(self._roster.transferred.name)
        if p_up is not None:
            self._triggers.score(matured.start, log_loss(p_up, matured.outcome), matured.weight)
        champion = self._roster.champion
        verdicts = self._promotion.crown(ts)
        out += verdicts
        if self._roster.champion is not champion:
            self._proof = verdicts[-1].reasons[0]
            out += self._begin_again(ts)
        self._verdict = self._promotion.verdict(self._scoring.reversal, self._proof)
        return [*out, *self._rungs.judge(ts, self._verdict)]

    def _measure(self, ts: int, matured: Matured, said: Mapping[str, float]) -> list[Advice]:
        """What the champion of that bar had said; older bars without a label lost theirs in a gap."""
        spoke = self._spoke.pop(matured.start)
        for stale in [start for start in self._spoke if start < matured.start]:
            del self._spoke[stale]
        return [
            *self._quality.add(
                ts, matured.start, said[spoke], said[SAID_BASE], matured.outcome, matured.weight
            )
        ]

    def _begin_again(self, ts: int) -> list[Advice]:
        """Another champion must earn every step itself: what the last one had shown is not its own."""
        if self.stage not in (Stage.SMALL, Stage.FULL):
            return []
        return [self._change_stage(ts, Stage.SHADOW, ("another champion",))]

    def _step(self, ts: int) -> list[Advice]:
        moved = self._move_on_ladder(ts)
        arm = self._roster.champion.name
        return [*moved, *self._rungs.look(ts, self.stage, arm, self._verdict, self._waits_for)]

    def _move_on_ladder(self, ts: int) -> list[Advice]:
        champion = self._roster.champion
        proof = champion.against_base
        evidence = Evidence(
            ready=self._ready,
            similarity=champion.similarity,
            effective_labels=proof.effective_labels,
            e_value=proof.e_value,
            recent_skill=proof.recent,
            source_accuracy=self._pretrained.card.source_accuracy,
            overconfidence=self._quality.rolling.overconfidence,
            reversal=self._scoring.reversal,
            calm=self._soundness.calm,
            trouble=self._soundness.trouble,
            suspended=self._soundness.suspended,
        )
        stage, reasons = climb(self.stage, evidence, self._settings.gate)
        self._waits_for = "; ".join(reasons)
        if stage is self.stage:
            return []
        if stage is Stage.SHADOW and proof.recent < 0:
            proof.reset()  # skill that was lost must be shown again
        return [self._change_stage(ts, stage, reasons)]

    def hear(self, news: Concerning) -> list[Advice]:
        """News of the market or the breaker: trouble counts at once, that it is over at the next bar."""
        self._soundness.hear(news)
        in_trouble = self._soundness.trouble or self._soundness.suspended
        return self._step(news.ts) if in_trouble else []

    def suspend(self, ts: int, reason: str) -> list[Advice]:
        """For good."""
        self._soundness.suspend(reason)
        return self._step(ts)

    def _change_stage(self, ts: int, stage: Stage, reasons: tuple[str, ...]) -> StageChanged:
        changed = StageChanged(ts, self.symbol, self.stage, stage, reasons)
        self.stage = stage
        return changed

    # --- adaptation ----------------------------------------------------------------------------------------

    def _maybe_adapt(self, bar: BarClosed) -> list[Advice]:
        seed = zlib.crc32(f"{self.symbol}:{bar.ts}".encode())
        due = self._triggers.due(self._memory, seed)
        if due is None or self._promotion.is_near:
            return []
        self._triggers.begun()
        snapshot = self._memory.newest(self._settings.adaptation.window_bars)
        base, replaced = self._roster.base.model, self._roster.transferred.model
        scratch = self._roster.networks.get(SCRATCH)
        return [
            AdaptModel(
                bar.ts, self.symbol, bar.ts, base.model_id, seed, *snapshot,
                reason=f"{due.cause}: {due.reason}", urgent=due.cause.is_alarm, until=replaced.card.until,
                scratch="" if scratch is None else scratch.model.model_id,
            )
        ]  # fmt: skip

    def on_candidate(
        self, event: CandidateArrived, model: Model, scratch: Model | None = None
    ) -> list[Advice]:
        """scratch: the rival that the same job trained; None where the labels were too few."""
        return [self._admission.enter(event.ts, model, event.report, self._past(model), scratch)]

    def on_chain(self, model: Model) -> None:
        """The chain has gone a step further."""
        self._admission.rebase(model, self._past(model), in_trade=self.stage in (Stage.SMALL, Stage.FULL))

    def _past(self, model: Model) -> NDArray[np.float32]:
        return self._memory.newest_unbroken(model.card.architecture.receptive_field, self._interval)
