"""The simulated exchange: what it refuses, how it fills and what it charges."""

import math
from collections.abc import Callable
from decimal import Decimal

import pytest

from bot.core.commands import CancelOrder, MoveStop, PlaceOrder
from bot.core.events import (
    Event,
    FundingPaid,
    FundingRatePublished,
    InstrumentDelisted,
    InstrumentListed,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    StopMoved,
)
from bot.core.types import HOUR_MS, FillOrigin, OrderRequest, OrderType, Side, TimeInForce
from bot.exchange.simulated.broker import REGRIDDED, TOO_LATE, HeldPosition, SimulatedBroker
from bot.settings import Costs
from tests.builders import BAR, START, bar, instrument, listed

FREE = Costs(taker_fee=0, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0)
CASH = Decimal(10_000)
BUY, SELL = Side.BUY, Side.SELL
SYMBOL = "NEWUSDT"
PRICE_FIELDS = {"stop_loss", "take_profit", "trigger_price"}


def no_spread(_symbol: str, _start: int) -> float:
    return 0.0


def wide_spread(_symbol: str, _start: int) -> float:
    return 0.001


class Desk:
    """A broker whose market trades at 100 in bar 0; `play` closes the following bars."""

    def __init__(
        self,
        costs: Costs = FREE,
        half_spread: Callable[[str, int], float] = no_spread,
        *,
        balance: Decimal = CASH,
        volume_share: float = 0.1,
        leverage: int = 1,
    ) -> None:
        self.broker = SimulatedBroker(
            costs, half_spread, balance, leverage=leverage, volume_share=volume_share
        )
        self.broker.on_market([listed()])
        self.broker.on_market([bar(0, 100.0)])
        self.index = 0
        self.orders = 0

    @property
    def now(self) -> int:
        return START + (self.index + 1) * BAR

    def send(self, side: Side, qty: str = "1", price: str | None = None, **changes: object) -> list[Event]:
        self.orders += 1
        values: dict[str, object] = {
            "link_id": f"order-{self.orders}",
            "symbol": SYMBOL,
            "side": side,
            "type": OrderType.MARKET if price is None else OrderType.LIMIT,
            "qty": Decimal(qty),
            "price": None if price is None else Decimal(price),
        }
        prices = {name: Decimal(str(changes[name])) for name in PRICE_FIELDS & changes.keys()}
        values |= changes | prices
        return self.broker.submit(PlaceOrder(self.now, OrderRequest(**values)))  # type: ignore[arg-type]

    def play(self, price: float, **changes: float) -> list[Event]:
        self.index += 1
        return self.broker.on_market([bar(self.index, price, **changes)])  # type: ignore[arg-type]

    def hold(self, side: Side, qty: str = "1", **changes: object) -> "Desk":
        """Open a position at 100 in a quiet bar."""
        assert isinstance(self.send(side, qty, **changes)[0], OrderAccepted)
        self.play(100.0)
        return self

    @property
    def position(self) -> HeldPosition:
        return self.broker.position(SYMBOL)


def only(events: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def fills(events: list[Event]) -> list[tuple[str, str, int]]:
    """(price, quantity, ts) of each fill."""
    return [(str(e.price), str(e.qty), e.ts) for e in events if isinstance(e, OrderFilled)]


def one_fill(events: list[Event]) -> OrderFilled:
    (fill,) = [event for event in events if isinstance(event, OrderFilled)]
    return fill


def refusal(events: list[Event]) -> str:
    (event,) = events
    assert isinstance(event, OrderRejected), event
    return event.reason


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"symbol": "NOPEUSDT"}, "is not listed"),
        ({"price": "99.005"}, "price 99.005 is not a multiple of the tick 0.01"),
        ({"price": "0.00"}, "price 0.00 is not a price"),
        ({"price": "99", "stop_loss": "98.001"}, "stopLoss 98.001 is not a multiple"),
        ({"qty": "1.05"}, "not a multiple of the step 0.1"),
        ({"qty": "0"}, "Qty invalid"),
        ({"qty": "-1"}, "Qty invalid"),
        ({"qty": "NaN"}, "Qty invalid"),
        ({"price": "Infinity"}, "price Infinity is not a price"),
        ({"qty": "600000"}, "exceeds maximum limit allowed: too large, order_qty:600000.0 > max_qty:500000"),
        ({"qty": "2000000", "price": "99"}, "exceeds maximum limit allowed"),
        ({"qty": "0.1", "price": "49.00"}, "minimum order value 5"),
        ({"reduce_only": True}, "current position is zero"),
        ({"type": OrderType.LIMIT}, "price invalid"),
        ({"stop_loss": "100.00"}, "should be lower than base_price:10000"),
        ({"stop_loss": "0"}, "0 is not a price"),
        ({"price": "95", "stop_loss": "96"}, "should be lower than base_price:9500"),
        ({"side": SELL, "stop_loss": "99"}, "should be higher than base_price:10000"),
        ({"take_profit": "99"}, "TakeProfit:9900 set for Buy position should be higher"),
        ({"trigger_price": "100"}, "expect Falling, but trigger_price[10000] >= current[10000]"),
        ({"trigger_price": "NaN"}, "NaN is not a price"),
        ({"qty": "101"}, "ab not enough"),
        ({"link_id": ""}, "orderLinkId"),
        ({"link_id": "x" * 37}, "orderLinkId"),
    ],
)
def test_an_invalid_order_is_refused_with_its_reason(order: dict[str, object], reason: str) -> None:
    desk = Desk()
    side = order.pop("side", BUY)
    assert reason in refusal(desk.send(side, **order))  # type: ignore[arg-type]
    assert desk.broker.open_orders() == []


