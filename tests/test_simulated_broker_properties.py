"""Whatever is sent to the simulated exchange, its books agree with the events it gives away."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from bot.core.commands import CancelOrder, MoveStop, PlaceOrder
from bot.core.events import (
    Event,
    FundingPaid,
    FundingRatePublished,
    InstrumentDelisted,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    StopMoved,
)
from bot.core.types import HOUR_MS, OrderRequest, OrderType, Side, TimeInForce
from bot.engine.portfolio import Portfolio
from bot.exchange.simulated.bar_market import BarMarket
from bot.exchange.simulated.broker import TOO_LATE, SimulatedBroker
from bot.settings import Costs
from tests.builders import START, bar, listed

CASH = Decimal(10_000)
LONG_BAR = 2 * HOUR_MS  # so that funding marks come often


def wide_spread(_symbol: str, _start: int) -> float:
    return 0.001


SYMBOLS = ("NEWUSDT", "OTHERUSDT")


class Shadow:
    """What follows from the events alone, computed without the broker's arithmetic."""

    def __init__(self) -> None:
        self.cash = Decimal(0)
        self.held = dict.fromkeys(SYMBOLS, Decimal(0))
        self.stops: dict[str, Decimal | None] = dict.fromkeys(SYMBOLS)
        self.open: dict[str, Decimal] = {}
        self.ended: set[str] = set()
        self.reduce_only: set[str] = set()
        self.executions: set[str] = set()

    def see(self, event: Event) -> None:
        if isinstance(event, OrderAccepted):
            assert event.link_id not in self.open
            assert event.link_id not in self.ended
        elif isinstance(event, OrderCancelled):
            self._cancelled(event)
        elif isinstance(event, OrderFilled):
            self._filled(event)
        elif isinstance(event, FundingPaid):
            self._new_execution(event.exec_id)
            assert self.held[event.symbol]
            self.cash -= event.amount
        elif isinstance(event, StopMoved):
            assert event.stop_loss is None or self.held[event.symbol]
            self.stops[event.symbol] = event.stop_loss

    def leave(self, link_id: str, ours: Decimal, theirs: Decimal) -> None:
        """The exchange cuts reduce-only orders to the position, and tells it with their fills."""
        assert theirs == ours or (link_id in self.reduce_only and theirs < ours)
        self.open[link_id] = theirs

    def _new_execution(self, exec_id: str) -> None:
        assert exec_id not in self.executions
        self.executions.add(exec_id)

    def _cancelled(self, event: OrderCancelled) -> None:
        if event.reason == TOO_LATE:
            assert event.link_id not in self.open
            return
        del self.open[event.link_id]
        self.ended.add(event.link_id)

    def _filled(self, event: OrderFilled) -> None:
        self._new_execution(event.exec_id)
        assert event.qty > 0
        assert event.price > 0
        before = self.held[event.symbol]
        after = before + event.side.sign * event.qty
        if event.link_id:
            self.leave(event.link_id, self.open[event.link_id] - event.qty, event.leaves_qty)
            if not event.leaves_qty:
                del self.open[event.link_id]
                self.ended.add(event.link_id)
        if not event.link_id or event.link_id in self.reduce_only:
            assert before * after >= 0
            assert abs(after) < abs(before)
        if before * after <= 0:
            self.stops[event.symbol] = None
        self.held[event.symbol] = after
        self.cash -= event.side.sign * event.qty * event.price + event.fee


