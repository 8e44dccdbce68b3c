"""Any sequence, rendering and damage of messages, and recorded ones: never a wrong book."""

import gzip
import heapq
import json
import math
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.market import book_kernel as kernel
from bot.market.book import Audit, Book, Outcome, State
from bot.market.book_messages import decode, rest_book
from tests.book_frames import RECEIVED, SYMBOL, PlainBook, compact, live_book, message, send, state_of

SHARED = Path(__file__).parents[2] / "shared"


# --- numbers and renderings ---------------------------------------------------------------------------------

decimals = st.from_regex(r"(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?", fullmatch=True)
short_decimals = st.from_regex(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?", fullmatch=True)
scientific = st.from_regex(r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,12})?[eE][+-]?[0-9]{1,2}", fullmatch=True)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.one_of(decimals, short_decimals, scientific))
def test_numbers_become_the_doubles_that_python_makes_of_them(text: str) -> None:
    book = Book(SYMBOL)
    send(book, "snapshot", 1, [(1, text)])
    expected = float(text)
    got = book.bids()[0][1] if expected else 0.0
    assert struct.pack("d", got) == struct.pack("d", expected)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(short_decimals)
def test_numbers_of_up_to_fifteen_digits_take_the_fast_path(text: str) -> None:
    frame = compact(message("snapshot", 1, [(1, text)]))
    assert kernel.update(frame, Book(SYMBOL)._memory, 0) == kernel.REPLACED


def test_numbers_with_too_many_digits_take_the_general_path() -> None:
    for text in ("9007199254740993", "9" * 19, "9" * 30, "0.12345678901234567891", "1234567890.123456789012"):
        frame = compact(message("snapshot", 1, [(1, text)]))
        assert kernel.update(frame, Book(SYMBOL)._memory, 0) == kernel.OTHER_LAYOUT


def shuffled(value: Any, draw: Any) -> Any:
    if not isinstance(value, dict):
        return value
    keys = draw(st.permutations(sorted(value)))
    extra = {"x": draw(st.sampled_from([None, [1, {"b": []}], "x", 1.5]))} if draw(st.booleans()) else {}
    return {key: shuffled(value[key], draw) for key in keys} | extra


def as_numbers(levels: list[list[str]]) -> list[list[float]]:
    return [[float(price), float(size)] for price, size in levels]


