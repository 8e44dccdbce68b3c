"""The heart: `step(event) -> commands and records`. Pure: no I/O, no clock, no randomness, no asyncio."""

from collections.abc import Callable
from typing import Any, Final

from bot.core.commands import Command, MoveStop
from bot.core.events import (
    AdaptationFailed,
    BalanceChanged,
    BarClosed,
    CandidateArrived,
    EntriesAllowed,
    EntriesBlocked,
    Event,
    FundingPaid,
    FundingRatePublished,
    InstrumentDelisted,
    InstrumentListed,
    MarketHealthChanged,
    MicrostructureSampled,
    OperatorCommanded,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PositionAdopted,
    StopMoved,
)
from bot.core.records import Alarm, BreakerTripped, DecisionMade, Record, Refused
from bot.core.signal import Action, Signal
from bot.core.types import Instrument, Position, Verb
from bot.engine.portfolio import Portfolio
from bot.execution.orders import Orders
from bot.execution.protection import due_stop
from bot.market.candles import Candles
from bot.settings import Risk
from risk.breaker import Breaker
from risk.manager import Denied, RiskManager
from strategies.base import Advice, Strategy

Message = Command | Record
_OPERATOR_WISH: Final = "paused"  # the cause of blocks that a person asked for
_NAKED_MS: Final = 90_000  # a position that could not be given a stop for so long is closed