class Session:
    """Drives a broker and checks every answer against the shadow books."""

    def __init__(self) -> None:
        costs = Costs(taker_fee=0.00055, maker_fee=0.0002, slippage_sigmas=0.05, default_funding=0.0001)
        self.broker = SimulatedBroker(costs, wide_spread, CASH, leverage=3)
        self.shadow = Shadow()
        self.portfolio = Portfolio(CASH)  # the engine's books
        self.index = 0
        self.heard = START  # the last market event
        self.orders = 0
        self.facts: list[Event] = []
        self.last = dict.fromkeys(SYMBOLS, 100.0)
        self.delisted: set[str] = set()
        self.broker.on_market([listed(symbol) for symbol in SYMBOLS])
        self._market([bar(0, 100.0, symbol, interval=LONG_BAR) for symbol in SYMBOLS])

    @property
    def now(self) -> int:
        return START + self.index * LONG_BAR

    def play(self, step: "Step") -> None:
        for order in step.orders:
            self._place(order)
        for number in step.cancels:
            self._cancel(number)
        if step.stop is not None:
            (event,) = self.broker.submit(MoveStop(self.now, *step.stop))
            self._see(event)
        self._market(self._bars(step) + self._interruption(step))
        self.check()

    def _see(self, fact: Event) -> None:
        self.shadow.see(fact)
        if isinstance(fact, OrderFilled):
            self.portfolio.apply_fill(fact)
        elif isinstance(fact, FundingPaid):
            self.portfolio.apply_funding(fact)
        elif isinstance(fact, StopMoved):
            self.portfolio.apply_stop(fact)

    def _market(self, events: list[Event]) -> None:
        self.index += 1
        facts = self.broker.on_market(events)
        times = [fact.ts for fact in facts]
        assert times == sorted(times)
        assert all(self.heard <= ts <= self.now for ts in times)
        if events:
            self.heard = self.now
        self.facts += facts
        for fact in facts:
            self._see(fact)

    def _place(self, draft: "Draft") -> None:
        self.orders += 1
        anchor = Decimal(str(self.last[draft.symbol]))
        price = None if draft.distance is None else anchor + Decimal(draft.distance) / 10
        trigger = None if draft.trigger is None else anchor + Decimal(draft.trigger) / 10
        base = price or trigger or anchor
        side = draft.side
        if draft.reduce_only and (held := self.shadow.held[draft.symbol]):
            side = Side.SELL if held > 0 else Side.BUY
        has_stop, has_target = not draft.reduce_only and draft.stop, not draft.reduce_only and draft.target
        order = OrderRequest(
            link_id=f"o{self.orders}",
            symbol=draft.symbol,
            side=side,
            type=OrderType.MARKET if price is None else OrderType.LIMIT,
            qty=draft.qty,
            price=price,
            time_in_force=TimeInForce.IOC if price is None else draft.time_in_force,
            reduce_only=draft.reduce_only,
            stop_loss=base - side.sign * Decimal(draft.stop) / 10 if has_stop else None,
            take_profit=base + side.sign * Decimal(draft.target) / 10 if has_target else None,
            trigger_price=trigger,
        )
        (event,) = self.broker.submit(PlaceOrder(self.now, order))
        assert isinstance(event, OrderAccepted | OrderRejected)
        assert event.ts >= self.now
        self.shadow.see(event)
        if isinstance(event, OrderAccepted):
            assert draft.symbol not in self.delisted
            self.shadow.open[order.link_id] = order.qty
            if order.reduce_only:
                self.shadow.reduce_only.add(order.link_id)

    def _cancel(self, back: int) -> None:
        for symbol in SYMBOLS:
            link_id = f"o{self.orders - back}"
            (event,) = self.broker.submit(CancelOrder(self.now, symbol, link_id))
            assert isinstance(event, OrderCancelled)
            if event.reason != TOO_LATE:
                self.shadow.see(event)

    def _bars(self, step: "Step") -> list[Event]:
        events: list[Event] = []
        for symbol, shape in step.shapes.items():
            if symbol in self.delisted or shape is None:
                continue
            gap, move, up, down = (value / 10 for value in shape)
            opened = round(min(max(self.last[symbol] + gap, 60.0), 150.0), 2)
            close = round(min(max(opened + move, 60.0), 150.0), 2)
            high, low = round(max(opened, close) + up, 2), round(min(opened, close) - down, 2)
            self.last[symbol] = close
            events.append(
                bar(
                    self.index, close, symbol, opened=opened, high=high, low=low, volume=step.volume,
                    interval=LONG_BAR,
                )
            )  # fmt: skip
        return events

    def _interruption(self, step: "Step") -> list[Event]:
        ts = self.now + LONG_BAR
        if step.rate is not None:
            return [FundingRatePublished(ts, ts, SYMBOLS[0], step.rate)]
        if step.delists and not self.delisted:
            self.delisted.add(SYMBOLS[1])
            return [InstrumentDelisted(ts, ts, SYMBOLS[1])]
        return []

    def check(self) -> None:
        equity, expected = self.broker.balance, CASH + self.shadow.cash
        for symbol in SYMBOLS:
            held, price = self.broker.position(symbol), Decimal(str(self.last[symbol]))
            equity += held.qty * (price - held.average_price)
            expected += self.shadow.held[symbol] * price
            assert held.qty == self.shadow.held[symbol]
            assert held.stop_loss == self.shadow.stops[symbol]
            assert held.qty or held.stop_loss is None
            assert not held.qty or symbol not in self.delisted
            ours = self.portfolio.positions.get(symbol)
            assert (ours.qty if ours else 0) == held.qty
            assert (ours.stop if ours else None) == held.stop_loss
            assert abs((ours.entry if ours else 0) - held.average_price) < Decimal("1e-9")
        assert abs(equity - expected) < Decimal("1e-9")
        assert abs(self.portfolio.balance - self.broker.balance) < Decimal("1e-9")
        theirs = {o.request.link_id: o.leaves_qty for o in self.broker.open_orders()}
        assert theirs.keys() == self.shadow.open.keys()
        for link_id, leaves in theirs.items():
            self.shadow.leave(link_id, self.shadow.open[link_id], leaves)