@st.composite
def renderings(draw: Any, content: dict[str, Any]) -> bytes:
    """The message as some other program might legally write it."""
    content = json.loads(json.dumps(content))
    if draw(st.booleans()):
        content["data"] |= {side: as_numbers(content["data"][side]) for side in "ba"}
    if draw(st.booleans()):
        content["data"]["u"] = str(content["data"]["u"])
    if draw(st.booleans()):
        content = shuffled(content, draw)
    indent = draw(st.sampled_from([None, 0, 1]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", "\t:\r\n")]))
    text = json.dumps(content, indent=indent, separators=separators)
    if draw(st.booleans()):
        text = text.replace("o", "\\u006f")
    before, after = draw(st.sampled_from(["", " ", "\n"])), draw(st.sampled_from(["", " \n"]))
    return f"{before}{text}{after}".encode()


amounts = st.sampled_from(["0", "1", "2.5", "0.001", "12345.678"])
ticks = st.integers(95, 105).map(lambda tick: f"{tick / 10}")
side_changes = st.lists(st.tuples(ticks, amounts), max_size=4)


@st.composite
def arbitrary_messages(draw: Any) -> dict[str, Any]:
    """Well-formed, but crossed, out of order and contradictory as often as not."""
    kind = draw(st.sampled_from(["delta", "delta", "delta", "snapshot"]))
    u = draw(st.integers(1, 6))
    return message(kind, u, draw(side_changes), draw(side_changes), seq=u + draw(st.integers(-1, 1)), depth=3)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_the_fast_path_and_the_general_one_leave_the_same_bits(data: st.DataObject) -> None:
    fast, general, mixed = (Book(SYMBOL, depth=3) for _ in range(3))
    for content in data.draw(st.lists(arbitrary_messages(), min_size=1, max_size=8)):
        outcome = fast.update(compact(content), RECEIVED)
        assert general.update_any_layout(compact(content), RECEIVED) is outcome
        assert mixed.update(data.draw(renderings(content)), RECEIVED) is outcome
        assert state_of(fast) == state_of(general) == state_of(mixed)


def test_the_layout_of_the_exchange_takes_the_fast_path() -> None:
    for kind, outcome in (("snapshot", kernel.REPLACED), ("delta", kernel.IGNORED)):
        frame = compact(message(kind, 7, [("1.5", "2")], []))
        assert kernel.update(frame, Book(SYMBOL)._memory, 0) == outcome


# --- any sequence -------------------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(arbitrary_messages(), max_size=25))
def test_any_sequence_does_what_the_rules_say(contents: list[dict[str, Any]]) -> None:
    book, plain = Book(SYMBOL, depth=3), PlainBook(3)
    for content in contents:
        assert book.update(compact(content), RECEIVED).name.lower() == plain.update(content)
        assert book.state == plain.state
        assert book.bids() == sorted(plain.sides["b"].items(), reverse=True)
        assert book.asks() == sorted(plain.sides["a"].items())


@st.composite
def exchange_runs(draw: Any, depth: int = 4) -> list[tuple[dict[str, Any], Any]]:
    """Messages of a market with the book that it had after each: (message, (bids, asks)).

    At most one restart, from a high `u`: nothing in a delta says of which run of the service it is, so a
    displaced one of equal `u` can't be told apart.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mid, u, seq = 1000, 100, 1000
    book = {mid + k: int(rng.integers(1, 9)) for k in range(-9, 10) if k}
    run: list[tuple[dict[str, Any], Any]] = []
    before: list[dict[int, int]] = [{}, {}]
    for step in range(draw(st.integers(2, 25))):
        for tick in rng.integers(mid - 9, mid + 10, 4).tolist():
            book[tick] = int(rng.integers(0, 9))
        if rng.random() < 0.3:
            mid += int(rng.integers(-2, 3))
        book.pop(mid, None)
        bids = dict(sorted(((t, q) for t, q in book.items() if t < mid and q), reverse=True)[:depth])
        asks = dict(sorted((t, q) for t, q in book.items() if t > mid and q)[:depth])
        seq += int(rng.integers(1, 5))
        restarted, refreshed = rng.random() < 0.1 and u >= 100, rng.random() < 0.05
        u = 1 if restarted else u + 1
        if step == 0 or restarted or refreshed:
            content = message("snapshot", u, bids.items(), asks.items(), seq=seq, depth=depth)
        else:
            changes = [
                [(t, now.get(t, 0)) for t in {**old, **now} if old.get(t) != now.get(t)]
                for old, now in zip(before, (bids, asks), strict=True)
            ]
            content = message("delta", u, *changes, seq=seq, depth=depth)
        before = [bids, asks]
        run.append((content, (list(bids.items()), list(asks.items()))))
    return run


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_duplicates_gaps_and_reorderings_end_in_the_right_book_or_a_resync(data: st.DataObject) -> None:
    run = data.draw(exchange_runs())
    order = list(range(len(run)))
    for _ in range(data.draw(st.integers(0, 5))):
        edit = data.draw(st.sampled_from(["drop", "repeat", "move"]))
        at = data.draw(st.integers(0, len(order) - 1))
        to = data.draw(st.integers(0, len(order)))
        item = order[at] if edit == "repeat" or len(order) == 1 else order.pop(at)
        if edit != "drop":
            order.insert(to, item)
    book = Book(SYMBOL, depth=4)
    newest = -1
    for index in order:
        book.update(compact(run[index][0]), RECEIVED)
        newest = max(newest, index)
        if book.state is State.LIVE:
            assert (book.bids(), book.asks()) == run[newest][1]
        else:
            assert (book.bids(), book.asks()) == ([], [])
    if order == list(range(len(run))):
        assert book.state is State.LIVE


# --- any bytes ----------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_are_rejected_without_a_word(frame: bytes) -> None:
    book = live_book()
    before = state_of(book)
    assert book.update(frame, RECEIVED) is Outcome.REJECTED
    assert state_of(book) == before


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_message_does_the_same_by_both_paths(data: st.DataObject) -> None:
    frame = bytearray(compact(message("delta", 8, [("100.5", "2"), ("99", "0")], [("101", "3.25")])))
    junk = st.one_of(st.binary(max_size=3), st.sampled_from([b"0", b".", b"9" * 20]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(frame)))
        end = start + data.draw(st.integers(0, 3))
        frame[start:end] = data.draw(junk)
    fast, general = live_book(), live_book()
    assert fast.update(bytes(frame), RECEIVED) is general.update_any_layout(bytes(frame), RECEIVED)
    assert state_of(fast) == state_of(general)


def test_deep_nesting_and_broken_text_are_rejected() -> None:
    book = live_book()
    for frame in (b'{"x":' + b"[" * 100_000, b'{"topic":"\xff"}', b'{"topic":"\\ud800"}', b"", b"\0"):
        assert book.update(frame, RECEIVED) is Outcome.REJECTED


def test_every_beginning_of_a_message_is_rejected() -> None:
    frame = compact(message("delta", 8, [("100.5", "2")], [("101", "3.25")]))
    book = live_book()
    assert {book.update(frame[:end], RECEIVED) for end in range(len(frame))} == {Outcome.REJECTED}


def test_memory_does_not_grow() -> None:
    book = live_book()
    frames = [
        compact(message("delta", u, [(100 - u % 40, u % 7)], [(101 + u % 40, u % 5)]))
        for u in range(8, 4_000)
    ]
    for frame in frames[:100]:
        book.update(frame, RECEIVED)
    tracemalloc.start()
    try:
        for frame in frames[100:]:
            book.update(frame, RECEIVED)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert book.state is State.LIVE
    assert grown < 2_000


# --- recorded books -----------------------------------------------------------------------------------------

RECORDED = {  # symbol: lines of its file, of which some are trades
    "ADAUSDT": (380, 375),
    "BCHUSDT": (493, 478),
    "ETHUSDT": (294, 289),
    "LTCUSDT": (667, 647),
    "UNIUSDT": (224, 219),
}


def recorded(symbol: str, name: str, venue: str = "bybit-linear") -> list[bytes]:
    path = SHARED / "data" / "orderbook" / venue / symbol / name
    if not path.exists():
        pytest.skip(f"no recorded book at {path}")
    return gzip.decompress(path.read_bytes()).splitlines()


def replay(book: Book, frames: list[bytes]) -> Iterator[Outcome]:
    plain = PlainBook(book.depth)
    for frame in frames:
        outcome = book.update(frame, RECEIVED)
        yield outcome
        if outcome is not Outcome.REJECTED:
            assert outcome.name.lower() == plain.update(json.loads(frame))
            assert book.bids() == sorted(plain.sides["b"].items(), reverse=True)
            assert book.asks() == sorted(plain.sides["a"].items())


def assert_clean(book: Book, updates: int, rejected: int = 0) -> None:
    health = book.health(RECEIVED)
    assert (health.state, health.snapshots, health.updates) == (State.LIVE, 1, updates)
    assert (health.rejected, health.ignored, health.unknown_deletes) == (rejected, 0, 0)
    assert (health.gaps, health.crossings, health.overfull, health.disorders) == (0, 0, 0, 0)


@pytest.mark.parametrize("symbol", RECORDED)
def test_recorded_books_replay_with_the_stated_counts(symbol: str) -> None:
    lines, messages = RECORDED[symbol]
    frames = recorded(symbol, "2021-04-17_v5shape.jsonl.gz")
    book = Book(symbol, depth=25)
    outcomes = list(replay(book, frames))
    assert len(outcomes) == lines
    assert_clean(book, messages - 1, rejected=lines - messages)
    lean = Book(symbol, depth=25)  # without the recorder's extra key it is the layout of the exchange
    for frame in frames:
        head, _, _ = frame.partition(b',"recv":')
        if b'"topic":"orderbook' in head:
            assert kernel.update(head + b"}", lean._memory, RECEIVED) in (kernel.APPLIED, kernel.REPLACED)
    assert state_of(lean) == state_of(book)


def test_a_recorded_book_of_500_levels_replays() -> None:
    frames = recorded("XRPUSDT", "2024-12-01_ob500.jsonl.gz")
    book = Book("XRPUSDT", depth=500)
    assert Outcome.REJECTED not in list(replay(book, frames))
    assert_clean(book, 49)
    assert len(book.bids()) == len(book.asks()) == 500


@pytest.mark.slow
def test_a_real_book_of_thousands_of_levels_is_followed_through_its_best_fifty() -> None:
    """Another exchange's diffs, whose whole book is kept plainly; ours is sent how the best levels change."""
    lines = recorded("BTCUSDT", "2024-08-08_raw.jsonl.gz", "binance-usdm")
    whole: list[dict[float, float]] = [{}, {}]
    shown: list[dict[float, float]] = [{}, {}]
    book, snapshot, last, u = Book(SYMBOL), 0, 0, 0
    diffs = [line for line in lines if b"@depth" in line[:90] or b"lastUpdateId" in line[:90]]
    assert len(diffs) == 6551 + 1  # as stated, with its REST snapshot
    for number, line in enumerate(diffs[:1200]):
        data = json.loads(line)["msg"]
        if "lastUpdateId" in data:
            snapshot, sides = data["lastUpdateId"], (data["bids"], data["asks"])
        else:
            data = data["data"]
            assert data["pu"] == last or not last  # without a break, as stated
            last, sides = data["u"], (data["b"], data["a"])
            if not snapshot or last < snapshot:
                continue
        for side, changes in zip(whole, sides, strict=True):
            side |= {float(price): float(size) for price, size in changes}
            for price in [float(price) for price, size in changes if not float(size)]:
                del side[price]
        if number % 5:
            continue
        near = (heapq.nlargest(50, whole[0]), heapq.nsmallest(50, whole[1]))
        best = [{price: side[price] for price in prices} for side, prices in zip(whole, near, strict=True)]
        changes = [
            [*(now.items() - old.items()), *((price, 0) for price in old if price not in now)]
            for old, now in zip(shown, best, strict=True)
        ]
        shown, u = best, u + 1
        expected = Outcome.APPLIED if u > 1 else Outcome.REPLACED
        assert send(book, "delta" if u > 1 else "snapshot", u, *changes) is expected
        assert [dict(book.bids()), dict(book.asks())] == best
    assert_clean(book, u - 1)
    assert u > 200


def test_polled_books_of_many_symbols_are_snapshots_that_do_not_cross() -> None:
    paths = sorted((SHARED / "data" / "orderbook" / "bybit-top5").glob("*/*.parquet"))
    if not paths:
        pytest.skip(f"no recorded books at {SHARED / 'data' / 'orderbook' / 'bybit-top5'}")
    polled = 0
    for path in paths:
        frame, book = pd.read_parquet(path), Book(SYMBOL)
        for u, row in enumerate(frame.to_dict("records"), 1):
            sides = [[(row[f"{side}p{k}"], row[f"{side}q{k}"]) for k in range(5)] for side in "ba"]
            assert send(book, "snapshot", u, *sides) is Outcome.REPLACED
            assert [sorted(book.bids()), sorted(book.asks())] == list(map(sorted, sides))
            assert book.features().spread_bps > 0
        polled += len(frame)
    assert (len(paths), polled) == (44, 597)


def fixture(name: str) -> bytes:
    path = SHARED / "bybit" / "fixtures" / name
    if not path.exists():
        pytest.skip(f"no sample message at {path}")
    return path.read_bytes()


def test_the_captured_frames_of_the_exchange_replay() -> None:
    lines = fixture("capture-orderbook-500/nautilus__xrpusdt-ob500.data.jsonl").splitlines()
    book = Book("XRPUSDT", depth=500)
    outcomes = list(replay(book, [msgspec.json.encode(json.loads(line)["frame"]) for line in lines]))
    assert outcomes == [Outcome.REPLACED] + [Outcome.APPLIED] * 49
    assert_clean(book, 49)


def test_the_sample_snapshot_and_delta_of_the_spot_market_are_understood() -> None:
    book = Book("BTCUSDT")
    snapshot = fixture("ws-orderbook-snapshot/gct__bybit_test-L3028.json")
    delta = fixture("ws-orderbook-delta/gct__bybit_test-L3029.json")
    assert [book.update(frame, RECEIVED) for frame in (snapshot, delta)] == [
        Outcome.REPLACED,
        Outcome.APPLIED,
    ]
    assert (75848.89, 0.088149) in book.asks()
    assert 75837.13 not in dict(book.bids())


def test_a_snapshot_of_a_market_without_sellers_is_live_but_has_no_spread() -> None:
    book = Book("WEMIXUSDT")
    frame = fixture("ws-orderbook-snapshot/gct__bybit_test-L3513.json")
    assert book.update(frame, RECEIVED) is Outcome.REPLACED
    assert book.bids() == [(0.9511, 260.703)]
    assert math.isnan(book.features().spread_bps)
    assert book.health(RECEIVED).unknown_deletes == 1


@pytest.mark.parametrize(
    "name", ["ws-orderbook-rpi-delta/docs__orderbook-rpi-2.json", "ws-publicTrade/gct__bybit_test-L3030.json"]
)
def test_other_topics_are_not_books(name: str) -> None:
    assert decode(fixture(name)) is None


def test_the_sample_rest_book_can_audit() -> None:
    sample = rest_book(json.loads(fixture("rest-GET-market-orderbook/docs__orderbook-0.json")))
    assert (sample.s, sample.seq, sample.b, sample.a) == (
        "BTCUSDT",
        1432604333,
        [(65485.47, 47.081829)],
        [(65557.7, 16.606555)],
    )
    book = Book("BTCUSDT", depth=1)
    frame = message("snapshot", 5, sample.b, sample.a, seq=sample.seq, depth=1)
    frame["topic"], frame["data"]["s"] = "orderbook.1.BTCUSDT", "BTCUSDT"
    book.update(compact(frame), RECEIVED)
    assert book.audit(sample, limit=1) is Audit.PASSED
