"""pybit, unmodified apart from the URL, runs a full session against the local exchange."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from pybit.exceptions import InvalidRequestError
from pybit.unified_trading import HTTP, WebSocket, WebSocketTrading

from tests.local_exchange import KEY, SECRET, LocalExchange, eventually, local_exchange

SYMBOL: dict[str, str] = {"category": "linear", "symbol": "BTCUSDT"}
EVERYTHING = {"order", "execution", "position", "wallet"}
Said = dict[str, list[dict[str, Any]]]


@pytest.fixture
def exchange() -> Iterator[LocalExchange]:
    with local_exchange(latency_ms=100) as running:  # pybit races with its own subscriptions
        yield running


@pytest.fixture
def http(exchange: LocalExchange) -> HTTP:
    client = HTTP(testnet=True, api_key=KEY, api_secret=SECRET, retry_codes={-1}, max_retries=1)
    client.endpoint = exchange.url
    return client


class Redirected:
    base = ""

    def _connect(self, url: str) -> None:
        super()._connect(self.base + url[url.index("/v5/") :])  # type: ignore[misc]


class Streams(Redirected, WebSocket):  # type: ignore[misc]
    pass


class Orders(Redirected, WebSocketTrading):  # type: ignore[misc]
    pass


@pytest.fixture
def said() -> Said:
    return defaultdict(list)


@pytest.fixture
def private(exchange: LocalExchange, said: Said) -> Iterator[WebSocket]:
    Redirected.base = exchange.streams
    stream = Streams(
        channel_type="private", testnet=False, api_key=KEY, api_secret=SECRET, private_auth_expire=5
    )
    for name in ("order", "execution", "position", "wallet"):
        getattr(stream, f"{name}_stream")(note(said, name))
    eventually(lambda: EVERYTHING in subscribed(exchange).values())
    yield stream
    let_go(stream)


def subscribed(exchange: LocalExchange) -> dict[str, set[str]]:
    """The topics of each session."""
    return exchange.do(lambda: {one.identity: set(one.topics) for one in exchange.venue.hub.sessions})


def let_go(stream: Any) -> None:
    """pybit's own `exit` waits without end for a socket that the exchange has cut."""
    stream.exited = True
    stream._stop_custom_ping_timer()
    stream.ws.close()


def all_fills(exchange: LocalExchange, said: Said) -> list[dict[str, Any]]:
    """The executions, when the stream has told every one."""
    eventually(lambda: len(items(said, "execution")) == len(exchange.account.executions))
    return items(said, "execution")


def note(said: Said, name: str) -> Callable[[dict[str, Any]], None]:
    def callback(message: dict[str, Any]) -> None:
        said[name].append(message)

    return callback


def items(said: Said, name: str) -> list[dict[str, Any]]:
    return [item for message in list(said[name]) for item in message["data"]]


def result(answer: dict[str, Any]) -> Any:
    assert answer["retCode"] == 0
    return answer["result"]


