"""The matching core of the local exchange: price-time priority, and Bybit's rules for an order's life."""

from decimal import Decimal

import pytest

from bot.exchange.local import render
from tests.local_core import SYMBOL, World, refused


@pytest.fixture
def world() -> World:
    return World(10_000, 10_000, 10_000)


# --- priority ---------------------------------------------------------------------------------------------


def test_the_better_price_then_the_older_order_is_filled_first(world: World) -> None:
    worse = world.place("Sell", "1", "101", by=1)
    first = world.place("Sell", "1", "100.5", by=1)
    second = world.place("Sell", "1", "100.5", by=2)
    taker = world.place("Buy", "1.5", "101")
    assert (first.status, second.status, worse.status) == ("Filled", "PartiallyFilled", "New")
    assert (taker.status, second.executed) == ("Filled", 50)
    assert [fill["execPrice"] for fill in world.told("execution")] == ["100.5", "100.5"]


def test_fewer_lots_keep_the_place_in_the_queue_and_more_lots_lose_it(world: World) -> None:
    first = world.place("Sell", "2", "101", by=1)
    second = world.place("Sell", "2", "101", by=2)
    world.amend(first, qty="1")
    world.place("Buy", "1", "101")
    assert (first.status, second.executed) == ("Filled", 0)
    third = world.place("Sell", "2", "101", by=1)
    world.amend(second, qty="3")
    world.place("Buy", "2", "101")
    assert (third.status, second.executed) == ("Filled", 0)


def test_a_new_price_goes_to_the_end_of_its_queue_and_may_trade_at_once(world: World) -> None:
    resting = world.place("Sell", "1", "102", by=1)
    bid = world.place("Buy", "0.4", "99")
    world.amend(resting, price="99")
    assert (bid.status, resting.status, resting.executed) == ("Filled", "PartiallyFilled", 40)
    assert world.book == ([], [("99.0", "0.60")])


def test_what_a_limit_order_cannot_take_rests(world: World) -> None:
    world.place("Sell", "1", "101", by=1)
    order = world.place("Buy", "3", "101")
    assert (order.status, order.leaves) == ("PartiallyFilled", 200)
    assert world.book == ([("101.0", "2.00")], [])
    statuses = [view["orderStatus"] for view in world.told("order")]
    assert statuses == ["New", "PartiallyFilled"]


# --- time in force ----------------------------------------------------------------------------------------


def test_ioc_takes_what_is_there_and_ends(world: World) -> None:
    world.place("Sell", "1", "101", by=1)
    order = world.place("Buy", "3", "101", timeInForce="IOC")
    assert (order.status, order.executed, order.reject_reason) == (
        "Cancelled",
        100,
        "EC_NoImmediateQtyToFill",
    )
    assert world.book == ([], [])


def test_fok_is_all_or_nothing(world: World) -> None:
    world.place("Sell", "1", "101", by=1)
    order = world.place("Buy", "3", "101", timeInForce="FOK")
    assert (order.status, order.executed, order.reject_reason) == ("Cancelled", 0, "EC_CancelForNoFullFill")
    world.place("Sell", "2", "101", by=1)
    assert world.place("Buy", "3", "101", timeInForce="FOK").status == "Filled"


def test_post_only_never_takes(world: World) -> None:
    world.place("Sell", "1", "101", by=1)
    order = world.place("Buy", "1", "101", timeInForce="PostOnly")
    assert (order.status, order.executed, order.reject_reason) == (
        "Cancelled",
        0,
        "EC_PostOnlyWillTakeLiquidity",
    )
    assert world.place("Buy", "1", "100.5", timeInForce="PostOnly").status == "New"


def test_a_market_order_walks_the_book_up_to_its_bound(world: World) -> None:
    world.place("Sell", "1", "101", by=1)
    far = world.place("Sell", "1", "109", by=1)
    order = world.place("Buy", "2")
    assert (order.status, order.executed, far.executed) == ("Cancelled", 100, 0)
    tight = world.place("Buy", "2", slippageToleranceType="TickSize", slippageTolerance="3")
    assert (tight.executed, far.leaves) == (100, 0)  # 109 is now the best, and within its bound


def test_a_futures_limit_order_beyond_the_price_limit_is_moved_to_it(world: World) -> None:
    assert world.place("Buy", "1", "150").price * Decimal("0.5") == Decimal(105)
    assert world.place("Sell", "1", "120", by=1).status == "New"


