"""Bybit's messages become the engine's facts; what cannot be booked is never skipped."""

import json
import math
from decimal import Decimal
from typing import Any

import pytest

from bot.core.events import (
    BarClosed,
    Event,
    FundingPaid,
    InstrumentStatusChanged,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    StopMoved,
    TickerChanged,
    Traded,
)
from bot.core.types import HOUR_MS, MINUTE_MS, FillOrigin, Side, TradingStatus
from bot.exchange.bybit import wire
from bot.exchange.bybit.translate import (
    bar_from_row,
    bars_from_klines,
    event_of_execution,
    events_of_order,
    events_of_position,
    instrument,
    rest_book,
    status_changed,
    ticker,
    trades,
)
from bot.exchange.bybit.wire import WireError
from bot.exchange.bybit.wire.market import KlineRow
from bot.exchange.bybit.wire.private import Executions, Orders, Positions
from bot.exchange.bybit.wire.public import Klines, Ticker, Trades
from tests.bybit_fixtures import sample

NOW = 1_750_000_000_000
RECEIVED = NOW + 7
ORDER = {
    "category": "linear", "orderId": "o-1", "orderLinkId": "t-1", "symbol": "XUSDT", "side": "Buy",
    "orderType": "Limit", "orderStatus": "New", "qty": "2", "updatedTime": str(NOW),
}  # fmt: skip
FILL = {
    "category": "linear", "symbol": "XUSDT", "execId": "e-1", "execPrice": "10.5", "execQty": "2",
    "side": "Buy", "execFee": "0.01", "execValue": "21", "feeRate": "0.00055", "feeCurrency": "USDT",
    "execType": "Trade", "leavesQty": "1", "orderId": "o-1", "orderLinkId": "t-1", "isMaker": True,
    "execTime": str(NOW),
}  # fmt: skip
POSITION = {
    "category": "linear", "symbol": "XUSDT", "side": "Buy", "size": "2", "positionIdx": 0, "stopLoss": "9.9",
    "updatedTime": str(NOW),
}  # fmt: skip


def events(topic: str, item: dict[str, Any], **changes: Any) -> list[Event]:
    frame = {"topic": topic, "creationTime": NOW, "data": [{**item, **changes}]}
    return told(json.dumps(frame).encode())


def told(frame: bytes) -> list[Event]:
    """The facts in the first item of a private message."""
    match wire.decode(frame):
        case Orders(data=[order]):
            return events_of_order(order, RECEIVED)
        case Executions(data=[execution]):
            event = event_of_execution(execution, RECEIVED)
            return [] if event is None else [event]
        case Positions(data=[position]):
            return events_of_position(position, RECEIVED)
    raise AssertionError(frame)


# --- orders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["New", "Untriggered"])
def test_an_order_on_the_book_or_waiting_for_its_trigger_is_accepted(status: str) -> None:
    assert events("order", ORDER, orderStatus=status) == [OrderAccepted(NOW, RECEIVED, "t-1", "o-1")]


@pytest.mark.parametrize("status", ["PartiallyFilled", "Filled", "Triggered"])
def test_what_the_executions_tell_is_not_told_twice(status: str) -> None:
    assert events("order", ORDER, orderStatus=status) == []


@pytest.mark.parametrize("status", ["Cancelled", "PartiallyFilledCanceled", "Deactivated"])
def test_every_way_to_be_cancelled_is_a_cancellation_with_its_reason(status: str) -> None:
    cancelled = OrderCancelled(NOW, RECEIVED, "t-1", "CancelByUser")
    assert events("order", ORDER, orderStatus=status, cancelType="CancelByUser") == [cancelled]


def test_the_exchanges_reason_comes_before_who_cancelled() -> None:
    reason = "EC_PostOnlyWillTakeLiquidity"
    (event,) = events("order", ORDER, orderStatus="Cancelled", cancelType="CancelByUser", rejectReason=reason)
    assert isinstance(event, OrderCancelled)
    assert event.reason == reason