def test_market_data_by_rest(exchange: LocalExchange, http: HTTP) -> None:
    exchange.advance(61_000)
    [instrument] = result(http.get_instruments_info(**SYMBOL))["list"]
    assert (instrument["status"], instrument["priceFilter"]["tickSize"]) == ("Trading", "0.1")
    book = result(http.get_orderbook(**SYMBOL, limit=50))
    assert len(book["b"]) == len(book["a"]) == 50
    assert Decimal(book["b"][0][0]) < 60_000 < Decimal(book["a"][0][0])
    [ticker] = result(http.get_tickers(**SYMBOL))["list"]
    assert (ticker["bid1Price"], ticker["ask1Price"]) == (book["b"][0][0], book["a"][0][0])
    rows = result(http.get_kline(**SYMBOL, interval=1))["list"]
    steps = {int(one[0]) - int(other[0]) for one, other in pairwise(rows)}
    assert steps == {60_000}, "its clock goes on beside ours: another minute may have begun"
    http.place_order(**SYMBOL, side="Buy", orderType="Market", qty="0.01")
    assert result(http.get_public_trade_history(**SYMBOL))["list"][0]["size"] == "0.010"
    for call in (
        http.get_mark_price_kline, http.get_index_price_kline, http.get_premium_index_price_kline,
    ):  # fmt: skip
        assert len(result(call(**SYMBOL, interval=1))["list"][0]) == 5
    assert result(http.get_risk_limit(**SYMBOL))["list"][0]["maxLeverage"] == "100.00"
    limits = result(http.get_price_limit(**SYMBOL))
    assert Decimal(limits["sellLmt"]) < 60_000 < Decimal(limits["buyLmt"])
    assert result(http.get_open_interest(**SYMBOL, intervalTime="5min"))["list"]
    assert result(http.get_funding_rate_history(**SYMBOL))["list"] == []
    first = int(rows[-1][0])
    assert result(http.get_kline(**SYMBOL, interval=1, start=first, limit=1))["list"] == [rows[-1]]
    assert result(http.get_long_short_ratio(**SYMBOL, period="1h", limit=2))["nextPageCursor"]
    assert "BTCUSDT" in result(http.get_insurance(coin="USDT"))["list"][0]["symbols"]
    assert result(http.get_rpi_orderbook(**SYMBOL, limit=1))["b"] == [[*book["b"][0], "0.000"]]
    assert result(http.get_index_price_components(indexName="BTCUSDT"))["lastPrice"] == "60000.0"
    assert result(http.get_option_delivery_price(category="linear"))["list"] == []
    assert len(result(http.get_adl_alert())["list"]) == 2


def test_the_life_of_orders_by_rest_and_the_private_stream(
    exchange: LocalExchange, http: HTTP, private: WebSocket, said: Said
) -> None:
    http.set_leverage(**SYMBOL, buyLeverage="5", sellLeverage="5")
    with pytest.raises(InvalidRequestError, match="leverage not modified"):
        http.set_leverage(**SYMBOL, buyLeverage="5", sellLeverage="5")

    # placed, amended, cancelled
    placed = result(
        http.place_order(**SYMBOL, side="Buy", orderType="Limit", qty="0.1", price="59000", orderLinkId="a")
    )
    assert result(http.get_open_orders(**SYMBOL))["list"][0]["orderId"] == placed["orderId"]
    result(http.amend_order(**SYMBOL, orderLinkId="a", qty="0.05", price="59100"))
    [open_order] = result(http.get_open_orders(**SYMBOL, orderLinkId="a"))["list"]
    assert (open_order["qty"], open_order["price"], open_order["orderStatus"]) == ("0.050", "59100.0", "New")
    result(http.cancel_order(**SYMBOL, orderLinkId="a"))
    eventually(lambda: [item["orderStatus"] for item in items(said, "order")] == ["New", "New", "Cancelled"])
    assert (
        result(http.get_order_history(**SYMBOL, orderLinkId="a"))["list"][0]["cancelType"] == "CancelByUser"
    )

    # a partial fill: more than the best level holds
    price, size = result(http.get_orderbook(**SYMBOL, limit=1))["a"][0]
    qty = str(Decimal(size) + Decimal("0.01"))
    result(http.place_order(**SYMBOL, side="Buy", orderType="Limit", qty=qty, price=price, orderLinkId="b"))
    [partly] = result(http.get_open_orders(**SYMBOL, orderLinkId="b"))["list"]
    assert (partly["orderStatus"], partly["cumExecQty"], partly["leavesQty"]) == (
        "PartiallyFilled",
        size,
        "0.010",
    )
    exchange.advance(300)  # the crowd quotes the level again and takes the rest
    [fills, rest] = [item for item in all_fills(exchange, said) if item["orderLinkId"] == "b"]
    assert (fills["execQty"], fills["isMaker"], rest["execQty"], rest["isMaker"]) == (
        size,
        False,
        "0.010",
        True,
    )
    [position] = result(http.get_positions(**SYMBOL))["list"]
    assert (position["side"], position["size"], position["leverage"]) == ("Buy", f"{Decimal(qty):.3f}", "5")
    result(http.set_trading_stop(**SYMBOL, positionIdx=0, stopLoss="59500", tpslMode="Full"))
    [position] = result(http.get_positions(**SYMBOL))["list"]
    assert position["stopLoss"] == "59500.0"

    # the stop is triggered and closes the position
    exchange.move("BTCUSDT", 0.98)
    [position] = result(http.get_positions(**SYMBOL))["list"]
    assert (position["side"], position["size"], position["stopLoss"]) == ("", "0.000", "0")
    fees = sum(Decimal(fill["execFee"]) for fill in all_fills(exchange, said))

    def stops() -> list[str]:
        return [item["orderStatus"] for item in items(said, "order") if item["stopOrderType"] == "StopLoss"]

    eventually(lambda: stops()[-1:] == ["Filled"])
    assert stops()[:2] == ["Untriggered", "Triggered"]
    [closed] = result(http.get_closed_pnl(**SYMBOL))["list"]
    gross = sum(
        (-1 if fill["side"] == "Buy" else 1) * Decimal(fill["execValue"]) for fill in items(said, "execution")
    )
    wallet = Decimal(result(http.get_wallet_balance(accountType="UNIFIED"))["list"][0]["totalWalletBalance"])
    assert wallet == 10_000 + gross - fees
    assert Decimal(closed["closedPnl"]) == wallet - 10_000 < 0
    eventually(lambda: Decimal(items(said, "wallet")[-1]["totalWalletBalance"]) == wallet)
    eventually(lambda: items(said, "position")[-1]["size"] == "0.000")
    log = result(http.get_transaction_log(accountType="UNIFIED"))["list"]
    assert sum(Decimal(entry["change"]) for entry in log) == wallet
    executions = result(http.get_executions(**SYMBOL))["list"]
    assert {row["execId"] for row in executions} == {row["execId"] for row in items(said, "execution")}