def test_an_order_below_the_minimum_quantity_is_refused() -> None:
    desk = Desk()
    coarse = instrument(qty_step="0.1")
    event = InstrumentListed(desk.now, desk.now, type(coarse)(**{**_fields(coarse), "min_qty": Decimal(2)}))
    desk.broker.on_market([event])
    assert "exceeds minimum limit" in refusal(desk.send(BUY, "1.9"))


def test_an_old_bar_is_not_the_last_price() -> None:
    desk = Desk()
    desk.play(120.0)
    desk.broker.on_market([bar(0, 100.0)])
    assert "should be lower than base_price:12000" in refusal(desk.send(BUY, stop_loss="121"))
    assert isinstance(desk.send(BUY, stop_loss="110")[0], OrderAccepted)


def test_a_rest_below_the_minimum_quantity_can_be_closed_whole() -> None:
    desk = Desk()
    coarse = instrument(qty_step="0.1")
    event = InstrumentListed(desk.now, desk.now, type(coarse)(**{**_fields(coarse), "min_qty": Decimal(2)}))
    desk.broker.on_market([event])
    desk.send(BUY, "2")
    desk.play(100.0, volume=15.0)
    assert desk.position.qty == Decimal("1.5")
    assert "exceeds minimum limit" in refusal(desk.send(SELL, "1.0", reduce_only=True))
    assert isinstance(desk.send(SELL, "1.5", reduce_only=True)[0], OrderAccepted)
    desk.play(100.0)
    assert desk.position.qty == 0


def _fields(struct: object) -> dict[str, object]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}  # type: ignore[attr-defined]


def test_an_order_before_the_first_price_is_refused() -> None:
    broker = SimulatedBroker(FREE, no_spread, CASH)
    broker.on_market([listed()])
    order = OrderRequest(link_id="a", symbol=SYMBOL, side=BUY, type=OrderType.MARKET, qty=Decimal(1))
    assert "no price yet" in refusal(broker.submit(PlaceOrder(START, order)))


def test_a_link_id_is_never_accepted_twice_even_after_the_order_has_ended() -> None:
    desk = Desk()
    desk.send(BUY, link_id="mine")
    assert "duplicate" in refusal(desk.send(BUY, link_id="mine"))
    desk.play(100.0)
    assert "duplicate" in refusal(desk.send(BUY, link_id="mine"))


def test_the_link_id_of_a_refused_order_stays_free() -> None:
    desk = Desk()
    refusal(desk.send(BUY, "0.05", link_id="mine"))
    assert isinstance(desk.send(BUY, link_id="mine")[0], OrderAccepted)


def test_a_reduce_only_order_on_the_side_of_the_position_is_refused() -> None:
    desk = Desk().hold(BUY)
    assert "same side" in refusal(desk.send(BUY, reduce_only=True))


def test_a_reduce_only_order_is_exempt_from_the_minimum_value() -> None:
    desk = Desk().hold(BUY, "0.1")
    assert isinstance(desk.send(SELL, "0.1", reduce_only=True)[0], OrderAccepted)
    cheap = desk.send(SELL, "0.1", "40.00", reduce_only=True)
    assert isinstance(cheap[0], OrderAccepted)


def test_a_reduce_only_order_cannot_carry_protection() -> None:
    desk = Desk().hold(BUY)
    assert "cannot carry" in refusal(desk.send(SELL, reduce_only=True, stop_loss="110"))