# --- the door ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"qty": "0.005"}, 10001),
        ({"qty": "0"}, 10001),
        ({"qty": "1001"}, 10001),
        ({"qty": "0.01"}, 110094),
        ({"price": "100.3"}, 10001),
        ({"price": "NaN"}, 10001),
        ({"side": "buy"}, 10001),
        ({"timeInForce": "GTX"}, 10001),
        ({"symbol": "NOPEUSDT"}, 10001),
        ({"positionIdx": 1}, 10001),
        ({"orderLinkId": "x" * 37}, 10001),
        ({"reduceOnly": True}, 110017),
        ({"stopLoss": "101"}, 10001),
        ({"takeProfit": "99"}, 10001),
        ({"triggerPrice": "99", "triggerDirection": 1}, 110092),
        ({"triggerPrice": "101", "triggerDirection": 2}, 110093),
        ({"triggerPrice": "101"}, 10001),
        ({"qty": "999"}, 110007),
    ],
)
def test_an_order_that_breaks_a_rule_is_refused_and_leaves_no_trace(
    world: World, order: dict[str, object], code: int
) -> None:
    body = {"symbol": SYMBOL, "side": "Buy", "orderType": "Limit", "qty": "1", "price": "100", **order}
    assert refused(world.engine.create, world.accounts[0], body, 5)[0] == code
    assert not world.accounts[0].orders
    assert world.book == ([], [])
    assert world.accounts[0].available == 10_000


def test_an_own_id_is_not_taken_twice(world: World) -> None:
    world.cancel(world.place("Buy", "1", "99", orderLinkId="a"))
    assert refused(world.place, "Buy", "1", "99", orderLinkId="a") == (110072, "OrderLinkedID is duplicate")


def test_an_own_id_stays_taken_when_its_order_is_long_forgotten(world: World) -> None:
    world.accounts.append(world.engine.add_account(Decimal(10_000), 0, kept=2))
    for name in ("a", "b", "c"):
        world.cancel(world.place("Buy", "1", "99", by=3, orderLinkId=name))
    assert set(world.accounts[3].by_link) == {"b", "c"}
    for name in ("a", "b"):
        assert refused(world.place, "Buy", "1", "99", by=3, orderLinkId=name)[0] == 110072


def test_what_is_over_can_be_neither_cancelled_nor_amended(world: World) -> None:
    order = world.cancel(world.place("Buy", "1", "99"))
    assert refused(world.cancel, order)[0] == 110001
    assert refused(world.amend, order, price="98")[0] == 110001


def test_an_amendment_that_changes_nothing_or_too_much_is_refused_and_the_order_stays(world: World) -> None:
    order = world.place("Buy", "1", "99")
    assert refused(world.amend, order, price="99") == (10001, "order not modified")
    assert refused(world.amend, order, qty="1000")[0] == 110007
    assert (order.status, order.qty, world.book[0]) == ("New", 100, [("99.0", "1.00")])


# --- reduce-only and hedge mode ---------------------------------------------------------------------------


def test_a_reduce_only_order_never_exceeds_the_position(world: World) -> None:
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100")
    exits = [world.place("Sell", "2", price, reduceOnly=True) for price in ("101", "101", "102")]
    assert world.place("Sell", "9", "103", reduceOnly=True).qty == 200
    world.place("Buy", "1.5", "101", by=2)
    assert [order.leaves for order in exits] == [50, 50, 50]
    world.place("Buy", "9", "103", by=2)
    assert world.qty() == 0
    assert [order.status for order in exits] == ["Filled", "Cancelled", "Cancelled"]
    assert not world.accounts[0].open_orders


def test_hedge_mode_holds_both_sides_and_cannot_be_left_with_a_position(world: World) -> None:
    world.clearing.switch_mode(world.accounts[0], {"symbol": SYMBOL, "mode": 3})
    world.place("Sell", "5", "100", by=1)
    world.place("Buy", "5", "99", by=1)
    world.place("Buy", "2", positionIdx=1)
    world.place("Sell", "1", positionIdx=2)
    assert (world.qty(index=1), world.qty(index=2)) == (2, -1)
    assert refused(world.place, "Buy", "1", "99")[0] == 10001
    assert refused(world.clearing.switch_mode, world.accounts[0], {"symbol": SYMBOL, "mode": 0})[0] == 110024
    world.place("Sell", "9", positionIdx=1)  # closes, never flips
    assert world.qty(index=1) == 0


