"""Stops move towards the price only, and no position stays without one."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from bot.core.types import Position, Side
from bot.execution.protection import Close, Move, Protection
from bot.settings import Risk
from risk.stops import due_stop
from tests.builders import BAR, START, instrument

NEW = instrument(tick_size="0.01")


def held(side: Side = Side.BUY, stop: str | None = None, entry: str = "100") -> Position:
    return Position(
        symbol="NEWUSDT", qty=Decimal(2) * side.sign, entry=Decimal(entry), opened=START,
        stop=None if stop is None else Decimal(stop),
    )  # fmt: skip


def test_without_a_stop_the_planned_one_is_due_and_without_a_plan_the_widest() -> None:
    assert due_stop(held(), Decimal("99.2"), 100, NEW, Risk()) == Decimal("99.20")
    assert due_stop(held(), None, 100, NEW, Risk()) == Decimal("98.50")
    assert due_stop(held(), Decimal("97"), 100, NEW, Risk()) == Decimal("98.50")  # planned before a bad fill
    assert due_stop(held(), Decimal("101"), 100, NEW, Risk()) == Decimal("98.50")  # of another position


def test_by_default_a_good_stop_stays_whatever_the_price_does() -> None:
    assert due_stop(held(stop="99"), Decimal("99"), 150, NEW, Risk()) is None


def test_break_even_waits_for_its_gain() -> None:
    risk = Risk(break_even_stops=1.0)
    assert due_stop(held(stop="99"), Decimal("99"), 100.9, NEW, risk) is None
    assert due_stop(held(stop="99"), Decimal("99"), 101.0, NEW, risk) == Decimal("100.00")
    assert due_stop(held(Side.SELL, "101"), Decimal("101"), 99.0, NEW, risk) == Decimal("100.00")


def test_trailing_follows_in_steps() -> None:
    risk = Risk(trailing_stops=2.0)
    assert due_stop(held(stop="99"), Decimal("99"), 101.05, NEW, risk) is None  # less than a step
    assert due_stop(held(stop="99"), Decimal("99"), 102.0, NEW, risk) == Decimal("99.96")


@given(
    side=st.sampled_from(Side), planned=st.none() | st.integers(9_000, 11_000),
    moves=st.lists(st.floats(-0.02, 0.02), max_size=30), trailing=st.sampled_from([0, 0.5, 1, 3]),
    break_even=st.sampled_from([0, 0.5, 2]),
)  # fmt: skip
def test_a_stop_is_never_loosened_nor_beyond_the_limit(
    side: Side, planned: int | None, moves: list[float], trailing: float, break_even: float
) -> None:
    risk = Risk(trailing_stops=trailing, break_even_stops=break_even)
    price = best = 100.0
    position, plan = held(side), None if planned is None else Decimal(planned) / 100
    for move in moves:
        price *= 1 + move
        best = max(best, price) if side is Side.BUY else min(best, price)
        stop = due_stop(position, plan, best, NEW, risk)
        if stop is None:
            continue
        if position.stop is not None:
            assert (stop - position.stop) * side.sign > 0
        assert (position.entry - stop) * side.sign <= Decimal("1.5")
        assert (Decimal(repr(best)) - stop) * side.sign >= 0
        position = structs.replace(position, stop=stop)


@given(
    sounds=st.lists(
        st.tuples(st.integers(0, 40_000), st.floats(95, 105), st.sampled_from(["none", "good"])), max_size=40
    ),
    planned=st.none() | st.just(Decimal("99.5")),
)
def test_a_position_gets_a_stop_or_is_closed_within_the_limit(
    sounds: list[tuple[int, float, str]], planned: Decimal | None
) -> None:
    """Facts at any intervals, of which some are longer than the limit: what counts is that time was given."""
    protection = Protection(Risk(naked_seconds=30), BAR)
    protection.plan("NEWUSDT", planned)
    now, asked = START, None
    first = START + (sounds[0][0] if sounds else 0)
    for wait, price, stop in sounds:
        now += wait
        position = held(stop="99" if stop == "good" else None)
        due = protection.look(position, NEW, price, min(now, START + 90 * BAR), now)
        if stop == "good":
            asked = None
            continue
        if asked is not None and now - asked >= 30_000:
            assert isinstance(due, Close)
        if isinstance(due, Move):
            asked = now if asked is None else asked
            assert due.stop < price
        elif due is None and asked is None:
            assert now - first < 2_000  # its stop is still travelling inside the entry
