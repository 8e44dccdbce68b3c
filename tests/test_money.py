"""Prices and quantities on the instrument's grid."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from bot.core.money import limit_price, quantity, to_grid
from bot.core.types import Side
from tests.builders import instrument

STEPS = st.sampled_from(
    [Decimal(s) for s in ("0.0000001", "0.00001", "0.001", "0.01", "0.5", "1", "10", "5")]
)


@given(value=st.floats(1e-7, 1e9), step=STEPS)
def test_the_grid_value_is_a_multiple_of_the_step_within_one_step(value: float, step: Decimal) -> None:
    low, high = to_grid(value, step), to_grid(value, step, up=True)
    assert low % step == 0
    assert high % step == 0
    assert low <= Decimal(repr(value)) <= high
    assert high - low <= step


@given(value=st.floats(1e-7, 1e9), step=STEPS)
def test_a_grid_value_stays_where_it_is(value: float, step: Decimal) -> None:
    once = to_grid(value, step)
    assert to_grid(once, step) == to_grid(once, step, up=True) == once


def test_a_limit_price_is_never_worse_than_intended() -> None:
    contract = instrument(tick_size="0.05")
    assert limit_price(1.02, Side.BUY, contract) == Decimal("1.00")
    assert limit_price(1.02, Side.SELL, contract) == Decimal("1.05")


def test_a_quantity_is_rounded_down_and_prints_without_an_exponent() -> None:
    assert str(quantity(1234.9, instrument(qty_step="10"))) == "1230"
    assert quantity(0.00000019, instrument(qty_step="0.0000001")) == Decimal("0.0000001")
