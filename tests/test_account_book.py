"""The story of an order, told in any order, with parts missing and parts twice, is booked the same."""

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bot.core.events import Event, OrderAccepted, OrderCancelled, OrderFilled, OrderRejected, StopMoved
from bot.core.types import OrderRequest, OrderType, Side
from bot.exchange.bybit.account_book import AccountBook
from bot.exchange.bybit.wire.private import Execution, Order, Position

NOW = 1_750_000_000_000
LINK, SYMBOL = "t-1", "NEWUSDT"
Message = Order | Execution | Position


def order(status: str, executed: int, qty: int = 10) -> Order:
    return Order(
        order_id="o", symbol=SYMBOL, side=Side.BUY, order_type="Market", order_status=status,
        qty=Decimal(qty), order_link_id=LINK, cum_exec_qty=Decimal(executed), cancel_type="CancelByUser",
        updated_time=NOW,
    )  # fmt: skip


def execution(number: int, qty: int) -> Execution:
    return Execution(
        symbol=SYMBOL, exec_id=f"e-{number}", exec_price=Decimal(100), exec_qty=Decimal(qty), side=Side.BUY,
        exec_time=NOW, order_id="o", exec_type="Trade", order_link_id=LINK, exec_fee=Decimal(1),
        leaves_qty=Decimal(0),
    )  # fmt: skip


def position(size: int, stop: str = "99") -> Position:
    return Position(
        symbol=SYMBOL, size=Decimal(size), side="Buy" if size else "", stop_loss=Decimal(stop),
        updated_time=NOW,
    )  # fmt: skip


def book(qty: int = 10) -> AccountBook:
    made = AccountBook()
    request = OrderRequest(
        link_id=LINK, symbol=SYMBOL, side=Side.BUY, type=OrderType.MARKET, qty=Decimal(qty)
    )
    made.track(request)
    return made


def tell(made: AccountBook, *messages: Message) -> list[Event]:
    out: list[Event] = []
    for message in messages:
        if isinstance(message, Order):
            out += made.on_order(message, NOW)
        elif isinstance(message, Execution):
            out += made.on_execution(message, NOW)
        else:
            out += made.on_position(message, NOW)
    return out


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Message], int, bool]:
    """Messages of one order, shuffled and some repeated; what was filled, and whether it was cancelled."""
    parts = draw(st.lists(st.integers(1, 4), min_size=0, max_size=4).filter(lambda found: sum(found) <= 10))
    filled = sum(parts)
    messages: list[Message] = [execution(number, qty) for number, qty in enumerate(parts)]
    messages.append(order("New", 0))
    done, so_far = filled == 10, 0
    for qty in parts:
        so_far += qty
        messages.append(order("Filled" if so_far == 10 else "PartiallyFilled", so_far))
    if not done:
        messages.append(order("Cancelled", filled))
    if filled:
        messages.append(position(filled))
    messages += draw(st.lists(st.sampled_from(messages), max_size=4))
    return draw(st.permutations(messages)), filled, done


@given(stories())
def test_each_execution_is_booked_once_and_an_order_ends_once_after_them(
    story: tuple[list[Message], int, bool],
) -> None:
    messages, filled, done = story
    made = book()
    events = tell(made, *messages)
    fills = [event for event in events if isinstance(event, OrderFilled)]
    assert sum(event.qty for event in fills) == filled
    assert len({event.exec_id for event in fills}) == len(fills)
    assert not made.is_open(LINK)
    endings = [event for event in events if isinstance(event, OrderCancelled | OrderRejected)]
    assert len(endings) == (0 if done else 1)
    if endings and fills:
        assert events.index(endings[0]) > events.index(fills[-1])
    if done:
        assert fills[-1].leaves_qty == 0
    assert len([event for event in events if isinstance(event, OrderAccepted)]) <= 1
    assert made.quantities == ({SYMBOL: filled} if filled else {})


@given(stories())
def test_the_stop_is_known_after_the_position_is(story: tuple[list[Message], int, bool]) -> None:
    """A position message may come before the fill that made the position."""
    messages, filled, _ = story
    events = tell(book(), *messages)
    first = next((place for place, event in enumerate(events) if isinstance(event, OrderFilled)), None)
    stops = [place for place, event in enumerate(events) if isinstance(event, StopMoved)]
    if filled:
        assert first is not None
        assert stops
        assert min(stops) > first


def test_a_new_position_does_not_inherit_the_old_ones_stop() -> None:
    made = book()
    tell(made, execution(1, 10), position(10))
    away = msgspec.structs.replace(execution(2, 10), side=Side.SELL, order_link_id="")
    assert not [event for event in tell(made, away, position(0)) if isinstance(event, StopMoved)]
    again: Any = msgspec.structs.replace(execution(3, 4), order_link_id="")
    assert [type(event) for event in tell(made, again)] == [OrderFilled]
    (moved,) = tell(made, position(4, "98"))
    assert isinstance(moved, StopMoved)
    assert moved.stop_loss == 98


def test_a_reduce_only_order_that_the_exchange_made_smaller_ends() -> None:
    made = book()
    events = tell(made, execution(1, 6), order("Filled", 6, qty=6))
    assert [type(event) for event in events] == [OrderAccepted, OrderFilled, OrderCancelled]
    assert not made.is_open(LINK)


def test_executions_that_are_missing_are_known_to_be() -> None:
    made = book()
    tell(made, order("New", 0), order("Filled", 10), execution(1, 4))
    assert made.incomplete() == {LINK: SYMBOL}
    tell(made, execution(2, 6))
    assert made.incomplete() == {}


def test_what_is_traded_in_another_market_of_the_account_is_not_booked() -> None:
    """The private stream of a unified account brings spot trades too, of the same symbol."""
    made = book()
    spot = msgspec.structs.replace(execution(1, 4), category="spot")
    assert tell(made, spot) == []
    assert made.booked == 0
    assert len(tell(made, msgspec.structs.replace(spot, category="linear"))) == 2
