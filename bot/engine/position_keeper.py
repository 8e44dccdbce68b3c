"""Position keeping: what the exchange tells of the account is booked, valued, guarded and limited.

At each fact about a position, and at each of its prices, the drawdown breakers look at the equity and the
protection at the position's stop.
"""

from collections.abc import Sequence

from bot.core.commands import MoveStop
from bot.core.events import (
    BalanceChanged,
    Event,
    FundingPaid,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OthersHold,
    PositionAdopted,
    PositionMarked,
    StopMoved,
)
from bot.core.records import Alarm, BreakerReleased, BreakerTripped
from bot.core.types import Position, Trigger
from bot.engine.account_view import AccountView
from bot.engine.decisions import Message
from bot.engine.entries import Entries
from bot.engine.exits import Exits
from bot.execution.protection import ENDED, Close, Move, Protection
from risk.breaker import Breaker


class PositionKeeper:
    """`flattening`: a person wants nothing held."""

    def __init__(
        self, account: AccountView, entries: Entries, exits: Exits, protection: Protection, breaker: Breaker,
        trigger: Trigger,
    ) -> None:  # fmt: skip
        self.flattening = False
        self._account = account
        self._entries = entries
        self._exits = exits
        self._protection = protection
        self._breaker = breaker
        self._trigger = trigger

    # --- what is held --------------------------------------------------------------------------------------

    def value(self, position: Position, price: float, news: Event) -> list[Message]:
        """At each news of its price; the drawdown limits and the stop are looked at."""
        symbol, ts = position.symbol, news.ts
        portfolio, breaker = self._account.portfolio, self._breaker
        pnl = portfolio.mark(symbol, price)
        equity = portfolio.equity
        tripped = breaker.mark(ts, equity) + breaker.mark_token(ts, symbol, pnl, equity)
        out = self._answer(tripped, ts) if tripped else []
        if self._must_be_flat(symbol):  # an exit that the exchange rejected is tried again
            return out + self._exits.close(position, ts)
        instrument = self._account.markets.instruments.get(symbol)
        if instrument is None:
            return out + self._exits.close(position, ts, ENDED)
        due = self._protection.look(position, instrument, price, ts, news.received)
        return out + self._carry_out(due, position, ts) if due else out

    def guard_all(self, news: Event) -> list[Message]:
        """At a fact that brought no price."""
        held = list(self._account.portfolio.positions)
        return [message for symbol in held for message in self._guard_held(symbol, news)]

    def check_drawdown(self, ts: int, *symbols: str) -> list[Message]:
        """Of the account, and of the tokens that a fact is about."""
        portfolio = self._account.portfolio
        records = self._breaker.mark(ts, portfolio.equity)
        for symbol in symbols:
            records += self._breaker.mark_token(ts, symbol, portfolio.pnl(symbol), portfolio.equity)
        return self._answer(records, ts) if records else []

    def _answer(self, records: Sequence[BreakerTripped | BreakerReleased], ts: int) -> list[Message]:
        out: list[Message] = [*records]
        for record in records:
            if isinstance(record, BreakerTripped):
                out += self.stop_trading(ts, record.symbol)
        return out

    def appraise(self, ts: int) -> list[Message]:
        """The account at `ts`, for the journal, against the limits of its drawdown."""
        portfolio, breaker = self._account.portfolio, self._breaker
        records = breaker.mark(ts, portfolio.equity)
        out = self._answer(records, ts) if records else []
        marked = breaker.record(
            ts, portfolio.equity, portfolio.cash, portfolio.gross_notional, portfolio.ledger
        )
        return [*out, marked]

    def stop_trading(self, ts: int, symbol: str = "") -> list[Message]:
        """A breaker has tripped, of one token or ("") of the account, or a person wants nothing held."""
        out: list[Message] = self._entries.give_up(ts, symbol)
        for position in list(self._account.portfolio.positions.values()):
            if self._must_be_flat(position.symbol):
                out += self._exits.close(position, ts)
        return out

    def take_over(self, other: "PositionKeeper") -> None:
        self.flattening = other.flattening
        self._protection.take_over(other._protection)

    def _must_be_flat(self, symbol: str) -> bool:
        return self.flattening or self._breaker.flattens(symbol)

    def _carry_out(self, due: Move | Close, position: Position, ts: int) -> list[Message]:
        if isinstance(due, Close):
            return self._exits.close(position, ts, due.alarm)
        if position.stop is not None and self._exits.covers(position):  # the exit may be there first
            return []
        return [MoveStop(ts, position.symbol, due.stop, self._trigger)]

    def _guard_held(self, symbol: str, news: Event) -> list[Message]:
        portfolio = self._account.portfolio
        position = portfolio.positions.get(symbol)
        if position is None:
            return []
        instrument = self._account.markets.instruments.get(symbol)
        due = self._protection.look(position, instrument, portfolio.last(symbol), news.ts, news.received)
        return self._carry_out(due, position, news.ts) if due else []

    # --- what the exchange tells ---------------------------------------------------------------------------

    def on_accepted(self, event: OrderAccepted) -> list[Message]:
        self._account.orders.on_accepted(event)
        return []

    def on_unfilled(self, event: OrderRejected | OrderCancelled) -> list[Message]:
        order = self._account.orders.on_finished(event)
        if order is None:
            return []
        next_part = self._entries.ended(order, event)
        unsold = order.reduce_only and order.symbol in self._account.portfolio.positions
        if unsold:
            self._exits.failed(order.symbol, event.ts)
        elif isinstance(event, OrderCancelled):
            return next_part
        verb = "rejected" if isinstance(event, OrderRejected) else "cancelled"
        again = "; the position is still held and its exit will be tried again" if unsold else ""
        text = f"the exchange {verb} {order.link_id}: {event.reason}{again}"
        return [Alarm(event.ts, order.symbol, text), *next_part]

    def on_filled(self, event: OrderFilled) -> list[Message]:
        self._account.orders.on_filled(event)
        self._entries.filled(event)
        position = self._account.portfolio.apply_fill(event)
        if position is None:
            self._exits.ended(event.symbol)
            self._protection.forget(event.symbol)
        out = self.check_drawdown(event.ts, event.symbol)
        if position is not None and self._must_be_flat(event.symbol):
            return out + self._exits.close(position, event.ts)  # an entry that filled while we were closing
        return out

    def on_funding(self, event: FundingPaid) -> list[Message]:
        self._account.portfolio.apply_funding(event)
        return self.check_drawdown(event.ts, event.symbol)

    def on_balance(self, event: BalanceChanged) -> list[Message]:
        """All of it is booked before the drawdown is looked at: what one token lost another may make good."""
        tokens = [symbol for symbol, _ in event.parts if symbol]
        before = self.check_drawdown(event.ts, *tokens)  # what a token has lost so far begins its day
        self._account.portfolio.apply_balance(event)
        if not event.parts:
            self._breaker.transfer(float(event.amount))
        alarm = Alarm(event.ts, tokens[0] if len(tokens) == 1 else "", event.reason)
        return [*before, alarm, *self.check_drawdown(event.ts, *tokens)]

    def on_stop(self, event: StopMoved) -> list[Message]:
        self._account.portfolio.apply_stop(event)
        return self._guard_held(event.symbol, event)

    def on_adopted(self, event: PositionAdopted) -> list[Message]:
        self._account.portfolio.adopt(event)
        out: list[Message] = [Alarm(event.ts, event.symbol, event.reason), *self.check_drawdown(event.ts)]
        return out + self._guard_held(event.symbol, event)

    def on_others(self, event: OthersHold) -> list[Message]:
        others, found = self._account.others, str(event)
        others.pop(event.symbol, None)
        if found:
            others[event.symbol] = found
        text = (
            f"somebody else has {found} here: left alone, no entries" if found else "nobody else is here now"
        )
        return [Alarm(event.ts, event.symbol, text)]

    def on_marked(self, event: PositionMarked) -> list[Message]:
        """So a position is guarded that has no bars: before the market is followed, or where it has ended."""
        out = self._exits.close_unsold(event.ts)
        position = self._account.portfolio.positions.get(event.symbol)
        return out + (self.value(position, event.mark, event) if position else [])