def test_conditional_hedged_and_batched_orders(exchange: LocalExchange, http: HTTP) -> None:
    http.switch_position_mode(**SYMBOL, mode=3)
    long = {"side": "Buy", "orderType": "Market", "qty": "0.01", "positionIdx": 1}
    batch = {"category": "linear", "request": [
        {"symbol": "BTCUSDT", **long}, {"symbol": "BTCUSDT", **long, "qty": "0.00001"},
        {"symbol": "BTCUSDT", "side": "Sell", "orderType": "Market", "qty": "0.02", "positionIdx": 2},
    ]}  # fmt: skip
    answer = http.place_batch_order(**batch)
    assert [verdict["code"] for verdict in answer["retExtInfo"]["list"]] == [0, 10001, 0]
    sides = [(p["positionIdx"], p["side"], p["size"]) for p in result(http.get_positions(**SYMBOL))["list"]]
    assert sides == [(1, "Buy", "0.010"), (2, "Sell", "0.020")]
    stop = result(http.place_order(
        **SYMBOL, side="Sell", orderType="Market", qty="0.01", triggerPrice="59700", triggerDirection=2,
        positionIdx=1, reduceOnly=True,
    ))  # fmt: skip
    [waiting] = result(http.get_open_orders(**SYMBOL, orderFilter="StopOrder"))["list"]
    assert (waiting["orderId"], waiting["orderStatus"]) == (stop["orderId"], "Untriggered")
    exchange.move("BTCUSDT", 0.994)
    assert [p["size"] for p in result(http.get_positions(**SYMBOL))["list"]] == ["0.000", "0.020"]
    for price in ("50000", "50001"):
        http.place_order(**SYMBOL, side="Buy", orderType="Limit", qty="0.01", price=price, positionIdx=1)
    assert len(result(http.cancel_all_orders(**SYMBOL))["list"]) == 2
    assert result(http.get_open_orders(category="linear", settleCoin="USDT"))["list"] == []


