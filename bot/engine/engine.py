"""The heart: `step(event) -> commands and records`. Pure: no I/O, no clock, no randomness, no asyncio."""

import math
from collections.abc import Callable
from typing import Any, Final

from msgspec import structs

from bot.core.commands import AmendOrder, CancelOrder, Command, MoveStop, PlaceOrder
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
    InstrumentStatusChanged,
    LiquiditySampled,
    MarketHealthChanged,
    MarketHealthMeasured,
    MicrostructureSampled,
    OperatorCommanded,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PositionAdopted,
    PositionMarked,
    StopMoved,
    TimePassed,
    TokenLeftOut,
)
from bot.core.money import limit_price
from bot.core.records import Alarm, BreakerTripped, DecisionMade, Record, Refused
from bot.core.signal import Action, Signal
from bot.core.types import OrderRequest, OrderType, Position, TimeInForce, Trigger, Verb
from bot.engine.account_view import AccountView
from bot.engine.market_view import MarketView
from bot.engine.portfolio import Portfolio
from bot.execution.orders import Orders
from bot.execution.protection import ENDED, Close, Move, Protection
from bot.execution.working import Amend, Cancel, Place, Work, work_of
from bot.market.candles import Candles
from bot.settings import Execution, Risk
from risk.breaker import Breaker
from risk.manager import Approved, Denied, RiskManager
from strategies.base import Advice, Strategy