# --- conditional orders and protection --------------------------------------------------------------------


def test_a_conditional_order_takes_no_margin_until_its_price_comes(world: World) -> None:
    order = world.place("Buy", "1", "102", triggerPrice="101.5", triggerDirection=1)
    assert (order.status, world.accounts[0].available) == ("Untriggered", 10_000)
    world.place("Sell", "1", "101.5", by=1)
    world.place("Buy", "0.1", "101.5", by=2)
    assert (order.status, order.executed) == ("PartiallyFilled", 90)
    assert [view["orderStatus"] for view in world.told("order")][:3] == ["Untriggered", "Triggered", "New"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"qty": "0.01"}, 110094), ({"qty": "99999999999"}, 10001), ({"price": "2"}, 110094)],
)
def test_a_conditional_order_is_amended_within_the_limits_of_a_new_one(
    world: World, changes: dict[str, str], code: int
) -> None:
    order = world.place("Buy", "1", "102", triggerPrice="101.5", triggerDirection=1)
    assert refused(world.amend, order, triggerPrice="103", **changes)[0] == code
    assert (order.qty, order.price, order.trigger_price) == (100, 204, 203)
    assert world.amend(order, qty="2").leaves == 200


def test_a_trigger_by_mark_price_ignores_trades(world: World) -> None:
    order = world.place("Sell", "1", "96", triggerPrice="97", triggerDirection=2, triggerBy="MarkPrice")
    world.place("Buy", "1", "96", by=1)
    world.place("Sell", "0.5", "96", by=2)
    assert order.status == "Untriggered"
    world.mark("97")
    assert order.executed == 50


def test_an_attached_stop_loss_lives_with_the_position_and_closes_it(world: World) -> None:
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100", stopLoss="96.5", takeProfit="110")
    views = [view for view in world.told("order") if view["stopOrderType"]]
    assert [(view["stopOrderType"], view["qty"]) for view in views] == [
        ("TakeProfit", "2.00"), ("StopLoss", "2.00"),
    ]  # fmt: skip
    world.place("Buy", "5", "96", by=1)
    world.place("Sell", "1", "96", by=2)
    assert world.qty() == 0
    ends = [(view["stopOrderType"], view["orderStatus"]) for view in world.told("order")]
    assert ends == [("StopLoss", "Triggered"), ("StopLoss", "Filled"), ("TakeProfit", "Deactivated")]
    assert not world.accounts[0].open_orders


def test_an_order_that_flips_a_position_puts_its_own_stop_in_the_place_of_the_old_one(world: World) -> None:
    world.place("Sell", "1", "100", by=1)
    world.place("Buy", "1", "100", stopLoss="90", takeProfit="110")
    holding = world.accounts[0].holdings[SYMBOL, 0]
    old = holding.stop_loss, holding.take_profit
    world.place("Buy", "2", "99", by=1)
    world.place("Sell", "2", "99", stopLoss="103", takeProfit="90")
    assert [order.status for order in old if order] == ["Deactivated", "Deactivated"]
    assert (world.qty(), holding.stop_loss is not None, holding.take_profit is not None) == (-1, True, True)
    world.place("Sell", "5", "103", by=1)
    world.place("Buy", "1", "103", by=2)
    assert world.qty() == 0
    assert not world.accounts[0].open_orders


def test_trading_stop_moves_and_removes_the_stop(world: World) -> None:
    assert refused(world.stop, stopLoss="90")[0] == 10001
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100")
    world.stop(stopLoss="90")
    assert refused(world.stop, stopLoss="90") == (34040, "not modified")
    assert refused(world.stop, stopLoss="101")[0] == 10001
    holding = world.accounts[0].holdings[SYMBOL, 0]
    before = holding.stop_loss
    world.stop(stopLoss="92", slTriggerBy="MarkPrice")
    assert holding.stop_loss is before is not None
    assert (before.trigger_price, before.trigger_by) == (184, "MarkPrice")
    world.stop(stopLoss="0")
    assert (holding.stop_loss, before.status) == (None, "Deactivated")


def test_a_trailing_stop_follows_the_best_price_and_never_goes_back(world: World) -> None:
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100")
    world.stop(trailingStop="3")
    for price in ("104", "102"):
        world.place("Sell", "1", price, by=1)
        world.place("Buy", "1", price, by=2)
    assert world.qty() == 2
    world.place("Buy", "9", "100.5", by=1)
    world.place("Sell", "1", "100.5", by=2)
    assert world.qty() == 0