def test_account_questions(exchange: LocalExchange, http: HTTP) -> None:
    key = result(http.get_api_key_information())
    assert (key["readOnly"], key["permissions"]["Wallet"]) == (0, [])
    assert result(http.get_account_info())["marginMode"] == "REGULAR_MARGIN"
    assert result(http.get_fee_rates(**SYMBOL))["list"][0]["takerFeeRate"] == "0.00055"
    [coin] = result(http.get_wallet_balance(accountType="UNIFIED", coin="USDT"))["list"][0]["coin"]
    assert (coin["walletBalance"], coin["equity"]) == ("10000", "10000")
    http.set_margin_mode(setMarginMode="ISOLATED_MARGIN")
    assert result(http.get_account_info())["marginMode"] == "ISOLATED_MARGIN"
    assert result(http.get_system_status())["list"] == []
    coins = {"accountType": "UNIFIED", "coin": "USDT"}
    assert result(http.get_coins_balance(**coins))["balance"][0]["walletBalance"] == "10000"
    assert result(http.get_coin_balance(**coins))["balance"]["transferBalance"] == "10000"
    assert result(http.get_transferable_amount(coinName="USDT,BTC"))["availableWithdrawalMap"]["BTC"] == "0"
    assert result(http.get_account_instruments_info(category="linear", limit=1))["nextPageCursor"]
    assert result(http.query_dcp_info()) == {"dcpInfos": []}
    http.set_auto_add_margin(**SYMBOL, autoAddMargin=1)
    assert result(http.get_positions(**SYMBOL))["list"][0]["autoAddMargin"] == 1
    assert exchange.account.wallet == 10_000


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"api_key": "nobody"}, 10003),
        ({"api_secret": "wrong"}, 10004),
        ({"api_key": "reader", "api_secret": "reader-secret"}, 10005),
        ({"recv_window": 0}, 10002),
    ],
)
def test_who_may_not_come_in_is_told_why(exchange: LocalExchange, change: dict[str, Any], code: int) -> None:
    options = {"api_key": KEY, "api_secret": SECRET, "retry_codes": {-1}, "max_retries": 1, **change}
    client = HTTP(testnet=True, **options)
    client.endpoint = exchange.url
    if code == 10002:
        exchange.arm("clock_skew", ms=-5_000)
    with pytest.raises(InvalidRequestError) as caught:
        client.place_order(**SYMBOL, side="Buy", orderType="Market", qty="0.01")
    assert caught.value.status_code == code
    assert not exchange.account.orders


def test_speed_has_a_limit_that_the_headers_tell() -> None:
    with local_exchange(rate_limit_scale=1.0) as exchange:
        client = HTTP(
            testnet=True, api_key=KEY, api_secret=SECRET, retry_codes={-1}, max_retries=1,
            return_response_headers=True,
        )  # fmt: skip
        client.endpoint = exchange.url
        exchange.venue.limits._monotonic = lambda: 0.0  # all within one second
        answers = [client.get_fee_rates(category="linear") for _ in range(5)]
        assert [headers["X-Bapi-Limit-Status"] for _, _, headers in answers] == ["4", "3", "2", "1", "0"]
        with pytest.raises(InvalidRequestError) as caught:
            client.get_fee_rates(category="linear")
        assert caught.value.status_code == 10006
        assert caught.value.resp_headers["X-Bapi-Limit"] == "5"


