"""The engine with the simulated broker: what leaves, in which order, and what never happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.commands import Command, MoveStop, PlaceOrder
from bot.core.events import (
    AdaptationFailed,
    BarClosed,
    CandidateArrived,
    EntriesAllowed,
    EntriesBlocked,
    Event,
    InstrumentDelisted,
    MarketHealthChanged,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PositionAdopted,
)
from bot.core.records import Alarm, BreakerTripped, DecisionMade, EquityMarked, Record, Refused
from bot.core.signal import Action, Signal
from bot.core.types import DAY_MS, Position, Side
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import Orders
from bot.settings import Costs, Gate, Risk
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Advice
from tests.builders import BAR, START, bar, enter, listed

Wish = Callable[[BarClosed, Mapping[str, Position]], Sequence[Advice]]


@dataclass
class Scripted:
    """A strategy that does what the test says."""

    wish: Wish

    def on_bar(self, closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        return self.wish(closed, positions)

    def on_event(self, event: Event) -> Sequence[Advice]:
        return ()


@dataclass
class Recorder:
    """A journal that keeps everything and knows what had been committed when."""

    messages: list[Event | Command | Record] = field(default_factory=list)
    committed: int = 0

    def write(self, message: Event | Command | Record) -> None:
        self.messages.append(message)

    def commit(self) -> None:
        self.committed = len(self.messages)

    def of(self, kind: type) -> list:  # type: ignore[type-arg]
        return [message for message in self.messages if isinstance(message, kind)]


class NoModels:
    def submit(self, job: object) -> None:
        raise AssertionError("no strategy here adapts")

    def take(self, symbol: str, cut: int, due: int) -> CandidateArrived | AdaptationFailed | None:
        return None


class Desk:
    """Everything wired, as the application does it."""

    def __init__(
        self, wish: Wish, risk: Risk | None = None, balance: int = 10_000, costs: Costs | None = None
    ) -> None:
        risk, costs = risk or Risk(), costs or Costs()
        self.breaker = Breaker(risk.daily_drawdown, balance)
        manager = RiskManager(risk, Gate(), costs, self.breaker)
        self.engine = Engine(
            Scripted(wish), manager, self.breaker, Portfolio(Decimal(balance)), Orders(), risk, BAR
        )
        self.broker = SimulatedBroker(costs, lambda symbol, start: costs.half_spread, Decimal(balance))
        self.journal = Recorder()
        self.runner = Runner(self.engine, self.broker, NoModels(), self.journal, BAR)
        self.runner.advance([listed()])

    def play(self, *bars: BarClosed) -> None:
        for closed in bars:
            self.runner.advance([closed])


def once(index: int, *signals: Signal) -> Wish:
    return lambda closed, _: signals if closed.start == START + index * BAR else ()


def nothing(closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
    return ()


def leave(index: int) -> Signal:
    return enter(index, action=Action.EXIT)


def test_an_entry_fills_at_the_next_open_or_worse_and_has_its_stop_on_the_exchange() -> None:
    desk = Desk(once(1, enter(1)))
    desk.play(bar(0, 100), bar(1, 100))
    assert desk.engine.portfolio.positions == {}
    desk.play(bar(2, 100.4, opened=100.2))
    position = desk.engine.portfolio.positions["NEWUSDT"]
    assert position.entry > Decimal("100.2")
    assert position.stop is not None
    assert position.stop == desk.broker.position("NEWUSDT").stop_loss


def test_what_leaves_has_been_written_down_before() -> None:
    desk = Desk(once(1, enter(1)))
    seen: list[int] = []
    submit = desk.broker.submit

    def watching(command: PlaceOrder) -> list[Event]:
        seen.append(desk.journal.messages.index(command))
        assert desk.journal.committed > seen[-1]
        return submit(command)

    desk.broker.submit = watching  # type: ignore[assignment, method-assign]
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100))
    assert len(seen) == 1


def test_while_the_market_cannot_be_trusted_nothing_is_opened() -> None:
    wish = {START + BAR: enter(1), START + 3 * BAR: enter(3)}
    desk = Desk(lambda closed, _: [wish[closed.start]] if closed.start in wish else [])
    desk.runner.advance([MarketHealthChanged(START, START, "NEWUSDT", ("bars are missing",))])
    desk.play(bar(0, 100), bar(1, 100))
    assert desk.journal.of(PlaceOrder) == []
    assert desk.journal.of(Refused)[0].reason == "the market data cannot be trusted: bars are missing"
    desk.runner.advance([MarketHealthChanged(START + 2 * BAR, START + 2 * BAR, "NEWUSDT", ())])
    desk.play(bar(2, 100), bar(3, 100))
    assert len(desk.journal.of(PlaceOrder)) == 1


def test_a_refusal_is_recorded_with_its_reason_and_nothing_leaves() -> None:
    desk = Desk(once(1, enter(1, confidence=0.6)))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100))
    assert desk.journal.of(PlaceOrder) == []
    assert desk.journal.of(Refused)[0].reason == "confidence 0.600 < 0.65"
    decision = desk.journal.of(DecisionMade)[0]
    assert (decision.verdict, decision.reason) == ("refused", "confidence 0.600 < 0.65")


def test_a_second_entry_is_refused_while_the_first_is_on_its_way() -> None:
    desk = Desk(once(1, enter(1), enter(1)))
    desk.play(bar(0, 100), bar(1, 100))
    assert len(desk.journal.of(PlaceOrder)) == 1
    assert desk.journal.of(Refused)[0].reason == "already in the market"


def test_an_old_bar_does_not_revalue_the_account() -> None:
    """Repeated by a feed or repaired after a gap: its price is not the price of now."""
    desk = Desk(once(1, enter(1)))
    desk.play(bar(0, 50), bar(1, 100), bar(2, 100))
    before = desk.engine.portfolio.equity
    assert desk.engine.step(bar(0, 50)) == []
    assert desk.engine.portfolio.equity == before


def test_an_exit_closes_what_is_held_once() -> None:
    desk = Desk(lambda closed, positions: (leave(1),) if positions else once(1, enter(1))(closed, positions))
    desk.play(*(bar(i, 100) for i in range(6)))
    orders = [command.order for command in desk.journal.of(PlaceOrder)]
    assert [order.reduce_only for order in orders] == [False, True]
    assert orders[0].qty == orders[1].qty
    assert desk.engine.portfolio.positions == {}


def test_a_turn_closes_and_opens_at_the_same_open() -> None:
    def turn(closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        index = (closed.start - START) // BAR
        if index == 1:
            return (enter(1),)
        return (leave(3), enter(3, Side.SELL)) if index == 3 else ()

    desk = Desk(turn)
    desk.play(*(bar(i, 100) for i in range(6)))
    assert desk.engine.portfolio.positions["NEWUSDT"].qty < 0
    assert desk.engine.portfolio.balance == desk.broker.balance


def test_a_stop_that_the_fill_left_too_wide_is_tightened_to_the_limit() -> None:
    desk = Desk(once(1, enter(1, sigma=0.02)))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 101, opened=101))
    position = desk.engine.portfolio.positions["NEWUSDT"]
    assert desk.journal.of(MoveStop)
    assert position.stop is not None
    assert (position.entry - position.stop) / position.entry <= Decimal("0.015")
    assert desk.broker.position("NEWUSDT").stop_loss == position.stop


def test_a_drawdown_of_the_day_flattens_and_halts_to_the_next_utc_day() -> None:
    wild = Risk(position_share=0.9, max_exposure=0.9, stop=0.4, stop_sigmas=20.0)
    desk = Desk(lambda closed, positions: (enter((closed.start - START) // BAR, sigma=0.006),), wild)
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100, high=100.5))
    desk.play(bar(3, 93, opened=100))
    tripped = desk.journal.of(BreakerTripped)
    assert len(tripped) == 1
    desk.play(bar(4, 93), bar(5, 93))
    assert desk.engine.portfolio.positions == {}
    assert desk.journal.of(Refused)[-1].reason == "halted by the drawdown breaker"
    next_day = DAY_MS // BAR
    desk.play(*(bar(i, 93) for i in range(next_day - 1, next_day + 3)))
    assert "NEWUSDT" in desk.engine.portfolio.positions


def test_a_delisting_leaves_no_position_and_no_further_order() -> None:
    desk = Desk(lambda closed, positions: (enter((closed.start - START) // BAR),))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100))
    assert desk.engine.portfolio.positions
    end = START + 3 * BAR
    desk.runner.advance([InstrumentDelisted(end, end, "NEWUSDT")])
    assert desk.engine.portfolio.positions == {}
    placed = len(desk.journal.of(PlaceOrder))
    desk.play(bar(3, 100), bar(4, 100))
    assert len(desk.journal.of(PlaceOrder)) == placed
    assert desk.journal.of(Refused)[-1].reason == "NEWUSDT: instrument unknown or delisted"


def test_equity_is_marked_once_per_decision_bar_the_last_one_included() -> None:
    desk = Desk(nothing)
    desk.play(*(bar(i, 100 + i) for i in range(5)))
    desk.runner.finish()
    desk.runner.finish()
    assert [mark.ts for mark in desk.journal.of(EquityMarked)] == [START + i * BAR for i in range(1, 6)]


def test_a_mark_knows_the_prices_of_its_time_and_none_after_it() -> None:
    """With finer bars than the decision's: the bars between two decisions must not reach the earlier mark."""
    third = BAR // 3
    desk = Desk(lambda closed, _: (enter(0),) if closed.start == START else ())
    prices = [100, 100, 100, 100, 101, 100.5, 90, 90, 90]
    for i, price in enumerate(prices):
        desk.play(bar(i, price, opened=100 if i == 3 else price, low=price, interval=third))
    desk.runner.finish()
    held = desk.engine.portfolio
    marks = desk.journal.of(EquityMarked)
    assert [mark.ts for mark in marks] == [START + i * BAR for i in (1, 2, 3)]
    entry = next(f for f in desk.journal.messages if isinstance(f, OrderFilled))
    gain = float(entry.qty) * (100.5 - float(entry.price)) - float(entry.fee)
    assert marks[1].equity == pytest.approx(10_000 + gain)
    assert marks[2].equity == pytest.approx(float(held.balance))  # the stop closed it at 90


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.floats(-0.03, 0.03), st.sampled_from(["buy", "sell", "exit", "none"]), st.floats(0, 0.02)
        ),
        min_size=5,
        max_size=60,
    )
)
def test_whatever_happens_the_books_agree_and_every_position_has_a_live_stop(
    moves: list[tuple[float, str, float]],
) -> None:
    wishes = {START + index * BAR: wish for index, (_, wish, _) in enumerate(moves)}

    def act(closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        index = (closed.start - START) // BAR
        wish = wishes[closed.start]
        if wish == "none":
            return ()
        if wish == "exit":
            return (leave(index),)
        side = Side.BUY if wish == "buy" else Side.SELL
        return (enter(index, side, closed.close),)

    desk = Desk(act)
    price = 100.0
    for index, (move, _, wick) in enumerate(moves):
        opened, price = price, round(price * (1 + move), 2)
        high, low = round(max(opened, price) * (1 + wick), 2), round(min(opened, price) * (1 - wick), 2)
        desk.play(bar(index, price, opened=opened, high=high, low=low))
        assert desk.engine.portfolio.balance == desk.broker.balance
        held = desk.broker.position("NEWUSDT")
        ours = desk.engine.portfolio.positions.get("NEWUSDT")
        assert (ours.qty if ours else Decimal(0)) == held.qty
        if ours is not None:
            assert held.stop_loss is not None
            assert ours.stop == held.stop_loss
            assert ours.entry == pytest.approx(held.average_price)


def test_entries_wait_while_something_is_wrong_and_exits_do_not() -> None:
    desk = Desk(lambda closed, held: (leave(3),) if held else (enter((closed.start - START) // BAR),))
    desk.runner.advance([EntriesBlocked(START, START, "feed", "BTCUSDT is silent")])
    desk.play(bar(0, 100), bar(1, 100))
    assert {refusal.reason for refusal in desk.journal.of(Refused)} == {"BTCUSDT is silent"}
    desk.runner.advance([EntriesAllowed(START, START, "clock")])  # another cause: no change
    desk.play(bar(2, 100))
    assert desk.journal.of(PlaceOrder) == []
    desk.runner.advance([EntriesAllowed(START, START, "feed")])
    desk.play(bar(3, 100), bar(4, 100))
    assert "NEWUSDT" in desk.engine.portfolio.positions
    desk.runner.advance([EntriesBlocked(START, START, "feed", "BTCUSDT is silent")])
    desk.play(bar(5, 100), bar(6, 100))
    assert desk.engine.portfolio.positions == {}


def test_what_the_exchange_says_we_hold_is_taken_over_and_guarded() -> None:
    desk = Desk(nothing)
    adopted = PositionAdopted(START, START, "NEWUSDT", Decimal(-2), Decimal(100), None, "held at the start")
    desk.runner.advance([adopted])
    assert desk.engine.portfolio.positions["NEWUSDT"].side is Side.SELL
    assert desk.journal.of(Alarm)[0].text == "held at the start"
    commands = [message for message in desk.engine.step(bar(0, 100)) if isinstance(message, MoveStop)]
    assert commands[0].stop_loss == Decimal("101.50")
    desk.engine.step(PositionAdopted(START, START, "NEWUSDT", Decimal(0), Decimal(0), None, "gone"))
    assert desk.engine.portfolio.positions == {}
    assert desk.engine.portfolio.balance == 10_000


def test_a_position_in_a_delisted_token_is_sold_while_that_can_be_done() -> None:
    desk = Desk(nothing)
    desk.runner.advance(
        [PositionAdopted(START, START, "NEWUSDT", Decimal(2), Decimal(100), Decimal(99), "held")]
    )
    (order,) = [
        message
        for message in desk.engine.step(InstrumentDelisted(START, START, "NEWUSDT"))
        if isinstance(message, PlaceOrder)
    ]
    assert order.order.reduce_only
    assert desk.engine.step(bar(0, 100)) == []  # already on its way out, and nothing else to do


def adopted(stop: Decimal | None) -> PositionAdopted:
    return PositionAdopted(START, START, "NEWUSDT", Decimal(2), Decimal(100), stop, "held")


def orders_of(messages: list[Command | Record]) -> list[PlaceOrder]:
    return [message for message in messages if isinstance(message, PlaceOrder)]


def test_a_position_that_cannot_be_given_a_stop_is_closed() -> None:
    desk = Desk(nothing)
    desk.engine.step(adopted(None))
    minute = 60_000
    first = msgspec.structs.replace(bar(0, 100, interval=minute), received=START + BAR)
    assert [type(message) for message in desk.engine.step(first)] == [MoveStop]
    burst = msgspec.structs.replace(
        bar(1, 100, interval=minute), received=START + BAR + 1
    )  # bars that came late, at once
    assert orders_of(desk.engine.step(burst)) == []
    later = msgspec.structs.replace(bar(2, 100, interval=minute), received=START + BAR + 2 * minute)
    out = desk.engine.step(later)
    assert [message.text for message in out if isinstance(message, Alarm)] == [
        "no stop for 90 s: it is closed"
    ]
    (closing,) = orders_of(out)
    assert (closing.order.reduce_only, closing.order.side, closing.order.qty) == (True, Side.SELL, 2)


@pytest.mark.parametrize("end", [OrderCancelled, OrderRejected])
def test_an_exit_that_the_exchange_did_not_carry_out_is_told_and_tried_again(
    end: type[OrderCancelled | OrderRejected],
) -> None:
    """Also where the token has no bars any more: those of the others are the clock."""
    desk = Desk(nothing)
    desk.engine.step(adopted(Decimal(99)))
    (first,) = orders_of(desk.engine.step(InstrumentDelisted(START, START, "NEWUSDT")))
    (alarm,) = desk.engine.step(end(START, START, first.order.link_id, "no liquidity"))
    assert isinstance(alarm, Alarm)
    assert "no liquidity" in alarm.text
    (second,) = orders_of(desk.engine.step(bar(0, 100, symbol="BTCUSDT")))
    assert (second.order.reduce_only, second.order.qty) == (True, 2)
    assert second.order.link_id != first.order.link_id
    assert orders_of(desk.engine.step(bar(1, 100, symbol="BTCUSDT"))) == []  # under way


def test_an_exit_that_found_the_position_gone_is_not_tried_again() -> None:
    desk = Desk(nothing)
    desk.engine.step(adopted(Decimal(99)))
    (first,) = orders_of(desk.engine.step(InstrumentDelisted(START, START, "NEWUSDT")))
    desk.engine.step(PositionAdopted(START, START, "NEWUSDT", Decimal(0), Decimal(0), None, "gone"))
    assert desk.engine.step(OrderCancelled(START, START, first.order.link_id, "nothing to reduce")) == []
    assert orders_of(desk.engine.step(bar(0, 100, symbol="BTCUSDT"))) == []
