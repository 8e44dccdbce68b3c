"""When a symbol was ours, by what is on record: nothing of ours is outside, however often runs have died."""

import math
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from bot.storage.holding import Life, Sent, Span, spans_of

TEN, NONE = Decimal(10), Decimal(0)


def test_what_a_run_adopted_was_ours_from_its_start_on() -> None:
    adopting = Life(100, held=TEN, known=101)
    assert spans_of([adopting]) == [Span(100)]
    assert spans_of([adopting, Life(200, fills=[(210, -TEN)], held=NONE, known=210)]) == [Span(100, 210)]
    assert spans_of([adopting, Life(200), Life(300, held=NONE, known=301)]) == [Span(100, 301)]


def test_an_entry_that_two_orders_made_ends_when_both_have_and_nothing_is_held() -> None:
    both = [Sent(10, 12), Sent(11, 30)]  # one rests on after the stop
    life = Life(0, both, [(12, TEN), (20, -TEN)], NONE, 20)
    assert spans_of([life]) == [Span(10, 30)]


def test_a_clock_behind_the_exchanges_makes_no_end_of_a_beginning() -> None:
    life = Life(0, [Sent(15, 12)], [(12, TEN), (40, -TEN)], NONE, 40)
    assert spans_of([life]) == [Span(12, 40)]


def test_an_entry_that_came_to_nothing_was_ours_until_a_later_run_had_looked() -> None:
    died = Life(0, [Sent(10, None)])
    assert spans_of([died, Life(50)]) == [Span(10)]
    assert spans_of([died, Life(50), Life(100, held=NONE, known=105)]) == [Span(10, 105)]


@given(st.lists(st.tuples(st.sampled_from(["enter", "stop", "start"]), st.booleans()), max_size=20))
def test_everything_that_ever_was_ours_is_inside(steps: list[tuple[str, bool]]) -> None:
    """Of each step the run learns, or it dies before and another one looks at what is there."""
    now, held, certain = 0, NONE, True
    life = Life(now)
    lives, ours, exact = [life], list[int](), list[Span]()
    for step, is_seen in steps:
        now += 10
        if step == "enter" and not held:
            life.entries.append(Sent(now, now + 1 if is_seen else None))
            exact.append(Span(now))
            held, moved = TEN, TEN
        elif step == "stop" and held:
            exact[-1] = Span(exact[-1].since, now + 1)
            held, moved = NONE, -TEN
        else:
            moved = NONE
        if moved:
            ours.append(now + 1)
        if moved and is_seen:
            life.fills.append((now + 1, moved))
            life.held, life.known = held, now + 1
        if step == "start" or (moved and not is_seen):
            certain = certain and not (moved and not is_seen)
            inherited = bool(spans_of(lives)) and spans_of(lives)[-1].until == math.inf
            life = Life(now + 2)
            lives.append(life)
            if held or inherited:
                life.held, life.known = held, now + 3
    found = spans_of(lives)
    assert all(any(since <= ts <= until for since, until in found) for ts in ours)
    assert (bool(found) and found[-1].until == math.inf) == bool(held)
    if certain:
        assert found == exact
