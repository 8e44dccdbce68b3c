"""Average prices: exact, and the same whichever room asks."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from bot.core.folding import fold

QUANTITIES = st.integers(-50, 50).map(Decimal)
PRICES = st.integers(1, 2_000).map(lambda ticks: Decimal(ticks) / 10)


def test_adding_averages_reducing_keeps_and_turning_over_begins_anew() -> None:
    assert fold(Decimal(1), Decimal(100), Decimal(3), Decimal(104)) == (4, 103, 0)
    assert fold(Decimal(4), Decimal(103), Decimal(-1), Decimal(110)) == (3, 103, 1)
    assert fold(Decimal(-2), Decimal(50), Decimal(2), Decimal(40)) == (0, 50, -2)
    assert fold(Decimal(1), Decimal(100), Decimal(-3), Decimal(101)) == (-2, 101, 1)


@given(held=QUANTITIES, entry=PRICES, change=QUANTITIES, price=PRICES)
def test_no_value_is_made_or_lost(held: Decimal, entry: Decimal, change: Decimal, price: Decimal) -> None:
    """Cost of the old position + cost of the fill = cost of the new one + cost of what was closed."""
    if not held and not change:
        return
    after = fold(held, entry, change, price)
    assert after.qty == held + change
    cost = held * entry + change * price + after.closed * (price - entry)
    assert abs(after.qty * after.entry - cost) <= Decimal("1e-20")
    assert abs(after.closed) <= abs(held)


@given(held=QUANTITIES, entry=PRICES, change=QUANTITIES, price=PRICES)
def test_floats_follow_exact_books(held: Decimal, entry: Decimal, change: Decimal, price: Decimal) -> None:
    if not held and not change:
        return
    exact = fold(held, entry, change, price)
    rough = fold(float(held), float(entry), float(change), float(price))
    assert rough.qty == float(exact.qty)
    assert abs(rough.entry - float(exact.entry)) < 1e-9