def test_margin_counts_positions_open_orders_and_fees() -> None:
    desk = Desk(Costs(taker_fee=0.001, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0))
    desk.hold(BUY, "50")  # 5000 and 5 of fee: 4995 are free, a further unit costs 100.2
    desk.send(BUY, "40", "90.00")  # reserves 3607.2
    assert "ab not enough" in refusal(desk.send(BUY, "13.9"))
    assert isinstance(desk.send(BUY, "13.8")[0], OrderAccepted)
    assert isinstance(desk.send(SELL, "50")[0], OrderAccepted)  # opens nothing


def test_leverage_is_a_setting() -> None:
    assert "ab not enough" in refusal(Desk().send(BUY, "400"))
    assert isinstance(Desk(leverage=5).send(BUY, "400")[0], OrderAccepted)


def test_a_delisted_symbol_takes_no_orders() -> None:
    desk = Desk()
    desk.broker.on_market([InstrumentDelisted(desk.now, desk.now, SYMBOL)])
    assert "not live" in refusal(desk.send(BUY))


# --- market orders ----------------------------------------------------------------------------------------


def test_a_market_order_fills_at_the_next_open_at_the_time_of_that_open() -> None:
    desk = Desk()
    desk.send(BUY)
    sent = desk.now
    fill = one_fill(desk.play(105.0, opened=101.0))
    assert (fill.price, fill.ts, fill.link_id, fill.leaves_qty) == (Decimal("101.00"), sent, "order-1", 0)
    assert not fill.is_maker
    assert fill.origin is FillOrigin.ORDER


def test_a_market_order_sent_during_a_longer_bar_waits_for_the_next_open() -> None:
    desk = Desk()
    desk.broker.on_market(
        [bar(0, 100.0, "OTHERUSDT", interval=2 * BAR)]
    )  # the clock is inside bar 1 of NEWUSDT
    desk.send(BUY)
    assert fills(desk.play(101.0)) == []
    assert fills(desk.play(102.0, opened=101.5)) == [("101.50", "1.0", START + 2 * BAR)]


def test_taker_fills_pay_spread_slippage_and_fee_rounded_against_us() -> None:
    costs = Costs(taker_fee=0.0005, maker_fee=0, half_spread=0, slippage_sigmas=0.05, default_funding=0)
    bought = Desk(costs, wide_spread)
    bought.send(BUY)
    fill = one_fill(bought.play(100.0, high=101.0, low=99.9))
    assert fill.price == Decimal("100.16")  # 100 + 0.1 + 0.05 x 1.1 = 100.155
    assert fill.fee == Decimal("0.05008000")
    assert bought.broker.balance == CASH - fill.fee
    sold = Desk(costs, wide_spread)
    sold.send(SELL)
    assert one_fill(sold.play(100.0, high=101.0, low=99.9)).price == Decimal("99.84")


def test_slippage_may_lead_outside_the_bar_but_never_below_one_tick() -> None:
    crash = Costs(taker_fee=0, maker_fee=0, half_spread=0, slippage_sigmas=10, default_funding=0)
    desk = Desk(crash)
    desk.send(SELL)
    assert one_fill(desk.play(100.0, low=60.0)).price == Decimal("0.01")


def test_what_exceeds_the_share_of_volume_is_cancelled() -> None:
    desk = Desk()
    desk.send(BUY, "5")
    events = desk.play(100.0, volume=23.0)
    fill = one_fill(events)
    assert (fill.qty, fill.leaves_qty) == (Decimal("2.3"), Decimal("2.7"))
    (cancelled,) = only(events, OrderCancelled)
    assert isinstance(cancelled, OrderCancelled)
    assert cancelled.reason == "EC_NoImmediateQtyToFill"
    assert desk.broker.open_orders() == []
    assert desk.position.qty == Decimal("2.3")


@pytest.mark.parametrize("volume", [0.0, math.nan, 0.5])
def test_a_bar_without_volume_fills_nothing(volume: float) -> None:
    desk = Desk()
    desk.send(BUY)
    (event,) = desk.play(100.0, volume=volume)
    assert isinstance(event, OrderCancelled)


def test_orders_of_one_bar_share_its_volume() -> None:
    desk = Desk()
    desk.send(BUY, "2")
    desk.send(BUY, "2")
    assert [qty for _, qty, _ in fills(desk.play(100.0, volume=30.0))] == ["2.0", "1.0"]


def test_an_order_may_flip_the_position() -> None:
    desk = Desk().hold(BUY, "2", stop_loss="90")
    desk.send(SELL, "5", stop_loss="120")
    events = desk.play(110.0, opened=110.0)
    assert len(only(events, OrderFilled)) == 1
    assert desk.position == (Decimal(-3), Decimal(110), Decimal(120))
    assert desk.broker.balance == CASH + 20


