"""Live bars come out as a recorded market would give them, whatever the order in which they came in."""

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bot.core.events import BarClosed
from bot.core.types import MINUTE_MS
from bot.market.sequencer import Arrival, BarSequencer
from tests.builders import START, bar

SOURCES = ("BTCUSDT", "ETHUSDT")
SYMBOLS = ("AUSDT", *SOURCES, "ZUSDT")


def minute(index: int, symbol: str) -> BarClosed:
    return bar(index, 100.0, symbol, interval=MINUTE_MS)


def following(*symbols: str) -> BarSequencer:
    sequencer = BarSequencer(MINUTE_MS, SOURCES)
    for symbol in symbols:
        sequencer.follow(symbol, START)
    return sequencer


def ids(bars: list[BarClosed]) -> list[tuple[int, str]]:
    return [((item.start - START) // MINUTE_MS, item.symbol) for item in bars]


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_any_order_in_gives_the_recorded_order_out(seed: int, minutes: int) -> None:
    sequencer = following(*SYMBOLS)
    bars = [minute(index, symbol) for index in range(minutes) for symbol in SYMBOLS]
    bars += bars[:3]
    random.Random(seed).shuffle(bars)
    out: list[BarClosed] = []
    arrivals = []
    for item in bars:
        arrivals.append(sequencer.offer(item))
        out += sequencer.ready()
    order = ("BTCUSDT", "ETHUSDT", "AUSDT", "ZUSDT")
    assert ids(out) == [(index, symbol) for index in range(minutes) for symbol in order]
    assert (arrivals.count(Arrival.TAKEN), arrivals.count(Arrival.KNOWN)) == (len(out), 3)


def test_a_moment_waits_for_its_last_bar_and_says_for_whom() -> None:
    sequencer = following(*SOURCES)
    sequencer.offer(minute(0, "BTCUSDT"))
    assert sequencer.ready() == []
    assert sequencer.lacking(START + MINUTE_MS) == [("ETHUSDT", START, START + MINUTE_MS)]
    assert sequencer.lacking(START) == []
    assert sequencer.behind(START + 3 * MINUTE_MS) == ("BTCUSDT", 2 * MINUTE_MS)
    sequencer.offer(minute(0, "ETHUSDT"))
    assert ids(sequencer.ready()) == [(0, "BTCUSDT"), (0, "ETHUSDT")]


def test_a_gap_is_asked_for_between_the_bars_that_are_there() -> None:
    sequencer = following("BTCUSDT")
    for index in (0, 3):
        sequencer.offer(minute(index, "BTCUSDT"))
    sequencer.ready()
    first, end = START + MINUTE_MS, START + 3 * MINUTE_MS
    assert sequencer.lacking(START + 4 * MINUTE_MS) == [("BTCUSDT", first, end)]
    sequencer.skip("BTCUSDT", first, end)
    assert ids(sequencer.ready()) == [(3, "BTCUSDT")]


def test_a_token_that_is_listed_later_catches_up_alone_and_then_joins() -> None:
    sequencer = following(*SOURCES)
    for index in range(3):
        for symbol in SOURCES:
            sequencer.offer(minute(index, symbol))
    assert len(sequencer.ready()) == 6
    sequencer.follow("NEWUSDT", START + MINUTE_MS)
    for index in (1, 2, 3):
        sequencer.offer(minute(index, "NEWUSDT"))
    assert ids(sequencer.ready()) == [(1, "NEWUSDT"), (2, "NEWUSDT")]
    for symbol in SOURCES:
        sequencer.offer(minute(3, symbol))
    assert ids(sequencer.ready()) == [(3, "BTCUSDT"), (3, "ETHUSDT"), (3, "NEWUSDT")]


def test_nobody_waits_for_long_and_a_late_bar_is_told_all_the_same() -> None:
    sequencer = following(*SOURCES)
    sequencer.offer(minute(0, "BTCUSDT"))
    assert sequencer.ready(START + MINUTE_MS - 1) == []
    assert ids(sequencer.ready(START + MINUTE_MS)) == [(0, "BTCUSDT")]
    sequencer.offer(minute(1, "BTCUSDT"))
    sequencer.offer(minute(0, "ETHUSDT"))
    assert ids(sequencer.ready(START + MINUTE_MS)) == [(0, "ETHUSDT")]


def test_nobody_waits_for_a_symbol_that_is_gone() -> None:
    sequencer = following(*SOURCES, "NEWUSDT")
    for symbol in SOURCES:
        sequencer.offer(minute(0, symbol))
    assert sequencer.ready() == []
    sequencer.drop("NEWUSDT")
    assert len(sequencer.ready()) == 2


def test_a_bar_that_comes_again_is_told_once_and_a_correction_is_known_as_one() -> None:
    sequencer = following("BTCUSDT")
    assert sequencer.offer(minute(0, "BTCUSDT")) is Arrival.TAKEN
    assert len(sequencer.ready()) == 1
    for price, arrival in ((100.0, Arrival.KNOWN), (101.0, Arrival.CORRECTED)):
        assert sequencer.offer(bar(0, price, "BTCUSDT", interval=MINUTE_MS)) is arrival
    assert sequencer.ready() == []
    assert sequencer.offer(minute(0, "ETHUSDT")) is Arrival.PASSED
    assert sequencer.offer(minute(-1, "BTCUSDT")) is Arrival.PASSED


def test_a_bar_that_is_corrected_while_it_waits_is_told_as_corrected() -> None:
    sequencer = following("BTCUSDT")
    for index, price, arrival in (
        (1, 10.0, Arrival.TAKEN), (1, 11.0, Arrival.CORRECTED), (0, 10.0, Arrival.TAKEN),
    ):  # fmt: skip
        assert sequencer.offer(bar(index, price, "BTCUSDT", interval=MINUTE_MS)) is arrival
    assert [one.close for one in sequencer.ready()] == [10.0, 11.0]


def test_unknown_turnover_makes_no_correction() -> None:
    sequencer = following("BTCUSDT")
    for arrival in (Arrival.TAKEN, Arrival.KNOWN):
        assert sequencer.offer(replace(minute(0, "BTCUSDT"), turnover=float("nan"))) is arrival


def test_bars_that_wait_for_a_missing_one_are_bounded_and_none_is_lost() -> None:
    sequencer, count = following("BTCUSDT"), 3_000
    for index in range(1, count):
        sequencer.offer(minute(index, "BTCUSDT"))
    assert len(sequencer._held["BTCUSDT"]) < count - 1
    out: list[BarClosed] = []
    while lacking := sequencer.lacking(START + count * MINUTE_MS):
        _, first, end = lacking[0]
        for start in range(first, end, MINUTE_MS):
            sequencer.offer(minute((start - START) // MINUTE_MS, "BTCUSDT"))
        out += sequencer.ready()
    assert ids(out) == [(index, "BTCUSDT") for index in range(count)]


def test_bars_that_were_given_up_are_late_afterwards() -> None:
    sequencer = following("BTCUSDT")
    sequencer.offer(minute(2, "BTCUSDT"))
    sequencer.skip("BTCUSDT", START, START + 2 * MINUTE_MS)
    assert ids(sequencer.ready()) == [(2, "BTCUSDT")]
    assert sequencer.offer(minute(1, "BTCUSDT")) is Arrival.LATE
    assert sequencer.ready() == []
