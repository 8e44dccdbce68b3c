"""Paper orders and orders at the local exchange live by the same rules: the same path gives the same fills.

The broker leaps along a bar from one price at which something waits to the next. Here the exchange's book is
moved along the same bars tick by tick, with quotes on both sides, and the orders come as V5 requests.
"""

from contextlib import suppress
from decimal import Decimal
from random import Random

import pytest

from bot.core.commands import MoveStop, PlaceOrder
from bot.core.events import BarClosed, InstrumentListed, OrderFilled, OrderRejected
from bot.core.types import OrderRequest, OrderType, Side, TimeInForce
from bot.exchange.bybit.requests import new_order, params
from bot.exchange.local.contract import Contract
from bot.exchange.local.crowd import Quote
from bot.exchange.local.engine import Engine
from bot.exchange.local.market import Market, Print
from bot.exchange.local.orders import LAST_PRICE, Order, Refused
from bot.exchange.simulated.broker import SimulatedBroker
from bot.exchange.simulated.costs import CostModel, exact
from bot.exchange.simulated.walk import Walk
from bot.settings import Costs
from tests.builders import START, bar, instrument

SYMBOL = "NEWUSDT"
CASH = Decimal(100_000)
INSTRUMENT = instrument(SYMBOL, tick_size="0.1")
COSTS = Costs(taker_fee=0.00055, maker_fee=0.0002, slippage_sigmas=0.05, default_funding=0)
SHARE = 0.1


def half_spread(_symbol: str, _start: int) -> float:
    return 0.0005


class Book(Market):
    """Here too the last price is that of the path: a customer's own fills do not move it."""

    def record(self, trade: Print) -> None:
        pass


class Core(Engine):
    """The one choice that the broker makes for all orders: those of one account never fill each other."""

    def attract(self, order: Order, market: Market) -> None:
        order.smp = "CancelMaker"


class Exchange:
    """The matching core by itself, and a crowd that quotes around every tick of the path."""

    def __init__(self) -> None:
        self.costs = CostModel(COSTS, half_spread)
        self.engine = Core("exchange")
        self.contract = Contract(INSTRUMENT, self.costs.taker_fee, self.costs.maker_fee)
        self.market = self.engine.markets[SYMBOL] = Book(self.contract, 1)
        self.account = self.engine.add_account(CASH, 0)
        self.account.leverage[SYMBOL] = Decimal(1), Decimal(1)
        self.at = 1
        self.crowd: list[Quote] = []
        self.bar = bar(0, 100.0)

    def play(self, closed: BarClosed, corners: list[int], orders: list[OrderRequest]) -> None:
        self.bar, self.engine.now = closed, closed.ts
        self.left = int(exact(closed.volume * SHARE) / self.contract.step)
        self.stand(corners[0])
        for request in orders:
            body = params(new_order(request, self.contract.price(self.market.last)))
            with suppress(Refused):  # reduce-only, and the one before it has closed the position
                self.engine.create(self.account, {**body, "smpType": "CancelMaker"}, closed.ts)
            self.stand(self.at)
        for corner in corners[1:]:
            while self.at != corner:
                self.stand(self.at + (1 if corner > self.at else -1))
        self.withdraw()
        self.engine.set_mark(self.market, self.at, self.at, closed.ts)

    def stand(self, price: int) -> None:
        self.withdraw()
        self.at = price
        for side in Side:
            taker = Quote(self.engine.next_number(), side, price - side.sign, self.left)
            if self.left:
                self.engine.take_from_crowd(self.market, taker, self.engine.now)
                self.left = taker.leaves
        for side in Side:
            at = self.costs.taker_price(side, self.contract.price(price), self.bar, self.contract.tick)
            quote = Quote(self.engine.next_number(), side.opposite, self.contract.ticks(at) or 0, self.left)
            if self.left:
                self.market.book.add(quote)
                self.crowd.append(quote)
        self.market.move(LAST_PRICE, price)
        self.engine.triggers.settle(self.market)

    def withdraw(self) -> None:
        self.left -= sum(self.left - quote.leaves for quote in self.crowd)
        for quote in self.crowd:
            if quote.leaves:
                self.market.book.remove(quote)
        self.crowd.clear()