class Engine:
    """One account, many tokens. Feed it every fact in order; carry out what it returns, in order."""

    def __init__(
        self,
        strategy: Strategy,
        manager: RiskManager,
        breaker: Breaker,
        portfolio: Portfolio,
        orders: Orders,
        risk: Risk,
        decision_interval: int,
    ) -> None:
        self.portfolio = portfolio
        self.orders = orders
        self._strategy = strategy
        self._manager = manager
        self._breaker = breaker
        self._risk = risk
        self._interval = decision_interval
        self._instruments: dict[str, Instrument] = {}
        self._candles: dict[str, Candles] = {}
        self._guarded: dict[str, Position] = {}  # positions whose stop is live and near enough
        self._naked: dict[str, int] = {}  # when a position was first found without a stop, ms, by symbol
        self._unsold: set[str] = set()  # delisted, or the exchange did not carry out the exit
        self._blocked: dict[str, str] = {}  # why no position may be opened now, by cause
        self._faults: dict[str, tuple[str, ...]] = {}  # of our view of the market, by symbol
        self._flattening = False  # a person wants nothing held
        self._decided = 0  # close of the newest decision bar, ms
        self._now = 0  # ts of the newest fact
        self._mark_due = False  # a decision bar closed at that time
        self._handlers: dict[type[Event], Callable[[Any], list[Message]]] = {
            BarClosed: self._on_bar,
            InstrumentListed: self._on_listed,
            InstrumentDelisted: self._on_delisted,
            FundingRatePublished: self._on_news,
            MicrostructureSampled: self._on_news,
            MarketHealthChanged: self._on_health,
            CandidateArrived: self._on_news,
            AdaptationFailed: self._on_news,
            OrderAccepted: self._on_accepted,
            OrderRejected: self._on_unfilled,
            OrderCancelled: self._on_unfilled,
            OrderFilled: self._on_filled,
            FundingPaid: self._on_funding,
            BalanceChanged: self._on_balance,
            StopMoved: self._on_stop,
            PositionAdopted: self._on_adopted,
            EntriesBlocked: self._on_blocked,
            EntriesAllowed: self._on_allowed,
            OperatorCommanded: self._on_operator,
        }

    def step(self, event: Event) -> list[Message]:
        if event.ts <= self._now:
            return self._handlers[type(event)](event)
        out = self.mark()  # of the moment that is over, before anything later counts
        self._now = event.ts
        return out + self._handlers[type(event)](event)

    def mark(self) -> list[Message]:
        """The account at the close of a decision bar, once everything of that moment has been heard."""
        if not self._mark_due:
            return []
        self._mark_due = False
        portfolio = self.portfolio
        out = self._check_drawdown(self._now)
        balance, gross = float(portfolio.balance), portfolio.gross_notional
        return [*out, self._breaker.record(self._now, portfolio.equity, balance, gross)]

    # --- market --------------------------------------------------------------------------------------------

    def _on_bar(self, bar: BarClosed) -> list[Message]:
        symbol = bar.symbol
        candles = self._candles.get(symbol)
        if candles is None:  # a symbol that was never listed to us: only looked at
            candles = self._candles[symbol] = Candles(symbol, self._interval)
        out = self._sell_again(bar.ts)
        position = self.portfolio.positions.get(symbol)
        if position is not None and not candles.is_old(bar):
            out += self._watch(bar, position)
        decision = candles.update(bar)
        if decision is None:
            return out
        self._mark_due = True
        self._decided = decision.ts
        for advice in self._strategy.on_bar(decision, self.portfolio.positions):
            out += self._take(advice)
        return out

    def _watch(self, bar: BarClosed, position: Position) -> list[Message]:
        """Revalue a position at each of its bars; the drawdown limit and the stop are checked here."""
        self.portfolio.mark(bar.symbol, bar.close)
        out = self._check_drawdown(bar.ts)
        if self._must_be_flat:  # an exit that the exchange rejected is tried again
            return out + self._close(position, bar.ts)
        if self._guarded.get(bar.symbol) is position:  # nothing changed since its stop was found good
            return out
        instrument = self._instruments.get(bar.symbol)
        if instrument is None:  # delisted: it is on its way out
            return out + self._close(position, bar.ts)
        if self._is_naked(position, bar.received):
            out += self._close(position, bar.ts, f"no stop for {_NAKED_MS // 1_000} s: it is closed")
            return out
        stop = due_stop(position, instrument, self._risk)
        if stop is None:
            self._guarded[bar.symbol] = position
        elif (bar.close - float(stop)) * position.side.sign <= 0:  # passed already: no stop can be set there
            out += self._close(position, bar.ts)
        else:
            out.append(MoveStop(bar.ts, bar.symbol, stop))
        return out

    def _is_naked(self, position: Position, now: int) -> bool:
        """For too long. By the time of receipt: after a gap many bars come at once."""
        if position.stop is not None:
            self._naked.pop(position.symbol, None)
            return False
        return now - max(self._naked.setdefault(position.symbol, now), position.opened) >= _NAKED_MS

    def _sell_again(self, ts: int) -> list[Message]:
        """At each bar of any symbol: a delisted one has none of its own any more."""
        if not self._unsold:
            return []
        held = self.portfolio.positions
        self._unsold &= held.keys()
        return [message for name in sorted(self._unsold) for message in self._close(held[name], ts)]

    def _check_drawdown(self, ts: int) -> list[Message]:
        record = self._breaker.mark(ts, self.portfolio.equity)
        if record is None:
            return []
        return [record, *(self._flatten(ts) if isinstance(record, BreakerTripped) else [])]

    def _flatten(self, ts: int) -> list[Message]:
        out: list[Message] = [*self.orders.cancel_entries(ts)]
        for position in list(self.portfolio.positions.values()):
            out += self._close(position, ts)
        return out

    def _on_listed(self, event: InstrumentListed) -> list[Message]:
        self._instruments[event.instrument.symbol] = event.instrument
        return self._on_news(event)

    def _on_delisted(self, event: InstrumentDelisted) -> list[Message]:
        """What is still held is sold while that can be done."""
        self._instruments.pop(event.symbol, None)
        position = self.portfolio.positions.get(event.symbol)
        self._unsold.add(event.symbol)
        return self._on_news(event) + (self._close(position, event.ts) if position else [])

    def _on_health(self, event: MarketHealthChanged) -> list[Message]:
        self._faults[event.symbol] = event.faults
        return []

    def _on_news(self, event: Event) -> list[Message]:
        out: list[Message] = []
        for advice in self._strategy.on_event(event):
            out += self._take(advice)
        return out

    # --- decisions -----------------------------------------------------------------------------------------

    def _take(self, advice: Advice) -> list[Message]:
        if not isinstance(advice, Signal):
            return [advice]
        if advice.action is Action.ENTER:
            return self._enter(advice)
        if advice.action is Action.EXIT:
            return self._leave(advice)
        verdict = "held" if advice.action is Action.HOLD else "quiet"
        return [_decision(advice, verdict, advice.reason)]

    def _enter(self, signal: Signal) -> list[Message]:
        link_id = self.orders.next_id(signal.symbol, signal.ts)
        verdict = self._manager.review(signal, self._instruments.get(signal.symbol), self, link_id)
        if isinstance(verdict, Denied):
            refused = Refused(signal.ts, signal.symbol, verdict.reason)
            return [refused, _decision(signal, "refused", verdict.reason)]
        command = self.orders.place(verdict, signal.ts, signal.price)
        return [_decision(signal, "entered", signal.reason), command]

    def _leave(self, signal: Signal) -> list[Message]:
        position = self.portfolio.positions.get(signal.symbol)
        out: list[Message] = [_decision(signal, "exited", signal.reason)]
        return out + (self._close(position, signal.ts) if position else [])

    def _close(self, position: Position, ts: int, alarm: str = "") -> list[Message]:
        """A reduce-only market order for whatever is not already on its way out."""
        qty = abs(position.qty) - self.orders.leaving(position.symbol)
        if qty <= 0:
            return []
        link_id = self.orders.next_id(position.symbol, ts)
        approved = self._manager.approve_exit(position.symbol, position.side.opposite, qty, link_id)
        out: list[Message] = [Alarm(ts, position.symbol, alarm)] if alarm else []
        return [*out, self.orders.place(approved, ts, 0.0)]

    # --- account -------------------------------------------------------------------------------------------

    def _on_accepted(self, event: OrderAccepted) -> list[Message]:
        self.orders.on_accepted(event)
        return []

    def _on_unfilled(self, event: OrderRejected | OrderCancelled) -> list[Message]:
        order = self.orders.on_finished(event)
        if order is None:
            return []
        unsold = order.reduce_only and order.symbol in self.portfolio.positions
        if unsold:
            self._unsold.add(order.symbol)
        elif isinstance(event, OrderCancelled):
            return []
        verb = "rejected" if isinstance(event, OrderRejected) else "cancelled"
        again = "; the position is still held and will be closed at the next bar" if unsold else ""
        text = f"the exchange {verb} {order.link_id}: {event.reason}{again}"
        return [Alarm(event.ts, order.symbol, text)]

    def _on_filled(self, event: OrderFilled) -> list[Message]:
        self.orders.on_filled(event)
        position = self.portfolio.apply_fill(event)
        out: list[Message] = self._check_drawdown(event.ts)
        if position is not None and self._must_be_flat:
            return out + self._close(position, event.ts)  # an entry that filled while we were closing
        return out

    def _on_funding(self, event: FundingPaid) -> list[Message]:
        self.portfolio.apply_funding(event)
        return self._check_drawdown(event.ts)

    def _on_balance(self, event: BalanceChanged) -> list[Message]:
        self.portfolio.apply_transfer(event)
        self._breaker.transfer(float(event.amount))
        return [Alarm(event.ts, "", event.reason), *self._check_drawdown(event.ts)]

    def _on_stop(self, event: StopMoved) -> list[Message]:
        self.portfolio.apply_stop(event)
        return []

    def _on_adopted(self, event: PositionAdopted) -> list[Message]:
        self.portfolio.adopt(event)
        return [Alarm(event.ts, event.symbol, event.reason), *self._check_drawdown(event.ts)]

    def _on_blocked(self, event: EntriesBlocked) -> list[Message]:
        self._blocked[event.cause] = event.reason
        return []

    def _on_allowed(self, event: EntriesAllowed) -> list[Message]:
        self._blocked.pop(event.cause, None)
        return []

    def _on_operator(self, event: OperatorCommanded) -> list[Message]:
        """Told as an alarm: whoever looks at the run must see why it does not trade."""
        told = Alarm(event.ts, "", str(event))
        if event.verb is Verb.RESUME:
            self._blocked.pop(_OPERATOR_WISH, None)
            self._flattening = False
            released = self._breaker.release(event.ts, str(event))
            return [told, released] if released else [told]
        self._blocked[_OPERATOR_WISH] = str(event)
        if event.verb is not Verb.FLATTEN:
            return [told, *self.orders.cancel_entries(event.ts)]
        self._flattening = True
        return [told, *self._flatten(event.ts)]

    @property
    def _must_be_flat(self) -> bool:
        return self._breaker.halted or self._flattening

    # --- what others may look at ----------------------------------------------------------------------------

    @property
    def blocks(self) -> dict[str, str]:
        """Why no position may be opened now, by cause; the halt of the breaker is one of them."""
        return {**self._blocked, **({"halted": "by the drawdown breaker"} if self._breaker.halted else {})}

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        """What is wrong with our view of the market, by symbol; only symbols that have a fault."""
        return {symbol: faults for symbol, faults in self._faults.items() if faults}

    @property
    def decided(self) -> int:
        """Close of the newest decision bar, ms UTC; 0 before the first."""
        return self._decided

    # --- what risk asks of the account (risk.manager.AccountState) -----------------------------------------

    @property
    def blocked(self) -> str:
        return next(iter(self._blocked.values()), "")

    @property
    def equity(self) -> float:
        return self.portfolio.equity

    @property
    def gross_notional(self) -> float:
        return self.portfolio.gross_notional + self.orders.pending_notional

    @property
    def open_positions(self) -> int:
        entering = {order.symbol for order in self.orders.pending_entries}
        return len(entering | self.portfolio.positions.keys())

    def market_faults(self, symbol: str) -> tuple[str, ...]:
        """What is wrong with our view of the symbol; a market that does not judge itself has no faults."""
        return self._faults.get(symbol, ())

    def is_exposed(self, symbol: str) -> bool:
        """In the market or about to be; a position that is wholly on its way out does not count."""
        if self.orders.is_entering(symbol):
            return True
        position = self.portfolio.positions.get(symbol)
        return position is not None and self.orders.leaving(symbol) < abs(position.qty)


def _decision(signal: Signal, verdict: str, reason: str) -> DecisionMade:
    return DecisionMade(
        signal.ts,
        signal.symbol,
        signal.bar_start,
        signal.price,
        signal.stage,
        signal.arm,
        signal.model_id,
        signal.p_up,
        signal.confidence,
        signal.similarity,
        signal.mmd,
        signal.effective_labels,
        signal.side,
        verdict,
        reason,
    )
