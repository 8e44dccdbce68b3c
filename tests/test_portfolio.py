"""Our books: exact from executions and funding, and equal to any other way of counting."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.events import FundingPaid, PositionAdopted, StopMoved
from bot.core.types import Side
from bot.engine.portfolio import Portfolio
from tests.builders import START, fill


def test_a_round_trip_leaves_the_difference_less_the_fees() -> None:
    books = Portfolio(Decimal(1000))
    books.apply_fill(fill(Side.BUY, "2", "100", fee="0.11"))
    assert books.apply_fill(fill(Side.SELL, "2", "103", fee="0.12")) is None
    assert books.balance == Decimal("1005.77")
    assert books.equity == pytest.approx(1005.77)
    assert books.positions == {}


def test_what_an_earlier_run_opened_is_as_old_as_it_is_and_what_nobody_knows_begins_now() -> None:
    books = Portfolio(Decimal(1000))
    books.restore({"NEWUSDT": START - 9}, {"NEWUSDT": START - 20})
    for symbol in ("NEWUSDT", "BYHAND"):
        books.adopt(adopted(symbol, "2"))
    assert {name: item.opened for name, item in books.positions.items()} == {
        "NEWUSDT": START - 9,
        "BYHAND": START,
    }
    books.adopt(adopted("NEWUSDT", "3", START + 5))  # less or more of the same
    assert books.positions["NEWUSDT"].opened == START - 9
    books.adopt(adopted("NEWUSDT", "-1", START + 6))  # another one
    assert books.positions["NEWUSDT"].opened == START + 6
    assert books.last_loss == {"NEWUSDT": START - 20}


def adopted(symbol: str, qty: str, ts: int = START) -> PositionAdopted:
    return PositionAdopted(ts, ts, symbol, Decimal(qty), Decimal(100), None, "held at the start")


def test_equity_follows_the_price_of_a_short() -> None:
    books = Portfolio(Decimal(1000))
    books.apply_fill(fill(Side.SELL, "3", "50"))
    assert books.mark("NEWUSDT", 48.0) == books.pnl("NEWUSDT") == pytest.approx(6.0)
    assert books.equity == pytest.approx(1006.0)
    assert books.gross_notional == pytest.approx(144.0)


def test_adding_averages_the_entry_and_reducing_keeps_it() -> None:
    books = Portfolio(Decimal(1000))
    books.apply_fill(fill(Side.BUY, "1", "100"))
    books.apply_stop(StopMoved(START, START, "NEWUSDT", Decimal(99)))
    added = books.apply_fill(fill(Side.BUY, "3", "104"))
    assert added is not None
    assert added.entry == 103
    reduced = books.apply_fill(fill(Side.SELL, "1", "110"))
    assert reduced is not None
    assert (reduced.entry, reduced.qty, reduced.stop) == (103, 3, 99)
    assert books.balance == 1007


def test_turning_over_opens_at_the_new_price_without_the_old_stop() -> None:
    books = Portfolio(Decimal(1000))
    books.apply_fill(fill(Side.BUY, "1", "100"))
    books.apply_stop(StopMoved(START, START, "NEWUSDT", Decimal(99)))
    turned = books.apply_fill(fill(Side.SELL, "3", "101"))
    assert turned is not None
    assert (turned.qty, turned.entry, turned.stop) == (-2, 101, None)
    assert books.balance == 1001


def test_funding_is_positive_when_we_pay() -> None:
    books = Portfolio(Decimal(1000))
    books.apply_funding(FundingPaid(START, START, "f", "NEWUSDT", Decimal("0.25"), 0.0001))
    assert books.balance == Decimal("999.75")


@given(
    st.lists(
        st.tuples(st.sampled_from(Side), st.integers(1, 50), st.integers(1, 2000), st.integers(0, 9)),
        max_size=40,
    )
)
def test_equity_equals_cash_flow_plus_the_value_of_what_is_held(
    fills: list[tuple[Side, int, int, int]],
) -> None:
    books = Portfolio(Decimal(10_000))
    cash, held, last = Decimal(10_000), Decimal(0), Decimal(1)
    for side, qty, price, fee in fills:
        last = Decimal(price) / 10
        books.apply_fill(fill(side, str(qty), str(last), fee=str(fee)))
        cash -= side.sign * qty * last + fee
        held += side.sign * qty
        books_held = books.positions["NEWUSDT"].qty if "NEWUSDT" in books.positions else Decimal(0)
        assert books_held == held
        assert books.equity == pytest.approx(float(cash + held * last), abs=1e-6)