Message = Command | Record
_OPERATOR_WISH: Final = "paused"  # the cause of blocks that a person asked for
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
        execution: Execution,
    ) -> None:
        self.portfolio = portfolio
        self.orders = orders
        self._strategy = strategy
        self._manager = manager
        self._breaker = breaker
        self._risk = risk
        self._interval = decision_interval
        self._markets = MarketView(risk, decision_interval)
        self._instruments = self._markets.instruments
        self._candles: dict[str, Candles] = {}
        self._execution = execution
        self._protection = Protection(risk, decision_interval)
        self._works: dict[str, Work] = {}  # entries of several parts, by symbol
        self._unsold: set[str] = set()  # delisted, or the exchange did not carry out the exit
        self._pauses: dict[str, tuple[int, int]] = {}  # until when no exit is tried again, and how long it is
        self._blocked: dict[str, str] = {}  # why no position may be opened now, by cause
        self._flattening = False  # a person wants nothing held
        self._decided = 0  # close of the newest decision bar, ms
        self._now = 0  # ts of the newest fact
        self._heard = 0  # when the newest fact was received, ms
        self._mark_due = False  # a decision bar closed at that time
        self._handlers: dict[type[Event], Callable[[Any], list[Message]]] = {
            BarClosed: self._on_bar,
            InstrumentListed: self._on_news,
            InstrumentStatusChanged: self._on_market,
            InstrumentDelisted: self._on_delisted,
            TokenLeftOut: self._on_market,
            FundingRatePublished: self._on_news,
            MicrostructureSampled: self._on_news,
            LiquiditySampled: self._on_news,
            MarketHealthChanged: self._on_market,
            FeedRefused: self._on_refused,
            FramesUnreadable: self._on_unreadable,
            MarketHealthMeasured: self._on_market,
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
            TimePassed: self._on_time,
            OperatorCommanded: self._on_operator,
        }

    def step(self, event: Event) -> list[Message]:
        self._heard = event.received
        if event.ts <= self._now or type(event) is TimePassed:  # time alone ends no moment
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
        self._unsold, self._pauses, self._protection = other._unsold, other._pauses, other._protection
        self._instruments |= other._instruments
        self._blocked |= other._blocked
        self._flattening = other._flattening

    # --- market --------------------------------------------------------------------------------------------

    def _on_bar(self, bar: BarClosed) -> list[Message]:
        symbol = bar.symbol
        candles = self._candles.get(symbol)
        if candles is None:  # a symbol that was never listed to us: only looked at
            candles = self._candles[symbol] = Candles(symbol, self._interval)
        out = self._sell_again(bar.ts)
        self._markets.on_bar(bar)
        position = self.portfolio.positions.get(symbol)
        if position is not None and not candles.is_old(bar):
            out += self._watch(position, bar.close, bar)
        if symbol in self._works:
            out += self._work_on(symbol, bar)
        decision = candles.update(bar)
        if decision is None:
            return out
        self._mark_due = True
        self._markets.on_decision_bar(decision)
        self._decided = decision.ts
        for advice in self._strategy.on_bar(decision, self.portfolio.positions):
            out += self._take(advice)
        return out

    def _watch(self, position: Position, price: float, news: Event) -> list[Message]:
        """Revalue a position at each news of its price; the drawdown limit and the stop are checked here."""
        symbol, ts = position.symbol, news.ts
        self.portfolio.mark(symbol, price)
        out = self._check_drawdown(ts, symbol)
        if self._must_be_flat(symbol):  # an exit that the exchange rejected is tried again
            return out + self._close(position, ts)
        if symbol not in self._instruments:
            return out + self._close(position, ts, ENDED)
        return out + self._guard(position, price, news)

    def _guard(self, position: Position, price: float, news: Event) -> list[Message]:
        instrument = self._instruments.get(position.symbol)
        due = self._protection.look(position, instrument, price, news.ts, news.received)
        if isinstance(due, Close):
            return self._close(position, news.ts, due.alarm)
        if isinstance(due, Move):
            return [MoveStop(news.ts, position.symbol, due.stop, Trigger(self._risk.trigger_by))]
        return []

    def _guard_again(self, symbol: str, news: Event) -> list[Message]:
        """At a fact that brought no price."""
        position = self.portfolio.positions.get(symbol)
        if position is None:
            return []
        return self._guard(position, self.portfolio.last(symbol), news)

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
        if not records:
            return records
        out = list(records)
        for record in records:
            if isinstance(record, BreakerTripped):
                out += self._stop_trading(ts, record.symbol)
        return out

    def _stop_trading(self, ts: int, symbol: str) -> list[Message]:
        """A breaker has tripped, of one token or ("") of the account, or a person wants nothing held."""
        out: list[Message] = self._give_up_entries(ts, symbol)
        for position in list(self.portfolio.positions.values()):
            if self._must_be_flat(position.symbol):
                out += self._close(position, ts)
        return out

    def _must_be_flat(self, symbol: str) -> bool:
        return self._flattening or self._breaker.flattens or self._breaker.flattens_token(symbol)

    def _on_delisted(self, event: InstrumentDelisted) -> list[Message]:
        """What is still held is sold while that can be done."""
        position = self.portfolio.positions.get(event.symbol)
        self._unsold.add(event.symbol)
        out = self._give_up_entries(event.ts, event.symbol) + self._on_news(event)
        return out + (self._close(position, event.ts) if position else [])

    def _on_market(self, event: Event) -> list[Message]:
        """For risk alone."""
        self._markets.hear(event)
        return []

    def _on_refused(self, event: FeedRefused) -> list[Message]:
        self._markets.hear(event)
        return [Alarm(event.ts, event.symbol, f"not traded by this run: {event.reason}")]

    def _on_unreadable(self, event: FramesUnreadable) -> list[Message]:
        text = f"{event.count} messages of the market could not be read, the last one: {event.reason}"
        return [Alarm(event.ts, "", text)]

    def _on_news(self, event: Event) -> list[Message]:
        self._markets.hear(event)
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
        late = (self._heard - signal.ts) / 1_000
        if late > self._execution.signal_valid_seconds:
            return _refused(signal, f"the decision is {late:.0f} s late")
        link_id = self.orders.next_id(signal.symbol, signal.ts)
        instrument = self._instruments.get(signal.symbol)
        verdict = self._manager.review(signal, instrument, self.account, link_id)
        if isinstance(verdict, Denied):
            return _refused(signal, verdict.reason)
        assert instrument is not None
        self._protection.plan(signal.symbol, verdict.order.stop_loss)
        out: list[Message] = [_decision(signal, "entered", signal.reason)]
        least = max(self._risk.min_notional, float(instrument.min_notional))
        work = work_of(verdict.order, signal, instrument, self._execution, self._heard, least)
        if work is None:
            return [*out, self._send(verdict, signal.ts, signal.price)]
        self._works[signal.symbol] = work
        return out + self._advance(work, signal.ts)

    def _send(self, approved: Approved, ts: int, price: float) -> PlaceOrder:
        valid = int(self._execution.signal_valid_seconds * 1_000)
        return self.orders.place(approved, ts, price, ts + valid)

    def _leave(self, signal: Signal) -> list[Message]:
        position = self.portfolio.positions.get(signal.symbol)
        out: list[Message] = [_decision(signal, "exited", signal.reason)]
        out += self._give_up_entries(signal.ts, signal.symbol)
        return out + (self._close(position, signal.ts) if position else [])

    def _close(self, position: Position, ts: int, alarm: str = "") -> list[Message]:
        """A reduce-only market order for what is not yet on its way out; not at once after a failure."""
        qty = abs(position.qty) - self.orders.leaving(position.symbol)
        until, pause = self._pauses.get(position.symbol, (0, 0))
        if qty <= 0 or until - pause <= ts < until:  # the clock may have been set back: no pause is for ever
            return []
        link_id = self.orders.next_id(position.symbol, ts)
        approved = self._manager.approve_exit(position.symbol, position.side.opposite, qty, link_id)
        out: list[Message] = [Alarm(ts, position.symbol, alarm)] if alarm else []
        return [*out, self.orders.place(approved, ts, 0.0)]

    # --- entries of several parts --------------------------------------------------------------------------

    def _work_on(self, symbol: str, news: Event) -> list[Message]:
        return self._advance(self._works[symbol], news.ts)

    def _advance(self, work: Work, ts: int) -> list[Message]:
        """What the entry needs next, until it waits or is over."""
        symbol, side = work.whole.symbol, work.whole.side
        price = self._markets.price(symbol)
        if math.isnan(price):
            price = work.signal.price
        passive = limit_price(price * (1 - side.sign * self._manager.half_spread), side, work.instrument)
        intent = work.next(self._heard, passive)
        out: list[Message] = []
        if isinstance(intent, Place):
            out = self._place_part(work, intent, ts, price)
        elif isinstance(intent, Amend):
            work.amended(intent.price, self._heard)
            out = [AmendOrder(ts, symbol, intent.link_id, intent.price)]
        elif isinstance(intent, Cancel):
            work.cancelled()
            out = [CancelOrder(ts, symbol, intent.link_id)]
        if work.over and not work.link_id:
            self._works.pop(symbol, None)
        return out

    def _place_part(self, work: Work, part: Place, ts: int, price: float) -> list[Message]:
        whole, link_id = work.whole, self.orders.next_id(work.whole.symbol, ts)
        request = structs.replace(
            whole,
            link_id=link_id,
            qty=part.qty,
            type=OrderType.MARKET if part.price is None else OrderType.LIMIT,
            price=part.price,
            time_in_force=TimeInForce.GTC if part.price is None else TimeInForce.POST_ONLY,
        )
        verdict = self._manager.review_part(whole, request, work.signal, work.instrument, self.account, price)
        if isinstance(verdict, Denied):
            work.stop()
            return [Refused(ts, whole.symbol, f"the rest of an entry is given up: {verdict.reason}")]
        work.sent(link_id, part, self._heard)
        return [self._send(verdict, ts, price)]

    def _give_up_entries(self, ts: int, symbol: str = "") -> list[Message]:
        """Of one token, or all ("")."""
        for name, work in list(self._works.items()):
            if symbol in ("", name):
                work.stop()
                work.cancelled()  # what is out is, below
                if not work.link_id:
                    del self._works[name]
        return [*self.orders.cancel_entries(ts, symbol)]

    def _part_ended(self, order: OrderRequest | None, event: Event) -> list[Message]:
        work = self._works.get(order.symbol) if order is not None else None
        if work is None or order is None or work.link_id != order.link_id:
            return []
        work.ended()
        return self._advance(work, event.ts)

    # --- account -------------------------------------------------------------------------------------------

    def _on_accepted(self, event: OrderAccepted) -> list[Message]:
        self.orders.on_accepted(event)
        return []

    def _on_unfilled(self, event: OrderRejected | OrderCancelled) -> list[Message]:
        order = self.orders.on_finished(event)
        if order is None:
            return []
        next_part = self._part_ended(order, event)
        unsold = order.reduce_only and order.symbol in self.portfolio.positions
        if unsold:
            self._unsold.add(order.symbol)
            _, last = self._pauses.get(order.symbol, (0, 0))
            pause = min(max(2 * last, min(self._interval, _PAUSE_MS)), _LONGEST_PAUSE_MS)
            self._pauses[order.symbol] = event.ts + pause, pause
        elif isinstance(event, OrderCancelled):
            return next_part
        verb = "rejected" if isinstance(event, OrderRejected) else "cancelled"
        again = "; the position is still held and its exit will be tried again" if unsold else ""
        text = f"the exchange {verb} {order.link_id}: {event.reason}{again}"
        return [Alarm(event.ts, order.symbol, text), *next_part]

    def _on_filled(self, event: OrderFilled) -> list[Message]:
        self.orders.on_filled(event)
        work = self._works.get(event.symbol)
        if work is not None and work.link_id == event.link_id:
            work.filled(event.qty, event.leaves_qty)
            if work.over and not work.link_id:
                del self._works[event.symbol]
        position = self.portfolio.apply_fill(event)
        if position is None:
            self._pauses.pop(event.symbol, None)
            self._protection.forget(event.symbol)
        out: list[Message] = self._check_drawdown(event.ts, event.symbol)
        if position is not None and self._must_be_flat(event.symbol):
            return out + self._close(position, event.ts)  # an entry that filled while we were closing
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
        return self._guard_again(event.symbol, event)

    def _on_adopted(self, event: PositionAdopted) -> list[Message]:
        self.portfolio.adopt(event)
        out: list[Message] = [Alarm(event.ts, event.symbol, event.reason), *self._check_drawdown(event.ts)]
        return out + self._guard_again(event.symbol, event)

    def _on_time(self, event: TimePassed) -> list[Message]:
        out = self._sell_again(event.ts)
        for symbol in list(self.portfolio.positions):
            out += self._guard_again(symbol, event)
        for symbol in list(self._works):
            out += self._work_on(symbol, event)
        return out

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

    def _on_operator(self, event: OperatorCommanded) -> list[Message]:
        """Told as an alarm: whoever looks at the run must see why it does not trade."""
        told = Alarm(event.ts, "", str(event))
        if event.verb is Verb.RESUME:
            self._blocked.pop(_OPERATOR_WISH, None)
            self._flattening = False
            released = self._breaker.release(event.ts, str(event))
            return [told, released] if released else [told]
        self._blocked[_OPERATOR_WISH] = str(event)
        self._flattening = self._flattening or event.verb is Verb.FLATTEN
        return [told, *self._stop_trading(event.ts, "")]

    # --- what others may look at ----------------------------------------------------------------------------

    @property
    def blocks(self) -> dict[str, str]:
        """Why no position may be opened now, by cause; the halt of the breaker is one of them."""
        return {**self._blocked, **({"halted": self._breaker.reason} if self._breaker.halted else {})}

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        """What is wrong with our view of the market, by symbol; only symbols that have a fault."""
        return self._markets.faults

    @property
    def left_out(self) -> dict[str, str]:
        """New tokens that are not followed, and why."""
        return self._markets.left_out

    @property
    def decided(self) -> int:
        """Close of the newest decision bar, ms UTC; 0 before the first."""
        return self._decided

    @property
    def account(self) -> AccountView:
        """The account as risk sees it."""
        return AccountView(self.portfolio, self.orders, self._markets, self._works, self._blocked)


def _refused(signal: Signal, reason: str) -> list[Message]:
    return [Refused(signal.ts, signal.symbol, reason), _decision(signal, "refused", reason)]


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
        signal.statistics_until,
    )
