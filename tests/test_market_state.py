"""Trades, tickers, feeds and books of a symbol: what is known, how fresh it is, and what is asked for."""

import gzip
import itertools
import json
import math
import tracemalloc
from pathlib import Path

import pytest
from msgspec.structs import replace

from bot.core.commands import FetchBook, RenewBook
from bot.core.events import (
    FeedChanged,
    InstrumentStatusChanged,
    LiquiditySampled,
    MarketHealthChanged,
    MarketHealthMeasured,
    MicrostructureSampled,
    TickerChanged,
    Traded,
)
from bot.core.types import MINUTE_MS, Feed, Side, TradingStatus
from bot.exchange.bybit import wire
from bot.exchange.bybit.translate import trades
from bot.exchange.bybit.wire.public import Trades as TradesMessage
from bot.market.book import Audit, Outcome, State
from bot.market.book_care import AUDIT_AGAIN_MS, AUDIT_MS, LATER_MS, SNAPSHOT_MS, SOON_MS, STEADY_MS
from bot.market.book_messages import RestBook
from bot.market.book_samples import SAMPLE_MS
from bot.market.freshness import DEADLINES, LATE_MS, Freshness
from bot.market.periods import Periods
from bot.market.state import AHEAD_MS, MarketState, SymbolState
from bot.market.tickers import Ticker
from bot.market.trades import FEWEST, RECENT, TradeFlow, Trades
from tests.book_frames import SYMBOL, compact, message
from tests.builders import BAR, START, bar

RECORDED = Path(__file__).parents[2] / "shared" / "data" / "orderbook" / "bybit-linear"
BID, ASK = [(100, 5), (99, 2)], [(101, 7), (103, 1)]


def trade(ts: int, side: Side = Side.BUY, price: float = 10.0, size: float = 2.0) -> Traded:
    return Traded(ts, ts, SYMBOL, side, price, size)


# --- bounded history ----------------------------------------------------------------------------------------


def test_periods_keep_the_newest_spans_only() -> None:
    sums: Periods[list[int]] = Periods(10, 3, list)
    for time in (0, 9, 10, 29):
        span = sums.at(time)
        assert span is not None
        span.append(time)
    assert [sums.get(start) for start in (0, 10, 20)] == [[0, 9], [10], [29]]
    assert sums.at(30) == []
    assert sums.get(0) is None
    assert sums.at(5) is None
    assert sums.get(40) is None


# --- trades -------------------------------------------------------------------------------------------------


def test_trades_are_summed_by_side_over_their_bar() -> None:
    tape = Trades(BAR)
    tape.feed(START, alive=True)
    for one in (
        trade(START, Side.BUY, 10.0, 3.0),
        trade(START + BAR - 1, Side.SELL, 11.0, 1.0),
        trade(START + BAR, Side.SELL, 50.0, 9.0),
    ):
        tape.add(one)
    flow = tape.flow(START)
    assert flow is not None
    assert (flow.count, flow.volume, flow.signed_volume) == (2, 4.0, 2.0)
    assert flow.imbalance == pytest.approx(0.5)
    assert flow.vwap == pytest.approx(41 / 4)
    assert math.isnan(flow.large_share)  # nobody knows yet what is large


def test_a_bar_without_trades_is_balanced_and_one_that_was_not_heard_is_unknown() -> None:
    tape = Trades(BAR)
    assert tape.flow(START) is None
    tape.feed(START + 1, alive=True)
    tape.add(trade(START + 2))
    assert tape.flow(START) is None
    assert tape.flow(START + BAR) == TradeFlow()
    assert math.isnan(TradeFlow().vwap)
    tape.feed(START + BAR + 5, alive=False)
    assert tape.flow(START + BAR) is None


