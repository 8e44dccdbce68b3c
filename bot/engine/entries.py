"""Ways into positions: from a wish to the orders that risk approved, in one part or several."""

import math

from msgspec import structs

from bot.core.commands import AmendOrder, CancelOrder, PlaceOrder
from bot.core.events import Event, OrderFilled, OrderRejected
from bot.core.money import limit_price
from bot.core.records import Refused
from bot.core.signal import Signal
from bot.core.types import OrderRequest, OrderType, TimeInForce
from bot.engine.account_view import AccountView
from bot.engine.decisions import Message, decision, refused
from bot.execution.protection import Protection
from bot.execution.working import Amend, Cancel, Place, Work, work_of
from bot.settings import Execution, Risk
from risk.manager import Approved, Denied, RiskManager


class Entries:
    """Those of several parts are the works of `account`. Times: ms; `heard`: of the receipt of the news."""

    def __init__(
        self, account: AccountView, manager: RiskManager, protection: Protection, risk: Risk,
        execution: Execution,
    ) -> None:  # fmt: skip
        self._account = account
        self._works = account.works
        self._manager = manager
        self._protection = protection
        self._risk = risk
        self._execution = execution

    def enter(self, signal: Signal, heard: int) -> list[Message]:
        late = (heard - signal.ts) / 1_000
        if late > self._execution.signal_valid_seconds:
            return refused(signal, f"the decision is {late:.0f} s late")
        link_id = self._account.orders.next_id(signal.symbol)
        instrument = self._account.markets.instruments.get(signal.symbol)
        verdict = self._manager.review(signal, instrument, self._account, link_id)
        if isinstance(verdict, Denied):
            return refused(signal, verdict.reason)
        assert instrument is not None
        self._protection.plan(signal.symbol, verdict.order.stop_loss)
        out: list[Message] = [decision(signal, "entered", signal.reason)]
        least = max(self._risk.min_notional, float(instrument.min_notional))
        work = work_of(verdict.order, signal, instrument, self._execution, heard, least)
        if work is None:
            return [*out, self._send(verdict, signal.ts, signal.price)]
        self._works[signal.symbol] = work
        return out + self._advance(work, signal.ts, heard)

    def go_on(self, symbol: str, news: Event) -> list[Message]:
        """With an entry of several parts, at any news of its symbol or of the time."""
        return self._advance(self._works[symbol], news.ts, news.received)

    def go_on_all(self, news: Event) -> list[Message]:
        return [message for symbol in list(self._works) for message in self.go_on(symbol, news)]

    def give_up(self, ts: int, symbol: str = "") -> list[Message]:
        """Of one token, or all ("")."""
        for name, work in list(self._works.items()):
            if symbol in ("", name):
                work.stop()
                work.cancelled()  # what is out is, below
                if not work.link_id:
                    del self._works[name]
        return [*self._account.orders.cancel_entries(ts, symbol)]

    def filled(self, event: OrderFilled) -> None:
        work = self._works.get(event.symbol)
        if work is not None and work.link_id == event.link_id:
            work.filled(event.qty, event.leaves_qty)
            if work.over and not work.link_id:
                del self._works[event.symbol]

    def ended(self, order: OrderRequest, event: Event) -> list[Message]:
        """`order` was rejected or cancelled; what comes next, if it was a part of an entry."""
        work = self._works.get(order.symbol)
        if work is None or work.link_id != order.link_id:
            return []
        work.ended()
        if isinstance(event, OrderRejected):  # it may be there after all: no other part beside it
            work.stop()
        return self._advance(work, event.ts, event.received)

    def _advance(self, work: Work, ts: int, heard: int) -> list[Message]:
        """What the entry needs next, until it waits or is over."""
        symbol, side = work.whole.symbol, work.whole.side
        price = self._account.markets.price(symbol)
        if math.isnan(price):
            price = work.signal.price
        passive = limit_price(price * (1 - side.sign * self._manager.half_spread), side, work.instrument)
        intent = work.next(heard, passive)
        out: list[Message] = []
        if isinstance(intent, Place):
            out = self._place_part(work, intent, ts, heard, price)
        elif isinstance(intent, Amend):
            work.amended(intent.price, heard)
            out = [AmendOrder(ts, symbol, intent.link_id, intent.price)]
        elif isinstance(intent, Cancel):
            work.cancelled()
            out = [CancelOrder(ts, symbol, intent.link_id)]
        if work.over and not work.link_id:
            self._works.pop(symbol, None)
        return out

    def _place_part(self, work: Work, part: Place, ts: int, heard: int, price: float) -> list[Message]:
        whole, link_id = work.whole, self._account.orders.next_id(work.whole.symbol)
        request = structs.replace(
            whole,
            link_id=link_id,
            qty=part.qty,
            type=OrderType.MARKET if part.price is None else OrderType.LIMIT,
            price=part.price,
            time_in_force=TimeInForce.GTC if part.price is None else TimeInForce.POST_ONLY,
        )
        verdict = self._manager.review_part(
            whole, request, work.signal, work.instrument, self._account, price
        )
        if isinstance(verdict, Denied):
            work.stop()
            return [Refused(ts, whole.symbol, f"the rest of an entry is given up: {verdict.reason}")]
        work.sent(link_id, part, heard)
        return [self._send(verdict, ts, price)]

    def _send(self, approved: Approved, ts: int, price: float) -> PlaceOrder:
        valid = int(self._execution.signal_valid_seconds * 1_000)
        return self._account.orders.place(approved, ts, price, ts + valid)
