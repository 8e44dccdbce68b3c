"""The listing ladder: OBSERVE, SHADOW, SMALL, FULL. One step up at a time, by evidence; down at once.

SUSPENDED lies below it: whatever suspends a token does so at once, and when it is over the token begins at
OBSERVE again. A token that is delisted is gone from its SUSPENDED for good.
"""

import math
from dataclasses import dataclass

from bot.core.types import Stage
from bot.settings import Gate


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about one token and its champion; of the model, all of it out of sample. NaN = unknown.

    ready: the features are
    trouble: thin trading, market data that cannot be trusted (strategies.soundness)
    calm: decision bars since the last trouble
    suspended: why the token is suspended, "" where it is not
    similarity: 1 - proxy A-distance / 2 of the features that the champion sees
    effective_labels: uniqueness-weighted matured labels that it was scored on
    e_value: anytime-valid evidence that its log loss is below the base rate's
    recent_skill: mean log-loss gain over the newest blocks of labels; NaN while there are too few
    overconfidence: of the newest predictions, beyond what chance explains (strategies.quality)
    source_accuracy: of the pretrained model on its most confident tenth, purged tail
    reversal: anytime-valid evidence that the pretrained model orders this token's outcomes the wrong way
    """

    ready: bool
    similarity: float
    effective_labels: float
    e_value: float
    recent_skill: float
    overconfidence: float
    source_accuracy: float
    reversal: float
    calm: int
    trouble: tuple[str, ...] = ()
    suspended: str = ""


def climb(stage: Stage, evidence: Evidence, gate: Gate) -> tuple[Stage, tuple[str, ...]]:
    """The stage after this bar, and why: what was fulfilled for a step up, what failed for a fall.

    Where the stage stays, the reasons are what the next step still waits for.
    """
    if evidence.suspended:
        return Stage.SUSPENDED, (evidence.suspended,)
    if stage is Stage.SUSPENDED:
        return Stage.OBSERVE, ("nothing suspends it any more",)
    if stage is Stage.OBSERVE:
        waits = (*evidence.trouble, *(() if evidence.ready else ("features warm up",)))
        return (stage, waits) if waits else (Stage.SHADOW, ("features are ready, and it trades well enough",))
    fall = _failures(evidence, gate)
    if stage in (Stage.SMALL, Stage.FULL) and fall:
        return Stage.SHADOW, fall
    if stage is Stage.SHADOW:
        waits = fall + _missing(evidence, gate, gate.evidence)
        return (stage, waits) if waits else (Stage.SMALL, _shown(evidence))
    if stage is Stage.SMALL:
        waits = _missing(evidence, gate, gate.full_evidence)
        if not evidence.recent_skill > 0:
            waits += ("recent skill is not above zero",)
        return (stage, waits) if waits else (Stage.FULL, _shown(evidence))
    return stage, ()


def _failures(evidence: Evidence, gate: Gate) -> tuple[str, ...]:
    reasons = list(evidence.trouble)
    if not evidence.ready:
        reasons.append("the features are not ready")
    if math.isnan(evidence.similarity):
        reasons.append("similarity not measured yet")
    elif evidence.similarity < gate.similarity:
        reasons.append(f"similarity {evidence.similarity:.2f} < {gate.similarity:g}")
    if not evidence.reversal < gate.evidence:
        reasons.append(f"the source's knowledge works against this token: evidence {evidence.reversal:.3g}")
    if evidence.recent_skill < 0:
        reasons.append(f"recent log-loss skill {evidence.recent_skill:+.4f} < 0")
    return tuple(reasons)


def _missing(evidence: Evidence, gate: Gate, e_value: float) -> tuple[str, ...]:
    reasons = []
    if not evidence.source_accuracy >= gate.source_accuracy:
        reasons.append(
            f"source accuracy {evidence.source_accuracy:.3f} < {gate.source_accuracy:g} on confident bars"
        )
    if not evidence.effective_labels >= gate.effective_labels:
        reasons.append(f"{evidence.effective_labels:.0f} of {gate.effective_labels:.0f} effective labels")
    if not evidence.e_value >= e_value:
        reasons.append(f"evidence {evidence.e_value:.3g} < {e_value:g}")
    found, most = evidence.overconfidence, gate.overconfidence
    if not found <= most:
        reasons.append(f"overconfident by {found:.3f} > {most:g}")
    if evidence.calm < gate.calm_bars:
        reasons.append(f"{evidence.calm} of {gate.calm_bars} bars without trouble")
    return tuple(reasons)


def _shown(evidence: Evidence) -> tuple[str, ...]:
    recent = "" if math.isnan(evidence.recent_skill) else f", recent skill {evidence.recent_skill:+.4f}"
    return (
        f"similarity {evidence.similarity:.2f}",
        f"{evidence.effective_labels:.0f} effective labels",
        f"evidence {evidence.e_value:.3g} against the base rate{recent}",
    )
