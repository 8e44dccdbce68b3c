"""What a view of the run has to remember: the newest facts about the account and about each token."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bot.core.commands import CHAIN, AdaptModel, Command, PlaceOrder
from bot.core.events import (
    AdaptationFailed,
    CandidateArrived,
    Event,
    FundingPaid,
    InstrumentDelisted,
    InstrumentListed,
    InstrumentStatusChanged,
    MarketHealthChanged,
    OrderFilled,
    OrderRejected,
    StopMoved,
    TokenLeftOut,
)
from bot.core.folding import fold
from bot.core.reasons import kind
from bot.core.records import (
    ROLLING,
    Alarm,
    BreakerReleased,
    BreakerTripped,
    DecisionMade,
    EquityMarked,
    FeaturesSeen,
    GateDecided,
    Latch,
    QualityMeasured,
    Readiness,
    Record,
    Refused,
    RungChanged,
    StageChanged,
    TransferJudged,
)
from bot.core.types import FillOrigin, Side, Stage
from bot.core.verdict import NONE, Verdict
from bot.dashboard.health import HealthBoard
from bot.dashboard.wording import signed

NOTABLE: Final = 8
_FLAT: Final = 1e-9  # of the quantity that was filled: what floats leave of a closed position


@dataclass(slots=True)
class TokenState:
    """One row. Quantities are signed, money in quote coin; NaN = not known yet."""

    symbol: str
    listed: int = 0
    stage: Stage = Stage.OBSERVE
    readiness: Readiness | None = None  # the newest; None once the features were enough for an opinion
    features: tuple[float, ...] = ()  # the newest row, in the order of the specification
    arm: str = ""
    rung: RungChanged | None = None
    transfer: Verdict | None = None  # whether it helps
    adapting: bool = False
    p_up: float = math.nan
    confidence: float = math.nan
    similarity: float = math.nan
    mmd: float = math.nan
    labels: float = 0.0
    quality: QualityMeasured | None = None  # of the newest days
    price: float = math.nan
    qty: float = 0.0
    entry: float = 0.0
    stop: float = math.nan
    entry_stop: float = math.nan  # travels inside the entry order; counts from its fill on
    realised: float = 0.0  # after fees and funding
    trades: int = 0
    verdict: str = ""
    reason: str = ""
    refusals: int = 0
    refusal_kind: str = ""

    @property
    def lacks_bars(self) -> bool:
        return self.readiness is not None and self.readiness.have < self.readiness.need

    @property
    def unrealised(self) -> float:
        return self.qty * (self.price - self.entry) if self.qty else 0.0

    @property
    def notional(self) -> float:
        return self.qty * self.price if self.qty else 0.0

    def fill(self, side: Side, qty: float, price: float, fee: float) -> bool:
        """Book one execution; True when it closed the position."""
        held, entry = self.qty, self.entry
        self.price = price
        self.qty, self.entry, closed = fold(held, entry, side.sign * qty, price)
        self.realised += closed * (price - entry) - fee
        if abs(self.qty) <= _FLAT * qty:
            self.qty, self.stop = 0.0, math.nan
        elif held * self.qty <= 0:
            self.stop = self.entry_stop
        self.trades += bool(closed) and self.qty == 0.0
        return bool(closed)


class Notable(NamedTuple):
    """An event worth a line. `tone` is "good", "bad", "warning" or "plain"."""

    ts: int
    symbol: str
    text: str
    tone: str


class DashboardState:
    """Fold messages into the newest picture; a message that changes nothing costs two lookups.

    It grows with the number of symbols ever listed (about 1 kB each), not with time.
    """

    def __init__(self, balance: float) -> None:
        self.initial = balance
        self.equity = balance
        self.drawdown = 0.0
        self.day_drawdown = 0.0
        self.worst_drawdown = 0.0
        self.exposure = 0.0
        self.halted = ""  # why, while the breaker is tripped
        self.halted_until = 0
        self._halts: dict[Latch, BreakerTripped] = {}
        self.fills = 0
        self.fees = 0.0
        self.funding = 0.0
        self.health = HealthBoard()
        self.tokens: dict[str, TokenState] = {}
        self.left_out: dict[str, str] = {}  # new tokens that are not followed, and why
        self.notable: deque[Notable] = deque(maxlen=NOTABLE)
        self._handlers: dict[type, Callable[[Any], None]] = {
            InstrumentListed: self._on_listed,
            InstrumentDelisted: self._on_delisted,
            TokenLeftOut: self._on_left_out,
            InstrumentStatusChanged: self._on_status,
            MarketHealthChanged: self._on_health,
            Readiness: self._on_readiness,
            FeaturesSeen: self._on_features,
            DecisionMade: self._on_decision,
            QualityMeasured: self._on_quality,
            StageChanged: self._on_stage,
            RungChanged: self._on_rung,
            TransferJudged: self._on_transfer,
            GateDecided: self._on_gate,
            AdaptModel: self._on_adapt,
            CandidateArrived: self._on_adapted,
            AdaptationFailed: self._on_adaptation_failed,
            PlaceOrder: self._on_order,
            OrderFilled: self._on_fill,
            OrderRejected: self._on_rejected,
            StopMoved: self._on_stop,
            FundingPaid: self._on_funding,
            Refused: self._on_refused,
            EquityMarked: self._on_equity,
            BreakerTripped: self._on_tripped,
            BreakerReleased: self._on_released,
            Alarm: self._on_alarm,
        }

    def apply(self, message: Event | Command | Record) -> None:
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message)
        self.health.apply(message)

    @property
    def profit(self) -> float:
        return self.equity - self.initial

    def _token(self, symbol: str) -> TokenState:
        token = self.tokens.get(symbol)
        if token is None:
            token = self.tokens[symbol] = TokenState(symbol)
        return token

    def _note(self, ts: int, symbol: str, text: str, tone: str = "plain") -> None:
        self.notable.append(Notable(ts, symbol, text, tone))

    # --- listing -------------------------------------------------------------------------------------------

    def _on_listed(self, event: InstrumentListed) -> None:
        instrument = event.instrument
        self._token(instrument.symbol).listed = instrument.launch_time
        self._note(event.ts, instrument.symbol, "listed")

    def _on_delisted(self, event: InstrumentDelisted) -> None:
        self._token(event.symbol).readiness = None
        self._note(event.ts, event.symbol, event.reason, "warning")

    def _on_left_out(self, event: TokenLeftOut) -> None:
        self.left_out.pop(event.symbol, None)
        if event.reason:
            self.left_out[event.symbol] = event.reason
            self._note(event.ts, event.symbol, f"left out: {event.reason}")

    # --- the market's data ---------------------------------------------------------------------------------

    def _on_status(self, event: InstrumentStatusChanged) -> None:
        self._note(event.ts, event.symbol, f"the exchange's status is {event.status}", "warning")

    def _on_health(self, event: MarketHealthChanged) -> None:
        """Before the board hears it. That nothing has been heard yet when a symbol is new is no news."""
        known = self.health.symbols.get(event.symbol)
        if known is not None and known.settled:
            tone = "warning" if event.faults else "good"
            self._note(event.ts, event.symbol, "; ".join(event.faults) or "its data is whole again", tone)

    # --- readiness and models ------------------------------------------------------------------------------

    def _on_readiness(self, record: Readiness) -> None:
        self._token(record.symbol).readiness = record

    def _on_features(self, record: FeaturesSeen) -> None:
        self._token(record.symbol).features = record.x

    def _on_stage(self, record: StageChanged) -> None:
        self._token(record.symbol).stage = record.new
        order = tuple(Stage)
        fell = record.new is Stage.SUSPENDED or order.index(record.new) < order.index(record.old)
        text = f"{record.old} → {record.new}: {'; '.join(record.reasons)}"
        self._note(record.ts, record.symbol, text, "bad" if fell else "good")

    def _on_rung(self, record: RungChanged) -> None:
        self._token(record.symbol).rung = record

    def _on_transfer(self, record: TransferJudged) -> None:
        """Noted when the answer is another one; the first is no news."""
        token, verdict = self._token(record.symbol), record.verdict
        if token.transfer is not None and token.transfer.chosen != verdict.chosen:
            text = f"transfer: {token.transfer.chosen} → {verdict.chosen}: {'; '.join(verdict.reasons)}"
            self._note(record.ts, record.symbol, text, "bad" if verdict.chosen == NONE else "plain")
        token.transfer = verdict

    def _on_gate(self, record: GateDecided) -> None:
        tone = {"promoted": "good", "rolled_back": "bad", "discarded": "warning"}.get(record.verdict, "plain")
        verdict = record.verdict.replace("_", " ")
        text = f"{record.arm} model {verdict}: {'; '.join(record.reasons)}"
        self._note(record.ts, record.symbol, text.rstrip(": "), tone)

    def _on_adapt(self, command: AdaptModel) -> None:
        self._token(command.symbol).adapting = True
        if command.urgent:
            self._note(command.ts, command.symbol, f"adapts again, {command.reason}", "warning")

    def _on_adapted(self, event: CandidateArrived) -> None:
        if event.symbol != CHAIN:
            self._token(event.symbol).adapting = False

    def _on_adaptation_failed(self, event: AdaptationFailed) -> None:
        if event.symbol != CHAIN:
            self._token(event.symbol).adapting = False
        self._note(event.ts, event.symbol, f"adaptation failed: {event.reason}", "bad")

    def _on_decision(self, record: DecisionMade) -> None:
        token = self._token(record.symbol)
        token.stage = record.stage
        token.arm = record.arm
        token.p_up = record.p_up
        if not math.isnan(record.p_up):
            token.readiness = None
        token.confidence = record.confidence
        token.similarity = record.similarity
        token.mmd = record.mmd
        token.labels = record.effective_labels
        token.price = record.close
        token.verdict = record.verdict
        token.reason = record.reason

    def _on_quality(self, record: QualityMeasured) -> None:
        if record.age == ROLLING:
            self._token(record.symbol).quality = record

    def _on_refused(self, record: Refused) -> None:
        """Refusals repeat at every bar: they are counted, and noted when a token's cause changes."""
        cause = kind(record.reason)
        token = self._token(record.symbol)
        token.refusals += 1
        if cause != token.refusal_kind:
            token.refusal_kind = cause
            self._note(record.ts, record.symbol, f"refused: {record.reason}", "warning")

    # --- account -------------------------------------------------------------------------------------------

    def _on_order(self, command: PlaceOrder) -> None:
        if command.order.stop_loss is not None:
            self._token(command.order.symbol).entry_stop = float(command.order.stop_loss)

    def _on_fill(self, event: OrderFilled) -> None:
        token = self._token(event.symbol)
        qty, price, fee = float(event.qty), float(event.price), float(event.fee)
        before = token.realised
        closed = token.fill(event.side, qty, price, fee)
        self.fills += 1
        self.fees += fee
        what = "" if event.origin is FillOrigin.ORDER else f" ({event.origin.replace('_', ' ')})"
        text = f"{event.side.lower()} {event.qty:f} at {event.price:f}{what}"
        gained = token.realised - before
        if closed:
            text += f", {signed(gained, ',.2f')}"
        self._note(event.ts, event.symbol, text, ("good" if gained >= 0 else "bad") if closed else "plain")

    def _on_rejected(self, event: OrderRejected) -> None:
        self._note(event.ts, "", f"the exchange rejected {event.link_id}: {event.reason}", "bad")

    def _on_stop(self, event: StopMoved) -> None:
        self._token(event.symbol).stop = math.nan if event.stop_loss is None else float(event.stop_loss)

    def _on_funding(self, event: FundingPaid) -> None:
        amount = float(event.amount)
        self.funding += amount
        self._token(event.symbol).realised -= amount

    def _on_equity(self, record: EquityMarked) -> None:
        self.equity = record.equity
        self.drawdown = record.drawdown
        self.day_drawdown = record.day_drawdown
        self.exposure = record.exposure
        if record.drawdown > self.worst_drawdown:
            self.worst_drawdown = record.drawdown

    def _on_tripped(self, record: BreakerTripped) -> None:
        if record.latch is not Latch.TOKEN:
            self._halts[record.latch] = record
            self._tell_halt()
        self._note(record.ts, record.symbol, f"breaker tripped: {record.reason}", "bad")

    def _on_released(self, record: BreakerReleased) -> None:
        if record.latch is None:
            self._halts.clear()
        else:
            self._halts.pop(record.latch, None)
        self._tell_halt()
        self._note(record.ts, record.symbol, f"breaker released: {record.reason}", "good")

    def _tell_halt(self) -> None:
        halt = next(iter(self._halts.values()), None)
        self.halted, self.halted_until = (halt.reason, halt.until) if halt else ("", 0)

    def _on_alarm(self, record: Alarm) -> None:
        self._note(record.ts, record.symbol, record.text, "bad")
