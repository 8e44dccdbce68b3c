"""The exchange's side of a backtest and of paper trading: it holds the truth, the engine learns it by events.

It owns the matching core of the local exchange (`bot/exchange/local/engine.py`) and moves its books along the
path of each closed bar (`walk.py`), so that paper orders live by the rules of the real book: what is refused,
how it fills, what triggers, what it costs. Where the path of a bar is a choice, it is the one that costs us:

- Market orders fill at the open of the next bar, across the spread, with slippage. What exceeds the share of
  the bar's volume is cancelled, as Bybit does at its slippage bound.
- Limit orders fill as maker when the bar traded beyond their price by a tick, never better than their price.
- The extreme that hurts what is held comes first, so a stop loss before a take profit, and once more after an
  entry inside the bar: the whole bar counts for its stop. Both are market orders of the exchange; what the
  volume cannot take of them follows at the next opens, never better than their price.
- A triggered order never does better than its trigger, over a gap neither.
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
from bot.core.money import exact, to_grid
from bot.core.types import Instrument, OrderRequest, OrderType
from bot.exchange.local.account import Holding
from bot.exchange.local.admission import check_protection
from bot.exchange.local.clearing import Clearing
from bot.exchange.local.contract import TRADING
from bot.exchange.local.orders import FALLS, IOC, LAST_PRICE, RISES, UNTRIGGERED, Order, Protection, Refused
from bot.exchange.local.position import ZERO
from bot.exchange.local.terms import link_id, lots_of, ticks_of, wrong
from bot.exchange.simulated.bar_engine import BarEngine
from bot.exchange.simulated.bar_market import FUNDING_INTERVAL, NEVER, BarMarket
from bot.exchange.simulated.costs import CostModel
from bot.exchange.simulated.walk import Walk
from bot.settings import Costs

TOO_LATE: Final = "order not exists or too late to cancel"
REGRIDDED: Final = "the tick or the step of the instrument has changed"
LEGS: Final = {"StopLoss": "stop_loss", "TakeProfit": "take_profit"}


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
        self._leverage = Decimal(leverage)
        self._volume_share = volume_share
        self._engine = BarEngine()
        self._clearing = Clearing(self._engine)
        self._account = self._engine.add_account(balance, 0, kept=0)
        self._markets: dict[str, BarMarket] = {}
        self._clock = 0

    @property
    def balance(self) -> Decimal:
        """Wallet balance without unrealised P&L, quote coin."""
        return self._account.wallet

    def position(self, symbol: str) -> HeldPosition:
        holding = self._holding(symbol)
        if holding is None or not holding.qty:
            return HeldPosition(ZERO, ZERO, None)
        stop = holding.stop_loss or self._markets[symbol].pending_stop
        level = None if stop is None else stop.contract.price(stop.trigger_price)
        return HeldPosition(holding.qty, holding.entry, level)

    def open_orders(self) -> list[OpenOrder]:
        """Oldest first."""
        requests = self._engine.requests
        return [
            OpenOrder(requests[order.link_id], order.id, order.contract.quantity(order.leaves))
            for order in self._account.open_orders.values()
            if order.link_id
        ]

    def _holding(self, symbol: str) -> Holding | None:
        return self._account.holdings.get((symbol, 0))

    # --- commands -----------------------------------------------------------------------------------------

    def submit(self, command: BrokerCommand) -> list[Event]:
        """The exchange's answer, at the time of the command or of the last market event if that is later.

        A cancel of an order that is not open is answered by OrderCancelled with the reason TOO_LATE. A stop
        that cannot be moved (no position, wrong side of the last price, off the tick, exit under way) is
        answered by StopMoved with the stop as it is. An order that cannot be amended stays as it is.
        """
        ts = self._engine.now = max(command.ts, self._clock)
        if isinstance(command, PlaceOrder):
            self._place(command.order, ts)
        elif isinstance(command, CancelOrder):
            self._cancel(command, ts)
        elif isinstance(command, AmendOrder):
            self._amend(command, ts)
        else:
            self._move_stop(command, ts)
        return self._engine.collect()

    def _place(self, request: OrderRequest, ts: int) -> None:
        engine, number = self._engine, self._engine.next_number()
        try:
            market = self._quoted(request.symbol)
            order = self._order(request, market, number, ts)
            engine.accept(order, market)
        except Refused as refused:
            engine.publish(OrderRejected(ts, ts, request.link_id, refused.text))
            return
        if not order.trigger_price:
            engine.reserve(order)
        engine.requests[order.link_id] = request
        market.arrivals.append(order)
        market.watch()
        engine.publish(OrderAccepted(ts, ts, order.link_id, order.id))

    def _order(self, request: OrderRequest, market: BarMarket, number: int, ts: int) -> Order:
        """Raises Refused for what is not on the grid, and for what V5 would read as "none" or by chance."""
        contract = market.contract

        def ticks(name: str, price: Decimal | None) -> int:
            if price is None:
                return 0
            if not _is_price(price):
                raise wrong(f"{name} {price} is not a price")
            return ticks_of(price, name, contract)

        if not request.link_id:
            raise wrong("orderLinkId is required")
        is_limit = request.type is OrderType.LIMIT
        order = Order(
            number=number,
            id=f"sim-{ts}-{number}",
            account=self._account,
            contract=contract,
            side=request.side,
            type=request.type,
            time_in_force=request.time_in_force if is_limit else IOC,
            qty=lots_of(request.qty, contract),
            price=ticks("price", request.price) if is_limit else 0,
            created=ts,
            link_id=link_id(request.link_id),
            reduce_only=request.reduce_only,
            trigger_price=ticks("triggerPrice", request.trigger_price),
            protection=Protection(
                take_profit=ticks("takeProfit", request.take_profit),
                stop_loss=ticks("stopLoss", request.stop_loss),
            ),
        )
        if order.trigger_price:
            order.stop_type, order.trigger_by = "Stop", LAST_PRICE
            order.trigger_direction = RISES if order.trigger_price > market.last else FALLS
        return order

    def _quoted(self, symbol: str) -> BarMarket:
        """The market of a symbol, after every price that margins depend on has become that of the last close.

        Raises Refused when it has none.
        """
        market = self._markets.get(symbol)
        if market is None or market.bar is None:
            raise Refused(10001, f"symbol {symbol} is not listed or has no price yet")
        market.stand()
        for holding in self._account.held():
            self._mark(self._markets[holding.contract.symbol], holding)
        return market

    def _mark(self, market: BarMarket, holding: Holding) -> None:
        market.stand()
        holding.mark = market.contract.price(market.mark)

    def _cancel(self, command: CancelOrder, ts: int) -> None:
        try:
            self._engine.cancel(self._account, {"symbol": command.symbol, "orderLinkId": command.link_id}, ts)
        except Refused:
            self._engine.publish(OrderCancelled(ts, ts, command.link_id, TOO_LATE))
            return
        market = self._markets[command.symbol]
        market.arrivals = [order for order in market.arrivals if order.is_open]
        market.watch()

    def _amend(self, command: AmendOrder, ts: int) -> None:
        """At its new price the order reaches the book anew, at the next open, behind everybody there."""
        engine, order = self._engine, self._account.by_link.get(command.link_id)
        if (
            order is None
            or not order.is_open
            or order.type != OrderType.LIMIT
            or not _is_price(command.price)
        ):
            return
        try:
            market = self._quoted(command.symbol)
            price = ticks_of(command.price, "price", market.contract)
            if order in market.arrivals:
                engine.release(order)
                order.price = price
                engine.reserve(order)
            elif engine.amendments.apply(order, market, {"price": format(command.price, "f")}):
                self._arrive_again(order, market)
        except Refused:
            return
        engine.requests[order.link_id] = msgspec.structs.replace(
            engine.requests[order.link_id], price=command.price
        )
        market.watch()

    def _arrive_again(self, order: Order, market: BarMarket) -> None:
        if not order.is_booked and order.status != UNTRIGGERED:
            self._engine.reserve(order)
            market.arrivals.append(order)

    def _move_stop(self, command: MoveStop, ts: int) -> None:
        market, holding = self._markets.get(command.symbol), self._holding(command.symbol)
        try:
            if market is None or holding is None or not holding.side:
                raise wrong("there is no position")
            if market.rests or not _is_price(command.stop_loss):
                raise wrong("there is no stop to move, or it is not a price")
            market.stand()
            level = ticks_of(command.stop_loss, "stopLoss", market.contract)
            check_protection(Protection(stop_loss=level), holding.side, market.last)
            is_news = holding.stop_loss is None or holding.stop_loss.trigger_price != level
            self._engine.triggers.protect(holding, "stop_loss", level)
            market.watch()
        except Refused:
            is_news = False
        if not is_news:
            stop = self.position(command.symbol).stop_loss
            self._engine.publish(StopMoved(ts, ts, command.symbol, stop))

    # --- market -------------------------------------------------------------------------------------------

    def on_market(self, events: Sequence[Event]) -> list[Event]:
        """Play a group of market events of one `ts`; returns our fills, stops and funding in `ts` order.

        A listing counts from its place in the group on; then come bars, funding on what is held at their
        close, and delistings. Bars of symbols that are not listed are ignored.
        """
        markets = self._markets
        news: list[Event] = []  # that changes more than a price
        for event in events:
            if type(event) is BarClosed:
                market = markets.get(event.symbol)
                if market is None:
                    continue
                if event.low > market.floor and event.high < market.ceiling and event.ts < market.due:
                    if market.bar is None or event.start >= market.bar.ts:  # an old one is no news
                        market.bar = event
                    continue
            elif isinstance(event, InstrumentListed):
                self._list(event)
            news.append(event)
        facts = self._play(news) if news else []
        if events and events[-1].ts > self._clock:
            self._clock = events[-1].ts
        return facts

    def _play(self, news: list[Event]) -> list[Event]:
        markets = self._markets
        rates = [
            (markets[event.symbol], event)
            for event in news
            if isinstance(event, FundingRatePublished) and event.symbol in markets
        ]
        for market, _ in rates:  # before the bars, which else would charge the default rate for the same mark
            market.publishes_funding = True
            self._set_due(market, self._holding(market.symbol))
        for event in news:
            if isinstance(event, BarClosed):
                self._match(markets[event.symbol], event)
        for market, rate in rates:
            self._pay_funding(market, exact(rate.rate), rate.ts)
        for event in news:
            if isinstance(event, InstrumentDelisted) and event.symbol in markets:
                self._close_down(markets[event.symbol], event.ts)
        facts = self._engine.collect()
        facts.sort(key=attrgetter("ts"))
        return facts

    def _match(self, market: BarMarket, bar: BarClosed) -> None:
        """A bar that overlaps the last one is ignored. Without a bar before there is no order yet."""
        holding, now = self._holding(market.symbol), self._clock
        if market.bar is None or holding is None or bar.start < market.bar.ts:
            return
        if bar.ts >= market.due:
            self._pay_default_funding(market, holding, bar.start, now)
        market.stand()
        market.bar = bar
        engine = self._engine
        engine.walk = Walk(engine, market, bar, self._costs, self._volume_share)
        engine.walk.run(holding, now)
        engine.walk = None
        self._pay_default_funding(market, holding, bar.ts, max(bar.ts, now))
        self._set_due(market, holding)

    def _set_due(self, market: BarMarket, holding: Holding | None) -> None:
        is_due = holding is not None and holding.qty and self._has_default_funding(market)
        market.due = market.next_funding if is_due else NEVER

    # --- funding, listings and delistings -----------------------------------------------------------------

    def _has_default_funding(self, market: BarMarket) -> bool:
        return bool(self._costs.default_funding) and not market.publishes_funding

    def _pay_default_funding(self, market: BarMarket, holding: Holding, until: int, now: int) -> None:
        """Settle every 8-hour mark up to `until` (ms) that no published rate covers; either side pays."""
        while holding.qty and market.next_funding <= until and self._has_default_funding(market):
            rate = self._costs.default_funding.copy_sign(holding.qty)
            self._pay_funding(market, rate, max(market.next_funding, now))
            market.next_funding += FUNDING_INTERVAL

    def _pay_funding(self, market: BarMarket, rate: Decimal, ts: int) -> None:
        holding = self._holding(market.symbol)
        if holding is not None and holding.qty:
            self._mark(market, holding)
            self._engine.now = ts
            self._clearing.pay_funding(market, rate, ts)

    def _list(self, event: InstrumentListed) -> None:
        """New, or known with other filters, or back after a delisting."""
        instrument = event.instrument
        market = self._markets.get(instrument.symbol)
        if market is None:
            market = self._markets[instrument.symbol] = BarMarket(instrument, self._costs)
            self._engine.markets[instrument.symbol] = market
            self._account.leverage[instrument.symbol] = self._leverage, self._leverage
            return
        contract = market.contract
        if (contract.tick, contract.step) != (instrument.tick_size, instrument.qty_step):
            self._engine.now = max(event.ts, self._clock)
            self._regrid(market, instrument)
        contract.change(instrument)
        contract.status = TRADING

    def _regrid(self, market: BarMarket, instrument: Instrument) -> None:
        """Orders end with the grid that they are counted on; stops of a position go over to the new one."""
        engine, contract = self._engine, market.contract
        holding = self._holding(market.symbol)
        stops = [] if holding is None else [*holding.stops(), *market.rests]
        levels = {order.stop_type: contract.price(order.trigger_price) for order in stops}
        for order in list(self._account.open_orders.values()):
            if order.contract is contract:
                engine.end(order, cancel_type=REGRIDDED)
        market.arrivals, market.rests = [], []
        market.regrid(instrument)
        if holding is not None and holding.qty:
            for stop_type, level in levels.items():
                price = to_grid(level, contract.tick, up=holding.qty > 0)  # no stop becomes wider
                engine.triggers.protect(holding, LEGS[stop_type], ticks_of(price, stop_type, contract))
        market.watch()

    def _close_down(self, market: BarMarket, ts: int) -> None:
        """Delisting: orders are cancelled and the position is settled at the last close, with costs."""
        self._engine.now, holding, bar = ts, self._holding(market.symbol), market.bar
        price = None
        if bar is not None and holding is not None and holding.side is not None:
            contract, side = market.contract, holding.side.opposite
            price = contract.ticks(self._costs.taker_price(side, exact(bar.close), bar, contract.tick))
        self._clearing.close_market(market, ts, price, "Trade")
        market.arrivals, market.rests = [], []
        market.watch()


def _is_price(value: Decimal) -> bool:
    return value.is_finite() and value > 0
