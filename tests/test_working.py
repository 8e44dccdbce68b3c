"""Entries of several parts: never more than the whole, and always an end."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from bot.core.types import OrderRequest, OrderType, Side
from bot.execution.working import Amend, Cancel, Place, Work, work_of
from bot.settings import Execution
from tests.builders import START, enter, instrument

RULES = Execution(style="post_only", requote_seconds=10, deadline_seconds=60)


def whole(qty: str = "2") -> OrderRequest:
    return OrderRequest(
        link_id="w", symbol="NEWUSDT", side=Side.BUY, type=OrderType.MARKET, qty=Decimal(qty),
        stop_loss=Decimal(99),
    )  # fmt: skip


def work(rules: Execution = RULES, qty: str = "2", slices: int = 1) -> Work:
    return Work(whole(qty), enter(), instrument(), rules, START, slices)


def test_an_order_of_usual_size_needs_no_work() -> None:
    assert work_of(whole(), enter(), instrument(), Execution(), START, 5.0) is None
    patient = work_of(whole(), enter(), instrument(), RULES, START, 5.0)
    assert patient is not None
    assert patient.slices == 1


def test_slices_are_not_smaller_than_the_smallest_order() -> None:
    rules = Execution(twap_notional=100, twap_slices=50)
    found = work_of(whole(), enter(), instrument(), rules, START, 60.0)
    assert found is not None
    assert found.slices == 3


def test_a_quote_follows_the_price_not_faster_than_allowed() -> None:
    resting = work()
    part = resting.next(START, Decimal(100))
    assert part == Place(Decimal(2), Decimal(100))
    resting.sent("a", part, START)
    assert resting.next(START + 20_000, Decimal(100)) is None
    assert resting.next(START + 9_999, Decimal(101)) is None
    assert resting.next(START + 10_000, Decimal(101)) == Amend("a", Decimal(101))
    resting.amended(Decimal(101), START + 10_000)
    resting.filled(Decimal(1), Decimal(1))
    assert resting.next(START + 60_000, Decimal(102)) == Cancel("a")
    resting.cancelled()
    assert resting.next(START + 61_000, Decimal(102)) is None
    resting.ended()
    assert resting.next(START + 61_000, Decimal(102)) == Place(Decimal(1), None)


def test_a_quote_that_would_have_taken_is_tried_again_after_a_pause() -> None:
    resting = work()
    resting.sent("a", Place(Decimal(2), Decimal(100)), START)
    resting.ended()
    assert resting.next(START + 1, Decimal(100)) is None
    assert resting.next(START + 10_000, Decimal(100)) == Place(Decimal(2), Decimal(100))


STEPS = st.lists(
    st.tuples(
        st.integers(0, 30_000),
        st.sampled_from(["look", "fill", "fill part", "reject", "stop"]),
        st.integers(9_900, 10_100),
        st.booleans(),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 6), st.sampled_from(["cross", "give_up"]), st.integers(1, 40))
def test_parts_are_one_at_a_time_and_never_more_than_the_whole(
    steps: list[tuple[int, str, int, bool]], slices: int, at_deadline: str, tenths: int
) -> None:
    rules = Execution(
        style="post_only", requote_seconds=10, deadline_seconds=60, twap_seconds=60, at_deadline=at_deadline
    )  # type: ignore[arg-type]  # fmt: skip
    machine = work(rules, str(Decimal(tenths) / 10), slices)
    total, now, number, out = machine.whole.qty, START, 0, Decimal(0)
    filled = Decimal(0)
    stopped = False
    for wait, what, ticks, heeded in steps:
        now += wait
        if what == "stop":
            machine.stop()
            stopped = True
        elif what == "reject" and machine.link_id:
            machine.ended()
            out = Decimal(0)
        elif what.startswith("fill") and machine.link_id:
            qty = out if what == "fill" else min(out, Decimal("0.1"))
            out -= qty
            filled += qty
            machine.filled(qty, out)
        before = replace(machine)
        intent = machine.next(now, Decimal(ticks) / 100)
        if isinstance(intent, Place):
            assert not before.link_id
            assert not stopped
            assert 0 < intent.qty <= total - filled
            number += 1
            machine.sent(f"p{number}", intent, now)
            out = intent.qty
        elif isinstance(intent, Amend):
            assert intent.link_id == machine.link_id
            machine.amended(intent.price, now)
        elif isinstance(intent, Cancel):
            assert intent.link_id == machine.link_id
            machine.cancelled()
            if heeded:
                machine.ended()
                out = Decimal(0)
        assert filled + out + machine.unsent <= total
        assert machine.left == total - filled


@given(st.integers(1, 6), st.sampled_from(["cross", "give_up"]), st.integers(0, 3))
def test_every_work_comes_to_an_end(slices: int, at_deadline: str, luck: int) -> None:
    """Parts that fill by a share, or not at all."""
    rules = Execution(
        style="post_only", requote_seconds=5, deadline_seconds=60, twap_seconds=60, at_deadline=at_deadline
    )  # type: ignore[arg-type]  # fmt: skip
    machine = work(rules, "3", slices)
    for second in range(200):
        now = START + second * 1_000
        intent = machine.next(now, Decimal(100 + second % 3))
        if isinstance(intent, Place):
            machine.sent(f"p{second}", intent, now)
            part = (intent.qty * luck / 3).quantize(Decimal("0.1"))
            if part:
                machine.filled(part, intent.qty - part)
            if intent.price is None and machine.link_id:
                machine.ended()
        elif isinstance(intent, Cancel):
            machine.cancelled()
            machine.ended()
        elif isinstance(intent, Amend):
            machine.amended(intent.price, now)
    assert machine.over
    assert not machine.link_id