def test_a_trailing_stop_may_wait_for_another_price_at_the_same_distance(world: World) -> None:
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100")
    world.stop(trailingStop="3")
    assert refused(world.stop, trailingStop="3") == (34040, "not modified")
    world.stop(trailingStop="3", activePrice="110")
    world.place("Buy", "9", "96", by=1)
    world.place("Sell", "1", "96", by=2)
    assert world.qty() == 2


def test_a_partial_take_profit_ends_its_stop_loss(world: World) -> None:
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100", tpslMode="Partial", takeProfit="105", stopLoss="95", tpOrderType="Limit",
                tpLimitPrice="105")  # fmt: skip
    world.place("Buy", "2", "105", by=1)
    world.place("Sell", "0.5", "105", by=2)
    assert world.qty() == Decimal("0.5")
    world.place("Buy", "2", "105", by=1)
    assert world.qty() == 0
    assert not world.accounts[0].open_orders


# --- self-trade -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "maker", "taker"),
    [
        ("CancelMaker", "Cancelled", "New"),
        ("CancelTaker", "New", "Cancelled"),
        ("CancelBoth", "Cancelled", "Cancelled"),
    ],
)
def test_self_trade_prevention_follows_the_takers_flag(
    world: World, mode: str, maker: str, taker: str
) -> None:
    resting = world.place("Sell", "1", "100")
    order = world.place("Buy", "1", "100", smpType=mode)
    assert (resting.status, order.status, order.executed) == (maker, taker, 0)


# --- money ------------------------------------------------------------------------------------------------


def test_fees_and_profit_reach_the_wallet_to_the_last_digit(world: World) -> None:
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100")
    assert world.accounts[0].wallet == Decimal("10000") - Decimal("200") * Decimal("0.00055")
    assert world.accounts[1].wallet == Decimal("10000") - Decimal("200") * Decimal("0.0002")
    world.place("Buy", "2", "103", by=1)
    world.place("Sell", "2", "103")
    paid = Decimal("200") * Decimal("0.00055") + Decimal("206") * Decimal("0.00055")
    assert world.accounts[0].wallet == 10_000 + 6 - paid
    assert world.accounts[0].closed[0]["closed"] == 2


def test_funding_moves_money_from_longs_to_shorts(world: World) -> None:
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100")
    before = [account.wallet for account in world.accounts]
    world.mark("110")
    world.clearing.pay_funding(world.market, Decimal("0.001"), world.now)
    changes = [account.wallet - old for account, old in zip(world.accounts, before, strict=True)]
    assert changes == [Decimal("-0.22"), Decimal("0.22"), 0]
    assert world.told("execution")[-1]["execType"] == "Funding"


def test_leverage_sets_the_margin_and_says_when_nothing_changes(world: World) -> None:
    ask = {"symbol": SYMBOL, "buyLeverage": "5", "sellLeverage": "5"}
    world.clearing.set_leverage(world.accounts[0], ask, 1)
    assert refused(world.clearing.set_leverage, world.accounts[0], ask, 1)[0] == 110043
    ask["sellLeverage"] = "6"
    assert refused(world.clearing.set_leverage, world.accounts[0], ask, 1)[0] == 10001
    world.place("Buy", "10", "100")
    assert world.accounts[0].order_margin == 1000 * (Decimal(1) / 5 + 2 * Decimal("0.00055"))


def test_cross_margin_is_liquidated_at_the_mark_and_the_wallet_ends_at_nothing() -> None:
    rich = World(10_000, 10_000_000)
    rich.clearing.set_leverage(
        rich.accounts[0], {"symbol": SYMBOL, "buyLeverage": "50", "sellLeverage": "50"}, 1
    )
    rich.place("Sell", "900", "100", by=1)
    rich.place("Buy", "900", "100")
    holding = rich.accounts[0].holdings[SYMBOL, 0]
    price = rich.clearing.liquidation_price(rich.accounts[0], holding)
    assert price is not None
    above = (price / Decimal("0.5")).to_integral_value("ROUND_CEILING") * Decimal("0.5")
    rich.mark(str(above + Decimal("0.5")))
    assert rich.qty() == 900
    rich.mark(str(above - Decimal("0.5")))
    assert rich.qty() == 0
    assert 0 <= rich.accounts[0].wallet < 500
    fills = rich.told("execution")
    assert fills[-1]["execType"] == "BustTrade"


