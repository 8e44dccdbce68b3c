"""From top to bottom: promoted, frozen, ensemble with scratch, no trade. Which one a token is on, and why.

Which model would trade is for the verdict on the transfer to say, whether any may is for the ladder.
"""

from typing import Final

from bot.core.reasons import kind
from bot.core.records import RungChanged, TransferJudged
from bot.core.types import DAY_MS, Rung, Stage
from bot.core.verdict import ADAPTED, ENSEMBLE, FROZEN, NONE, Verdict

_RUNG_OF: Final = {
    ADAPTED: Rung.PROMOTED, FROZEN: Rung.FROZEN, ENSEMBLE: Rung.ENSEMBLE, NONE: Rung.NONE,
}  # fmt: skip


class Rungs:
    """Of one token. Tells a rung when it, the stage, the arm or the kind of the reason has changed, and a
    verdict when its answer or the kind of a reason has, and its figures once a UTC day."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._told: RungChanged | None = None
        self._judged: TransferJudged | None = None

    def look(self, ts: int, stage: Stage, arm: str, verdict: Verdict, waits_for: str) -> list[RungChanged]:
        """arm: the champion; waits_for: what keeps the token from trading"""
        trades = stage in (Stage.SMALL, Stage.FULL)
        rung = _RUNG_OF[verdict.chosen] if trades else Rung.NONE
        now = RungChanged(ts, self._symbol, stage, rung, arm, verdict.reasons[0] if trades else waits_for)
        if self._told is not None and _same(self._told, now):
            return []
        self._told = now
        return [now]

    def judge(self, ts: int, verdict: Verdict) -> list[TransferJudged]:
        """After every label."""
        now, before = TransferJudged(ts, self._symbol, verdict), self._judged
        if before is not None and ts // DAY_MS == before.ts // DAY_MS and _answer(before) == _answer(now):
            return []
        self._judged = now
        return [now]


def _same(one: RungChanged, other: RungChanged) -> bool:
    if (one.stage, one.rung, one.arm) != (other.stage, other.rung, other.arm):
        return False
    return kind(one.reason) == kind(other.reason)


def _answer(judged: TransferJudged) -> tuple[str, ...]:
    return judged.verdict.chosen, *map(kind, judged.verdict.reasons)
