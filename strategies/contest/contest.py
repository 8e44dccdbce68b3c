"""The contest as its token sees it, and the verdict on what is transferred."""

import math

import numpy as np
from numpy.typing import NDArray

from bot.core.events import AdaptationReport
from bot.core.records import GateDecided
from bot.core.types import MINUTE_MS
from bot.core.verdict import ADAPTED, BASE_RATE, ENSEMBLE, FROZEN, NONE, SCRATCH, Verdict
from bot.settings import Settings
from strategies.contest.arm import Arm, NetworkArm
from strategies.contest.candidates import Candidates
from strategies.contest.promotion import Promotion
from strategies.contest.roster import Roster
from strategies.contest.scoring import Scoring
from strategies.labels import Matured
from strategies.learning.registry import Model
from strategies.learning.verdict import standing

Rows = NDArray[np.float32]


class Contest:
    """At each bar: `score` and `crown` for each label that it matured, then `predict`."""

    def __init__(self, symbol: str, settings: Settings, pretrained: Model, chained: Model) -> None:
        """chained: the model of the chain so far; `pretrained` itself where there is none."""
        gate = settings.gate
        self._enough = gate.evidence
        block = settings.label.horizon_bars * settings.market.decision_minutes * MINUTE_MS
        self._roster = Roster(pretrained, chained, block, gate.drift_blocks, gate.probation_blocks)
        self._scoring = Scoring(self._roster, block, gate.drift_blocks)
        self._promotion = Promotion(symbol, gate, self._roster)
        self._candidates = Candidates(symbol, gate, self._roster)

    @property
    def champion(self) -> Arm:
        return self._roster.champion

    @property
    def base(self) -> NetworkArm:
        """Where adaptation starts, and what the adapted arm must beat."""
        return self._roster.base

    @property
    def watched(self) -> NetworkArm:
        """The arm whose weights are replaced next: a rise of its losses asks for an adaptation."""
        return self._roster.transferred

    @property
    def scratch(self) -> str:
        """The id of the weights with which the scratch arm goes on learning; "" while there are none."""
        arm = self._roster.networks.get(SCRATCH)
        return "" if arm is None else arm.model.model_id

    @property
    def is_judging(self) -> bool:
        """Weights on which a decision is near; were they replaced now, none would ever be judged."""
        return self._promotion.is_near

    @property
    def reversal(self) -> float:
        """Anytime-valid evidence that the pretrained model orders this token's outcomes the wrong way."""
        return self._scoring.reversal

    def reset(self) -> None:
        """A gap: nothing before it may reach a prediction."""
        for arm in self._roster.networks.values():
            arm.reset()

    def predict(self, start: int, x: Rows) -> tuple[float, float]:
        """(P(up), volatility per bar) of the champion."""
        return self._scoring.predict(start, x)

    def score(self, matured: Matured) -> dict[str, float] | None:
        """P(up) that each arm and the base rate had given, now scored; None if nothing was said then."""
        return self._scoring.score(matured)

    def crown(self, ts: int) -> list[GateDecided]:
        """Who is champion, after a label."""
        return self._promotion.crown(ts)

    def enter(
        self, ts: int, model: Model, report: AdaptationReport, rows: Rows, scratch: Model | None = None
    ) -> GateDecided:
        """New weights. rows: (n, F) newest features since the last gap; scratch: their rival or None."""
        return self._candidates.enter(ts, model, report, rows, scratch)

    def rebase(self, model: Model, rows: Rows, *, in_trade: bool) -> None:
        """The chain has gone a step further. rows: as for `enter`; in_trade: the token trades."""
        self._candidates.rebase(model, rows, in_trade=in_trade)

    def verdict(self, proof: str) -> Verdict:
        """Whether what is transferred helps this token. proof: why the champion is the champion."""
        roster, champion, enough = self._roster, self.champion, self._enough
        harm = []
        if self.reversal >= enough:
            harm.append(f"the source's knowledge works against this token: evidence {self.reversal:.3g}")
        if roster.negative_transfer >= enough:
            harm.append(f"scratch beats what is transferred: evidence {roster.negative_transfer:.3g}")
        chosen, reason = NONE, "nothing has beaten the base rate yet"
        if champion.against_base.most >= enough:
            chosen, reason = champion.name if champion.name in (ADAPTED, ENSEMBLE) else FROZEN, proof
        pairs = [
            pair
            for arm in sorted(roster.arms, key=lambda arm: arm is not champion)
            for pair in (
                (arm.name, BASE_RATE, arm.against_base),
                (arm.name, roster.rival_of(arm.name), arm.against_rival),
            )
        ]
        adapted = roster.networks.get(ADAPTED)
        lost = math.nan if adapted is None else adapted.backward_transfer
        return standing(chosen, (reason, *harm), pairs, lost)