def test_a_flip_does_not_inherit_the_stop_of_the_old_position() -> None:
    desk = Desk().hold(BUY, "2", stop_loss="90", take_profit="120")
    desk.send(SELL, "5")
    desk.play(100.0)
    assert desk.position == (-3, 100, None)
    assert fills(desk.play(100.0, low=80.0, high=130.0)) == []


# --- limit orders -----------------------------------------------------------------------------------------


def test_a_limit_order_that_is_only_touched_does_not_fill() -> None:
    desk = Desk()
    desk.send(BUY, price="99.00")
    assert fills(desk.play(100.0, low=99.0)) == []
    assert len(desk.broker.open_orders()) == 1


def test_a_limit_order_fills_as_maker_at_its_price_when_traded_through() -> None:
    costs = Costs(taker_fee=0.001, maker_fee=0.0002, half_spread=0, slippage_sigmas=1, default_funding=0)
    desk = Desk(costs)
    desk.send(BUY, price="99.00")
    fill = one_fill(desk.play(100.0, low=98.99))
    assert (fill.price, fill.is_maker, fill.fee) == (Decimal("99.00"), True, Decimal("0.0198"))
    assert fill.ts == START + 2 * BAR


def test_one_tick_beyond_is_enough_for_an_order_that_rests() -> None:
    desk = Desk()
    desk.send(BUY, price="99.00")
    desk.send(SELL, price="101.00")
    desk.play(100.0)
    assert [price for price, _, _ in fills(desk.play(100.0, low=98.99))] == ["99.00"]
    assert [price for price, _, _ in fills(desk.play(100.0, high=101.01))] == ["101.00"]


def test_a_resting_limit_order_gains_nothing_from_a_gap() -> None:
    desk = Desk()
    desk.send(SELL, price="101.00")
    desk.play(100.0)
    assert one_fill(desk.play(110.0, opened=108.0)).price == Decimal("101.00")


def test_a_limit_order_that_crosses_at_its_arrival_takes_at_the_open() -> None:
    costs = Costs(taker_fee=0.001, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0)
    desk = Desk(costs, wide_spread)
    desk.send(BUY, price="101.00")
    fill = one_fill(desk.play(99.0, opened=99.0))
    assert (fill.price, fill.is_maker, fill.fee) == (Decimal("99.10"), False, Decimal("0.0991"))
    assert fill.ts == START + BAR


def test_a_crossing_limit_order_never_pays_more_than_its_price() -> None:
    slippery = Costs(taker_fee=0, maker_fee=0, half_spread=0, slippage_sigmas=5, default_funding=0)
    desk = Desk(slippery)
    desk.send(BUY, price="100.50")
    assert one_fill(desk.play(100.0, high=102.0)).price == Decimal("100.50")


def test_a_post_only_order_is_looked_at_when_it_reaches_the_book() -> None:
    desk = Desk()
    assert isinstance(desk.send(BUY, price="100.00", time_in_force=TimeInForce.POST_ONLY)[0], OrderAccepted)
    assert one_fill(desk.play(101.0, opened=101.0, low=99.0)).is_maker


def test_a_post_only_order_that_would_cross_at_the_open_is_cancelled() -> None:
    desk = Desk()
    assert isinstance(desk.send(BUY, price="99.00", time_in_force=TimeInForce.POST_ONLY)[0], OrderAccepted)
    (event,) = desk.play(98.0, opened=98.0)
    assert isinstance(event, OrderCancelled)
    assert event.reason == "EC_PostOnlyWillTakeLiquidity"


def test_an_ioc_order_never_rests() -> None:
    desk = Desk()
    desk.send(BUY, price="99.00", time_in_force=TimeInForce.IOC)
    desk.send(BUY, "5", price="101.00", time_in_force=TimeInForce.IOC)
    events = desk.play(100.0, low=90.0, volume=20.0)
    assert [qty for _, qty, _ in fills(events)] == ["2.0"]
    assert len(only(events, OrderCancelled)) == 2
    assert desk.broker.open_orders() == []


def test_a_large_limit_order_fills_over_several_bars() -> None:
    desk = Desk()
    desk.send(BUY, "5", "99.00")
    filled = [qty for _ in range(3) for _, qty, _ in fills(desk.play(100.0, low=98.0, volume=20.0))]
    assert filled == ["2.0", "2.0", "1.0"]
    assert desk.broker.open_orders() == []


# --- reduce-only ------------------------------------------------------------------------------------------


