"""The matching core: what happens to an order from the door to its end. Pure: no I/O, no clock, no chance.

Every method that changes something takes `now` (ms UTC). What the private streams have to say is collected in
`outbox`; what the public ones say is read from the markets.
"""

import hashlib
import uuid
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from functools import partial
from typing import Any, Final

from bot.core.types import Side
from bot.exchange.local import render
from bot.exchange.local.account import Account, Entry, Holding
from bot.exchange.local.admission import (
    bound,
    check_order,
    check_tradable,
    is_post_only_taker,
    read_order,
    require_margin,
)
from bot.exchange.local.amendments import Amendments
from bot.exchange.local.book import Meeting, Resting
from bot.exchange.local.contract import Contract
from bot.exchange.local.market import Market, Print
from bot.exchange.local.orders import (
    CANCELLED,
    FILLED,
    FOK,
    GTC,
    MARKET,
    NEW,
    NO_ERROR,
    NO_FULL_FILL,
    NO_LIQUIDITY,
    PARTIALLY_FILLED,
    POST_ONLY,
    UNTRIGGERED,
    WOULD_TAKE,
    Execution,
    Order,
    Refused,
)
from bot.exchange.local.position import SMALLEST_CASH, ZERO
from bot.exchange.local.terms import PARAMS, text, wrong
from bot.exchange.local.triggers import Triggers

BY_USER: Final = "CancelByUser"
BY_REDUCE_ONLY: Final = "CancelByReduceOnly"
BY_SMP: Final = "CancelBySmp"


