"""What the engine decided and why: facts of our own making, for the journal, the view and the report."""

from enum import StrEnum
from typing import Final

import msgspec

from bot.core.types import Rung, Side, Stage
from bot.core.verdict import Verdict


class Record(msgspec.Struct, frozen=True, tag=True):
    ts: int  # ms UTC


class StageChanged(Record, frozen=True):
    symbol: str
    old: Stage
    new: Stage
    reasons: tuple[str, ...]


class RungChanged(Record, frozen=True):
    """What a token is traded by from now on, at which stage, and why. `arm`: whose word would count."""

    symbol: str
    stage: Stage
    rung: Rung
    arm: str
    reason: str

    def __str__(self) -> str:
        return f"{self.symbol} {self.stage}, {self.rung} ({self.arm}): {self.reason}"


class TransferJudged(Record, frozen=True):
    """Whether what is transferred helps a token; told when the answer or a reason changes, and every day."""

    symbol: str
    verdict: Verdict

    def __str__(self) -> str:
        """With the comparisons of what leads; the others are in the table and the report."""
        verdict = self.verdict
        gains = [str(gain) for gain in verdict.gains if gain.arm == verdict.gains[0].arm]
        return f"{self.symbol}: {verdict.chosen}; {'; '.join((*verdict.reasons, *gains))}"


class Readiness(Record, frozen=True):
    """A token whose features are not ready: its warm-up progress, in decision bars.

    refused: bars so far that came again, out of order, or with a value that is not finite
    """

    symbol: str
    have: int
    need: int
    refused: int = 0

    def __str__(self) -> str:
        refused = f", {self.refused} refused" if self.refused else ""
        return f"{self.symbol}: {self.have} of {self.need} bars{refused}"


class FeaturesSeen(Record, frozen=True):
    """What the model of a token sees at one decision bar, in the order of strategies.features.spec.NAMES."""

    symbol: str
    x: tuple[float, ...]


class DecisionMade(Record, frozen=True):
    """One decision bar of one token: what the model said and what became of it.

    `p_up` is the calibrated probability that the entry-to-exit return is positive; `confidence` is
    max(p_up, 1 - p_up). `verdict` is "entered", "refused", "exited", "held" or "quiet"; `reason` says why.
    `statistics_until` is the start of the last bar in the statistics that normalised the features, 0 = none.
    """

    symbol: str
    bar_start: int
    close: float
    stage: Stage
    arm: str
    model_id: str
    p_up: float
    confidence: float
    similarity: float
    mmd: float
    effective_labels: float
    side: Side | None
    verdict: str
    reason: str
    statistics_until: int = 0


class LabelMatured(Record, frozen=True):
    """The outcome of the decision at `bar_start`, known at `ts`, with what each arm had said at the time."""

    symbol: str
    bar_start: int
    t_entry: int
    outcome: int  # 1 = the entry-to-exit return was positive
    ret: float
    weight: float  # uniqueness
    p_up: dict[str, float]  # by arm


ROLLING: Final = "rolling"  # in place of an age: the newest days


class QualityMeasured(Record, frozen=True):
    """How good a token's predictions were, on matured labels alone; strategies.quality defines the figures.

    `age`: of the token, in days, such as "3-7", or "rolling" for the newest days; `labels`: their effective
    number; NaN = unknown
    """

    symbol: str
    age: str
    labels: float
    accuracy: float
    skill: float
    ece: float


class GateDecided(Record, frozen=True):
    """A verdict about a model: a candidate accepted or discarded, an arm promoted or rolled back."""

    symbol: str
    model_id: str
    arm: str
    verdict: str  # "shadow", "discarded", "promoted", "rolled_back"
    reasons: tuple[str, ...]
    similarity: float
    mmd_before: float
    mmd_after: float
    effective_labels: float


class Refused(Record, frozen=True):
    """Risk refused an order. Denied by us; what the exchange refuses is `OrderRejected`."""

    symbol: str
    reason: str


class EquityMarked(Record, frozen=True, gc=False):
    """Account at the close of a decision bar, with unrealised P&L at the last price; quote coin."""

    equity: float
    balance: float
    peak: float
    drawdown: float  # fraction of the peak, >= 0
    day_drawdown: float  # fraction of the equity at the last UTC midnight, >= 0
    exposure: float  # gross notional / equity
    ledger: int = 0  # until when it contains what came and went without our trading, ms; 0 = not known


class Latch(StrEnum):
    """Which breaker (risk.breaker says what trips each)."""

    EQUITY = "equity"
    DAY = "day"
    ROLLING = "rolling"
    PEAK = "peak"
    TOKEN = "token"  # noqa: S105


class BreakerTripped(Record, frozen=True):
    reason: str
    until: int  # ms UTC; 0 = until a person clears it
    latch: Latch = Latch.DAY
    symbol: str = ""  # of a token's own breaker


class BreakerReleased(Record, frozen=True):
    reason: str
    latch: Latch | None = None  # None: all of them
    symbol: str = ""


class Alarm(Record, frozen=True):
    """Something a person should see; the bot carries on as the text says."""

    symbol: str
    text: str