def test_a_reduce_only_order_is_cut_to_the_position_at_the_door_and_again_at_the_open() -> None:
    desk = Desk().hold(BUY, "2")
    desk.send(SELL, "5", reduce_only=True)
    assert [order.leaves_qty for order in desk.broker.open_orders()] == [2]
    desk.send(SELL, "1.5")
    desk.send(SELL, "2", reduce_only=True, link_id="late")
    first, second, late = desk.play(100.0)
    assert isinstance(first, OrderFilled)
    assert (first.qty, first.leaves_qty) == (2, 0)
    assert isinstance(second, OrderFilled)
    assert isinstance(late, OrderCancelled)
    assert (late.link_id, late.reason) == ("late", "CancelByReduceOnly")
    assert desk.position.qty == Decimal("-1.5")


def test_reduce_only_orders_end_with_the_position() -> None:
    desk = Desk().hold(BUY, stop_loss="95")
    desk.send(SELL, price="120.00", reduce_only=True, link_id="target")
    events = desk.play(94.0, opened=100.0)
    (cancelled,) = only(events, OrderCancelled)
    assert isinstance(cancelled, OrderCancelled)
    assert cancelled.link_id == "target"


# --- protection -------------------------------------------------------------------------------------------


def test_an_attached_stop_is_confirmed_with_the_fill() -> None:
    desk = Desk()
    desk.send(BUY, stop_loss="95")
    fill, moved = desk.play(100.0)
    assert isinstance(fill, OrderFilled)
    assert isinstance(moved, StopMoved)
    assert moved.stop_loss == desk.position.stop_loss == Decimal(95)
    assert moved.ts == fill.ts


def test_a_touched_stop_closes_the_position_at_its_price_and_costs() -> None:
    costs = Costs(taker_fee=0.001, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0)
    desk = Desk(costs, wide_spread)
    desk.send(BUY, stop_loss="95")
    desk.play(100.0)
    fill = one_fill(desk.play(97.0, opened=100.0, low=95.0))
    assert (fill.price, fill.side, fill.origin, fill.link_id) == (
        Decimal("94.90"), SELL, FillOrigin.STOP_LOSS, "",
    )  # fmt: skip
    assert fill.ts == desk.now
    assert not fill.is_maker
    assert desk.position == (0, 0, None)


def test_a_stop_that_is_gapped_over_fills_at_the_open() -> None:
    long = Desk().hold(BUY, stop_loss="95")
    assert one_fill(long.play(91.0, opened=90.0)).price == Decimal("90.00")
    short = Desk().hold(SELL, stop_loss="105")
    assert one_fill(short.play(109.0, opened=110.0)).price == Decimal("110.00")


def test_the_stop_works_in_the_bar_of_the_entry() -> None:
    desk = Desk()
    desk.send(BUY, stop_loss="95")
    events = desk.play(100.0, low=94.0)
    assert [price for price, _, _ in fills(events)] == ["100.00", "95.00"]
    assert desk.position.qty == 0


def test_a_stop_that_the_entry_has_already_passed_closes_it_at_once() -> None:
    desk = Desk()
    desk.send(BUY, stop_loss="95")
    assert [price for price, _, _ in fills(desk.play(91.0, opened=90.0))] == ["90.00", "90.00"]


def test_when_stop_and_take_profit_are_both_touched_the_stop_wins() -> None:
    desk = Desk()
    desk.send(BUY, stop_loss="95", take_profit="105")
    events = desk.play(100.0, low=94.0, high=110.0)
    assert fills(events)[-1][0] == "95.00"


def test_when_stop_and_a_resting_exit_are_both_touched_the_stop_wins() -> None:
    desk = Desk().hold(BUY, stop_loss="95")
    desk.send(SELL, price="105.00", reduce_only=True)
    assert one_fill(desk.play(100.0, low=94.0, high=110.0)).origin is FillOrigin.STOP_LOSS


def test_a_take_profit_is_a_market_order_at_its_price() -> None:
    costs = Costs(taker_fee=0.001, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0)
    desk = Desk(costs).hold(BUY, take_profit="105")
    assert fills(desk.play(100.0, high=104.99)) == []
    fill = one_fill(desk.play(100.0, high=105.0))
    assert (fill.price, fill.origin, fill.is_maker, fill.fee) == (
        Decimal("105.00"), FillOrigin.TAKE_PROFIT, False, Decimal("0.105"),
    )  # fmt: skip


def test_a_take_profit_crosses_the_spread_and_gains_nothing_from_a_gap() -> None:
    desk = Desk(FREE, wide_spread)
    desk.send(SELL, take_profit="95")
    desk.play(100.0)
    assert one_fill(desk.play(90.0, opened=90.0)).price == Decimal("95.10")


def test_a_take_profit_waits_for_the_bar_after_an_entry_inside_the_bar() -> None:
    desk = Desk()
    desk.send(BUY, price="99.00", take_profit="105")
    assert len(fills(desk.play(100.0, low=98.0, high=110.0))) == 1
    assert one_fill(desk.play(100.0, high=110.0)).origin is FillOrigin.TAKE_PROFIT