class Engine:
    """Markets, accounts and the rules between them. `name` makes its ids differ from another engine's."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self.markets: dict[str, Market] = {}
        self.accounts: list[Account] = []
        self.seq = 0
        self.now = 0
        self._number = 0
        self.outbox: list[tuple[Account, str, dict[str, Any]]] = []  # (account, topic, rendered)
        self.triggers = Triggers(self)
        self.amendments = Amendments(self)

    # --- markets and accounts -----------------------------------------------------------------------------

    def add_market(self, contract: Contract, price: Decimal) -> Market:
        market = Market(contract, contract.nearest_ticks(float(price)))
        self.markets[contract.symbol] = market
        return market

    def add_account(self, balance: Decimal, now: int, **more: Any) -> Account:
        uid = now // 1_000 * 1_000 + len(self.accounts)  # accounts end with their exchange: none is another's
        account = Account(uid, balance, now, **more)
        self.accounts.append(account)
        return account

    def market(self, symbol: str) -> Market:
        """Raises Refused for a symbol that is not there."""
        try:
            return self.markets[symbol]
        except KeyError:
            raise Refused(PARAMS, "params error: symbol invalid " + symbol[:30]) from None

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def new_id(self) -> str:
        """The same in every run that is told the same things."""
        digest = hashlib.blake2b(self.next_number().to_bytes(8, "big"), digest_size=16, key=self._name)
        return str(uuid.UUID(bytes=digest.digest(), version=4))

    def set_mark(self, market: Market, index: int, mark: int, now: int) -> None:
        """The index and mark price, in ticks: positions are revalued, triggers looked at."""
        self.now = max(self.now, now)
        market.move("IndexPrice", index)
        market.move("MarkPrice", mark)
        price = market.contract.price(mark)
        for account in self.accounts:
            for index_ in (0, 1, 2):
                if holding := account.holdings.get((market.symbol, index_)):
                    holding.mark = price
        self.triggers.settle(market)

    # --- commands -----------------------------------------------------------------------------------------

    def create(self, account: Account, body: Mapping[str, Any], now: int) -> Order:
        """Take an order. Raises Refused, and then nothing has happened."""
        self.now = max(self.now, now)
        market = self.market(text(body, "symbol"))
        order = read_order(body, account, market, self.new_id(), self.next_number(), self.now)
        self.accept(order, market)
        if order.trigger_price:
            self.wait(order, market)
        else:
            self.enter(order, market)
        account.touch(self.holding(order))
        self.triggers.settle(market)
        return order

    def amend(self, account: Account, body: Mapping[str, Any], now: int) -> Order:
        """Change an open order. Fewer lots keep the place in the queue; anything else goes to its end."""
        self.now = max(self.now, now)
        order = self._find(account, body, "order not exists or too late to replace")
        market = self.market(order.symbol)
        check_tradable(market)
        if not self.amendments.apply(order, market, body):
            raise Refused(PARAMS, "order not modified")
        order.updated = self.now
        if order.status == UNTRIGGERED or order.is_booked:
            self.tell(order)
        else:
            self.enter(order, market)
        account.touch(self.holding(order))
        self.triggers.settle(market)
        return order

    def cancel(self, account: Account, body: Mapping[str, Any], now: int) -> Order:
        self.now = max(self.now, now)
        order = self._find(account, body, "order not exists or too late to cancel")
        self.end(order, cancel_type=BY_USER)
        return order

    def take_from_crowd(self, market: Market, order: Resting, now: int) -> None:
        """Match an order of nobody's; the rest of it is its sender's affair. Triggers are not looked at."""
        self.now = max(self.now, now)
        market.book.match(order, partial(self._fill, market))

    def _find(self, account: Account, body: Mapping[str, Any], told: str) -> Order:
        """The id of the exchange wins over ours."""
        order_id, link_id = text(body, "orderId"), text(body, "orderLinkId")
        if not order_id and not link_id:
            raise wrong("orderId or orderLinkId is required")
        order = account.open_orders.get(order_id) if order_id else account.by_link.get(link_id)
        if order is None or not order.is_open or order.symbol != text(body, "symbol", order.symbol):
            raise Refused(110001, told)
        return order

    # --- the life of an order -----------------------------------------------------------------------------

    def holding(self, order: Order) -> Holding:
        if order.holding is None:
            order.holding = holding = order.account.holding(order.contract, order.index)
            if not holding.mark:
                holding.mark = order.contract.price(self.markets[order.symbol].mark)
                holding.created = holding.created or self.now
        return order.holding

    def accept(self, order: Order, market: Market) -> None:
        """The door. Raises Refused, and then nothing has happened; conditional orders take no margin yet."""
        check_order(order, market)
        holding = self.holding(order)
        if not order.trigger_price:
            self.price(order, market)
            require_margin(order, market, holding)
        order.account.admit(order)

    def arrive(self, order: Order, market: Market) -> None:
        """An order that was accepted some time ago reaches the book."""
        self.release(order)
        if self.fit(order):
            self.attract(order, market)
            self.price(order, market)
            self.enter(order, market)

    def wait(self, order: Order, market: Market) -> None:
        """A conditional order is set aside until its price comes."""
        order.status = UNTRIGGERED
        market.waiting[order.id] = order
        self.tell(order)

    def price(self, order: Order, market: Market) -> None:
        """A market order gets its bound; a limit order beyond the price limits is moved to them."""
        if order.type == MARKET:
            order.price = bound(order, market)
            return
        highest, lowest = market.price_limits()
        order.price = min(order.price, highest) if order.side is Side.BUY else max(order.price, lowest)

    def fit(self, order: Order) -> bool:
        """Cut a reduce-only order to the position; without one to reduce it ends, and the answer is False."""
        holding = self.holding(order)
        if not order.reduce_only:
            return True
        if holding.side is not order.side.opposite:
            self.end(order, cancel_type=BY_REDUCE_ONLY)
            return False
        if not order.qty:  # closes whatever there is
            order.qty = order.leaves = holding.lots
        elif order.leaves > holding.lots:
            order.qty -= order.leaves - holding.lots
            order.leaves = holding.lots
        return True

    def reserve(self, order: Order) -> None:
        """Count what the order may open among the open orders of its holding, until `release`."""
        if not order.reduce_only:
            self.holding(order).reserve(order, order.leaves, order.price)
            order.is_reserved = True

    def release(self, order: Order) -> None:
        if order.is_reserved:
            self.holding(order).reserve(order, -order.leaves, order.price)
            order.is_reserved = False

    def enter(self, order: Order, market: Market) -> None:
        """The order meets the book: it takes what is there and rests with the remainder, or ends."""
        order.status = PARTIALLY_FILLED if order.executed else NEW
        order.updated = self.now
        if is_post_only_taker(order, market):
            self.end(order, reject=WOULD_TAKE)
            return
        if order.time_in_force == FOK and market.book.available(order.side, order.price) < order.leaves:
            self.end(order, reject=NO_FULL_FILL)
            return
        self.reserve(order)
        may_rest = order.time_in_force in (GTC, POST_ONLY)
        if may_rest:
            self.tell(order)
        meets = None if order.smp == "None" else self._prevent_self_trade
        market.book.match(order, partial(self._fill, market), meets)
        if not order.is_open:
            return
        if may_rest and order.leaves:
            market.book.add(order)
            order.is_booked = True
            if order.reduce_only:
                self.holding(order).closers[order.id] = order
        else:
            self.leave_over(order)

    def end(
        self, order: Order, status: str = CANCELLED, *, cancel_type: str = "UNKNOWN", reject: str = NO_ERROR
    ) -> None:
        """Take an open order out, wherever it is."""
        holding, market = self.holding(order), self.markets[order.symbol]
        if order.is_booked:
            market.book.remove(order)
            order.is_booked = False
        self.release(order)
        market.waiting.pop(order.id, None)
        holding.forget(order)
        order.status, order.cancel_type, order.reject_reason = status, cancel_type, reject
        order.updated = self.now
        order.account.finish(order)
        order.account.touch(holding)
        self.tell(order)

    def _prevent_self_trade(self, taker: Order, maker: Resting) -> Meeting:
        """Only the taker's flag counts."""
        if not isinstance(maker, Order) or maker.account is not taker.account:
            return Meeting.TRADE
        if taker.smp != "CancelTaker":
            self.end(maker, cancel_type=BY_SMP)
        if taker.smp == "CancelMaker":
            return Meeting.NEXT
        self.end(taker, cancel_type=BY_SMP)
        return Meeting.STOP

    # --- fills --------------------------------------------------------------------------------------------

    def _fill(self, market: Market, taker: Resting, maker: Resting, price: int, quantity: int) -> None:
        self.seq += 1
        trade = Print(self.now, taker.side, price, quantity, self.new_id(), self.seq)
        market.record(trade)
        for party, is_maker in ((taker, False), (maker, True)):
            if isinstance(party, Order):
                self._fill_order(party, market, trade, is_maker=is_maker)

    def _fill_order(self, order: Order, market: Market, trade: Print, *, is_maker: bool) -> None:
        holding = self.holding(order)
        order.executed += trade.lots
        order.value += trade.price * trade.lots
        order.updated = self.now
        if order.is_reserved:
            holding.reserve(order, -trade.lots, order.price)
        rate = order.contract.maker_fee if is_maker else order.contract.taker_fee
        self.settle_trade(order, holding, market, trade, rate, is_maker=is_maker)
        if order.leaves == 0:
            order.status = FILLED
            order.is_booked = order.is_reserved = False
            holding.forget(order)
            order.account.finish(order)
        else:
            order.status = PARTIALLY_FILLED
        self.tell(order)
        if order.protection and holding.side is order.side:
            self.triggers.attach(order, holding, trade.lots)
        if order.status == FILLED and order.pair is not None and order.pair.is_open:
            self.triggers.deactivate(order.pair)
        self.after_position(holding)

    def settle_trade(
        self,
        order: Order,
        holding: Holding,
        market: Market,
        trade: Print,
        rate: Decimal,
        *,
        is_maker: bool,
        kind: str = "Trade",
    ) -> None:
        """Money and position of one fill: the wallet changes by the realised P&L less the fee."""
        contract, account = order.contract, order.account
        price, qty = contract.price(trade.price), contract.quantity(trade.lots)
        fee = (price * qty * rate).quantize(SMALLEST_CASH, ROUND_CEILING)
        order.fee += fee
        entry, held = holding.entry, abs(holding.qty)
        closed = min(qty, holding.position.opposed_by(order.side))
        realised = holding.position.trade(order.side, price, qty)
        fees = holding.share_fee(fee, qty, closed, held)
        holding.created = holding.created or self.now
        if not held or qty > closed > 0:
            holding.opened, holding.session_realised = self.now, ZERO
        net = realised - fee
        holding.realised += net
        holding.session_realised += net
        holding.updated, holding.seq = self.now, trade.seq
        account.realised += net
        account.wallet += net
        self.record(
            Execution(order, holding, trade, fee, rate, entry, closed, realised, fees, is_maker, kind), market
        )
        account.touch(holding)

    def after_position(self, holding: Holding) -> None:
        """A position has changed: what closes it must not exceed it."""
        for order in list(holding.closers.values()):
            if holding.side is None or holding.side is order.side:
                self.end(order, cancel_type=BY_REDUCE_ONLY)
            elif order.leaves > holding.lots:
                order.qty -= order.leaves - holding.lots
                self.markets[order.symbol].book.reduce(order, holding.lots)
                self.tell(order)
        self.triggers.follow(holding)

    # --- what a venue says, or does, in its own way -------------------------------------------------------

    def attract(self, order: Order, market: Market) -> None:
        """An order is about to meet the book: whoever would trade with it comes now. Here nobody does."""

    def leave_over(self, order: Order) -> None:
        """An order that must not rest found too little."""
        self.end(order, reject=NO_LIQUIDITY)

    def tell(self, order: Order) -> None:
        """An order has changed."""
        if order.account.watchers:
            self.outbox.append((order.account, "order", render.order_view(order)))

    def record(self, execution: Execution, market: Market) -> None:
        """An execution goes into the statements of its account."""
        account = execution.order.account
        kind = "TRADE" if execution.kind == "Trade" else "LIQUIDATION"
        account.ledger.append(
            Entry(
                self.now, kind, execution.realised - execution.fee, account.wallet, execution.realised,
                execution.fee, detail=render.ledger_detail(execution),
            )
        )  # fmt: skip
        self._publish(account, render.execution_view(execution, market))
        if execution.closed:
            render.add_closed(account, execution)

    def record_funding(self, holding: Holding, market: Market, amount: Decimal, rate: Decimal) -> None:
        """So does a funding payment, which is an execution of no order."""
        account, id_ = holding.account, self.new_id()
        account.ledger.append(
            Entry(
                self.now, "SETTLEMENT", -amount, account.wallet, funding=-amount,
                detail=render.funding_detail(holding, market, rate, id_),
            )
        )  # fmt: skip
        self._publish(account, render.funding_view(holding, market, amount, rate, id_, self.now, self.seq))

    def _publish(self, account: Account, execution: dict[str, Any]) -> None:
        account.executions.append(execution)
        if account.watchers:
            self.outbox.append((account, "execution", execution))