@dataclass(frozen=True)
class Draft:
    """An order around the last price; distances in tenths."""

    symbol: str
    side: Side
    qty: Decimal
    distance: int | None  # of the limit price; None = market
    time_in_force: TimeInForce
    reduce_only: bool
    stop: int
    target: int
    trigger: int | None


@dataclass(frozen=True)
class Step:
    """What is sent, then one bar per symbol: (gap, move, upper wick, lower wick) in tenths, None = a gap."""

    orders: list[Draft]
    cancels: list[int]
    stop: tuple[str, Decimal] | None
    shapes: dict[str, tuple[int, int, int, int] | None]
    volume: float
    rate: float | None
    delists: bool


def rarely(strategy: st.SearchStrategy[Any], otherwise: object = None) -> st.SearchStrategy[Any]:
    return st.integers(0, 5).flatmap(lambda die: strategy if die == 5 else st.just(otherwise))


SHAPES = st.tuples(st.integers(-8, 8), st.integers(-40, 40), st.integers(0, 40), st.integers(0, 40))
DRAFTS = st.builds(
    Draft,
    symbol=st.sampled_from(SYMBOLS),
    side=st.sampled_from(Side),
    qty=st.integers(1, 60).map(lambda tenths: Decimal(tenths) / 10),
    distance=st.none() | st.integers(-30, 30),
    time_in_force=st.sampled_from(TimeInForce),
    reduce_only=rarely(st.just(True), otherwise=False),
    stop=st.integers(0, 40),
    target=st.integers(0, 40),
    trigger=rarely(st.integers(-30, 30)),
)
STEPS = st.builds(
    Step,
    orders=st.lists(DRAFTS, max_size=2),
    cancels=rarely(st.lists(st.integers(0, 5), max_size=2), otherwise=[]),
    stop=rarely(
        st.tuples(st.sampled_from(SYMBOLS), st.integers(800, 1200).map(lambda tenths: Decimal(tenths) / 10))
    ),
    shapes=st.fixed_dictionaries(dict.fromkeys(SYMBOLS, st.none() | SHAPES | SHAPES | SHAPES)),
    volume=st.sampled_from([0.0, 25.0, 1e6, 1e6]),
    rate=rarely(rarely(st.sampled_from([-0.001, 0.0001, 0.01]))),
    delists=rarely(rarely(st.just(True), otherwise=False), otherwise=False),
)


@hypothesis_settings(max_examples=120, derandomize=True, deadline=None, database=None)
@given(steps=st.lists(STEPS, min_size=10, max_size=40))
def test_books_positions_stops_and_orders_are_what_the_events_say(steps: list[Step]) -> None:
    session = Session()
    for step in steps:
        session.play(step)


@hypothesis_settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(steps=st.lists(STEPS, min_size=10, max_size=40))
def test_passing_over_quiet_bars_gives_the_same_facts_as_matching_every_bar(steps: list[Step]) -> None:
    quick, thorough = Session(), Session()
    for step in steps:
        quick.play(step)

    def match_everything(market: BarMarket) -> None:
        market.floor = math.inf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BarMarket, "watch", match_everything)
        for step in steps:
            thorough.play(step)
    assert quick.facts == thorough.facts