def test_a_newer_order_replaces_the_stop_of_the_position() -> None:
    desk = Desk().hold(BUY, stop_loss="95").hold(BUY, stop_loss="97")
    assert desk.position == (2, 100, Decimal(97))


def test_a_later_part_of_an_order_leaves_a_moved_stop_alone() -> None:
    desk = Desk()
    desk.send(BUY, "4", "99.00", stop_loss="90")
    desk.play(100.0, low=98.0, volume=20.0)
    desk.broker.submit(MoveStop(desk.now, SYMBOL, Decimal(95)))
    desk.play(100.0, low=98.0, volume=20.0)
    assert desk.position == (4, 99, Decimal(95))


def test_a_stop_that_the_volume_cannot_take_goes_on_at_the_next_open_and_never_better() -> None:
    desk = Desk().hold(BUY, "5", stop_loss="95")
    first = one_fill(desk.play(94.0, opened=100.0, volume=20.0))
    assert (first.qty, first.leaves_qty, first.price) == (2, 3, Decimal("95.00"))
    second = one_fill(desk.play(99.0, opened=99.0, volume=20.0))
    assert (second.qty, second.leaves_qty, second.price) == (2, 1, Decimal("95.00"))
    third = one_fill(desk.play(80.0, opened=80.0, volume=20.0))
    assert (third.qty, third.leaves_qty, third.price) == (1, 0, Decimal("80.00"))
    assert third.ts == START + 4 * BAR
    assert desk.position.qty == 0


def test_moving_the_stop_is_confirmed_and_takes_effect() -> None:
    desk = Desk().hold(BUY, stop_loss="95")
    assert desk.broker.submit(MoveStop(desk.now, SYMBOL, Decimal("98.00"))) == [
        StopMoved(desk.now, desk.now, SYMBOL, Decimal("98.00"))
    ]
    assert one_fill(desk.play(99.0, low=97.0)).price == Decimal("98.00")


@pytest.mark.parametrize("level", ["100.00", "104.00", "97.001"])
def test_a_stop_on_the_wrong_side_or_off_the_tick_stays_where_it_was(level: str) -> None:
    desk = Desk().hold(BUY, stop_loss="95")
    (event,) = desk.broker.submit(MoveStop(desk.now, SYMBOL, Decimal(level)))
    assert isinstance(event, StopMoved)
    assert event.stop_loss == desk.position.stop_loss == Decimal(95)


@pytest.mark.parametrize("symbol", [SYMBOL, "NOPEUSDT"])
def test_moving_a_stop_without_a_position_answers_that_there_is_none(symbol: str) -> None:
    desk = Desk()
    assert desk.broker.submit(MoveStop(desk.now, symbol, Decimal(95))) == [
        StopMoved(desk.now, desk.now, symbol, None)
    ]


# --- conditional orders -----------------------------------------------------------------------------------


def test_a_conditional_market_order_fills_at_its_trigger_or_at_a_gapped_open() -> None:
    rising = Desk()
    rising.send(BUY, trigger_price="105")
    assert fills(rising.play(104.0)) == []
    assert fills(rising.play(106.0, opened=104.0)) == [("105.00", "1.0", rising.now)]
    falling = Desk()
    falling.send(SELL, trigger_price="95")
    assert [price for price, _, _ in fills(falling.play(93.0, opened=92.0))] == ["92.00"]


def test_a_triggered_limit_order_rests_from_its_trigger_on() -> None:
    desk = Desk()
    desk.send(BUY, price="104.00", trigger_price="105")
    assert fills(desk.play(104.9, opened=103.0, low=102.0)) == []
    assert fills(desk.play(105.0, opened=104.9, low=104.5)) == []
    assert fills(desk.play(105.0, opened=105.0, low=103.0)) == [("104.00", "1.0", desk.now)]


def test_a_conditional_order_gains_nothing_from_a_gap_beyond_its_trigger() -> None:
    desk = Desk()
    desk.send(BUY, trigger_price="95")
    assert [price for price, _, _ in fills(desk.play(90.0, opened=90.0))] == ["95.00"]


def test_a_conditional_order_takes_margin_only_when_it_is_triggered() -> None:
    desk = Desk()
    desk.send(BUY, "60", trigger_price="105")
    assert isinstance(desk.send(BUY, "90", price="99")[0], OrderAccepted)
    (event,) = desk.play(105.0)
    assert isinstance(event, OrderCancelled)
    assert event.reason == "EC_NoEnoughBalance"


# --- cancels ----------------------------------------------------------------------------------------------