def test_a_rejection_is_a_rejection() -> None:
    rejected = OrderRejected(NOW, RECEIVED, "t-1", "EC_NoImmediateQtyToFill")
    assert events("order", ORDER, orderStatus="Rejected", rejectReason="EC_NoImmediateQtyToFill") == [
        rejected
    ]


def test_orders_that_the_exchange_made_are_left_to_their_executions() -> None:
    assert events("order", ORDER, orderLinkId="", orderStatus="Untriggered", stopOrderType="StopLoss") == []


def test_other_categories_are_not_ours() -> None:
    assert events("order", ORDER, category="spot") == []
    assert events("execution", FILL, category="option") == []
    assert events("position", POSITION, category="inverse") == []


def test_a_status_that_we_do_not_know_is_an_error() -> None:
    with pytest.raises(WireError, match="Levitating"):
        events("order", ORDER, orderStatus="Levitating")


# --- executions -------------------------------------------------------------------------------------------


def test_a_fill_of_our_order() -> None:
    assert events("execution", FILL) == [
        OrderFilled(
            NOW, RECEIVED, "e-1", "t-1", "XUSDT", Side.BUY, Decimal("10.5"), Decimal(2), Decimal("0.01"),
            Decimal(1), True, FillOrigin.ORDER,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "origin"),
    [
        ({"stopOrderType": "StopLoss"}, FillOrigin.STOP_LOSS),
        ({"stopOrderType": "PartialStopLoss"}, FillOrigin.STOP_LOSS),
        ({"stopOrderType": "TrailingStop"}, FillOrigin.STOP_LOSS),
        ({"createType": "CreateByStopLoss"}, FillOrigin.STOP_LOSS),
        ({"stopOrderType": "TakeProfit"}, FillOrigin.TAKE_PROFIT),
        ({"createType": "CreateByPartialTakeProfit"}, FillOrigin.TAKE_PROFIT),
        ({"stopOrderType": "UNKNOWN", "createType": "CreateByUser"}, FillOrigin.ORDER),
        (
            {"stopOrderType": "Stop", "createType": "CreateByUser"},
            FillOrigin.ORDER,
        ),  # our own conditional order
    ],
)
def test_a_fill_knows_who_caused_it(changes: dict[str, str], origin: FillOrigin) -> None:
    (fill,) = events("execution", FILL, **changes)
    assert isinstance(fill, OrderFilled)
    assert fill.origin is origin


@pytest.mark.parametrize("kind", ["AdlTrade", "BustTrade", "Delivery", "Settle"])
def test_what_the_exchange_takes_from_us_is_booked_too(kind: str) -> None:
    (fill,) = events("execution", FILL, execType=kind, orderLinkId="", leavesQty="")
    assert isinstance(fill, OrderFilled)
    assert (fill.link_id, fill.qty) == ("", Decimal(2))


@pytest.mark.parametrize(("fee", "amount"), [("0.25", "0.25"), ("-0.25", "-0.25")])
def test_funding_is_positive_when_we_pay(fee: str, amount: str) -> None:
    (paid,) = events("execution", FILL, execType="Funding", execFee=fee, feeRate="0.0001", orderLinkId="")
    assert paid == FundingPaid(NOW, RECEIVED, "e-1", "XUSDT", Decimal(amount), 0.0001)


def test_a_fee_in_another_coin_counts_at_its_rate() -> None:
    (fill,) = events("execution", FILL, feeCurrency="MNT", execFee="0.00003")
    assert isinstance(fill, OrderFilled)
    assert fill.fee == Decimal("21") * Decimal("0.00055")


@pytest.mark.parametrize("kind", ["CorporateAction", "MovePosition"])
def test_an_execution_that_we_cannot_book_is_an_error_and_not_skipped(kind: str) -> None:
    with pytest.raises(WireError, match="reconcile"):
        events("execution", FILL, execType=kind)


