"""Does what is transferred help a token? One answer: of a trial, for the gate, the views and the report.

Negative transfer is defined against the learner of the token alone (Wang et al., CVPR 2019). A verdict comes
from matured labels; no divergence is an argument for it.
"""

import math
from typing import Final

import msgspec

ADAPTED: Final = "adapted"
FROZEN: Final = "frozen"
SCRATCH: Final = "scratch"
ENSEMBLE: Final = "ensemble"  # of what is transferred and scratch
NONE: Final = "none"  # nothing has beaten the base rate: nothing here may be traded on
BASE_RATE: Final = "base rate"


class Gain(msgspec.Struct, frozen=True):
    """Mean log loss of the rival minus that of the arm, nats per label; NaN = not known.

    low, high: two-sided interval of 95 %, or of the decision's own level; accuracy: difference of the shares
    of right calls; labels: effective ones, after their dependence; e_value: anytime-valid evidence that the
    gain is above 0, where it is tested as labels come
    """

    arm: str
    rival: str
    value: float
    low: float
    high: float
    accuracy: float
    labels: float
    e_value: float = math.nan

    def __str__(self) -> str:
        said = f"{self.arm} over {self.rival}: {self.value:+.3f} nats"
        if not math.isnan(self.low):
            said += f" [{self.low:+.3f}, {self.high:+.3f}]"
        if not math.isnan(self.accuracy):
            said += f", accuracy {self.accuracy:+.1%}"
        if not math.isnan(self.e_value):
            said += f", evidence {self.e_value:.3g}"
        return f"{said}, {self.labels:.0f} effective labels"


class Verdict(msgspec.Struct, frozen=True):
    """chosen: one of the words above. reasons: the one that decided first. gains: every comparison made, of
    what leads first where a token is followed.

    backward_transfer: accuracy on the source's held-out tail after the adaptation minus before; a large
    loss is forgetting, whatever the token says; NaN without an adaptation
    """

    chosen: str
    reasons: tuple[str, ...]
    gains: tuple[Gain, ...]
    backward_transfer: float = math.nan

    @property
    def figures(self) -> tuple[str, ...]:
        """The comparisons and the backward transfer, in sentences."""
        said = tuple(map(str, self.gains))
        if math.isnan(self.backward_transfer):
            return said
        return (*said, f"source accuracy {100 * self.backward_transfer:+.1f} points after the adaptation")