def test_an_open_order_can_be_cancelled_once() -> None:
    desk = Desk()
    desk.send(BUY, price="99.00", link_id="mine")
    command = CancelOrder(desk.now, SYMBOL, "mine")
    assert desk.broker.submit(command) == [OrderCancelled(desk.now, desk.now, "mine", "CancelByUser")]
    assert desk.broker.submit(command) == [OrderCancelled(desk.now, desk.now, "mine", TOO_LATE)]
    assert fills(desk.play(100.0, low=90.0)) == []


def test_a_cancel_after_the_fill_is_too_late() -> None:
    desk = Desk()
    desk.send(BUY, link_id="mine")
    desk.play(100.0)
    (event,) = desk.broker.submit(CancelOrder(desk.now, SYMBOL, "mine"))
    assert event == OrderCancelled(desk.now, desk.now, "mine", TOO_LATE)
    assert desk.position.qty == 1


# --- funding ----------------------------------------------------------------------------------------------


def at_eight(desk: Desk) -> list[Event]:
    """Play quiet bars until 08:00 and return the facts of the last."""
    events: list[Event] = []
    while desk.now < START + 8 * HOUR_MS:
        events = desk.play(100.0)
    return events


@pytest.mark.parametrize(("side", "rate", "paid"), [(BUY, 0.0002, "0.04"), (SELL, 0.0002, "-0.04")])
def test_a_positive_rate_is_paid_by_longs_and_received_by_shorts(side: Side, rate: float, paid: str) -> None:
    desk = Desk(Costs(taker_fee=0, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0.0001))
    desk.hold(side, "2")
    ts = desk.now
    (event,) = desk.broker.on_market([FundingRatePublished(ts, ts, SYMBOL, rate)])
    assert isinstance(event, FundingPaid)
    assert event.amount == Decimal(paid)
    assert desk.broker.balance == CASH - Decimal(paid)
    assert at_eight(desk) == []  # the default rate is for symbols without published ones


@pytest.mark.parametrize("side", [BUY, SELL])
def test_without_published_rates_either_side_pays_every_eight_hours(side: Side) -> None:
    desk = Desk(Costs(taker_fee=0, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0.0001))
    desk.hold(side, "2")
    (event,) = at_eight(desk)
    assert isinstance(event, FundingPaid)
    assert (event.ts, event.amount) == (START + 8 * HOUR_MS, Decimal("0.02"))
    assert event.rate == 0.0001 * side.sign


def test_funding_is_charged_once_when_the_rate_arrives_with_the_bar() -> None:
    desk = Desk(Costs(taker_fee=0, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0.0001))
    desk.hold(BUY, "2")
    while desk.now < START + 8 * HOUR_MS - BAR:
        desk.play(100.0)
    ts = desk.now + BAR
    events = desk.broker.on_market(
        [FundingRatePublished(ts, ts, SYMBOL, -0.001), bar(desk.index + 1, 110.0, opened=100.0)]
    )
    (event,) = events
    assert isinstance(event, FundingPaid)
    assert event.amount == Decimal("-0.22")  # at the close of the bar that ends at the mark


def test_an_entry_at_the_mark_does_not_pay_and_one_inside_the_bar_before_it_does() -> None:
    costs = Costs(taker_fee=0, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0.0001)
    after, before = Desk(costs), Desk(costs)
    assert at_eight(after) == []
    after.send(BUY)
    assert only(after.play(100.0), FundingPaid) == []
    while before.now < START + 8 * HOUR_MS - BAR:
        before.play(100.0)
    before.send(BUY, price="99.00")
    assert len(only(before.play(100.0, low=98.0), FundingPaid)) == 1


def test_funding_marks_inside_a_gap_of_the_data_are_charged_too() -> None:
    desk = Desk(Costs(taker_fee=0, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0.0001))
    desk.hold(BUY, "2")
    desk.index = 24 * HOUR_MS // BAR
    events = desk.play(50.0)
    assert [event.amount for event in events if isinstance(event, FundingPaid)] == [Decimal("0.02")] * 3


# --- delisting --------------------------------------------------------------------------------------------


def test_a_delisting_cancels_orders_and_settles_the_position_with_costs() -> None:
    costs = Costs(taker_fee=0.001, maker_fee=0, half_spread=0, slippage_sigmas=0, default_funding=0)
    desk = Desk(costs, wide_spread)
    desk.send(BUY, stop_loss="50")
    desk.play(100.0)
    desk.send(BUY, price="90.00", link_id="resting")
    ts = desk.now
    cancelled, fill = desk.broker.on_market([InstrumentDelisted(ts, ts, SYMBOL)])
    assert isinstance(cancelled, OrderCancelled)
    assert cancelled.link_id == "resting"
    assert isinstance(fill, OrderFilled)
    assert (fill.price, fill.link_id, fill.origin) == (Decimal("99.90"), "", FillOrigin.ORDER)
    assert fill.fee == Decimal("0.0999")
    assert desk.position == (0, 0, None)


