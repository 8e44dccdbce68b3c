"""Bybit messages become typed values; what is new is tolerated and counted, what is missing is an error."""

import json
from decimal import Decimal
from typing import Any

import pytest
from msgspec import UNSET

from bot.core.types import Side
from bot.exchange.bybit import wire
from bot.exchange.bybit.wire import WireError, private, public
from bot.exchange.bybit.wire.control import Reply, Request
from bot.exchange.bybit.wire.private import Positions
from bot.exchange.bybit.wire.stream import MAX_FRAME
from tests.bybit_fixtures import Sample, needs_fixtures, sample, samples

BOOK: dict[str, Any] = {
    "topic": "orderbook.50.BTCUSDT",
    "type": "delta",
    "ts": 1731035685345,
    "data": {"s": "BTCUSDT", "b": [["100.5", "0"]], "a": [["101", "2.5"]], "u": 7, "seq": 9},
    "cts": 1731035685342,
}
ORDER: dict[str, Any] = {
    "orderId": "o1",
    "symbol": "BTCUSDT",
    "side": "Buy",
    "orderType": "Limit",
    "orderStatus": "New",
    "qty": "0.10",
    "updatedTime": "1684738540561",
}
EXECUTION = {
    "symbol": "BTCUSDT", "execId": "e1", "execPrice": "95900.1", "execQty": "0.5", "side": "Sell",
    "execTime": "1746270400353", "orderId": "o1", "execType": "Trade", "leavesQty": "0",
}  # fmt: skip
POSITION = {"symbol": "ETHUSDT", "side": "Sell", "size": "0.01", "entryPrice": "3641.075"}


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def book(**changes: Any) -> bytes:
    return encoded({**BOOK, **changes})


def order_frame(**changes: Any) -> bytes:
    return encoded({"topic": "order", "creationTime": 1, "data": [{**ORDER, **changes}]})


