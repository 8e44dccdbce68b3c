"""The exchange's side of a backtest and of paper trading: it holds the truth, the engine learns it by events.

Where it is a choice, the choice is the one that costs us:

- Market orders fill at the open of the next bar, across the spread, with slippage. What exceeds the share of
  the bar's volume is cancelled, as Bybit does at its slippage bound.
- Limit orders fill as maker when the bar traded beyond their price by a tick, never better than their price.
- A stop loss is looked for in the whole bar of an entry, and before a take profit. Both are market orders of
  the exchange; what the volume cannot take of them follows at the next opens, never better than their price.
- Conditional orders reserve margin at once (Bybit: when triggered). A triggered limit order reaches the book
  at the next open.
- Without published funding rates either side pays the default rate at 00:00, 08:00 and 16:00 UTC.
- A delisted contract is settled at its last close, with costs, as an execution with an empty link id.

There is no liquidation: with the default leverage of 1 and a stop on each position it has no part to play.
Bars, rates and spreads are taken to be finite; whoever reads them from outside sees to that.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from bot.core.commands import AmendOrder, BrokerCommand, CancelOrder, MoveStop, PlaceOrder
from bot.core.events import (
    BarClosed,
    Event,
    FundingRatePublished,
    InstrumentDelisted,
    InstrumentListed,
    OrderAccepted,
    OrderCancelled,
    OrderRejected,
    StopMoved,
)
from bot.core.types import OrderRequest, Side
from bot.exchange.simulated.account import ZERO, Account
from bot.exchange.simulated.admission import (
    DUPLICATE,
    NO_BALANCE,
    base_price,
    objection,
    off_grid,
    stop_objection,
)
from bot.exchange.simulated.contract import Contract, Phase, WorkingOrder
from bot.exchange.simulated.costs import CostModel, Quote
from bot.exchange.simulated.matching import match
from bot.settings import Costs

LINK_IDS: Final = 100_000  # that are known to be taken; a bound on memory, about 15 MB
TOO_LATE: Final = "order not exists or too late to cancel"
BY_USER: Final = "CancelByUser"


class HeldPosition(NamedTuple):
    qty: Decimal  # signed, base coin
    average_price: Decimal
    stop_loss: Decimal | None


class OpenOrder(NamedTuple):
    request: OrderRequest
    order_id: str
    leaves_qty: Decimal


class SimulatedBroker:
    """Deterministic. `submit` answers at once; fills, stops and funding come with the market, by `on_market`.

    half_spread:  fraction of the price for (symbol, open time of the bar in ms)
    balance:      quote coin
    leverage:     initial margin = notional / leverage
    volume_share: of a bar's volume that our orders together may take
    """

    def __init__(
        self,
        costs: Costs,
        half_spread: Callable[[str, int], float],
        balance: Decimal,
        *,
        leverage: int = 1,
        volume_share: float = 0.1,
    ) -> None:
        self._costs = CostModel(costs, half_spread)
        self._account = Account(balance)
        self._leverage = leverage
        self._volume_share = volume_share
        self._contracts: dict[str, Contract] = {}
        self._link_ids: dict[str, None] = {}  # of the newest accepted orders, oldest first
        self._accepted = 0
        self._clock = 0

    @property
    def balance(self) -> Decimal:
        """Wallet balance without unrealised P&L, quote coin."""
        return self._account.balance

    def position(self, symbol: str) -> HeldPosition:
        contract = self._contracts.get(symbol)
        if contract is None:
            return HeldPosition(ZERO, ZERO, None)
        return HeldPosition(contract.position.qty, contract.position.average_price, contract.stop_loss)

    def open_orders(self) -> list[OpenOrder]:
        """Oldest first within a symbol."""
        return [
            OpenOrder(order.request, order.order_id, order.leaves)
            for contract in self._contracts.values()
            for order in contract.orders.values()
        ]

    # --- commands -----------------------------------------------------------------------------------------

    def submit(self, command: BrokerCommand) -> list[Event]:
        """The exchange's answer, at the time of the command or of the last market event if that is later.

        A cancel of an order that is not open is answered by OrderCancelled with the reason TOO_LATE. A stop
        that cannot be moved (no position, wrong side of the last price, off the tick, exit under way) is
        answered by StopMoved with the stop as it is. An order that cannot be amended stays as it is.
        """
        ts = max(command.ts, self._clock)
        if isinstance(command, PlaceOrder):
            self._place(command.order, ts)
        elif isinstance(command, CancelOrder):
            self._cancel(command, ts)
        elif isinstance(command, AmendOrder):
            self._amend(command, ts)
        else:
            self._move_stop(command, ts)
        return self._account.collect()

    def _place(self, request: OrderRequest, ts: int) -> None:
        contract = self._contracts.get(request.symbol)
        if contract is None or not contract.trading:
            self._reject(request, f"symbol {request.symbol} is not trading", ts)
            return
        if contract.bar is None:
            self._reject(request, f"symbol {request.symbol} has no price yet", ts)
            return
        if request.link_id in self._link_ids:
            self._reject(request, DUPLICATE, ts)
            return
        last = contract.last_price()
        quote = self._costs.quote(contract.bar.close, contract.bar)
        reason = objection(request, contract.instrument, contract.position, last, quote)
        if reason is not None:
            self._reject(request, reason, ts)
            return
        margin = self._required_margin(request, contract, quote)
        if margin and margin > self._free_margin():
            self._reject(request, NO_BALANCE, ts)
            return
        self._accept(request, contract, margin, ts)

    def _accept(self, request: OrderRequest, contract: Contract, margin: Decimal, ts: int) -> None:
        self._accepted += 1
        self._link_ids[request.link_id] = None
        if len(self._link_ids) > LINK_IDS:
            del self._link_ids[next(iter(self._link_ids))]
        trigger = request.trigger_price
        order = WorkingOrder(
            request,
            order_id=f"sim-{ts}-{self._accepted}",
            since=ts,
            leaves=request.qty,
            phase=Phase.ARRIVING if trigger is None else Phase.UNTRIGGERED,
            rising=trigger is not None and trigger > contract.last_price(),
            margin=margin,
        )
        contract.orders[request.link_id] = order
        contract.watch()
        self._account.publish(OrderAccepted(ts, ts, request.link_id, order.order_id))

    def _reject(self, request: OrderRequest, reason: str, ts: int) -> None:
        self._account.publish(OrderRejected(ts, ts, request.link_id, reason))

    def _cancel(self, command: CancelOrder, ts: int) -> None:
        contract = self._contracts.get(command.symbol)
        order = contract.orders.get(command.link_id) if contract is not None else None
        if contract is None or order is None:
            self._account.publish(OrderCancelled(ts, ts, command.link_id, TOO_LATE))
            return
        contract.cancel(order, BY_USER, ts)
        contract.watch()

    def _amend(self, command: AmendOrder, ts: int) -> None:
        """At its new price the order reaches the book anew, at the next open, behind everybody there."""
        contract = self._contracts.get(command.symbol)
        order = contract.orders.get(command.link_id) if contract is not None else None
        if contract is None or order is None or order.request.price is None:
            return
        if off_grid(command.price, contract.instrument.tick_size):
            return
        order.request = msgspec.structs.replace(order.request, price=command.price)
        if order.phase is Phase.RESTING:
            order.phase, order.since = Phase.ARRIVING, ts
        contract.watch()

    def _move_stop(self, command: MoveStop, ts: int) -> None:
        contract = self._contracts.get(command.symbol)
        if contract is None:
            self._account.publish(StopMoved(ts, ts, command.symbol, None))
            return
        held = contract.position.qty
        side = Side.BUY if held > 0 else Side.SELL
        is_valid = (
            held
            and contract.exit is None
            and not off_grid(command.stop_loss, contract.instrument.tick_size)
            and stop_objection(command.stop_loss, side, contract.last_price()) is None
        )
        if is_valid:
            contract.move_stop(command.stop_loss, ts)
            contract.watch()
        else:
            contract.confirm_stop(ts)

    def _required_margin(self, request: OrderRequest, contract: Contract, quote: Quote) -> Decimal:
        """Initial margin with the fees to open and to close, of what the order would open."""
        opening = request.qty - contract.position.opposed_by(request.side)
        if request.reduce_only or opening <= 0:
            return ZERO
        price = base_price(request, quote.ask if request.side is Side.BUY else quote.bid)
        return opening * price * (1 / Decimal(self._leverage) + 2 * self._costs.taker_fee)

    def _free_margin(self) -> Decimal:
        """Equity less the margin of positions and open orders."""
        free = self._account.balance
        for contract in self._contracts.values():
            if contract.is_idle:
                continue
            last = contract.last_price()
            free += contract.position.unrealised(last) - abs(contract.position.qty) * last / self._leverage
            free -= sum((order.reserved for order in contract.orders.values()), ZERO)
        return free

    # --- market -------------------------------------------------------------------------------------------

    def on_market(self, events: Sequence[Event]) -> list[Event]:
        """Play a group of market events of one `ts`; returns our fills, stops and funding in `ts` order.

        A listing counts from its place in the group on; then come bars, funding on what is held at their
        close, and delistings. Bars of symbols that are not listed are ignored.
        """
        contracts = self._contracts
        bars: list[tuple[Contract, BarClosed]] = []
        others: list[FundingRatePublished | InstrumentDelisted] = []
        for event in events:
            if type(event) is BarClosed:
                contract = contracts.get(event.symbol)
                if contract is None:
                    continue
                if event.low > contract.floor and event.high < contract.ceiling and event.ts < contract.due:
                    if contract.bar is None or event.start >= contract.bar.ts:  # an old one is no news
                        contract.bar = event
                else:
                    bars.append((contract, event))
            elif isinstance(event, InstrumentListed):
                self._list(event)
            elif isinstance(event, FundingRatePublished | InstrumentDelisted):
                others.append(event)
        facts: list[Event] = []
        if bars or others:
            self._play(bars, others)
            facts = self._account.collect()
            facts.sort(key=attrgetter("ts"))
        if events and events[-1].ts > self._clock:
            self._clock = events[-1].ts
        return facts

    def _list(self, event: InstrumentListed) -> None:
        contract = self._contracts.get(event.instrument.symbol)
        if contract is None:
            self._contracts[event.instrument.symbol] = Contract(event.instrument, self._account, self._costs)
            return
        contract.instrument = event.instrument  # its filters may have changed
        contract.trading = True
        contract.watch()

    def _play(
        self,
        bars: list[tuple[Contract, BarClosed]],
        others: list[FundingRatePublished | InstrumentDelisted],
    ) -> None:
        rates = [event for event in others if isinstance(event, FundingRatePublished)]
        for rate in rates:  # before the bars, which else would charge the default rate for the same mark
            if (contract := self._contracts.get(rate.symbol)) is not None:
                contract.publishes_funding = True
                contract.watch()
        for contract, bar in bars:
            match(contract, bar, self._clock, self._volume_share)
        for rate in rates:
            if (contract := self._contracts.get(rate.symbol)) is not None:
                contract.pay_published_funding(rate.rate, rate.ts)
        for event in others:
            if (
                isinstance(event, InstrumentDelisted)
                and (contract := self._contracts.get(event.symbol)) is not None
            ):
                contract.close_down(event.ts)
