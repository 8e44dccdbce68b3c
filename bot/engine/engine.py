"""The heart: `step(event) -> commands and records`. Pure: no I/O, no clock, no randomness, no asyncio."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from bot.core.commands import MoveStop
from bot.core.events import (
    HISTORY,
    OPERATOR,
    PAUSED,
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
    OthersHold,
    PositionAdopted,
    PositionMarked,
    StopMoved,
    TimePassed,
    TokenLeftOut,
)
from bot.core.records import Alarm, BreakerReleased, BreakerTripped, Latch, RungChanged, TransferJudged
from bot.core.signal import Action, Signal
from bot.core.types import Trigger, Verb
from bot.engine.account_view import AccountView
from bot.engine.decisions import Message, decision
from bot.engine.entries import Entries
from bot.engine.exits import Exits
from bot.engine.market_view import MarketView
from bot.engine.portfolio import Portfolio
from bot.engine.position_keeper import PositionKeeper
from bot.execution.orders import Orders
from bot.execution.protection import Protection
from bot.market.candles import Candles
from bot.settings import Execution, Risk
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Advice, Strategy

_OF_BREAKERS: Final = frozenset({BreakerTripped, BreakerReleased})


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
        self._strategy = strategy
        self._breaker = breaker
        self._interval = decision_interval
        self._candles: dict[str, Candles] = {}
        self._markets = MarketView(risk, decision_interval)
        self.account = AccountView(portfolio, orders, self._markets)
        protection = Protection(risk, decision_interval)
        self._entries = Entries(self.account, manager, protection, risk, execution)
        self._exits = Exits(self.account, manager, decision_interval)
        self._keeper = PositionKeeper(
            self.account, self._entries, self._exits, protection, breaker, Trigger(risk.trigger_by)
        )
        self.rungs: dict[str, RungChanged] = {}  # what each token is traded by, and why
        self.verdicts: dict[str, TransferJudged] = {}  # whether the transfer helps it
        self._decided = 0  # close of the newest decision bar, ms
        self._now = 0  # ts of the newest fact
        self._heard = 0  # when the newest fact was received, ms
        self._mark_due = False  # a decision bar closed at that time
        keeper = self._keeper
        self._handlers: dict[type[Event], Callable[[Any], list[Message]]] = {
            BarClosed: self._on_bar,
            InstrumentListed: self._on_news,
            InstrumentStatusChanged: self._on_news,
            InstrumentDelisted: self._on_delisted,
            TokenLeftOut: self._on_market,
            FundingRatePublished: self._on_news,
            MicrostructureSampled: self._on_news,
            LiquiditySampled: self._on_news,
            MarketHealthChanged: self._on_news,
            FeedRefused: self._on_refused,
            FramesUnreadable: self._on_unreadable,
            MarketHealthMeasured: self._on_market,
            CandidateArrived: self._on_news,
            AdaptationFailed: self._on_news,
            OrderAccepted: keeper.on_accepted,
            OrderRejected: keeper.on_unfilled,
            OrderCancelled: keeper.on_unfilled,
            OrderFilled: keeper.on_filled,
            FundingPaid: keeper.on_funding,
            BalanceChanged: keeper.on_balance,
            StopMoved: keeper.on_stop,
            PositionAdopted: keeper.on_adopted,
            PositionMarked: keeper.on_marked,
            OthersHold: keeper.on_others,
            EntriesBlocked: self._on_blocked,
            EntriesAllowed: self._on_allowed,
            TimePassed: self._on_time,
            OperatorCommanded: self._on_operator,
        }

    def step(self, event: Event) -> list[Message]:
        kind, out = type(event), []
        self._heard = event.received
        if event.ts > self._now and kind is not TimePassed:  # time alone ends no moment
            out = self.mark()  # of the moment that is over, before anything later counts
            self._now = event.ts
        out += self._handlers[kind](event)
        for record in tuple(out):
            if type(record) in _OF_BREAKERS:
                out += self._tell_of_token(record, event)
        return out

    def _tell_of_token(self, record: Any, news: Event) -> list[Message]:
        """A token's own breaker concerns the strategy; what halts the account is no fault of a token."""
        if record.latch not in (None, Latch.TOKEN):
            return []
        return self._advised(self._strategy.on_event(record), news)

    def mark(self) -> list[Message]:
        """The account at the close of a decision bar, once everything of that moment has been heard."""
        if not self._mark_due:
            return []
        self._mark_due = False
        return [] if HISTORY in self.account.blocks else self._keeper.appraise(self._now)

    def appraise(self, ts: int) -> list[Message]:
        """The account at `ts`, for the journal, against the limit of the day."""
        return self._keeper.appraise(ts)

    def take_over(self, other: "Engine") -> None:
        """Go on with the account that `other` looked after, while this one learnt from the past."""
        self.account.take_over(other.account)
        self._exits.take_over(other._exits)
        self._keeper.take_over(other._keeper)
        self._markets.take_over(other._markets)

    # --- market --------------------------------------------------------------------------------------------

    def _on_bar(self, bar: BarClosed) -> list[Message]:
        symbol, account = bar.symbol, self.account
        candles = self._candles.get(symbol)
        if candles is None:  # a symbol that was never listed to us: only looked at
            candles = self._candles[symbol] = Candles(symbol, self._interval)
        out = self._exits.close_unsold(bar.ts) if self._exits.unsold else []
        self._markets.on_bar(bar)
        positions = account.portfolio.positions
        position = positions.get(symbol)
        moves: list[Message] = []
        if position is not None and bar.start >= candles.next_start:
            moves = self._keeper.value(position, bar.close, bar)
            out += moves
        if symbol in account.works:
            out += self._entries.go_on(symbol, bar)
        decision_bar = candles.update(bar)
        if decision_bar is None:
            return out
        self._mark_due = True
        self._markets.on_decision_bar(decision_bar)
        self._decided = decision_bar.ts
        for advice in self._strategy.on_bar(decision_bar, positions):
            out += self._take(advice, bar)
        if moves and position is not None and position.stop is not None and self._exits.covers(position):
            out = [message for message in out if type(message) is not MoveStop]  # the exit may be there first
        return out

    def _on_delisted(self, event: InstrumentDelisted) -> list[Message]:
        out = self._entries.give_up(event.ts, event.symbol) + self._on_news(event)
        self.rungs.pop(event.symbol, None)
        self.verdicts.pop(event.symbol, None)
        return out + self._exits.close_delisted(event.symbol, event.ts)

    def _on_market(self, event: Event) -> list[Message]:
        """For risk alone."""
        self._markets.hear(event)
        return []

    def _on_refused(self, event: FeedRefused) -> list[Message]:
        told = Alarm(event.ts, event.symbol, f"not traded by this run: {event.reason}")
        return [told, *self._on_news(event)]

    def _on_unreadable(self, event: FramesUnreadable) -> list[Message]:
        text = f"{event.count} messages of the market could not be read, the last one: {event.reason}"
        return [Alarm(event.ts, "", text)]

    def _on_news(self, event: Event) -> list[Message]:
        self._markets.hear(event)
        return self._advised(self._strategy.on_event(event), event)

    def _advised(self, advice: Sequence[Advice], news: Event) -> list[Message]:
        return [message for one in advice for message in self._take(one, news)]

    def _on_time(self, event: TimePassed) -> list[Message]:
        out = self._exits.close_unsold(event.ts)
        return out + self._keeper.guard_all(event) + self._entries.go_on_all(event)

    # --- decisions -----------------------------------------------------------------------------------------

    def _take(self, advice: Advice, news: Event) -> list[Message]:
        if isinstance(advice, RungChanged):
            self.rungs[advice.symbol] = advice
        if isinstance(advice, TransferJudged):
            self.verdicts[advice.symbol] = advice
        if not isinstance(advice, Signal):
            return [advice]
        if advice.action is Action.ENTER:
            return self._entries.enter(advice, news.received)
        if advice.action is Action.EXIT:
            return self._leave(advice)
        verdict = "held" if advice.action is Action.HOLD else "quiet"
        return [decision(advice, verdict, advice.reason)]

    def _leave(self, signal: Signal) -> list[Message]:
        position = self.portfolio.positions.get(signal.symbol)
        out: list[Message] = [decision(signal, "exited", signal.reason)]
        out += self._entries.give_up(signal.ts, signal.symbol)
        return out + (self._exits.close(position, signal.ts) if position else [])

    # --- whether to trade ----------------------------------------------------------------------------------

    def _on_blocked(self, event: EntriesBlocked) -> list[Message]:
        self.account.blocks[event.cause] = event.reason
        return []

    def _on_allowed(self, event: EntriesAllowed) -> list[Message]:
        self.account.blocks.pop(event.cause, None)
        return []

    def _on_operator(self, event: OperatorCommanded) -> list[Message]:
        """Told as an alarm: whoever looks at the run must see why it does not trade."""
        told = Alarm(event.ts, "", str(event))
        if event.verb is Verb.RESUME:
            self.account.blocks.pop(PAUSED, None)
            if seen_to := self.account.blocks.pop(OPERATOR, ""):
                told = Alarm(event.ts, "", f"{event}; seen to: {seen_to}")
            self._keeper.flattening = False
            released = self._breaker.release(event.ts, str(event))
            return [told, released] if released else [told]
        self.account.blocks[PAUSED] = str(event)
        self._keeper.flattening = self._keeper.flattening or event.verb is Verb.FLATTEN
        return [told, *self._keeper.stop_trading(event.ts)]

    # --- what others may look at ---------------------------------------------------------------------------

    @property
    def portfolio(self) -> Portfolio:
        return self.account.portfolio

    @property
    def orders(self) -> Orders:
        return self.account.orders

    @property
    def blocks(self) -> dict[str, str]:
        """Why no position may be opened now, by cause; the halt of the breaker is one of them."""
        halt = {"halted": self._breaker.reason} if self._breaker.halted else {}
        return {**self.account.blocks, **halt}

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        """What is wrong with our view of the market, by symbol; only symbols that have a fault."""
        return self._markets.faults

    @property
    def left_out(self) -> dict[str, str]:
        """New tokens that are not followed, and why."""
        return self._markets.left_out

    @property
    def others(self) -> dict[str, str]:
        """What somebody else has and is left alone, by symbol."""
        return self.account.others

    @property
    def heard(self) -> int:
        """When the newest fact was received, by the run's clock, ms UTC; 0 before the first."""
        return self._heard

    @property
    def decided(self) -> int:
        """Close of the newest decision bar, ms UTC; 0 before the first."""
        return self._decided