def test_a_fill_of_ours_that_hides_what_is_left_is_an_error() -> None:
    with pytest.raises(WireError, match="still wants"):
        events("execution", FILL, leavesQty="")


def test_a_real_execution_is_a_fill() -> None:
    (fill,) = told(sample("ws-execution/docs__execution-1.json"))
    assert isinstance(fill, OrderFilled)
    assert (fill.price, fill.fee, fill.link_id) == (Decimal("95900.1"), Decimal("26.3725275"), "")


# --- positions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "stop"), [("9.9", Decimal("9.9")), ("0", None), ("0.00", None), ("", None)])
def test_a_position_tells_its_stop(sent: str, stop: Decimal | None) -> None:
    assert events("position", POSITION, stopLoss=sent) == [StopMoved(NOW, RECEIVED, "XUSDT", stop)]


def test_a_flat_position_has_no_stop_to_tell() -> None:
    assert events("position", POSITION, size="0", side="") == []


def test_hedge_mode_is_an_error() -> None:
    with pytest.raises(WireError, match="one-way"):
        events("position", POSITION, positionIdx=1)


# --- market -----------------------------------------------------------------------------------------------

START = NOW - NOW % (5 * MINUTE_MS) - 5 * MINUTE_MS
CANDLE = {
    "start": START, "end": START + 5 * MINUTE_MS - 1, "interval": "5", "open": "10", "high": "12", "low": "9",
    "close": "11", "volume": "100", "turnover": "1050", "confirm": True,
}  # fmt: skip


def klines(**changes: Any) -> Klines:
    frame = {"topic": "kline.5.XUSDT", "type": "snapshot", "ts": NOW, "data": [{**CANDLE, **changes}]}
    message = wire.decode(json.dumps(frame).encode())
    assert isinstance(message, Klines)
    return message


def test_a_confirmed_candle_is_a_closed_bar() -> None:
    end = START + 5 * MINUTE_MS
    bar = BarClosed(end, RECEIVED, "XUSDT", START, 5 * MINUTE_MS, 10.0, 12.0, 9.0, 11.0, 100.0, 1050.0)
    assert bars_from_klines(klines(), RECEIVED) == [bar]


def test_an_open_candle_is_no_bar() -> None:
    assert bars_from_klines(klines(confirm=False), RECEIVED) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"high": "10.5"},
        {"low": "10.5"},
        {"low": "0", "open": "0"},
        {"start": START + 1, "end": START + 5 * MINUTE_MS},
    ],
)
def test_a_bar_that_cannot_be_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="no bar can be"):
        bars_from_klines(klines(**changes), RECEIVED)


def test_a_bar_of_the_future_is_an_error_whatever_it_confirms() -> None:
    start = RECEIVED // (5 * MINUTE_MS) * 5 * MINUTE_MS
    frame = klines(start=start, end=start + 5 * MINUTE_MS - 1)
    with pytest.raises(WireError, match="was told at"):
        bars_from_klines(frame, RECEIVED)


def test_rest_rows_become_the_same_bars() -> None:
    row = KlineRow(START, 10.0, 12.0, 9.0, 11.0, 100.0, 1050.0)
    assert [bar_from_row("XUSDT", 5 * MINUTE_MS, row, RECEIVED)] == bars_from_klines(klines(), RECEIVED)


def linear(**changes: Any) -> Any:
    payload = json.loads(sample("rest-GET-market-instruments-info/xchange__getInstrumentLinear.json"))
    item = payload["result"]["list"][0]
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            item[section][name] = value
        else:
            item[key] = value
    path = "/v5/market/instruments-info"
    return wire.decode_response(path, json.dumps(payload).encode()).value.instruments[0]