def test_public_streams(exchange: LocalExchange, http: HTTP, said: Said) -> None:
    Redirected.base = exchange.streams
    stream = Streams(channel_type="linear", testnet=False)
    stream.orderbook_stream(50, "BTCUSDT", note(said, "book"))
    stream.trade_stream("BTCUSDT", note(said, "trade"))
    stream.ticker_stream("BTCUSDT", note(said, "ticker"))
    stream.kline_stream(1, "BTCUSDT", note(said, "kline"))
    stream.price_limit_stream("BTCUSDT", note(said, "limit"))
    stream.insurance_pool_stream("USDT", note(said, "insurance"))
    stream.rpi_orderbook_stream("BTCUSDT", note(said, "rpi"))
    eventually(lambda: said["limit"] and said["rpi"])
    eventually(lambda: said["book"] and said["ticker"] and said["kline"])
    exchange.move("BTCUSDT", 1.001)
    http.place_order(**SYMBOL, side="Buy", orderType="Market", qty="0.01")
    exchange.advance(60_000)
    book = result(http.get_orderbook(**SYMBOL, limit=50))

    def is_same() -> bool:
        data = said["book"][-1]["data"]
        best = [
            sorted(data["b"], key=lambda row: -float(row[0])),
            sorted(data["a"], key=lambda row: float(row[0])),
        ]
        return best == [book["b"], book["a"]]

    eventually(
        lambda: said["limit"][-1]["data"]["buyLmt"] == result(http.get_price_limit(**SYMBOL))["buyLmt"]
    )
    assert not said["insurance"]
    eventually(is_same)  # pybit merges the deltas itself
    eventually(lambda: [trade["S"] for trade in items(said, "trade")] == ["Sell", "Buy"])
    eventually(lambda: any(item["confirm"] for item in items(said, "kline")))
    last = result(http.get_tickers(**SYMBOL))["list"][0]["lastPrice"]
    eventually(lambda: said["ticker"][-1]["data"]["lastPrice"] == last)
    let_go(stream)


def test_order_entry_by_websocket(exchange: LocalExchange, private: WebSocket, said: Said) -> None:
    trading = Orders(testnet=False, api_key=KEY, api_secret=SECRET, private_auth_expire=5)
    trading.place_order(note(said, "ack"), **SYMBOL, side="Buy", orderType="Limit", qty="0.1", price="59000",
                        orderLinkId="w")  # fmt: skip
    eventually(lambda: said["ack"])
    trading.amend_order(note(said, "ack"), **SYMBOL, orderLinkId="w", price="59001")
    eventually(lambda: len(said["ack"]) == 2)
    trading.cancel_order(note(said, "ack"), **SYMBOL, orderLinkId="w")
    eventually(lambda: [item["orderStatus"] for item in items(said, "order")] == ["New", "New", "Cancelled"])
    eventually(lambda: [ack["retCode"] for ack in said["ack"]] == [0, 0, 0])
    assert said["ack"][0]["data"]["orderLinkId"] == "w"
    let_go(trading)


def test_streams_come_back_after_a_restart(exchange: LocalExchange, private: WebSocket, said: Said) -> None:
    Redirected.base = exchange.streams
    public = Streams(channel_type="linear", testnet=False)
    public.orderbook_stream(50, "BTCUSDT", note(said, "book"))
    trading = Orders(testnet=False, api_key=KEY, api_secret=SECRET, private_auth_expire=5)
    eventually(lambda: said["book"])
    before, books = subscribed(exchange), len(said["book"])
    exchange.arm("restart", ms=0)

    def are_back() -> bool:
        found = [topics for name, topics in subscribed(exchange).items() if name not in before]
        return EVERYTHING in found and {"orderbook.50.BTCUSDT"} in found and len(found) == len(before)

    eventually(are_back)
    eventually(lambda: any(frame["type"] == "snapshot" for frame in said["book"][books:]))
    trading.place_order(note(said, "ack"), **SYMBOL, side="Buy", orderType="Limit", qty="0.1", price="59000")
    eventually(lambda: [ack["retCode"] for ack in said["ack"]] == [0])
    eventually(lambda: items(said, "order"))
    for stream in (public, trading):
        let_go(stream)
