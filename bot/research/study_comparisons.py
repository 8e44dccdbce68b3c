"""Who beats whom in a study: differences on the same rows and the same resampled UTC days, by token age.

Each arm is put beside the pooled trees (the rival to beat), the scratch network and its own shuffled twin, in
the same form: with the prior component if it has it. Of several twins the mean is the rival, and how many of
them order as well as the arm is told: with k of n, p = (k + 1) / (n + 1). An interval of 95 % that excludes
0 is one comparison; where many are made, one in twenty excludes it by chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.research.bootstrap import ClusterBootstrap, Estimate, percentile_interval
from bot.research.predictions import log_losses
from bot.research.study_files import TWIN, twins_of
from bot.research.study_predictions import ENSEMBLE
from bot.research.study_table import DRAWS, Outcomes, age_groups, auc_draws, percent

Floats = NDArray[np.float64]

RIVALS: Final = ("lgbm_pooled", "scratch", "frozen")
PRIOR: Final = "+prior"


class Comparison(NamedTuple):
    """auc, skill: of the arm minus the rival's; skill is the share of the rival's log loss that is saved."""

    arm: str
    rival: str
    age: str
    n: int
    auc: Estimate
    skill: Estimate
    chance: str = ""  # how many of several twins order as well

    @property
    def finding(self) -> str:
        """What the two intervals establish; a word only where one of them excludes 0."""
        words = [self.chance] if self.chance else []
        for name, one in (("orders", self.auc), ("predicts", self.skill)):
            if one.low > 0 or one.high < 0:
                words.append(f"{name} {'better' if one.low > 0 else 'worse'}")
        return ", ".join(words)


def rivals_of(arm: str, arms: Sequence[str]) -> list[str]:
    """Those of `arms` that `arm` is put beside; a twin and what judges nothing has none."""
    if TWIN in arm:
        return []
    form = PRIOR if arm.endswith(PRIOR) or arm == ENSEMBLE else ""
    own = [f"{arm}{TWIN}", *(f"{name}{form}" for name in RIVALS)]
    return [name for name in own if name in arms and name != arm]


def comparisons(days: tuple[int, int], facts: Outcomes, said: Mapping[str, Floats]) -> Iterator[Comparison]:
    """said: P(up) of each arm on the rows of `facts`, (n,), NaN where it has none: those are left out."""
    for age, inside in age_groups(days, facts):
        judge: _Judge | None = None
        for arm in said:
            for rival in rivals_of(arm, list(said)):
                both = np.isfinite(said[arm]) & np.isfinite(said[rival])
                rows = np.flatnonzero(inside & both)
                if not len(rows):
                    continue
                if judge is None or not np.array_equal(judge.rows, rows):
                    judge = _Judge(rows, facts, said)
                yield judge.compared(arm, rival, age)


class _Judge:
    """Compares on one set of rows; what an arm reached there is computed once."""

    def __init__(self, rows: NDArray[np.intp], facts: Outcomes, said: Mapping[str, Floats]) -> None:
        self.rows = rows
        self._said = said
        self._y = facts.y[rows]
        self._bootstrap = ClusterBootstrap.by_day(facts.t[rows], DRAWS)
        self._reached: dict[str, tuple[Estimate, Floats]] = {}

    def compared(self, arm: str, rival: str, age: str) -> Comparison:
        rivals = twins_of(arm, self._said) if TWIN in rival else [rival]
        auc, draws = self._auc(arm)
        others, other_draws = zip(*(self._auc(name) for name in rivals), strict=True)
        other = float(np.mean([one.value for one in others]))
        losses = [self._loss(name) for name in rivals]
        ratio = self._bootstrap.ratio(self._loss(arm), np.mean(losses, axis=0))
        as_good = sum(one.value >= auc.value for one in others)
        return Comparison(
            arm,
            rival,
            age,
            len(self.rows),
            percentile_interval(auc.value - other, draws - np.mean(other_draws, axis=0)),
            Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low),
            f"{as_good} of {len(others)} twins order as well" if len(others) > 1 else "",
        )

    def _loss(self, name: str) -> Floats:
        return log_losses(self._said[name][self.rows], self._y)

    def _auc(self, arm: str) -> tuple[Estimate, Floats]:
        if arm not in self._reached:
            self._reached[arm] = auc_draws(self._said[arm][self.rows], self._y, self._bootstrap)
        return self._reached[arm]


def lines(found: Sequence[Comparison]) -> list[str]:
    """A Markdown table; AUC in points, skill in percent of the rival's log loss."""
    out = ["| arm | minus | days | n | AUC | skill % | the arm |", "|" + "---|" * 7]
    for one in found:
        cells = [
            one.arm, one.rival, one.age, f"{one.n:,}", percent(one.auc), percent(one.skill, 2), one.finding,
        ]  # fmt: skip
        out.append("| " + " | ".join(cells) + " |")
    return out