def test_another_tick_ends_orders_and_the_stop_goes_over_to_it() -> None:
    desk = Desk().hold(BUY, stop_loss="95.55", take_profit="120")
    desk.send(BUY, price="90.00", link_id="resting")
    coarser = instrument(tick_size="0.1")
    cancelled, moved = desk.broker.on_market([InstrumentListed(desk.now, desk.now, coarser)])
    assert isinstance(cancelled, OrderCancelled)
    assert (cancelled.link_id, cancelled.reason) == ("resting", REGRIDDED)
    assert isinstance(moved, StopMoved)
    assert moved.stop_loss == desk.position.stop_loss == Decimal("95.6")
    assert "multiple of the tick 0.1" in refusal(desk.send(BUY, price="90.01"))
    assert one_fill(desk.play(100.0, low=95.6)).price == Decimal("95.6")


def test_orders_of_ours_do_not_fill_each_other() -> None:
    desk = Desk(half_spread=wide_spread)
    desk.send(BUY, price="99.95", link_id="inside-the-spread")
    desk.send(SELL)
    events = desk.play(100.0)
    assert [(str(e.price), e.link_id) for e in events if isinstance(e, OrderFilled)] == [("99.90", "order-2")]
    (cancelled,) = only(events, OrderCancelled)
    assert isinstance(cancelled, OrderCancelled)
    assert cancelled.reason == "CancelBySmp"


# --- groups and time --------------------------------------------------------------------------------------


def test_facts_of_several_symbols_come_in_time_order() -> None:
    desk = Desk()
    desk.broker.on_market([listed("OTHERUSDT", desk.now), bar(0, 100.0, "OTHERUSDT")])
    desk.send(BUY, stop_loss="95")
    desk.send(BUY, symbol="OTHERUSDT")
    events = desk.broker.on_market([bar(1, 100.0, low=90.0), bar(1, 100.0, "OTHERUSDT")])
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    assert [event.symbol for event in events if isinstance(event, OrderFilled)] == [
        "NEWUSDT", "OTHERUSDT", "NEWUSDT",
    ]  # fmt: skip


def test_no_fact_is_older_than_the_market_events_before_it() -> None:
    desk = Desk()
    desk.send(BUY)
    desk.broker.on_market([bar(1, 100.0, "OTHERUSDT")])
    (fill,) = desk.play(100.0)  # opened before the bar of the other symbol closed
    assert fill.ts == START + 2 * BAR


def test_a_repeated_bar_changes_nothing() -> None:
    desk = Desk()
    desk.send(BUY, "4", "99.00")
    desk.play(100.0, low=98.0, volume=20.0)
    assert desk.broker.on_market([bar(1, 100.0, low=98.0, volume=20.0)]) == []
    assert desk.position.qty == 2


def test_two_brokers_given_the_same_say_the_same() -> None:
    def run() -> list[Event]:
        desk = Desk(Costs(), wide_spread)
        events = desk.send(BUY, "3", stop_loss="97") + desk.play(100.0, low=99.0, high=101.0)
        return events + desk.send(SELL, "1") + desk.play(98.0, low=96.0) + desk.play(99.0)

    assert run() == run()


def test_partial_closes_that_do_not_divide_evenly_lose_nothing() -> None:
    desk = Desk()
    for price, qty in ((100.0, "0.7"), (101.0, "1.1"), (103.0, "1.3")):
        desk.send(BUY, qty)
        desk.play(price, opened=price)
    for price, qty in ((102.0, "1.1"), (99.0, "0.9"), (100.0, "1.1")):
        desk.send(SELL, qty)
        desk.play(price, opened=price)
    spent = Decimal("0.7") * 100 + Decimal("1.1") * 101 + Decimal("1.3") * 103
    earned = Decimal("1.1") * 102 + Decimal("0.9") * 99 + Decimal("1.1") * 100
    assert desk.position.qty == 0
    assert desk.broker.balance == CASH + earned - spent


def test_bars_that_change_nothing_leave_no_trace_but_the_price() -> None:
    desk = Desk().hold(BUY, stop_loss="95")
    before = desk.position, desk.broker.balance
    assert [desk.play(price) for price in (101.0, 99.0, 103.0)] == [[], [], []]
    assert (desk.position, desk.broker.balance) == before
    (event,) = desk.broker.submit(MoveStop(desk.now, SYMBOL, Decimal(102)))
    assert isinstance(event, StopMoved)
    assert event.stop_loss == Decimal(102)  # right of the old price, below the last one