def some_order(rng: Random, number: int, last: Decimal, held: Decimal) -> OrderRequest:
    side = rng.choice(list(Side))
    sign = side.sign
    kind = rng.choice(["market", "market", "limit", "limit", "conditional", "close"])
    ahead = Decimal(rng.randint(3, 20)) / 10
    price = last - sign * ahead if kind == "limit" else None
    trigger = last + rng.choice([-1, 1]) * ahead if kind == "conditional" else None
    base = price or trigger or last
    closes = kind == "close" and held != 0
    return OrderRequest(
        link_id=f"o{number}", symbol=SYMBOL, side=(Side.SELL if held > 0 else Side.BUY) if closes else side,
        type=OrderType.MARKET if price is None else OrderType.LIMIT,
        qty=abs(held) if closes else Decimal(rng.randint(1, 30)) / 10, price=price,
        time_in_force=rng.choice([TimeInForce.GTC, TimeInForce.POST_ONLY]) if price else TimeInForce.GTC,
        reduce_only=closes, trigger_price=trigger,
        stop_loss=None if closes or rng.random() < 0.3 else base - sign * Decimal(rng.randint(8, 25)) / 10,
        take_profit=None if closes or rng.random() < 0.5 else base + sign * Decimal(rng.randint(8, 25)) / 10,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_the_same_orders_on_the_same_path_have_the_same_fills_fees_and_balance(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(seed)
    broker, exchange = SimulatedBroker(COSTS, half_spread, CASH, volume_share=SHARE), Exchange()
    broker.on_market([InstrumentListed(START, START, INSTRUMENT)])
    broker.on_market([bar(0, 100.0)])
    exchange.play(bar(0, 100.0), [1000], [])
    visited: list[int] = []
    go = Walk._go

    def follow(self: Walk, to: int) -> None:
        visited.append(to)
        go(self, to)

    monkeypatch.setattr(Walk, "_go", follow)
    last, fills, sent = 1000, [], 0
    for index in range(1, 40):
        held, orders = broker.position(SYMBOL).qty, []
        for _ in range(rng.choice([0, 1, 1, 2])):
            sent += 1
            request = some_order(rng, sent, Decimal(last) / 10, held)
            (answer,) = broker.submit(PlaceOrder(START + index, request))
            if not isinstance(answer, OrderRejected):
                orders.append(request)
        if held and rng.random() < 0.2:
            level = Decimal(last) / 10 - (1 if held > 0 else -1) * Decimal(rng.randint(5, 20)) / 10
            broker.submit(MoveStop(START + index, SYMBOL, level))
            body = {"symbol": SYMBOL, "stopLoss": str(level)}
            exchange.engine.triggers.trading_stop(exchange.account, body, START + index)
        close = last + rng.randint(-25, 25)
        high, low = max(last, close) + rng.randint(0, 15), min(last, close) - rng.randint(0, 15)
        volume = 50.0 if index == 1 else 1e6
        closed = bar(index, close / 10, opened=last / 10, high=high / 10, low=low / 10, volume=volume)
        visited.clear()
        fills += [fact for fact in broker.on_market([closed]) if isinstance(fact, OrderFilled)]
        corners = visited if len(visited) > 1 else [last, low, high, close]  # what it had no need to visit
        exchange.play(closed, list(corners), orders)
        last = close
        ours = broker.position(SYMBOL)
        holding = exchange.account.holding(exchange.contract, 0)
        assert (ours.qty, ours.average_price) == (holding.qty, holding.entry)
        assert broker.balance == exchange.account.wallet
    assert len(fills) > 15
    assert [
        (fill.side, fill.price, fill.qty, fill.fee, fill.is_maker, fill.link_id) for fill in fills
    ] == [
        (
            row["side"], Decimal(row["execPrice"]), Decimal(row["execQty"]), Decimal(row["execFee"]),
            row["isMaker"], row["orderLinkId"],
        )
        for row in exchange.account.executions
    ]  # fmt: skip
