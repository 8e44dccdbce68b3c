"""The engine with the simulated broker: what leaves, in which order, and what never happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import isnan, nan

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.commands import AmendOrder, CancelOrder, Command, MoveStop, PlaceOrder
from bot.core.events import (
    AdaptationFailed,
    BarClosed,
    CandidateArrived,
    EntriesAllowed,
    EntriesBlocked,
    Event,
    FeedRefused,
    FramesUnreadable,
    InstrumentDelisted,
    InstrumentStatusChanged,
    LiquiditySampled,
    MarketHealthChanged,
    MarketHealthMeasured,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PositionAdopted,
    StopMoved,
    TimePassed,
)
from bot.core.records import Alarm, BreakerTripped, DecisionMade, EquityMarked, Latch, Record, Refused
from bot.core.signal import Action, Signal
from bot.core.types import (
    DAY_MS,
    OrderRequest,
    OrderType,
    Position,
    Side,
    TimeInForce,
    TradingStatus,
    Trigger,
)
from bot.engine.engine import Engine
from bot.engine.portfolio import Portfolio
from bot.engine.runner import Runner
from bot.exchange.simulated.broker import SimulatedBroker
from bot.execution.orders import Orders
from bot.settings import Costs, Execution, Gate, Risk
from risk.breaker import Breaker
from risk.manager import RiskManager
from strategies.base import Advice, News
from tests.builders import BAR, START, bar, enter, listed

Wish = Callable[[BarClosed, Mapping[str, Position]], Sequence[Advice]]


@dataclass
class Scripted:
    """A strategy that does what the test says."""

    wish: Wish

    def on_bar(self, closed: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        return self.wish(closed, positions)

    def on_event(self, event: News) -> Sequence[Advice]:
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
        self,
        wish: Wish,
        risk: Risk | None = None,
        balance: int = 10_000,
        execution: Execution | None = None,
        costs: Costs | None = None,
    ) -> None:
        risk, costs = risk or Risk(), costs or Costs()
        self.breaker = Breaker(risk, balance)
        manager = RiskManager(risk, Gate(), costs, self.breaker)
        self.engine = Engine(
            Scripted(wish),
            manager,
            self.breaker,
            Portfolio(Decimal(balance)),
            Orders(),
            risk,
            BAR,
            execution or Execution(),
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


def test_a_price_off_the_mid_of_the_newest_book_is_refused() -> None:
    desk = Desk(once(1, enter(1)))
    now = START + BAR
    numbers = dict.fromkeys(LiquiditySampled.__struct_fields__[4:], nan) | {"mid_price": 103.0}
    desk.play(bar(0, 100))
    desk.runner.advance([LiquiditySampled(now, now, "NEWUSDT", START, **numbers)])
    desk.play(bar(1, 100))
    assert desk.journal.of(PlaceOrder) == []
    assert desk.journal.of(Refused)[0].reason == "the price 100 is 2.91% off the mid 103, the limit is 2.00%"


def test_a_symbol_with_a_refused_feed_is_never_traded_and_a_person_is_told() -> None:
    desk = Desk(lambda closed, _: (enter((closed.start - START) // BAR),))
    desk.runner.advance([FeedRefused(START, START, "NEWUSDT", "no such topic")])
    desk.runner.advance([MarketHealthChanged(START, START, "NEWUSDT", ())])  # of what is heard
    desk.runner.advance([FramesUnreadable(START, START, 3, "not JSON")])
    desk.play(bar(0, 100), bar(1, 100))
    assert desk.journal.of(PlaceOrder) == []
    assert [alarm.text for alarm in desk.journal.of(Alarm)] == [
        "not traded by this run: no such topic",
        "3 messages of the market could not be read, the last one: not JSON",
    ]


def test_the_liquidity_of_a_symbol_is_known_until_it_is_delisted() -> None:
    desk = Desk(nothing)
    now = START + BAR
    assert isnan(desk.engine.account.market("NEWUSDT", now).depth)
    numbers = dict.fromkeys(LiquiditySampled.__struct_fields__[4:], 1.0) | {"bid_depth": 9.0}
    desk.runner.advance([LiquiditySampled(now, now, "NEWUSDT", START, **numbers)])
    seen = desk.engine.account.market("NEWUSDT", now)
    assert (seen.spread, seen.depth, seen.mark, seen.funding_rate) == (1e-4, 1.0, 1.0, 1.0)
    assert isnan(desk.engine.account.market("NEWUSDT", now + 3 * BAR).depth)  # too old to count
    desk.runner.advance([InstrumentDelisted(now, now, "NEWUSDT")])
    assert isnan(desk.engine.account.market("NEWUSDT", now).depth)


def test_what_is_for_people_only_passes_through_and_changes_nothing() -> None:
    desk = Desk(nothing)
    told = [
        InstrumentStatusChanged(START, START, "NEXTUSDT", TradingStatus.PRE_LAUNCH),
        MarketHealthMeasured(START, START, "NEWUSDT", "live", {}, 0, 0, 0, 0, 0, 0, 0, 0),
    ]
    before = len(desk.journal.messages)
    desk.runner.advance(told)
    assert desk.journal.messages[before:] == told


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
    wild = Risk(
        position_share=0.9, max_exposure=0.9, max_net_exposure=0.9, max_cluster_exposure=0.9, stop=0.03,
        stop_sigmas=20.0, rolling_drawdown=0.5, peak_drawdown=0.5, token_daily_loss=0.5, cooldown_minutes=0,
    )  # fmt: skip
    desk = Desk(
        lambda closed, positions: (enter((closed.start - START) // BAR, price=closed.close, sigma=0.006),),
        wild, execution=Execution(twap_notional=1e6),
    )  # fmt: skip
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100, high=100.5))
    desk.play(bar(3, 93, opened=93))
    tripped = desk.journal.of(BreakerTripped)
    assert len(tripped) == 1
    desk.play(bar(4, 93), bar(5, 93))
    assert desk.engine.portfolio.positions == {}
    assert desk.journal.of(Refused)[-1].reason.startswith("halted: down ")
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
    assert desk.journal.of(MoveStop)[0].stop_loss == Decimal("101.50")
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


def tick(seconds: float) -> TimePassed:
    ts = START + int(seconds * 1_000)
    return TimePassed(ts, ts)


def test_a_position_that_cannot_be_given_a_stop_is_closed() -> None:
    """Whatever is heard meanwhile: time alone sees it."""
    desk = Desk(nothing)
    desk.engine.step(listed())
    assert [type(message) for message in desk.engine.step(adopted(None))] == [Alarm, MoveStop]
    assert desk.engine.step(tick(1)) == []
    assert [type(message) for message in desk.engine.step(tick(5))] == [MoveStop]
    assert orders_of(desk.engine.step(tick(29))) == []
    out = desk.engine.step(tick(30))
    assert [message.text for message in out if isinstance(message, Alarm)] == [
        "no stop for 30 s: it is closed"
    ]
    (closing,) = orders_of(out)
    assert (closing.order.reduce_only, closing.order.side, closing.order.qty) == (True, Side.SELL, 2)
    assert desk.engine.step(tick(31)) == []  # on its way out


def test_bars_that_come_late_and_at_once_close_nothing() -> None:
    desk = Desk(nothing)
    desk.engine.step(adopted(None))
    minute = 60_000
    for index in range(5):
        burst = msgspec.structs.replace(bar(index, 100, interval=minute), received=START + 1_000 + index)
        assert orders_of(desk.engine.step(burst)) == []


def test_a_lost_stop_is_set_again_where_the_entry_had_it() -> None:
    desk = Desk(once(1, enter(1, sigma=0.002)))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100))
    (entry,) = desk.journal.of(PlaceOrder)
    now = START + 3 * BAR
    (moved,) = desk.engine.step(StopMoved(now, now, "NEWUSDT", None))
    assert isinstance(moved, MoveStop)
    assert moved.stop_loss == entry.order.stop_loss


def test_time_that_passes_ends_no_moment() -> None:
    desk = Desk(nothing)
    desk.play(bar(0, 100))
    assert desk.engine.step(TimePassed(START + 2 * BAR, START + 2 * BAR)) == []
    desk.play(bar(1, 100))
    assert [mark.ts for mark in desk.journal.of(EquityMarked)] == [START + BAR]


def test_no_position_is_held_for_longer_than_the_limit() -> None:
    desk = Desk(once(1, enter(1)), Risk(max_holding_bars=3))
    desk.play(*(bar(i, 100) for i in range(7)))
    assert desk.engine.portfolio.positions == {}
    assert "held for 3 bars: it is closed" in [alarm.text for alarm in desk.journal.of(Alarm)]


def test_a_trailing_stop_follows_the_price_on_the_exchange_and_never_goes_back() -> None:
    desk = Desk(once(1, enter(1, sigma=0.002, expected_move=0.5)), Risk(trailing_stops=1.0))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100), bar(3, 101), bar(4, 102))
    risen = desk.broker.position("NEWUSDT").stop_loss
    assert risen is not None
    assert 101 < risen < 102
    desk.play(bar(5, 101.8))
    assert desk.broker.position("NEWUSDT").stop_loss == risen


def test_the_stop_of_a_position_that_the_same_bar_closes_stays_where_it_is() -> None:
    def wish(closed: BarClosed, _: Mapping[str, Position]) -> Sequence[Signal]:
        signals = {1: enter(1, sigma=0.002, expected_move=0.5), 4: leave(4)}
        signal = signals.get((closed.start - START) // BAR)
        return (signal,) if signal else ()

    desk = Desk(wish, Risk(trailing_stops=1.0))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100), bar(3, 101))
    assert len(moves := desk.journal.of(MoveStop)) >= 1
    desk.play(bar(4, 102))
    assert desk.journal.of(PlaceOrder)[-1].order.reduce_only
    assert desk.journal.of(MoveStop) == moves
    desk.play(bar(5, 103))
    assert desk.engine.portfolio.positions == {}


def test_after_a_gain_the_stop_lies_at_the_entry() -> None:
    desk = Desk(once(1, enter(1, sigma=0.002, expected_move=0.5)), Risk(break_even_stops=1.0))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100), bar(3, 100.3))
    held = desk.engine.portfolio.positions["NEWUSDT"]
    assert held.stop is not None
    assert held.stop < held.entry
    desk.play(bar(4, 101))
    held = desk.engine.portfolio.positions["NEWUSDT"]
    assert held.stop is not None
    assert 0 <= held.entry - held.stop < Decimal("0.01") or held.stop >= held.entry


def test_stops_are_set_off_by_the_price_that_is_configured() -> None:
    desk = Desk(once(1, enter(1, sigma=0.02)), Risk(trigger_by="mark"))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 101, opened=101))
    assert desk.journal.of(PlaceOrder)[0].order.trigger_by is Trigger.MARK
    assert desk.journal.of(MoveStop)[0].trigger_by is Trigger.MARK


def test_a_token_that_lost_too_much_today_is_left_alone_and_the_others_are_not() -> None:
    risk = Risk(token_daily_loss=0.0002, cooldown_minutes=0)
    desk = Desk(lambda closed, held: () if held else (enter((closed.start - START) // BAR),), risk)
    desk.play(bar(0, 100), bar(1, 100), bar(2, 98, low=98), bar(3, 98), bar(4, 98))
    (tripped,) = desk.journal.of(BreakerTripped)
    assert (tripped.latch, tripped.symbol) == (Latch.TOKEN, "NEWUSDT")
    assert "halted: NEWUSDT lost" in desk.journal.of(Refused)[-1].reason
    assert not desk.breaker.halted


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


# --- entries of several parts ------------------------------------------------------------------------------

PATIENT = Execution(style="post_only", requote_seconds=60, deadline_seconds=3_600)


def entries_of(desk: Desk) -> list[OrderRequest]:
    return [command.order for command in desk.journal.of(PlaceOrder) if not command.order.reduce_only]


def test_a_post_only_entry_rests_and_is_amended_until_it_fills() -> None:
    desk = Desk(once(1, enter(1)), execution=PATIENT)
    desk.play(bar(0, 100), bar(1, 100))
    (order,) = entries_of(desk)
    assert (order.type, order.time_in_force) == (OrderType.LIMIT, TimeInForce.POST_ONLY)
    assert order.price == Decimal("99.98")
    desk.play(bar(2, 100.5, opened=100), bar(3, 101, opened=100.5))
    assert [change.price for change in desk.journal.of(AmendOrder)] == [Decimal("100.47"), Decimal("100.97")]
    desk.play(bar(4, 101, opened=101, low=100.9))
    held = desk.engine.portfolio.positions["NEWUSDT"]
    assert (held.qty, held.entry) == (order.qty, Decimal("100.97"))
    assert held.stop == desk.broker.position("NEWUSDT").stop_loss is not None
    assert [fill.is_maker for fill in desk.journal.of(OrderFilled)] == [True]


@pytest.mark.parametrize("at_deadline", ["cross", "give_up"])
def test_at_its_deadline_a_post_only_entry_crosses_or_is_given_up(at_deadline: str) -> None:
    rules = Execution(style="post_only", deadline_seconds=1_800, at_deadline=at_deadline)  # type: ignore[arg-type]
    desk = Desk(once(1, enter(1)), execution=rules)
    rising = [bar(i, 100 + i / 10, opened=100 + i / 10 - 0.05, low=100 + i / 10 - 0.05) for i in range(2, 9)]
    desk.play(bar(0, 100), bar(1, 100), *rising)
    types = [order.type for order in entries_of(desk)]
    held = "NEWUSDT" in desk.engine.portfolio.positions
    expected = (
        ([OrderType.LIMIT, OrderType.MARKET], True) if at_deadline == "cross" else ([OrderType.LIMIT], False)
    )
    assert (types, held) == expected
    assert not desk.engine.account.is_exposed("NEWUSDT", Side.BUY) or held


def test_a_large_entry_goes_in_slices_that_are_together_what_was_approved() -> None:
    desk = Desk(once(1, enter(1)), execution=Execution(twap_notional=100, twap_slices=4, twap_seconds=3_600))
    desk.play(bar(0, 100), bar(1, 100))
    assert desk.engine.account.gross_notional == pytest.approx(200)  # what has not left yet counts as well
    desk.play(*(bar(i, 100) for i in range(2, 8)))
    orders = entries_of(desk)
    assert [order.qty for order in orders] == [Decimal("0.5")] * 4
    assert len({order.link_id for order in orders}) == 4
    assert desk.engine.portfolio.positions["NEWUSDT"].qty == 2
    assert desk.engine.portfolio.positions["NEWUSDT"].stop is not None


def test_a_part_that_was_refused_is_the_last_one_and_a_late_fill_of_it_is_booked() -> None:
    """It may be at the exchange after all: another part beside it could be more than the whole."""
    desk = Desk(once(1, enter(1)), execution=Execution(twap_notional=100, twap_slices=4, twap_seconds=3_600))
    desk.play(bar(0, 100), bar(1, 100))
    (part,) = entries_of(desk)
    desk.engine.step(OrderRejected(START, START, part.link_id, "the exchange never received it"))
    desk.play(*(bar(i, 100) for i in range(2, 8)))
    assert entries_of(desk) == [part]
    assert desk.engine.portfolio.positions["NEWUSDT"].qty == part.qty


def test_an_exit_ends_an_entry_that_is_still_on_its_way() -> None:
    wishes = {START + BAR: enter(1), START + 3 * BAR: leave(3)}
    desk = Desk(
        lambda closed, _: [wishes[closed.start]] if closed.start in wishes else [],
        execution=Execution(twap_notional=100, twap_slices=4, twap_seconds=3_600),
    )
    desk.play(*(bar(i, 100) for i in range(9)))
    assert [command.link_id for command in desk.journal.of(CancelOrder)] == [entries_of(desk)[2].link_id]
    assert len(entries_of(desk)) == 3
    assert desk.engine.portfolio.positions == {}
    assert not desk.engine.account.is_exposed("NEWUSDT", Side.BUY)


def test_a_halt_ends_an_entry_that_is_still_on_its_way() -> None:
    desk = Desk(once(1, enter(1)), execution=Execution(twap_notional=100, twap_slices=4, twap_seconds=3_600))
    desk.play(bar(0, 100), bar(1, 100), bar(2, 100))
    desk.runner.advance([EntriesBlocked(START + 3 * BAR, START + 3 * BAR, "feed", "BTCUSDT is silent")])
    placed = len(entries_of(desk))
    desk.play(bar(3, 100), bar(4, 100), bar(5, 100))
    assert len(entries_of(desk)) == placed
    assert desk.journal.of(Refused)[-1].reason == "the rest of an entry is given up: BTCUSDT is silent"


def test_a_late_decision_is_dropped() -> None:
    desk = Desk(once(1, enter(1)))
    desk.play(bar(0, 100))
    desk.runner.advance([msgspec.structs.replace(bar(1, 100), received=START + 2 * BAR + 31_000)])
    assert desk.journal.of(PlaceOrder) == []
    assert desk.journal.of(Refused)[0].reason == "the decision is 31 s late"


def test_an_entry_says_until_when_it_is_wanted_and_an_exit_has_no_such_time() -> None:
    desk = Desk(lambda closed, positions: (leave(1),) if positions else once(1, enter(1))(closed, positions))
    desk.play(*(bar(i, 100) for i in range(4)))
    entry, closing = desk.journal.of(PlaceOrder)
    assert entry.valid_until == entry.ts + 30_000
    assert closing.valid_until == 0