def test_an_isolated_position_loses_its_margin_and_no_more() -> None:
    world = isolated()
    account = world.accounts[0]
    world.mark("91")
    assert world.qty() == 100
    world.mark("90")
    assert world.qty() == 0
    lost = 10_000 - account.wallet
    assert Decimal(1000) <= lost <= Decimal(1000) + Decimal(20)


def isolated() -> World:
    """Long 100 at 100 with leverage 10: 1,000 of 10,000 are at stake."""
    world = World(10_000, 10_000_000)
    world.clearing.set_margin_mode(world.accounts[0], {"setMarginMode": "ISOLATED_MARGIN"}, 1)
    world.place("Sell", "100", "100", by=1)
    world.place("Buy", "100", "100")
    return world


def test_margin_is_added_to_an_isolated_position_and_taken_back() -> None:
    world = isolated()
    account, clearing, change = world.accounts[0], world.clearing, {"symbol": SYMBOL}
    free = account.available
    clearing.add_margin(account, {**change, "margin": "500"}, 2)
    assert free - account.available == 500 - 500 * Decimal("0.00055")  # cheaper to close at a lower price
    assert refused(clearing.add_margin, account, {**change, "margin": "-501"}, 2)[0] == 110015
    assert refused(clearing.add_margin, account, {**change, "margin": "9000"}, 2)[0] == 110044
    assert refused(clearing.add_margin, account, {**change, "margin": "0.00001"}, 2)[0] == 10001
    world.mark("90")
    assert world.qty() == 100
    clearing.add_margin(account, {**change, "margin": "-500"}, 3)
    world.mark("89.5")
    assert world.qty() == 0
    assert refused(clearing.add_margin, account, {**change, "margin": "5"}, 4)[0] == 110034
    cross = world.accounts[1]
    assert refused(clearing.add_margin, cross, {**change, "margin": "5"}, 4)[0] == 10001


def test_an_isolated_position_that_adds_margin_by_itself_lives_until_the_wallet_is_empty() -> None:
    world = isolated()
    account = world.accounts[0]
    world.clearing.set_auto_add_margin(account, {"symbol": SYMBOL, "autoAddMargin": 1}, 2)
    world.mark("50")
    assert world.qty() == 100
    world.place("Buy", "100", "50", by=1)
    world.place("Sell", "100", reduceOnly=True)
    assert account.available == account.wallet  # what was added is free again
    assert not account.position_margin


def test_closed_profit_bears_the_fees_of_both_ends_in_parts_too(world: World) -> None:
    account = world.accounts[0]
    world.place("Sell", "4", "100", by=1)
    world.place("Buy", "4", "100")
    world.place("Buy", "4", "105", by=1)
    for part in ("1", "3"):
        world.place("Sell", part, reduceOnly=True)
    assert sum(row["pnl"] for row in account.closed) == account.wallet - 10_000
    views = [render.closed_view(row) for row in account.closed]
    assert [(view["openFee"], view["closeFee"]) for view in views] == [
        ("0.055", "0.05775"),
        ("0.165", "0.17325"),
    ]


def test_a_conditional_order_without_a_quantity_closes_all_that_is_held_then(world: World) -> None:
    world.place("Sell", "3", "100", by=1)
    world.place("Buy", "3", "100")
    closing = {"reduceOnly": True, "closeOnTrigger": True, "triggerPrice": "99", "triggerDirection": 2}
    order = world.place("Sell", "0", **closing)
    assert refused(world.place, "Sell", "0", **closing | {"closeOnTrigger": False}) == (10001, "Qty invalid")
    world.place("Buy", "10", "99", by=1)
    world.place("Sell", "1", "99", by=2)
    assert world.qty() == 0
    assert (order.status, order.executed) == ("Filled", 300)


def test_a_delisted_contract_is_settled_at_the_mark(world: World) -> None:
    world.place("Sell", "2", "100", by=1)
    world.place("Buy", "2", "100")
    resting = world.place("Buy", "1", "90")
    world.mark("97")
    world.clearing.close_market(world.market, world.now)
    assert (world.qty(), resting.status, resting.cancel_type) == (0, "Cancelled", "CancelBySettle")
    assert world.accounts[0].wallet == 10_000 - Decimal("0.11") - 6
    assert refused(world.place, "Buy", "1", "99")[0] == 110074