def test_a_real_instrument_has_its_filters() -> None:
    contract = instrument(linear(lotSizeFilter__minNotionalValue="5", lotSizeFilter__maxMktOrderQty="50"))
    assert (contract.symbol, contract.tick_size, contract.qty_step) == (
        "BTCUSDT",
        Decimal("0.50"),
        Decimal("0.001"),
    )
    assert (contract.min_notional, contract.max_market_qty) == (Decimal(5), Decimal(50))
    assert contract.funding_interval_ms == 8 * HOUR_MS


@pytest.mark.parametrize(
    "changes",
    [{"lotSizeFilter__qtyStep": ""}, {"lotSizeFilter__qtyStep": "0"}, {"priceFilter__tickSize": "0"},
     {"lotSizeFilter__minOrderQty": ""}, {"fundingInterval": 0}],
)  # fmt: skip
def test_an_instrument_without_a_filter_that_orders_depend_on_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="BTCUSDT"):
        instrument(linear(**changes))


def pushed(topic: str, data: Any, kind: str = "snapshot") -> Any:
    return wire.decode(json.dumps({"topic": topic, "type": kind, "ts": NOW, "data": data}).encode())


def test_trades_are_facts_with_the_takers_side_and_block_trades_are_left_out() -> None:
    one = {"T": NOW - 2, "s": "XUSDT", "S": "Sell", "v": "1.5", "p": "10.25", "i": "a", "BT": False}
    message = pushed("publicTrade.XUSDT", [one, {**one, "i": "b", "BT": True}])
    assert isinstance(message, Trades)
    assert trades(message, RECEIVED) == [Traded(NOW - 2, RECEIVED, "XUSDT", Side.SELL, 10.25, 1.5)]


def test_a_trade_of_the_future_is_an_error() -> None:
    """It would take the place of true ones in the ring of the newest bars."""
    one = {"T": NOW + 365 * 86_400_000, "s": "XUSDT", "S": "Sell", "v": "1", "p": "10", "i": "a", "BT": False}
    message = pushed("publicTrade.XUSDT", [one])
    assert isinstance(message, Trades)
    with pytest.raises(WireError, match="of the future"):
        trades(message, RECEIVED)


def test_a_ticker_tells_what_changed_and_what_has_no_value_any_more() -> None:
    data = {"symbol": "XUSDT", "markPrice": "10.5", "fundingRate": "", "nextFundingTime": str(NOW)}
    message = pushed("tickers.XUSDT", data, "delta")
    assert isinstance(message, Ticker)
    event = ticker(message, RECEIVED)
    assert event.funding_rate is not None
    assert math.isnan(event.funding_rate)
    assert (event.mark_price, event.index_price, event.next_funding_time) == (10.5, None, NOW)
    assert not event.is_snapshot
    silent = ticker(pushed("tickers.XUSDT", {"symbol": "XUSDT"}), RECEIVED)
    assert silent == TickerChanged(NOW, RECEIVED, "XUSDT", True)


def test_an_instruments_status_is_a_fact_and_an_unknown_one_an_error() -> None:
    event = status_changed(linear(status="PreLaunch"), NOW)
    assert event == InstrumentStatusChanged(NOW, NOW, "BTCUSDT", TradingStatus.PRE_LAUNCH)
    with pytest.raises(WireError, match="'Resting'"):
        status_changed(linear(status="Resting"), NOW)


def test_a_rest_book_can_audit_the_book_of_the_stream() -> None:
    payload = {
        "retCode": 0, "retMsg": "OK", "time": NOW,
        "result": {"s": "XUSDT", "b": [["10", "1"]], "a": [["11", "2"]], "ts": NOW, "u": 3, "seq": 9},
    }  # fmt: skip
    snapshot = wire.decode_response("/v5/market/orderbook", json.dumps(payload).encode()).value
    book = rest_book(snapshot)
    assert (book.s, book.b, book.a, book.seq) == ("XUSDT", [(10.0, 1.0)], [(11.0, 2.0)], 9)