def answer(result: Any, code: int = 0) -> bytes:
    return encoded({"retCode": code, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": 5})


# --- real messages ----------------------------------------------------------------------------------------


@needs_fixtures
@pytest.mark.parametrize("message", samples(), ids=str)
def test_every_real_message_decodes(message: Sample) -> None:
    if message.path:
        response = wire.decode_response(message.path, message.payload)
        assert response.code != 0 or response.result is not None
    else:
        assert not isinstance(wire.decode(message.payload), wire.Other)


@needs_fixtures
def test_the_real_messages_hold_one_field_that_we_do_not_know_and_it_is_counted() -> None:
    wire.unknown.clear()
    for message in samples():
        if message.path:
            wire.decode_response(message.path, message.payload)
        else:
            wire.decode(message.payload)
    assert dict(wire.unknown) == {"wallet.data.totalPerpUpl": 3}  # a hand-made spelling of totalPerpUPL


def test_a_real_order_book_delta_becomes_numbers() -> None:
    message = wire.decode(sample("ws-orderbook-delta/gct__bybit_test-L3029.json"))
    assert isinstance(message, public.Book)
    assert (message.data.symbol, message.type, message.data.update_id) == ("BTCUSDT", "delta", 2876701)
    assert message.data.bids == [(75848.62, 0.014895), (75837.13, 0.0)]


def test_a_real_execution_keeps_its_money_exact() -> None:
    message = wire.decode(sample("ws-execution/docs__execution-1.json"))
    assert isinstance(message, private.Executions)
    (fill,) = message.data
    assert (fill.exec_price, fill.exec_fee) == (Decimal("95900.1"), Decimal("26.3725275"))
    assert (fill.side, fill.exec_time, fill.order_link_id) == (Side.SELL, 1746270400353, "")


def test_a_real_batch_answer_pairs_each_order_with_its_verdict() -> None:
    response = wire.decode_response(
        "/v5/order/cancel-batch", sample("rest-POST-order-cancel-batch/docs__batch-cancel-0.json")
    )
    assert [item.order_link_id for item in response.value.items] == ["spot-btc-03", "1666800494330512129"]
    assert [verdict.code for verdict in response.verdicts] == [0, 170213]


def test_an_order_reply_by_websocket_is_read_like_its_rest_twin() -> None:
    reply = wire.decode(sample("ws-trade/docs__guideline-3.json"))
    assert isinstance(reply, Reply)
    response = wire.response_of_reply(reply)
    assert response.value.order_id == "a4c1718e-fe53-4659-a118-1f6ecce04ad9"
    assert response.time == 1711001595209


# --- what is missing, what is new -------------------------------------------------------------------------


def test_an_empty_number_is_missing_and_an_empty_text_is_empty() -> None:
    message = wire.decode(order_frame(avgPrice="", stopLoss="", rejectReason="", leavesQty=None))
    assert isinstance(message, private.Orders)
    (order,) = message.data
    assert (order.avg_price, order.stop_loss, order.leaves_qty, order.reject_reason) == (None, None, None, "")


def test_an_unknown_field_is_tolerated_and_counted() -> None:
    wire.unknown.clear()
    first = wire.decode(book(sparkle=1))
    wire.decode(book(data={**BOOK["data"], "glitter": {"x": 1}}))
    assert first == wire.decode(book())
    assert wire.unknown == {"orderbook.sparkle": 1, "orderbook.data.glitter": 1}


def test_an_unknown_topic_is_tolerated_and_counted() -> None:
    wire.unknown.clear()
    message = wire.decode(b'{"topic": "weather.BTCUSDT", "data": [1]}')
    assert isinstance(message, wire.Other)
    assert wire.unknown == {"topic weather": 1}


def test_hostile_field_names_do_not_grow_the_counter_for_ever() -> None:
    wire.unknown.clear()
    for number in range(3_000):
        wire.decode(book(**{f"x{number}": 1}))
    assert len(wire.unknown) <= 1_001
    assert wire.unknown.total() == 3_000
    wire.unknown.clear()


@pytest.mark.parametrize(
    "field", ["orderId", "symbol", "side", "orderType", "orderStatus", "qty", "updatedTime"]
)
def test_an_order_without_an_essential_field_is_an_error_that_names_it(field: str) -> None:
    frame = {"topic": "order", "data": [{key: value for key, value in ORDER.items() if key != field}]}
    with pytest.raises(WireError, match=field):
        wire.decode(encoded(frame))


@pytest.mark.parametrize("field", sorted(EXECUTION.keys() - {"leavesQty"}))
def test_an_execution_without_an_essential_field_is_an_error_that_names_it(field: str) -> None:
    data = [{key: value for key, value in EXECUTION.items() if key != field}]
    with pytest.raises(WireError, match=field):
        wire.decode(encoded({"topic": "execution", "data": data}))


@pytest.mark.parametrize(
    ("topic", "good", "changes"),
    [
        ("execution", EXECUTION, {"execId": ""}),
        ("execution", EXECUTION, {"execQty": "-1"}),
        ("execution", EXECUTION, {"execQty": "0"}),
        ("execution", EXECUTION, {"execPrice": "0"}),
        ("execution", EXECUTION, {"leavesQty": "-1"}),
        ("order", ORDER, {"orderId": ""}),
        ("order", ORDER, {"qty": "1e99"}),
        ("order", ORDER, {"cumExecQty": "-1"}),
        ("position", POSITION, {"size": "-5"}),
        ("position", POSITION, {"side": ""}),
        ("position", POSITION, {"side": "sell"}),
        ("position", POSITION, {"side": "None"}),
    ],
)
def test_what_cannot_be_said_of_our_account_is_an_error_and_never_something_else(
    topic: str, good: dict[str, str], changes: dict[str, str]
) -> None:
    """A short of which the side is missing must not pass for a long."""
    wire.decode(encoded({"topic": topic, "data": [good]}))
    with pytest.raises(WireError):
        wire.decode(encoded({"topic": topic, "data": [{**good, **changes}]}))


def test_a_position_that_is_flat_has_no_side() -> None:
    message = wire.decode(encoded({"topic": "position", "data": [{**POSITION, "size": "0", "side": ""}]}))
    assert isinstance(message, Positions)
    assert message.data[0].signed_size == 0


@pytest.mark.parametrize("field", ["s", "b", "a", "u"])
def test_a_book_without_an_essential_field_is_an_error_that_names_it(field: str) -> None:
    data = {key: value for key, value in BOOK["data"].items() if key != field}
    with pytest.raises(WireError, match=f"`{field}`"):
        wire.decode(book(data=data))


def test_a_successful_answer_without_its_result_is_an_error() -> None:
    with pytest.raises(WireError, match="orderId"):
        wire.decode_response("/v5/order/create", answer({}))


def test_a_row_that_cannot_be_read_hides_no_other_of_the_market_and_is_counted() -> None:
    wire.unknown.clear()
    rows = [{"symbol": "AUSDT"}, {"lastPrice": "1"}, {"symbol": "CUSDT", "lastPrice": "NaN"}, "BUSDT"]
    found = wire.decode_response("/v5/market/tickers", answer({"list": [*rows, {"symbol": "DUSDT"}]}))
    assert [ticker.symbol for ticker in found.value.tickers] == ["AUSDT", "DUSDT"]
    assert wire.unknown["market/tickers.list.(unreadable)"] == 3
    assert found.unreadable


def test_a_position_that_cannot_be_read_refuses_the_whole_answer() -> None:
    good = {"symbol": "AUSDT", "size": "1", "side": "Buy", "positionIdx": 0}
    wire.decode_response("/v5/position/list", answer({"list": [good]}))
    with pytest.raises(WireError, match="size"):
        wire.decode_response("/v5/position/list", answer({"list": [good, {"symbol": "BUSDT"}]}))


def test_an_answer_with_an_error_code_needs_no_result() -> None:
    response = wire.decode_response("/v5/order/create", answer({}, code=110007))
    assert (response.code, response.result) == (110007, None)
    with pytest.raises(WireError, match="110007"):
        _ = response.value


def test_an_endpoint_that_we_do_not_use_is_an_error() -> None:
    with pytest.raises(WireError, match="/v5/moon"):
        wire.decode_response("/v5/moon/phase", answer({}))


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", ["nan", "NaN", "inf", "-Infinity", "1e400", "0x10", "1_0", " 1", "-1", "x"]
)
def test_a_book_never_takes_a_price_that_is_not_a_positive_number(number: str) -> None:
    with pytest.raises(WireError):
        wire.decode(book(data={**BOOK["data"], "b": [[number, "1"]]}))


@pytest.mark.parametrize("number", ["NaN", "sNaN", "Infinity", "1e999999999", "1_0", "ten", "9" * 60])
def test_money_is_a_finite_plain_number(number: str) -> None:
    with pytest.raises(WireError, match="not a number"):
        wire.decode(order_frame(qty=number))


def test_the_javas_zero_with_an_exponent_is_zero() -> None:
    message = wire.decode(order_frame(qty="0E-8"))
    assert isinstance(message, private.Orders)
    assert message.data[0].qty == 0


def test_numbers_may_come_as_json_numbers() -> None:
    message = wire.decode(order_frame(qty=0.1, createdTime=1684738540559))
    assert isinstance(message, private.Orders)
    assert (message.data[0].qty, message.data[0].created_time) == (Decimal("0.1"), 1684738540559)


# --- malformed frames -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b'{"topic": "kline.1.X\xff", "ts": 1, "data": []}',
        b'{"topic": "weather", "data": "\xff"}',
        book()[:-5],
        book() + b"}",
        b"[" * 100_000,
        b'{"topic": "x", "data": ' + b'{"a":' * 100_000,
        book(data=[]),
        book(type="rumour"),
        book(ts="yesterday"),
        b'{"topic": 5}',
        b'{"op": ["auth"]}',
        b" " * (MAX_FRAME + 1),
    ],
    ids=lambda payload: repr(payload[:30]),
)
def test_a_frame_that_is_not_a_message_is_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(payload)


