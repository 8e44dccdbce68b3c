"""Who is champion, and whether the transfer helps, by the evidence of matured labels."""

import math

from bot.core.records import GateDecided
from bot.core.verdict import ADAPTED, BASE_RATE, ENSEMBLE, FROZEN, NONE, SCRATCH, Gain, Verdict
from bot.settings import Gate
from strategies.contest.arm import Arm, EnsembleArm, NetworkArm
from strategies.contest.roster import CHAINED, CHALLENGER, Roster


class Promotion:
    """The base is champion until the adapted arm proves better, and again when that fails.

    Better: the procedure by its evidence, over all its weights, and these weights by their probation.
    None where scratch has proven better than what is transferred: there the ensemble may prove itself.
    """

    def __init__(self, symbol: str, gate: Gate, roster: Roster) -> None:
        self._symbol = symbol
        self._gate = gate
        self._roster = roster

    @property
    def is_near(self) -> bool:
        """For the newest weights; were they replaced now, none would ever be judged."""
        adapted = self._roster.networks.get(ADAPTED)
        if adapted is None or CHALLENGER in self._roster.networks:
            return adapted is not None
        leads = self._roster.champion is adapted
        return not leads and self._is_proven(adapted) and math.isnan(adapted.probation.recent)

    def crown(self, ts: int) -> list[GateDecided]:
        """After each label: promotions, the end of a probation, roll-backs."""
        out = self._choose_base(ts)
        adapted, ensemble = self._roster.networks.get(ADAPTED), self._roster.ensemble
        if adapted is not None:
            out += self._judge_adapted(ts, adapted)
        if ensemble is not None:
            out += self._judge_ensemble(ts, ensemble)
        return out

    def verdict(self, reversal: float, proof: str) -> Verdict:
        """Whether what is transferred helps, with every pair of arms that has a whole block of labels.

        reversal: as in Scoring; proof: why the champion is champion
        """
        roster, champion, enough = self._roster, self._roster.champion, self._gate.evidence
        harm = []
        if reversal >= enough:
            harm.append(f"the source's knowledge works against this token: evidence {reversal:.3g}")
        if self._negative_transfer >= enough:
            harm.append(f"scratch beats what is transferred: evidence {self._negative_transfer:.3g}")
        chosen, reason = NONE, "nothing has beaten the base rate yet"
        if champion.against_base.most >= enough:
            chosen, reason = champion.name if champion.name in (ADAPTED, ENSEMBLE) else FROZEN, proof
        gains = tuple(
            Gain(arm.name, rival, *scores.interval, math.nan, scores.labels, scores.e_value)
            for arm in sorted(roster.arms, key=lambda arm: arm is not champion)
            for rival, scores in (
                (BASE_RATE, arm.against_base),
                (roster.rival_of(arm.name), arm.against_rival),
            )
            if scores.blocks
        )
        adapted = roster.networks.get(ADAPTED)
        lost = math.nan if adapted is None else adapted.backward_transfer
        return Verdict(chosen, (reason, *harm), gains, lost)

    def _choose_base(self, ts: int) -> list[GateDecided]:
        """Frozen instead of the chain, or the chain again, where the token's labels have proven it better."""
        networks = self._roster.networks
        if CHAINED not in networks:
            return []
        other = networks[FROZEN if self._roster.base is networks[CHAINED] else CHAINED]
        if not self._is_proven(other):
            return []
        reason = self._proof(other)
        self._roster.make_base(other)
        return [self._decided(ts, other, "promoted", reason)]

    def _judge_adapted(self, ts: int, adapted: NetworkArm) -> list[GateDecided]:
        if self._roster.champion is adapted:
            if adapted.against_rival.recent < 0:
                return [self._roll_back(ts, adapted)]
        elif (
            self._is_proven(adapted)
            and adapted.probation.recent >= 0
            and self._negative_transfer < self._gate.evidence
        ):
            return [self._promote(ts, adapted, self._proof(adapted))]
        return self._end_probation(ts, adapted)

    def _end_probation(self, ts: int, adapted: NetworkArm) -> list[GateDecided]:
        """New weights trade only after they were not worse than the champion's, on labels new to both."""
        challenger = self._roster.networks.get(CHALLENGER)
        if challenger is None or math.isnan(challenger.probation.recent):
            return []
        del self._roster.networks[CHALLENGER]
        skill, blocks = challenger.probation.recent, self._gate.probation_blocks
        if skill >= 0:
            adapted.take_over(challenger)
        reason = f"mean gain over the champion {skill:+.4f} nats in {blocks} blocks of labels"
        return [self._decided(ts, challenger, "promoted" if skill >= 0 else "discarded", reason)]

    def _judge_ensemble(self, ts: int, ensemble: EnsembleArm) -> list[GateDecided]:
        if self._roster.champion is ensemble:
            return [self._roll_back(ts, ensemble)] if ensemble.against_rival.recent < 0 else []
        if not self._is_proven(ensemble):
            return []
        reason = f"{self._proof(ensemble)}, {1 - ensemble.share:.0%} of it scratch"
        return [self._promote(ts, ensemble, reason)]

    @property
    def _negative_transfer(self) -> float:
        """Evidence that scratch, which knows nothing but this token, is better than what is transferred."""
        scratch = self._roster.networks.get(SCRATCH)
        return 0.0 if scratch is None else scratch.against_rival.e_value

    def _is_proven(self, arm: Arm) -> bool:
        return arm.against_rival.e_value >= self._gate.evidence

    def _proof(self, arm: Arm) -> str:
        rival = self._roster.rival_of(arm.name)
        return f"evidence {arm.against_rival.e_value:.3g} that its log loss is below the {rival} model's"

    def _promote(self, ts: int, arm: Arm, reason: str) -> GateDecided:
        self._roster.lead(arm)
        return self._decided(ts, arm, "promoted", reason)

    def _roll_back(self, ts: int, arm: Arm) -> GateDecided:
        """The adapted arm is in shadow again, where the newest weights are the ones to watch."""
        self._roster.lead(self._roster.base)
        arm.against_rival.reset()
        reason = f"worse than the {self._roster.base.name} model over the newest labels"
        record = self._decided(ts, arm, "rolled_back", reason)
        challenger = self._roster.networks.pop(CHALLENGER, None)
        if challenger is not None:
            self._roster.networks[ADAPTED].take_over(challenger)
        return record

    def _decided(self, ts: int, arm: Arm, verdict: str, reason: str) -> GateDecided:
        return GateDecided(
            ts, self._symbol, arm.model.model_id, arm.name, verdict, (reason,), arm.similarity, math.nan,
            arm.mmd, arm.against_base.effective_labels,
        )  # fmt: skip