def test_large_trades_are_measured_by_those_before_the_bar() -> None:
    tape = Trades(BAR)
    tape.feed(START, alive=True)
    for number in range(FEWEST):
        tape.add(trade(START, price=1.0, size=1.0 + number))
    threshold = 1.0 + 0.95 * (FEWEST - 1)
    tape.add(trade(START + BAR, price=1.0, size=100.0))
    tape.add(trade(START + BAR, price=1.0, size=threshold - 1))
    flow = tape.flow(START + BAR)
    assert flow is not None
    assert flow.large_from == pytest.approx(threshold)
    assert flow.large_share == pytest.approx(100 / (99 + threshold))


@pytest.mark.parametrize(
    ("price", "size"), [(0.0, 1.0), (math.nan, 1.0), (1.0, math.inf), (1.0, 0.0), (-1.0, 1.0)]
)
def test_impossible_and_late_trades_are_counted_and_left_out(price: float, size: float) -> None:
    tape = Trades(BAR, keep=2)
    tape.feed(0, alive=True)
    tape.add(trade(START, price=price, size=size))
    assert (tape.bad, tape.flow(START)) == (1, TradeFlow())
    tape.add(trade(START + 2 * BAR))
    tape.add(trade(START))
    assert tape.late == 1


def test_memory_of_trades_is_flat() -> None:
    tape = Trades(BAR)
    batches = [[trade(START + k * 1000 + j, size=1.0 + j % 7) for j in range(100)] for k in range(200)]
    for one in batches[0] * (RECENT // 100 + 1):
        tape.add(one)
    tracemalloc.start()
    try:
        for batch in batches:
            for one in batch:
                tape.add(one)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 40_000


# --- tickers and freshness ----------------------------------------------------------------------------------


def test_a_delta_changes_what_it_names_and_a_snapshot_forgets_the_rest() -> None:
    ticker = Ticker()
    ticker.update(TickerChanged(1, 1, SYMBOL, True, mark_price=102.0, index_price=100.0, funding_rate=1e-4))
    ticker.update(TickerChanged(2, 2, SYMBOL, False, open_interest=5.0, funding_rate=math.nan))
    assert (ticker.mark_price, ticker.open_interest) == (102.0, 5.0)
    assert math.isnan(ticker.funding_rate)
    ticker.update(TickerChanged(3, 3, SYMBOL, True, turnover_24h=7.0, next_funding_time=9))
    assert (ticker.turnover_24h, ticker.next_funding_time) == (7.0, 9)
    assert math.isnan(ticker.mark_price)


@pytest.mark.parametrize(
    ("last", "mid", "mark", "index", "doubts"),
    [
        (100.0, 100.0, 100.0, 100.0, []),
        (103.0, 97.1, 100.0, 109.0, []),
        (103.1, 100.0, 100.0, 100.0, ["the last price is more than 3% from the mark price"]),
        (100.0, 96.9, 100.0, 100.0, ["the order book is more than 3% from the mark price"]),
        (100.0, 100.0, 100.0, 90.0, ["the mark price is more than 10% from the index price"]),
        (100.0, math.nan, math.nan, 50.0, []),  # what is not known is watched by its deadline
    ],
)
def test_prices_too_far_apart_are_doubted(
    last: float, mid: float, mark: float, index: float, doubts: list[str]
) -> None:
    assert Ticker(last_price=last, mark_price=mark, index_price=index).doubts(mid) == doubts


def test_a_feed_is_stale_from_its_deadline_on_and_until_it_is_first_heard() -> None:
    fresh = Freshness({Feed.TICKER: 1_000})
    assert fresh.stale(0) == [Feed.TICKER]
    fresh.heard(Feed.TICKER, 5_000)
    fresh.heard(Feed.TICKER, 4_000)  # older news does not make it older
    assert fresh.age(Feed.TICKER, 6_000) == 1_000
    assert fresh.stale(6_000) == []
    assert fresh.stale(6_001) == [Feed.TICKER]
    fresh.lost(Feed.TICKER)
    assert fresh.age(Feed.TICKER, 6_001) is None


# --- books --------------------------------------------------------------------------------------------------


def symbol_state(**changes: int) -> SymbolState:
    return SymbolState(SYMBOL, BAR, **changes)


def push(state: SymbolState, kind: str, u: int, *levels: object, at: int = START, lag: int = 0) -> Outcome:
    return state.on_book(compact(message(kind, u, *levels) | {"cts": at - lag}), at)


def test_microstructure_is_the_mean_of_the_samples_of_a_bar_with_its_whole_order_flow() -> None:
    state = symbol_state()
    push(state, "snapshot", 1, BID, ASK)
    state.samples.sample(START)
    half = BAR // SAMPLE_MS // 2
    for second in range(1, half):
        state.samples.sample(START + second * SAMPLE_MS)
    push(state, "delta", 2, [(100, 9)])  # + 4
    for second in range(half, BAR // SAMPLE_MS):
        state.samples.sample(START + second * SAMPLE_MS)
    push(state, "delta", 3, [], [(101, 10)])  # - 3, in the last second
    state.samples.sample(START + BAR)
    seen = state.microstructure(START)
    assert (seen.ts, seen.start) == (START + BAR, START)
    assert seen.spread_bps == pytest.approx(1 / 100.5 * 1e4)
    assert seen.imbalance_5 == pytest.approx(((7 - 8) / 15 + (11 - 8) / 19) / 2)
    micro = ((100 * 7 + 101 * 5) / 12 + (100 * 7 + 101 * 9) / 16) / 2
    assert seen.microprice_bps == pytest.approx((micro / 100.5 - 1) * 1e4)
    assert seen.ofi == 1.0
    assert math.isnan(seen.trade_imbalance)


def test_a_bar_that_was_seen_for_less_than_half_is_unknown() -> None:
    state = symbol_state()
    push(state, "snapshot", 1, BID, ASK)
    for second in range(BAR // SAMPLE_MS // 2 - 1):
        state.samples.sample(START + second * SAMPLE_MS)
    assert math.isnan(state.microstructure(START).spread_bps)
    state.samples.sample(START + BAR // 2)
    assert state.microstructure(START).spread_bps > 0
    assert math.isnan(state.microstructure(START + BAR).spread_bps)


def test_the_order_flow_of_a_bar_in_which_the_book_was_lost_is_unknown() -> None:
    state = symbol_state()
    push(state, "snapshot", 1, BID, ASK)
    for second in range(2 * BAR // SAMPLE_MS + 1):
        if second == 300:
            assert push(state, "delta", 9) is Outcome.LOST
            push(state, "snapshot", 10, BID, ASK)
        state.samples.sample(START + second * SAMPLE_MS)
    lost, whole = state.microstructure(START), state.microstructure(START + BAR)
    assert math.isnan(lost.ofi)
    assert lost.imbalance_10 == whole.imbalance_10
    assert whole.ofi == 0.0


def rest(seq: int, size: float = 5.0) -> RestBook:
    return RestBook(SYMBOL, [(100.0, size), (99.0, 2.0)], [(101.0, 7.0), (103.0, 1.0)], seq)


def test_a_book_is_audited_now_and_then() -> None:
    state = symbol_state()
    push(state, "snapshot", 7, BID, ASK)
    care = state.care
    assert care.commands(START) == []
    (command,) = care.commands(START + AUDIT_MS)
    assert command == FetchBook(START + AUDIT_MS, SYMBOL, 50)
    assert care.commands(START + AUDIT_MS + AUDIT_AGAIN_MS - 1) == []
    assert state.on_rest_book(rest(70), START + AUDIT_MS + 100) is Audit.PASSED
    assert care.commands(START + 2 * AUDIT_MS) == []
    assert care.commands(START + 2 * AUDIT_MS + 100)
    assert state.on_rest_book(rest(69), START + 2 * AUDIT_MS + 200) is Audit.SKIPPED
    assert care.commands(START + 2 * AUDIT_MS + 100 + AUDIT_AGAIN_MS)


def test_an_audit_that_the_stream_is_behind_of_waits_for_it() -> None:
    state = symbol_state()
    push(state, "snapshot", 6, [(100, 1)], [(101, 7), (103, 1)])
    assert state.on_rest_book(rest(70), START) is None
    push(state, "delta", 7, [(100, 5), (99, 2)])
    assert state.measure(START).audits_passed == 1
    push(state, "delta", 8, [(100, 6)])
    assert state.measure(START).audits_passed == 1


def test_a_failed_audit_or_any_violation_asks_for_a_new_snapshot_once_in_a_while() -> None:
    state = symbol_state()
    push(state, "snapshot", 7, BID, ASK)
    assert state.care.commands(START) == []
    assert state.on_rest_book(rest(70, size=4.0), START) is Audit.FAILED
    (command,) = state.care.commands(START + 1)
    assert isinstance(command, RenewBook)
    assert (command.topic, command.reason) == (state.book.topic, "differs from the REST book at update 7")
    assert state.care.commands(START + SOON_MS) == []
    assert len(state.care.commands(START + 1 + SOON_MS)) == 1
    state.on_feed(FeedChanged(START, START, SYMBOL, Feed.BOOK, True))
    assert state.book.state is State.EMPTY
    push(state, "snapshot", 1, BID, ASK)
    assert state.care.commands(START + 2) == []


def test_a_snapshot_that_never_comes_is_asked_for_again() -> None:
    state = symbol_state()
    assert state.care.commands(START) == []
    (command,) = state.care.commands(START + SNAPSHOT_MS)
    assert isinstance(command, RenewBook)


def test_a_book_that_is_lost_again_and_again_is_asked_for_more_rarely() -> None:
    state = symbol_state()
    push(state, "snapshot", u := 1, BID, ASK)
    assert state.care.commands(START) == []
    asked: list[int] = []
    for now in range(START, START + 20_000, 100):
        if state.book.state is not State.LIVE:
            if state.care.commands(now):
                asked.append(now - START)
                state.on_feed(FeedChanged(now, now, SYMBOL, Feed.BOOK, True))
                push(state, "snapshot", u := 1, BID, ASK)
        else:
            push(state, "delta", u := u + 2, BID)  # one is missing
    waits = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert waits[:3] == [SOON_MS, 2 * SOON_MS, LATER_MS]
    assert set(waits[3:]) == {LATER_MS}
    push(state, "delta", u + 2, BID)
    assert state.care.commands(START + 20_000 + STEADY_MS)  # after a good time, soon again
    assert state.care._pause == SOON_MS


# --- all of it ----------------------------------------------------------------------------------------------


def market() -> MarketState:
    state = MarketState(BAR)
    state.add(SYMBOL)
    return state


def make_healthy(state: MarketState, now: int = START) -> None:
    state.on_book(f"orderbook.50.{SYMBOL}", compact(message("snapshot", 7, BID, ASK)), now)
    state.on_event(TickerChanged(now, now, SYMBOL, True, mark_price=100.0))
    state.on_event(FeedChanged(now, now, SYMBOL, Feed.TRADES, True))


def faults_told(state: MarketState, now: int) -> list[tuple[str, ...]]:
    return [event.faults for event in state.tick(now).events if isinstance(event, MarketHealthChanged)]


def test_microstructure_precedes_the_last_bar_of_its_decision_bar() -> None:
    state = market()
    out = [
        event for index in range(30) for event in state.on_event(bar(index, 10, SYMBOL, interval=MINUTE_MS))
    ]
    kinds = [type(event).__name__ for event in out]
    once = ["BarClosed"] * 14 + ["LiquiditySampled", "MicrostructureSampled", "BarClosed"]
    assert kinds == once * 2
    assert [event.start for event in out if isinstance(event, MicrostructureSampled)] == [START, START + BAR]


def test_health_names_every_fault_and_its_changes_are_told() -> None:
    state = market()
    faults = state[SYMBOL].faults(START)
    assert faults[0] == "the book is empty: no snapshot yet"
    assert [fault.partition(":")[0] for fault in faults[1:]] == [feed.value for feed in DEADLINES]
    assert state.tick(START).events[0] == MarketHealthChanged(START, START, SYMBOL, faults)
    assert state.tick(START).events == []
    make_healthy(state)
    assert state.tick(START).events == [MarketHealthChanged(START, START, SYMBOL, ())]
    state.on_event(InstrumentStatusChanged(START, START, SYMBOL, TradingStatus.DELIVERING))
    (told,) = state.tick(START).events
    assert told == MarketHealthChanged(START, START, SYMBOL, ("the exchange's status is Delivering",))
    state.on_event(InstrumentStatusChanged(START, START, SYMBOL, TradingStatus.TRADING))
    state.on_event(TickerChanged(START, START, SYMBOL, False, last_price=104.0))
    assert faults_told(state, START) == [("the last price is more than 3% from the mark price",)]


def test_lost_bars_make_a_symbol_unusable_until_a_whole_decision_bar_has_come() -> None:
    state = market()
    make_healthy(state)
    minute = [bar(index, 100, SYMBOL, interval=MINUTE_MS) for index in range(60)]
    assert faults_told(state, START) == [()]
    for one in (*minute[:5], *minute[7:]):
        state.on_event(one)
        expected = ("bars are missing",) if minute[7].start <= one.start < minute[29].start else ()
        assert state[SYMBOL].faults(START) == expected
    assert state[SYMBOL].measure(START).bars_lost == 2


def test_bars_that_were_given_up_are_missing_before_the_next_one_comes_and_count_once() -> None:
    state = market()
    make_healthy(state)
    first, _, _, fourth = (bar(index, 100, SYMBOL, interval=MINUTE_MS) for index in range(4))
    state.on_event(first)
    state[SYMBOL].gaps.lose(first.ts, fourth.start, MINUTE_MS)
    assert state[SYMBOL].faults(START) == ("bars are missing",)
    state.on_event(fourth)
    state[SYMBOL].gaps.lose(first.ts, fourth.start, MINUTE_MS)
    assert state[SYMBOL].measure(START).bars_lost == 2


def test_all_that_is_counted_of_a_symbol_is_told_once_a_minute() -> None:
    state = market()
    make_healthy(state)
    book = state[SYMBOL]
    push(book, "delta", 8, [(100, 6)])
    push(book, "delta", 10, [(100, 7)])
    book.refused += 1
    state.on_book(book.book.topic, b"{", START)
    state.on_event(trade(START, price=0.0))

    def measured(now: int) -> list[MarketHealthMeasured]:
        return [event for event in state.tick(now).events if isinstance(event, MarketHealthMeasured)]

    (told,) = measured(START + 1_000)
    assert (told.symbol, told.book, told.book_losses, told.resyncs) == (SYMBOL, "stale", 1, 1)
    assert (told.refused, told.trades_lost, told.bars_lost, told.audits_failed) == (2, 1, 0, 0)
    assert told.ages == {Feed.BARS: None, Feed.BOOK: 1_000, Feed.TRADES: 1_000, Feed.TICKER: 1_000}
    assert measured(START + MINUTE_MS) == []
    assert len(measured(START + 1_000 + MINUTE_MS)) == 1


def test_liquidity_is_the_mean_book_of_the_bar_and_the_newest_ticker() -> None:
    state = symbol_state()
    push(state, "snapshot", 1, BID, [(100.05, 7), (103, 1)])
    state.on_ticker(
        TickerChanged(
            START, START, SYMBOL, True, last_price=100.0, mark_price=100.1, index_price=99.9,
            turnover_24h=5e6, open_interest=7.0, funding_rate=1e-4, next_funding_time=START + BAR,
        )
    )  # fmt: skip
    for second in range(BAR // SAMPLE_MS):
        state.samples.sample(START + second * SAMPLE_MS)
    seen = state.liquidity(START)
    assert (seen.ts, seen.start, seen.turnover_24h, seen.open_interest) == (START + BAR, START, 5e6, 7.0)
    assert (seen.last_price, seen.mark_price, seen.index_price) == (100.0, 100.1, 99.9)
    assert (seen.next_funding_rate, seen.next_funding_time) == (1e-4, START + BAR)
    assert seen.spread_bps == pytest.approx(0.05 / 100.025 * 1e4)
    assert seen.mid_price == 100.025
    assert (seen.bid_depth, seen.ask_depth) == pytest.approx((500.0, 7 * 100.05))
    assert math.isnan(state.liquidity(START + BAR).spread_bps)


@pytest.mark.parametrize(("late", "known"), [(0, True), (AHEAD_MS, True), (AHEAD_MS + 1, False)])
def test_a_bar_that_is_told_late_is_not_given_the_prices_of_its_future(late: int, known: bool) -> None:
    state, end = symbol_state(), START + BAR
    ticker = TickerChanged(
        end + late, end + late, SYMBOL, True, mark_price=100.0, next_funding_time=end + BAR
    )
    state.on_ticker(ticker)
    push(state, "snapshot", 1, BID, ASK, at=end + late)
    liquidity, _, _ = state.on_bar(bar(0, 100, SYMBOL))
    assert isinstance(liquidity, LiquiditySampled)
    assert (liquidity.mark_price == 100.0, liquidity.next_funding_time == end + BAR) == (known, known)
    assert (liquidity.mid_price == 100.5) == known


def test_a_lost_book_has_no_mid() -> None:
    state = symbol_state()
    assert math.isnan(state.liquidity(START).mid_price)
    push(state, "snapshot", 1, BID, ASK)
    assert state.liquidity(START).mid_price == 100.5
    push(state, "delta", 3, BID)
    assert math.isnan(state.liquidity(START).mid_price)


def test_the_order_flow_up_to_the_end_of_a_bar_is_in_its_sample() -> None:
    state = symbol_state()
    push(state, "snapshot", 1, BID, ASK)
    for second in range(BAR // SAMPLE_MS):
        state.samples.sample(START + second * SAMPLE_MS)
    push(state, "delta", 2, [(100, 9)])  # + 4, in the last second
    one = bar(0, 100, SYMBOL)
    _, sampled, _ = state.on_bar(replace(one, received=one.ts + 20))
    assert isinstance(sampled, MicrostructureSampled)
    assert sampled.ofi == 4.0


def test_a_moment_is_sampled_once() -> None:
    state = symbol_state()
    push(state, "snapshot", 1, BID, ASK)
    for _ in range(BAR // SAMPLE_MS):
        state.samples.sample(START)
        state.samples.sample(START - 1)
    assert math.isnan(state.microstructure(START).spread_bps)  # one sample is less than half


def test_a_stale_feed_and_a_lost_book_make_a_symbol_unusable() -> None:
    state = market()
    make_healthy(state)
    symbol = state[SYMBOL]
    assert symbol.faults(START) == ()
    later = START + DEADLINES[Feed.TICKER] + 1
    assert symbol.freshness.stale(later) == [Feed.BOOK, Feed.TICKER]
    assert len(symbol.faults(later)) == 2
    state.on_event(FeedChanged(later, later, SYMBOL, Feed.BOOK, False))
    assert symbol.book.state is State.EMPTY
    assert len(symbol.faults(later)) == 3


def test_a_book_whose_news_is_late_is_unusable_though_it_comes_all_the_time() -> None:
    state = market()
    make_healthy(state)
    symbol = state[SYMBOL]
    late = ("book: news comes more than 3 s late",)
    push(symbol, "delta", 8, [(100, 6)], lag=LATE_MS)
    assert symbol.faults(START + DEADLINES[Feed.BOOK]) == ()  # a quiet market is not a late one
    push(symbol, "delta", 9, [(100, 7)], lag=LATE_MS + 1)
    assert faults_told(state, START) == [late]
    push(symbol, "delta", 10, [(100, 8)], lag=70_000)
    assert faults_told(state, START) == []  # the same words while it lasts
    assert symbol.measure(START).lags == {Feed.BOOK: 70_000, Feed.TICKER: 0}
    push(symbol, "delta", 11, [(100, 9)], lag=80)
    assert faults_told(state, START) == [()]


def test_a_ticker_that_is_late_makes_a_symbol_unusable() -> None:
    state = market()
    make_healthy(state)
    for lag, faults in ((LATE_MS, ()), (LATE_MS + 1, ("ticker: news comes more than 3 s late",)), (50, ())):
        state.on_event(TickerChanged(START - lag, START, SYMBOL, False, mark_price=100.0))
        assert state[SYMBOL].faults(START) == faults


@pytest.mark.parametrize("frame", [compact(message("delta", 8, [(100, -1)])), b"{"])
def test_a_book_that_missed_an_unreadable_message_is_unusable_until_a_new_snapshot(frame: bytes) -> None:
    state = market()
    make_healthy(state)
    symbol = state[SYMBOL]
    symbol.samples.sample(START)
    assert symbol.tick(START) == []
    assert state.on_book(symbol.book.topic, frame, START) is Outcome.REJECTED
    assert symbol.book.state is State.STALE
    assert symbol.faults(START) == ("the book is stale: a message after update 7 could not be read",)
    (command,) = symbol.tick(START + 1)
    assert isinstance(command, RenewBook)
    symbol.on_feed(FeedChanged(START, START, SYMBOL, Feed.BOOK, False))
    push(symbol, "snapshot", 9, BID, ASK)
    assert symbol.faults(START) == ()
    assert math.isnan(symbol.samples.means(START).ofi)
    assert symbol.measure(START).refused == 1


def test_symbols_that_are_not_followed_are_passed_over() -> None:
    state = market()
    state.remove(SYMBOL)
    state.remove(SYMBOL)
    assert state.on_event(trade(START)) == []
    assert state.on_book(f"orderbook.50.{SYMBOL}", b"{}", START) is Outcome.IGNORED
    assert state.on_rest_book(rest(7), START) is None
    assert state.tick(START) == ([], [])


@pytest.mark.parametrize("symbol", ["LTCUSDT", "ADAUSDT"])
def test_a_recorded_stream_of_book_and_trades_gives_its_microstructure(symbol: str) -> None:
    path = RECORDED / symbol / "2021-04-17_v5shape.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no recorded stream at {path}")
    frames = gzip.decompress(path.read_bytes()).splitlines()
    span = 10_000
    first = int(json.loads(frames[0])["recv"])
    state = SymbolState(symbol, span, depth=25)
    state.on_feed(FeedChanged(0, first, symbol, Feed.TRADES, True))
    sampled, bought, sold = first, 0.0, 0.0
    start = first - first % span + span  # the first whole span
    for frame in frames:
        received = int(json.loads(frame)["recv"])
        while sampled + SAMPLE_MS <= received:
            sampled += SAMPLE_MS
            state.samples.sample(sampled)
        if b'"publicTrade' not in frame:
            assert state.on_book(frame, received) in (Outcome.APPLIED, Outcome.REPLACED)
            continue
        decoded = wire.decode(frame)
        assert isinstance(decoded, TradesMessage)
        for one in trades(decoded, received):
            state.on_trade(one)
            if start <= one.ts < start + span:
                bought += one.size * (one.side is Side.BUY)
                sold += one.size * (one.side is Side.SELL)
    seen = state.microstructure(start)
    assert 0 < seen.spread_bps < 20
    assert all(-1 <= value <= 1 for value in (seen.imbalance_5, seen.imbalance_10, seen.imbalance_50))
    assert abs(seen.microprice_bps) < seen.spread_bps / 2
    assert math.isfinite(seen.ofi)
    expected = (bought - sold) / (bought + sold) if bought + sold else 0.0
    assert seen.trade_imbalance == pytest.approx(expected)
