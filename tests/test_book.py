"""The local order book is what the exchange has, or it says that it isn't."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.core.errors import DataError, UsageError
from bot.market import book_kernel as kernel
from bot.market.book import Audit, Book, Features, Outcome, State
from bot.market.book_messages import rest_book
from tests.book_frames import RECEIVED, SYMBOL, compact, live_book, message, send, state_of

ORACLES = Path(__file__).parent / "oracles"


# --- the protocol -------------------------------------------------------------------------------------------


def test_a_snapshot_makes_the_book_and_deltas_insert_replace_and_delete() -> None:
    book = live_book()
    assert send(book, "delta", 8, [(100, 6), ("100.5", 1)], [(101, 0), (102, 4)]) is Outcome.APPLIED
    assert book.bids() == [(100.5, 1), (100, 6), (99, 2)]
    assert book.asks() == [(102, 4), (103, 1)]
    assert book.bids(1) == [(100.5, 1)]
    assert book.state is State.LIVE


def test_levels_are_sorted_in_whatever_order_they_come() -> None:
    book = Book(SYMBOL)
    send(book, "snapshot", 1, [(98, 1), (100, 1), (99, 1)], [(103, 1), (101, 1), (102, 1)])
    send(book, "delta", 2, [(97, 1), ("99.5", 1)], [(104, 1), ("100.5", 1)])
    assert [price for price, _ in book.bids()] == [100, 99.5, 99, 98, 97]
    assert [price for price, _ in book.asks()] == [100.5, 101, 102, 103, 104]


def test_another_writing_of_a_price_is_the_same_level() -> None:
    book = live_book()
    send(book, "delta", 8, [("100.00", "0")], [("1.01e2", "3")])
    assert book.bids() == [(99, 2)]
    assert book.asks() == [(101, 3), (103, 1)]


def test_a_later_snapshot_replaces_everything() -> None:
    book = live_book()
    assert send(book, "snapshot", 20, [(50, 1)], [(51, 1)]) is Outcome.REPLACED
    assert (book.bids(), book.asks()) == ([(50, 1)], [(51, 1)])
    assert send(book, "delta", 21, [(49, 1)]) is Outcome.APPLIED


def test_a_snapshot_with_u_1_replaces_the_book_after_a_service_restart() -> None:
    book = live_book()
    assert send(book, "snapshot", 1, [(50, 1)], [(51, 1)], seq=71) is Outcome.REPLACED
    assert send(book, "delta", 2, [(49, 1)], seq=72) is Outcome.APPLIED
    assert book.bids() == [(50, 1), (49, 1)]


@pytest.mark.parametrize("u", [7, 6, 1])
def test_a_delta_that_is_not_newer_is_ignored(u: int) -> None:
    book = live_book()
    before = book.bids()
    assert send(book, "delta", u, [(100, 9)]) is Outcome.IGNORED
    assert book.bids() == before
    assert book.health(RECEIVED).ignored == 1
    assert send(book, "delta", 8, [(100, 9)]) is Outcome.APPLIED


def test_a_gap_in_u_loses_the_book_until_a_snapshot() -> None:
    book = live_book()
    assert send(book, "delta", 9, [(100, 9)]) is Outcome.LOST
    assert (book.state, book.bids(), book.asks()) == (State.STALE, [], [])
    assert book.health(RECEIVED).reason == "gap: update 9 came after 7"
    assert send(book, "delta", 10, [(100, 9)]) is Outcome.IGNORED
    assert send(book, "snapshot", 11, [(100, 9)], [(101, 1)]) is Outcome.REPLACED
    assert book.state is State.LIVE
    assert book.health(RECEIVED).gaps == 1


@pytest.mark.parametrize("price", [101, 102])
def test_a_locked_or_crossed_book_is_lost(price: int) -> None:
    book = live_book()
    assert send(book, "delta", 8, [(price, 1)]) is Outcome.LOST
    assert book.health(RECEIVED).reason == "best bid not below best ask after update 8"
    assert book.health(RECEIVED).crossings == 1


def test_more_levels_than_subscribed_to_lose_the_book() -> None:
    book = live_book(depth=2)
    assert send(book, "delta", 8, [(98, 1), (99, 0)]) is Outcome.APPLIED
    assert send(book, "delta", 9, [(97, 1)]) is Outcome.LOST
    assert book.health(RECEIVED).reason == "more than 2 levels on a side after update 9"


def test_a_thousand_levels_may_all_change_in_one_message() -> None:
    book = Book(SYMBOL, depth=1000)
    prices = range(10_000, 9_000, -1)
    send(book, "snapshot", 1, [(price, 1) for price in prices], [(20_000, 1)])
    moved = [(price + 1000, 2) for price in prices] + [(price, 0) for price in prices]
    assert send(book, "delta", 2, moved) is Outcome.APPLIED
    assert book.bids() == [(price + 1000, 2) for price in prices]


def test_deleting_an_unknown_level_is_counted_and_harmless() -> None:
    book = live_book()
    assert send(book, "delta", 8, [("99.5", 0)], [(200, 0)]) is Outcome.APPLIED
    assert book.health(RECEIVED).unknown_deletes == 2
    assert book.bids() == [(100, 5), (99, 2)]


def test_a_topic_of_depth_1_sends_snapshots_only_and_repeats_them() -> None:
    book = Book(SYMBOL, depth=1)
    for u, bid in ((5, 100), (9, 101), (9, 101), (30, 99)):
        assert send(book, "snapshot", u, [(bid, 2)], [(102, 3)]) is Outcome.REPLACED
        assert book.bids() == [(bid, 2)]
    assert book.health(RECEIVED).snapshots == 4


def test_a_delta_before_the_first_snapshot_is_ignored() -> None:
    book = Book(SYMBOL)
    assert send(book, "delta", 8, [(100, 9)]) is Outcome.IGNORED
    assert book.state is State.EMPTY
    assert book.health(RECEIVED).reason == "no snapshot yet"


@pytest.mark.parametrize(
    ("kind", "u", "seq"), [("snapshot", 6, 60), ("snapshot", 1, 10), ("delta", 8, 60), ("delta", 5, 90)]
)
def test_u_and_seq_that_contradict_each_other_lose_the_book(kind: str, u: int, seq: int) -> None:
    book = live_book()
    assert send(book, kind, u, [(100, 1)], [(101, 1)], seq=seq) is Outcome.LOST
    assert book.health(RECEIVED).disorders == 1


def test_a_new_subscription_may_begin_with_lower_numbers() -> None:
    book = live_book()
    send(book, "delta", 99)
    book.reset()
    assert book.state is State.EMPTY
    assert send(book, "snapshot", 3, [(100, 5)], [(101, 7)]) is Outcome.REPLACED
    assert book.health(RECEIVED).gaps == 1


@pytest.mark.parametrize(
    "change",
    [
        {"topic": "orderbook.200.XPLUSDT"},
        {"topic": "publicTrade.XPLUSDT"},
        {"type": "update"},
        {"ts": -1},
        {"data": None},
        {"data": {"s": "BTCUSDT", "b": [], "a": [], "u": 8, "seq": 80}},
        {"data": {"s": SYMBOL, "b": [], "u": 8, "seq": 80}},
        *(
            {"data": {"s": SYMBOL, "b": b, "a": [], "u": u, "seq": 80}}
            for b, u in [
                ([["0", "1"]], 8),
                ([["-1", "1"]], 8),
                ([["100", "-1"]], 8),
                ([["nan", "1"]], 8),
                ([["100", "inf"]], 8),
                ([["100", "1", "1"]], 8),
                ([["1_0", "1"]], 8),
                ([["100", "1"]] * (kernel.CAPACITY + 1), 8),
                ([], 0),
                ([], 2**63),
            ]
        ),
    ],
)
def test_what_is_no_message_of_this_book_is_rejected_and_counted(change: dict[str, Any]) -> None:
    book = live_book()
    before = state_of(book)
    assert book.update(compact(message("delta", 8) | change), RECEIVED) is Outcome.REJECTED
    assert state_of(book) == before
    assert book.health(RECEIVED).rejected == 1


def test_unknown_keys_and_a_missing_cts_are_tolerated() -> None:
    book = live_book()
    changed = message("delta", 8, [(100, 9)]) | {"recv": 1.5}
    del changed["cts"]
    assert book.update(compact(changed), RECEIVED) is Outcome.APPLIED
    assert book.lag == 98  # since `ts`


def test_impossible_depths_and_symbols_are_refused() -> None:
    for depth in (0, 1001):
        with pytest.raises(UsageError, match="1 to 1000"):
            Book(SYMBOL, depth)
    with pytest.raises(UsageError, match="too long"):
        Book("X" * 200)


def test_only_bytes_reach_the_parser() -> None:
    with pytest.raises(TypeError):
        live_book().update(memoryview(compact(message("delta", 8))), RECEIVED)  # type: ignore[arg-type]


# --- health -------------------------------------------------------------------------------------------------


def test_health_tells_how_old_a_book_is_and_how_late_its_last_delta_was() -> None:
    assert Book(SYMBOL).health(RECEIVED).receipt_age is None
    book = live_book()
    assert (book.health(RECEIVED + 900).receipt_age, book.lag) == (
        900,
        0,
    )  # a snapshot says when it changed
    send(book, "delta", 8, [(100, 6)])
    health = book.health(RECEIVED + 900)
    assert (health.lag, health.receipt_age, health.reason) == (100, 900, "")
    send(book, "snapshot", 9, [(100, 5)], [(101, 7)])
    assert book.lag == 0
    send(book, "delta", 10, [(100, 6)])
    book.reset()
    assert book.lag == 0


# --- audits -------------------------------------------------------------------------------------------------


def rest(seq: int, bids: Any, asks: Any, symbol: str = SYMBOL) -> Any:
    levels = message("snapshot", 1, bids, asks)["data"]
    return rest_book({"retCode": 0, "result": levels | {"s": symbol, "seq": seq, "ts": 1, "cts": 1}})


def test_an_audit_passes_when_rest_shows_the_same_levels_at_the_same_seq() -> None:
    book = live_book()
    assert book.audit(rest(70, [(100, 5), (99, 2)], [(101, 7), (103, 1)]), limit=50) is Audit.PASSED
    assert book.audit(rest(70, [(100, 5)], [(101, 7)]), limit=1) is Audit.PASSED
    assert book.health(RECEIVED).audits_passed == 2


@pytest.mark.parametrize(
    "bids", [[(100, 5)], [(100, 4), (99, 2)], [(100, 5), (98, 2)], [(100, 5), (99, 2), (98, 1)], []]
)
def test_an_audit_that_finds_a_difference_loses_the_book(bids: Any) -> None:
    book = live_book()
    assert book.audit(rest(70, bids, [(101, 7), (103, 1)]), limit=50) is Audit.FAILED
    health = book.health(RECEIVED)
    assert (health.state, health.audits_failed) == (State.STALE, 1)
    assert health.reason == "differs from the REST book at update 7"


def test_an_older_rest_book_is_compared_with_the_best_levels_of_its_time() -> None:
    book = live_book()
    send(book, "delta", 8, [(100, 6)])
    send(book, "delta", 9, [(100, 8)])
    assert book.audit(rest(80, [(100, 6), (42, 1)], [(101, 7)]), limit=50) is Audit.PASSED
    assert book.audit(rest(70, [(100, 6)], [(101, 7)]), limit=50) is Audit.FAILED


def test_a_rest_book_of_another_moment_is_not_compared() -> None:
    book = live_book()
    for seq in (69, 71):
        assert book.audit(rest(seq, [], []), limit=50) is Audit.SKIPPED
    assert book.state is State.LIVE
    assert book.health(RECEIVED).audits_skipped == 2


def test_an_audit_with_another_symbol_or_without_a_book_is_an_error() -> None:
    with pytest.raises(DataError, match="is of BTCUSDT"):
        live_book().audit(rest(70, [], [], symbol="BTCUSDT"), limit=50)
    with pytest.raises(DataError, match="retCode 10006"):
        rest_book({"retCode": 10006, "retMsg": "Too many visits!", "result": {}})


# --- features -----------------------------------------------------------------------------------------------


def test_features_follow_their_formulas() -> None:
    bids = [(100 - k / 10, 1 + k) for k in range(50)]
    asks = [(100.1 + k / 10, 2 + 3 * k) for k in range(50)]
    book = Book(SYMBOL, band_bps=50)
    send(book, "snapshot", 1, bids, asks)

    def imbalance(n: int) -> float:
        bought, sold = sum(size for _, size in bids[:n]), sum(size for _, size in asks[:n])
        return (bought - sold) / (bought + sold)

    mid = 100.05
    expected = Features(
        bid=100.0,
        bid_size=1.0,
        ask=100.1,
        ask_size=2.0,
        spread_bps=0.1 / mid * 1e4,
        microprice=(100 * 2 + 100.1 * 1) / 3,
        imbalance_5=imbalance(5),
        imbalance_10=imbalance(10),
        imbalance_50=imbalance(50),
        ofi=0.0,
        bid_depth=sum(price * size for price, size in bids if price >= mid * 0.995),
        ask_depth=sum(price * size for price, size in asks if price <= mid * 1.005),
    )
    assert book.features() == pytest.approx(expected, rel=1e-12)


def test_features_are_unknown_without_a_book() -> None:
    book = live_book()
    send(book, "delta", 99)
    features = book.features()
    assert features.ofi == 0.0
    assert all(math.isnan(value) for value in features._replace(ofi=math.nan))


def test_a_missing_side_leaves_unknown_what_needs_it() -> None:
    book = Book(SYMBOL)
    send(book, "snapshot", 1, [(100, 5)])
    features = book.features()
    assert (features.bid, features.bid_size, features.imbalance_5, features.ofi) == (100, 5, 1, 0)
    assert np.isnan([features.ask, features.spread_bps, features.microprice, features.bid_depth]).all()


def test_order_flow_accumulates_until_it_is_taken() -> None:
    book = live_book()
    send(book, "delta", 8, [(100, 9)])  # + 4
    send(book, "delta", 9, [], [(101, 10)])  # - 3
    assert book.features().ofi == 1
    assert book.take_ofi() == 1
    assert book.features().ofi == 0
    send(book, "delta", 10, [("100.5", 2)])
    assert book.take_ofi() == 2


def test_best_level_features_equal_the_oracle() -> None:
    oracle = np.load(ORACLES / "book.npz")
    book = Book(SYMBOL, depth=1)
    rows = []
    for u, (bid, bid_size, ask, ask_size) in enumerate(
        zip(*(oracle[name].tolist() for name in ("bid_px", "bid_sz", "ask_px", "ask_sz")), strict=True), 1
    ):
        assert send(book, "snapshot", u, [(bid, bid_size)], [(ask, ask_size)]) is Outcome.REPLACED
        features = book.features()
        rows.append((book.take_ofi(), features.microprice, features.imbalance_5, features.spread_bps))
    ofi, microprice, imbalance, spread = np.array(rows).T
    np.testing.assert_allclose(ofi, oracle["ofi_event"], rtol=1e-9, atol=1e-9)
    sums = np.convolve(ofi, np.ones(20))[20:200]
    np.testing.assert_allclose(sums, oracle["ofi_sum20"][20:], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(microprice, oracle["microprice"], rtol=1e-12)
    np.testing.assert_allclose(imbalance, oracle["queue_imbalance"], rtol=1e-12)
    np.testing.assert_allclose(spread, oracle["spread_bps"], rtol=1e-9)


@pytest.mark.parametrize("case", ["bid_up", "ask_up", "same_prices"])
def test_order_flow_equals_the_case_done_by_hand(case: str) -> None:
    hand = json.loads((ORACLES / "book.json").read_text())["hand_case"]
    book = Book(SYMBOL, depth=1)
    for u, name in enumerate(("prev", f"now_{case}"), 1):
        bid, bid_size, ask, ask_size = hand[name]
        send(book, "snapshot", u, [(bid, bid_size)], [(ask, ask_size)])
        if name == "prev":
            assert book.features().microprice == pytest.approx(hand["microprice_prev"])
    assert book.take_ofi() == pytest.approx(hand[f"ofi_{case}"])
