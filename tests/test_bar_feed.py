"""Confirmed bars reach their users in order: holes are asked for, repetitions seen through."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bot.core.commands import FetchBars
from bot.core.errors import DataError
from bot.core.events import BarClosed
from bot.core.types import MINUTE_MS
from bot.market.bar_feed import GRACE_MS, HELD, PATIENCE_MS, RETRY_MS, BarFeed
from tests.builders import START, bar

SYMBOL = "NEWUSDT"


def minute(index: int, price: float = 10.0) -> BarClosed:
    return bar(index, price, interval=MINUTE_MS)


def feed(next_start: int | None = START) -> BarFeed:
    return BarFeed(SYMBOL, MINUTE_MS, next_start)


def indices(bars: list[BarClosed]) -> list[int]:
    return [(one.start - START) // MINUTE_MS for one in bars]


def asked(commands: list[FetchBars]) -> list[tuple[int, int]]:
    return [((c.first - START) // MINUTE_MS, (c.end - START) // MINUTE_MS) for c in commands]


def test_bars_in_order_pass_at_once() -> None:
    bars = feed()
    assert [indices(bars.take(minute(i))) for i in range(3)] == [[0], [1], [2]]
    assert bars.commands(minute(2).ts + GRACE_MS) == []


def test_the_first_bar_may_be_any() -> None:
    bars = feed(None)
    assert bars.commands(START) == []
    assert bars.missing(START) == 0
    assert indices(bars.take(minute(7))) == [7]


def test_a_bar_behind_a_hole_waits_until_the_hole_is_filled() -> None:
    bars = feed()
    bars.take(minute(0))
    assert bars.take(minute(3)) == []
    now = minute(3).ts
    assert asked(bars.commands(now)) == [(1, 3)]
    assert bars.missing(now) == 2
    assert indices(bars.take(minute(1))) == [1]
    assert indices(bars.take(minute(2))) == [2, 3]
    assert bars.missing(now) == 0
    assert (bars.lost, bars.late) == (0, 0)


def test_every_hole_is_asked_for_and_not_too_often() -> None:
    bars = feed()
    for index in (2, 5):
        bars.take(minute(index))
    now = minute(5).ts
    command = FetchBars(now, SYMBOL, MINUTE_MS, START, START + 2 * MINUTE_MS)
    assert bars.commands(now)[0] == command
    assert bars.commands(now + RETRY_MS - 1) == []
    assert asked(bars.commands(now + RETRY_MS)) == [(0, 2), (3, 5)]


def test_a_bar_that_nobody_announced_is_asked_for_once_it_should_be_there() -> None:
    bars = feed()
    bars.take(minute(0))
    due = minute(1).ts + GRACE_MS
    assert bars.commands(due - 1) == []
    assert asked(bars.commands(due)) == [(1, 2)]
    assert bars.missing(due) == 1


def test_a_hole_that_nobody_fills_becomes_a_gap_and_its_bars_are_late_afterwards() -> None:
    bars = feed()
    bars.take(minute(0))
    bars.take(minute(3))
    assert bars.give_up(minute(3).received + PATIENCE_MS) == []
    assert indices(bars.give_up(minute(3).received + PATIENCE_MS + 1)) == [3]
    assert bars.lost == 2
    assert bars.take(minute(1)) == []
    assert bars.late == 1
    assert indices(bars.take(minute(4))) == [4]


def test_a_bar_that_comes_again_is_used_once_and_a_correction_is_counted() -> None:
    bars = feed()
    bars.take(minute(0))
    assert bars.take(minute(0)) == []
    assert bars.take(minute(0, 11.0)) == []
    assert (bars.repeated, bars.corrected, bars.late) == (1, 1, 0)


def test_a_bar_that_is_corrected_while_it_waits_is_used_as_corrected() -> None:
    bars = feed()
    bars.take(minute(1, 10.0))
    bars.take(minute(1, 11.0))
    assert [one.close for one in bars.take(minute(0))] == [10.0, 11.0]
    assert bars.corrected == 1


def test_unknown_turnover_makes_no_correction() -> None:
    bars = feed()
    for _ in range(2):
        bars.take(replace(minute(0), turnover=float("nan")))
    assert (bars.repeated, bars.corrected) == (1, 0)


def test_memory_is_bounded_when_a_hole_is_never_filled() -> None:
    bars = feed()
    given_out = [one for index in range(1, 3 * HELD, 2) for one in bars.take(minute(index))]
    assert len(given_out) > HELD / 3
    assert len(bars._held) <= HELD
    assert len(bars._given) <= HELD


def test_a_bar_of_another_symbol_or_interval_is_an_error() -> None:
    for wrong in (bar(0, 10.0, "OTHERUSDT", interval=MINUTE_MS), bar(0, 10.0)):
        with pytest.raises(DataError, match="is none of"):
            feed().take(wrong)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 0.5), st.floats(0, 0.5))
def test_with_repair_every_order_of_arrival_gives_every_bar_once_and_in_order(
    seed: int, count: int, lost: float, repeated: float
) -> None:
    rng = random.Random(seed)
    every = [minute(i) for i in range(count)]
    arrivals = [one for one in every if rng.random() >= lost]
    arrivals += [one for one in every if rng.random() < repeated]
    rng.shuffle(arrivals)
    bars = feed()
    out = [one for arrival in arrivals for one in bars.take(arrival)]
    now = every[-1].ts + GRACE_MS
    for request in bars.commands(now):
        answer = [one for one in every if request.first <= one.start < request.end]
        out += [one for arrival in answer for one in bars.take(arrival)]
    assert out == every
    assert bars.missing(now) == bars.lost == bars.late == 0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 10))
def test_without_repair_the_order_still_holds_and_nothing_is_used_twice(
    order: list[int], patience: int
) -> None:
    bars = feed(None)
    out: list[BarClosed] = []
    for count, index in enumerate(order):
        out += bars.take(minute(index))
        if count % patience == 0:
            out += bars.give_up(START + 10**9)
    used = indices(out)
    assert used == sorted(set(used))