@pytest.mark.parametrize(
    "payload", [b"", b"<html>502</html>", b"[]", b"{}", b'{"retCode": "x"}', b"[" * 100_000]
)
def test_a_body_that_is_not_an_answer_is_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode_response("/v5/market/time", payload)


# --- control frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "ok"),
    [
        ({"success": True, "ret_msg": "", "op": "auth", "conn_id": "c"}, True),
        ({"retCode": 0, "retMsg": "OK", "op": "auth", "connId": "c"}, True),
        ({"success": False, "ret_msg": "error:handler not found,topic:x", "op": "subscribe"}, False),
        ({"retCode": 10004, "retMsg": "Invalid sign", "op": "auth", "connId": "c"}, False),
        ({"op": "auth", "success": False, "retCode": 10003, "retMsg": "Invalid apikey"}, False),
        ({"success": True, "ret_msg": "pong", "conn_id": "c", "op": "ping"}, True),
        ({"op": "pong", "args": ["1675418560633"]}, True),
        ({"success": True, "type": "COMMAND_RESP", "data": {"failTopics": [], "successTopics": ["x"]}}, True),
        ({"success": True, "type": "COMMAND_RESP", "data": {"failTopics": ["x"]}}, False),
    ],
)
def test_a_reply_says_whether_it_is_a_yes_in_every_dialect(frame: dict[str, Any], ok: bool) -> None:
    reply = wire.decode(encoded(frame))
    assert isinstance(reply, Reply)
    assert reply.ok is ok


def test_request_ids_may_be_texts_or_numbers() -> None:
    for name, given in (("req_id", 7), ("req_id", "7"), ("reqId", "7")):
        reply = wire.decode(encoded({"success": True, "op": "subscribe", name: given}))
        assert isinstance(reply, Reply)
        assert reply.request_id == "7"


def test_a_ping_of_a_client_is_a_request() -> None:
    assert isinstance(wire.decode(b'{"op": "ping"}'), Request)


# --- tickers ----------------------------------------------------------------------------------------------


def ticker(kind: str, **fields: Any) -> public.TickerData:
    frame = {"topic": "tickers.XUSDT", "type": kind, "ts": 1, "data": {"symbol": "XUSDT", **fields}}
    message = wire.decode(encoded(frame))
    assert isinstance(message, public.Ticker)
    return message.data


def test_a_ticker_delta_changes_only_what_it_mentions() -> None:
    now = ticker("snapshot", lastPrice="10", markPrice="10.5", preOpenPrice="9", curPreListingPhase="Open")
    now = now.merged(ticker("delta", lastPrice="11", preOpenPrice="", curPreListingPhase=""))
    assert (now.last_price, now.mark_price, now.pre_open_price) == (11.0, 10.5, None)
    assert (now.cur_pre_listing_phase, now.funding_rate) == ("", UNSET)
