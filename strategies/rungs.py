"""From top to bottom: promoted, frozen, ensemble with scratch, no trade. Which one a token is on, and why.

Which model would trade is for the contest to say, whether any may is for the ladder.
"""

from typing import Final

from bot.core.reasons import kind
from bot.core.records import RungChanged
from bot.core.types import Rung, Stage
from strategies.contest import ADAPTED, ENSEMBLE

_RUNG_OF: Final = {ADAPTED: Rung.PROMOTED, ENSEMBLE: Rung.ENSEMBLE}  # any other arm is a base


class Rungs:
    """Of one token. Tells a rung when it, the stage, the arm or the kind of the reason has changed."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._told: RungChanged | None = None

    def look(self, ts: int, stage: Stage, arm: str, proof: str, waits_for: str) -> list[RungChanged]:
        """arm: the champion; proof: why it is; waits_for: what keeps the token from trading"""
        trades = stage in (Stage.SMALL, Stage.FULL)
        rung = _RUNG_OF.get(arm, Rung.FROZEN) if trades else Rung.NONE
        now = RungChanged(ts, self._symbol, stage, rung, arm, proof if trades else waits_for)
        if self._told is not None and _same(self._told, now):
            return []
        self._told = now
        return [now]


def _same(one: RungChanged, other: RungChanged) -> bool:
    if (one.stage, one.rung, one.arm) != (other.stage, other.rung, other.arm):
        return False
    return kind(one.reason) == kind(other.reason)
