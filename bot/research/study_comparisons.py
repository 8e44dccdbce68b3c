"""Who beats whom in a study: differences on the same rows and the same resampled UTC days, by token age.

Each arm is put beside the pooled trees (the rival to beat), the scratch network and its own shuffled twin, in
the same form: with the prior component if it has it. An interval of 95 % that excludes 0 is one comparison;
where many are made, one in twenty excludes it by chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.research.bootstrap import ClusterBootstrap, Estimate, percentile_interval
from bot.research.predictions import log_losses
from bot.research.study_predictions import ENSEMBLE, TWIN
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

    @property
    def finding(self) -> str:
        """What the two intervals establish; a word only where one of them excludes 0."""
        words = []
        for name, one in (("orders", self.auc), ("predicts", self.skill)):
            if one.low > 0 or one.high < 0:
                words.append(f"{name} {'better' if one.low > 0 else 'worse'}")
        return ", ".join(words)


def rivals_of(arm: str, arms: Sequence[str]) -> list[str]:
    """Those of `arms` that `arm` is put beside; a twin and what judges nothing has none."""
    if arm.endswith(TWIN):
        return []
    form = PRIOR if arm.endswith(PRIOR) or arm == ENSEMBLE else ""
    own = [f"{arm}{TWIN}", *(f"{name}{form}" for name in RIVALS)]
    return [name for name in own if name in arms and name != arm]


def comparisons(days: tuple[int, int], facts: Outcomes, said: Mapping[str, Floats]) -> Iterator[Comparison]:
    """said: P(up) of each arm on the rows of `facts`, (n,), NaN where it has none: those are left out."""
    for arm in said:
        for rival in rivals_of(arm, list(said)):
            both = np.isfinite(said[arm]) & np.isfinite(said[rival])
            for age, inside in age_groups(days, facts):
                rows = np.flatnonzero(inside & both)
                if len(rows):
                    yield _compared(arm, rival, age, facts, rows, said)


def _compared(
    arm: str, rival: str, age: str, facts: Outcomes, rows: NDArray[np.intp], said: Mapping[str, Floats]
) -> Comparison:
    y, bootstrap = facts.y[rows], ClusterBootstrap.by_day(facts.t[rows], DRAWS)
    ours, theirs = said[arm][rows], said[rival][rows]
    (auc, draws), (other, other_draws) = (auc_draws(p, y, bootstrap) for p in (ours, theirs))
    ratio = bootstrap.ratio(log_losses(ours, y), log_losses(theirs, y))
    return Comparison(
        arm,
        rival,
        age,
        len(rows),
        percentile_interval(auc.value - other.value, draws - other_draws),
        Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low),
    )


def lines(found: Sequence[Comparison]) -> list[str]:
    """A Markdown table; AUC in points, skill in percent of the rival's log loss."""
    out = ["| arm | minus | days | n | AUC | skill % | the arm |", "|" + "---|" * 7]
    for one in found:
        cells = [
            one.arm, one.rival, one.age, f"{one.n:,}", percent(one.auc), percent(one.skill, 2), one.finding,
        ]  # fmt: skip
        out.append("| " + " | ".join(cells) + " |")
    return out
