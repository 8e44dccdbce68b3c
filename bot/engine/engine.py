"""The heart: `step(event) -> commands and records`. Pure: no I/O, no clock, no randomness, no asyncio."""

from collections.abc import Callable
from typing import Any, Final

from bot.core.commands import Command, MoveStop
from bot.core.events import (
    HISTORY,
    AdaptationFailed,
    BalanceChanged,
    BarClosed,
    CandidateArrived,
    EntriesAllowed,
    EntriesBlocked,
    Event,
    FeedRefused,
    FramesUnreadable,
    FundingPaid,
    FundingRatePublished,
    InstrumentDelisted,
    InstrumentListed,
    MarketHealthChanged,
    MicrostructureSampled,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PositionAdopted,
    PositionMarked,
    StopMoved,
)
from bot.core.records import Alarm, BreakerTripped, DecisionMade, Record, Refused
from bot.core.signal import Action, Signal
from bot.core.types import Instrument, Position
from bot.engine.portfolio import Portfolio
from bot.execution.orders import Orders
from bot.execution.protection import due_stop
from bot.market.candles import Candles
from bot.settings import Risk
from risk.breaker import Breaker
from risk.manager import Denied, RiskManager
from strategies.base import Advice, Strategy

Message = Command | Record
_NAKED_MS: Final = 90_000  # a position that could not be given a stop for so long is closed
_PAUSE_MS: Final = 15_000  # after an exit that was not carried out, a bar at most; doubled each time
_LONGEST_PAUSE_MS: Final = 300_000


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
        self._pauses: dict[str, tuple[int, int]] = {}  # until when no exit is tried again, and how long it is
        self._blocked: dict[str, str] = {}  # why no position may be opened now, by cause
        self._faults: dict[str, tuple[str, ...]] = {}  # of our view of the market, by symbol
        self._refused: dict[str, str] = {}  # feeds that the exchange does not give us, by symbol
        self._now = 0  # ts of the newest fact
        self._mark_due = False  # a decision bar closed at that time
        self._handlers: dict[type[Event], Callable[[Any], list[Message]]] = {
            BarClosed: self._on_bar,
            InstrumentListed: self._on_listed,
            InstrumentDelisted: self._on_delisted,
            FundingRatePublished: self._on_news,
            MicrostructureSampled: self._on_news,
            MarketHealthChanged: self._on_health,
            FeedRefused: self._on_refused,
            FramesUnreadable: self._on_unreadable,
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
            PositionMarked: self._on_marked,
            EntriesBlocked: self._on_blocked,
            EntriesAllowed: self._on_allowed,
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
        return [] if HISTORY in self._blocked else self.appraise(self._now)

    def appraise(self, ts: int) -> list[Message]:
        """The account at `ts`, for the journal, against the limit of the day."""
        portfolio = self.portfolio
        out = self._check_drawdown(ts)
        balance, gross = float(portfolio.balance), portfolio.gross_notional
        return [*out, self._breaker.record(ts, portfolio.equity, balance, gross)]

    def take_over(self, other: "Engine") -> None:
        """Go on with the account that `other` looked after, while this one learnt from the past."""
        self.portfolio, self.orders = other.portfolio, other.orders
        self._unsold, self._pauses, self._naked = other._unsold, other._pauses, other._naked
        self._instruments |= other._instruments
        self._blocked |= other._blocked

    # --- market --------------------------------------------------------------------------------------------

    def _on_bar(self, bar: BarClosed) -> list[Message]:
        symbol = bar.symbol
        candles = self._candles.get(symbol)
        if candles is None:  # a symbol that was never listed to us: only looked at
            candles = self._candles[symbol] = Candles(symbol, self._interval)
        out = self._sell_again(bar.ts)
        position = self.portfolio.positions.get(symbol)
        if position is not None and not candles.is_old(bar):
            out += self._watch(position, bar.close, bar)
        decision = candles.update(bar)
        if decision is None:
            return out
        self._mark_due = True
        for advice in self._strategy.on_bar(decision, self.portfolio.positions):
            out += self._take(advice)
        return out

    def _watch(self, position: Position, price: float, news: Event) -> list[Message]:
        """Revalue a position at each news of its price; the drawdown limit and the stop are checked here."""
        symbol, ts = position.symbol, news.ts
        self.portfolio.mark(symbol, price)
        out = self._check_drawdown(ts, symbol)
        if self._breaker.flattens or self._breaker.flattens_token(symbol):
            return out + self._close(position, ts)  # an exit that the exchange rejected is tried again
        if self._guarded.get(symbol) is position:  # nothing changed since its stop was found good
            return out
        instrument = self._instruments.get(symbol)
        if instrument is None:
            return out + self._close(position, ts, "no longer traded, or about to end: it is closed")
        if self._is_naked(position, news.received):
            return out + self._close(position, ts, f"no stop for {_NAKED_MS // 1_000} s: it is closed")
        stop = due_stop(position, instrument, self._risk)
        if stop is None:
            self._guarded[symbol] = position
        elif (price - float(stop)) * position.side.sign <= 0:  # passed already: no stop can be set there
            out += self._close(position, ts)
        else:
            out.append(MoveStop(ts, symbol, stop))
        return out

    def _is_naked(self, position: Position, now: int) -> bool:
        """For too long. By the time of receipt: after a gap many bars come at once."""
        if position.stop is not None:
            self._naked.pop(position.symbol, None)
            return False
        return now - max(self._naked.setdefault(position.symbol, now), position.opened) >= _NAKED_MS

    def _sell_again(self, ts: int) -> list[Message]:
        """At each bar or mark of any symbol: a delisted one has no bars of its own any more."""
        if not self._unsold:
            return []
        held = self.portfolio.positions
        self._unsold &= held.keys()
        return [message for name in sorted(self._unsold) for message in self._close(held[name], ts)]

    def _check_drawdown(self, ts: int, symbol: str = "") -> list[Message]:
        """Of the account, and of the token that a fact is about."""
        breaker, equity = self._breaker, self.portfolio.equity
        records: list[Message] = [*breaker.mark(ts, equity)]
        if symbol:
            records += breaker.mark_token(ts, symbol, self.portfolio.pnl(symbol), equity)
        out = list(records)
        for record in records:
            if isinstance(record, BreakerTripped):
                out += self._stop_trading(ts, record.symbol)
        return out

    def _stop_trading(self, ts: int, symbol: str) -> list[Message]:
        """A breaker has tripped, of one token or ("") of the account."""
        out: list[Message] = [*self.orders.cancel_entries(ts, symbol)]
        for position in list(self.portfolio.positions.values()):
            if self._breaker.flattens or self._breaker.flattens_token(position.symbol):
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

    def _on_refused(self, event: FeedRefused) -> list[Message]:
        self._refused[event.symbol] = event.reason
        return [Alarm(event.ts, event.symbol, f"not traded by this run: {event.reason}")]

    def _on_unreadable(self, event: FramesUnreadable) -> list[Message]:
        text = f"{event.count} messages of the market could not be read, the last one: {event.reason}"
        return [Alarm(event.ts, "", text)]

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
        """A reduce-only market order for what is not yet on its way out; not at once after a failure."""
        qty = abs(position.qty) - self.orders.leaving(position.symbol)
        if qty <= 0 or ts < self._pauses.get(position.symbol, (0, 0))[0]:
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
            _, last = self._pauses.get(order.symbol, (0, 0))
            pause = min(max(2 * last, min(self._interval, _PAUSE_MS)), _LONGEST_PAUSE_MS)
            self._pauses[order.symbol] = event.ts + pause, pause
        elif isinstance(event, OrderCancelled):
            return []
        verb = "rejected" if isinstance(event, OrderRejected) else "cancelled"
        again = "; the position is still held and its exit will be tried again" if unsold else ""
        text = f"the exchange {verb} {order.link_id}: {event.reason}{again}"
        return [Alarm(event.ts, order.symbol, text)]

    def _on_filled(self, event: OrderFilled) -> list[Message]:
        self.orders.on_filled(event)
        position = self.portfolio.apply_fill(event)
        if position is None:
            self._pauses.pop(event.symbol, None)
        out: list[Message] = self._check_drawdown(event.ts, event.symbol)
        halting = self._breaker.flattens or self._breaker.flattens_token(event.symbol)
        if position is not None and halting:
            return out + self._close(position, event.ts)  # an entry that filled while we were halting
        return out

    def _on_funding(self, event: FundingPaid) -> list[Message]:
        self.portfolio.apply_funding(event)
        return self._check_drawdown(event.ts, event.symbol)

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

    def _on_marked(self, event: PositionMarked) -> list[Message]:
        """So a position is guarded that has no bars: before the market is followed, or where it has ended."""
        out = self._sell_again(event.ts)
        position = self.portfolio.positions.get(event.symbol)
        return out + (self._watch(position, event.mark, event) if position else [])

    def _on_blocked(self, event: EntriesBlocked) -> list[Message]:
        self._blocked[event.cause] = event.reason
        return []

    def _on_allowed(self, event: EntriesAllowed) -> list[Message]:
        self._blocked.pop(event.cause, None)
        return []

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
        faults = self._faults.get(symbol, ())
        return (*faults, self._refused[symbol]) if symbol in self._refused else faults

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
