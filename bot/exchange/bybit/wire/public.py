"""Messages of the public streams. Market data is float; times are ms UTC of the exchange."""

from typing import ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType, field

from bot.core.types import Side
from bot.exchange.bybit.wire.codec import Finite, Millis, Price, Sequence, Size, Wire, names

PushType = Literal["snapshot", "delta"]
Level = tuple[Price, Size]  # size 0 deletes the level
MaybeNumber = Finite | UnsetType | None


class BookData(Wire, frozen=True):
    """{"s": "BTCUSDT", "b": [["75837.13", "0"]], "a": [["75848.89", "0.088149"]], "u": 28, "seq": 474}"""

    symbol: str = field(name="s")
    bids: list[Level] = field(name="b")
    asks: list[Level] = field(name="a")
    update_id: Sequence = field(name="u")
    sequence: Sequence = field(name="seq")


class Book(Wire, frozen=True):
    """`orderbook.{1,50,200,1000}.SYMBOL`. `cts` is the matching engine's time.

    {"topic": "orderbook.50.BTCUSDT", "type": "delta", "ts": 1731035685345,
     "data": {"s": "BTCUSDT", "b": [["75837.13", "0"]], "a": [["75848.89", "0.088149"]],
              "u": 2876701, "seq": 47474967823}, "cts": 1731035685342}
    """

    topic: str
    type: PushType
    ts: Millis
    data: BookData
    cts: Millis = 0


class RpiBookData(Wire, frozen=True):
    """{"s": "BTCUSDT", "b": [["121975.1", "0.114259", "0"]], "a": [], "u": 2258980, "seq": 79683241099}"""

    symbol: str = field(name="s")
    bids: list[tuple[Price, Size, Size]] = field(name="b")  # price, size, size of RPI orders
    asks: list[tuple[Price, Size, Size]] = field(name="a")
    update_id: Sequence = field(name="u")
    sequence: Sequence = field(name="seq", default=-1)


class RpiBook(Wire, frozen=True):
    """`orderbook.rpi.SYMBOL`: a book with the quantities of retail price improvement orders.

    {"topic": "orderbook.rpi.BTCUSDT", "type": "delta", "ts": 1752472188075,
     "data": {"s": "BTCUSDT", "b": [["121975.1", "0.114259", "0"]], "a": [],
              "u": 2258980, "seq": 79683241099}, "cts": 1752472188067}
    """

    topic: str
    type: PushType
    ts: Millis
    data: RpiBookData
    cts: Millis = 0


class Trade(Wire, frozen=True):
    """{"T": 1690720953111, "s": "BTCUSDT", "S": "Sell", "v": "1.3637", "p": "27450.5", "i": "22000000000"}"""

    time: Millis = field(name="T")
    symbol: str = field(name="s")
    side: Side = field(name="S")  # of the taker
    size: Size = field(name="v")
    price: Price = field(name="p")
    id: str = field(name="i")
    tick_direction: str = field(name="L", default="")
    is_block: bool = field(name="BT", default=False)
    is_rpi: bool = field(name="RPI", default=False)
    sequence: Sequence = field(name="seq", default=-1)
    mark_price: Finite | None = field(name="mP", default=None)  # options only, like the three below
    index_price: Finite | None = field(name="iP", default=None)
    mark_iv: Finite | None = field(name="mIv", default=None)
    iv: Finite | None = None


class Trades(Wire, frozen=True):
    """`publicTrade.SYMBOL`: up to 1024 trades, oldest first.

    {"topic": "publicTrade.BTCUSDT", "ts": 1690720953113, "type": "snapshot",
     "data": [{"i": "2200000000067341890", "T": 1690720953111, "p": "27450.5", "v": "1.3637",
               "S": "Sell", "s": "BTCUSDT", "BT": false}]}
    """

    topic: str
    ts: Millis
    data: list[Trade]
    type: PushType = "snapshot"
    id: str = ""


class TickerData(Wire, frozen=True):
    """Fields of one ticker. In a delta a field that is UNSET has not changed; None means "no value now".

    {"symbol": "BTCUSDT", "bid1Price": "17215.50", "bid1Size": "84.489", "preOpenPrice": ""}
    """

    symbol: str
    last_price: MaybeNumber = UNSET
    mark_price: MaybeNumber = UNSET
    index_price: MaybeNumber = UNSET
    usd_index_price: MaybeNumber = UNSET
    bid_price: MaybeNumber = field(name="bid1Price", default=UNSET)
    bid_size: MaybeNumber = field(name="bid1Size", default=UNSET)
    ask_price: MaybeNumber = field(name="ask1Price", default=UNSET)
    ask_size: MaybeNumber = field(name="ask1Size", default=UNSET)
    prev_price_24h: MaybeNumber = field(name="prevPrice24h", default=UNSET)
    price_24h_change: MaybeNumber = field(name="price24hPcnt", default=UNSET)  # a fraction
    high_price_24h: MaybeNumber = field(name="highPrice24h", default=UNSET)
    low_price_24h: MaybeNumber = field(name="lowPrice24h", default=UNSET)
    prev_price_1h: MaybeNumber = field(name="prevPrice1h", default=UNSET)
    volume_24h: MaybeNumber = field(name="volume24h", default=UNSET)
    turnover_24h: MaybeNumber = field(name="turnover24h", default=UNSET)
    open_interest: MaybeNumber = UNSET
    open_interest_value: MaybeNumber = UNSET
    single_open_interest: MaybeNumber = UNSET
    single_open_interest_value: MaybeNumber = UNSET
    funding_rate: MaybeNumber = UNSET
    next_funding_time: Millis | UnsetType | None = UNSET
    funding_interval_hour: MaybeNumber = UNSET
    funding_cap: MaybeNumber = UNSET
    tick_direction: str | UnsetType = UNSET
    delivery_time: str | UnsetType = UNSET  # ISO 8601 in streams, ms in REST
    delivery_fee_rate: MaybeNumber = UNSET
    predicted_delivery_price: MaybeNumber = UNSET
    basis: MaybeNumber = UNSET
    basis_rate: MaybeNumber = UNSET
    basis_rate_year: MaybeNumber = UNSET
    pre_open_price: MaybeNumber = UNSET
    pre_qty: MaybeNumber = UNSET
    cur_pre_listing_phase: str | UnsetType = UNSET

    def merged(self, delta: "TickerData") -> "TickerData":
        """This ticker after a delta of the same symbol."""
        changed = {
            name: value for name in self.__struct_fields__ if (value := getattr(delta, name)) is not UNSET
        }
        return msgspec.structs.replace(self, **changed)


class Ticker(Wire, frozen=True):
    """`tickers.SYMBOL`: a snapshot, then (linear, inverse) deltas with the changed fields only.

    {"topic": "tickers.BTCUSDT", "type": "delta", "cs": 24987956059, "ts": 1673272861686,
     "data": {"symbol": "BTCUSDT", "bid1Price": "17215.50", "bid1Size": "84.489"}}
    """

    topic: str
    type: PushType
    ts: Millis
    data: TickerData
    cs: Sequence = -1


class Candle(Wire, frozen=True):
    """{"start": 1672324800000, "end": 1672325099999, "interval": "5", "open": "16649.5", "high": "16677",
    "low": "16608", "close": "16677", "volume": "2.081", "turnover": "34666.4005", "confirm": false}
    """

    start: Millis
    end: Millis  # the last ms inside the candle
    interval: str
    open: Size
    high: Size
    low: Size
    close: Size
    volume: Size  # base coin (linear, spot)
    turnover: Size
    confirm: bool  # True exactly when the candle has closed
    timestamp: Millis = 0


class Klines(Wire, frozen=True):
    """`kline.INTERVAL.SYMBOL`, also while the candle is still open.

    {"topic": "kline.5.BTCUSDT", "type": "snapshot", "ts": 1672324988882,
     "data": [{"start": 1672324800000, "end": 1672325099999, "interval": "5", "open": "16649.5",
               "close": "16677", "high": "16677", "low": "16608", "volume": "2.081",
               "turnover": "34666.4005", "confirm": false, "timestamp": 1672324988882}]}
    """

    topic: str
    ts: Millis
    data: list[Candle]
    type: PushType = "snapshot"

    @property
    def symbol(self) -> str:
        return self.topic.rpartition(".")[2]


class Liquidation(Wire, frozen=True):
    """{"T": 1739502302929, "s": "ETHUSDT", "S": "Sell", "v": "20000", "p": "0.04499"}"""

    time: Millis = field(name="T")
    symbol: str = field(name="s")
    side: Side = field(name="S")  # Buy: a long position was liquidated
    size: Size = field(name="v")
    price: Price = field(name="p")  # bankruptcy price


class Liquidations(Wire, frozen=True):
    """`allLiquidation.SYMBOL`.

    {"topic": "allLiquidation.ETHUSDT", "type": "snapshot", "ts": 1739502303204,
     "data": [{"T": 1739502302929, "s": "ETHUSDT", "S": "Sell", "v": "20000", "p": "0.04499"}]}
    """

    topic: str
    ts: Millis
    data: list[Liquidation]
    type: PushType = "snapshot"


class PriceLimitData(Wire, frozen=True):
    """{"symbol": "BTCUSDT", "buyLmt": "114450.00", "sellLmt": "103550.00"}"""

    symbol: str
    highest_buy: Size = field(name="buyLmt")
    lowest_sell: Size = field(name="sellLmt")
    ts: Millis = 0


class PriceLimit(Wire, frozen=True):
    """`priceLimit.SYMBOL`.

    {"topic": "priceLimit.BTCUSDT", "ts": 1750059683782,
     "data": {"symbol": "BTCUSDT", "buyLmt": "114450.00", "sellLmt": "103550.00"}}
    """

    topic: str
    data: PriceLimitData
    ts: Millis = 0
    type: PushType = "snapshot"


class AdlAlert(Wire, frozen=True):
    """{"c": "USDT", "s": "BERAUSDT", "b": 453.3, "mb": 453.3, "i_pr": -0.3, "pr": 0.24576, "adl_tt": 10000,
    "adl_sr": -0.25}
    """

    coin: str = field(name="c")
    symbol: str = field(name="s")
    balance: Finite = field(name="b")  # of the insurance pool
    max_balance: Finite = field(name="mb")
    insurance_pnl_ratio: Finite = field(name="i_pr")
    pnl_ratio: Finite = field(name="pr")
    trigger_threshold: Finite = field(name="adl_tt")
    stop_ratio: Finite = field(name="adl_sr")


class AdlAlerts(Wire, frozen=True):
    """`adlAlert.COIN`: how near the insurance pools are to auto-deleveraging.

    {"topic": "adlAlert.USDT", "type": "snapshot", "ts": 1757736794000,
     "data": [{"c": "USDT", "s": "BERAUSDT", "b": 453.3, "mb": 453.3, "i_pr": -0.3, "pr": 0.24576,
               "adl_tt": 10000, "adl_sr": -0.25}]}
    """

    topic: str
    ts: Millis
    data: list[AdlAlert]
    type: PushType = "snapshot"


class Maintenance(Wire, frozen=True):
    """{"id": "4d95b2a0", "title": "t06", "state": "completed", "begin": "1751596902000",
    "end": "1751597011000", "serviceTypes": [2], "product": [1], "maintainType": 1, "env": 1}
    """

    unused: ClassVar[frozenset[str]] = names("href uidSuffix")
    id: str
    state: str  # scheduled, ongoing, completed, canceled
    begin: Millis
    end: Millis
    title: str = ""
    service_types: list[int] = field(default_factory=list)
    product: list[int] = field(default_factory=list)
    maintain_type: int = 0
    env: int = 0


class SystemStatus(Wire, frozen=True):
    """`system.status`: announced and running maintenance.

    {"topic": "system.status", "ts": 1751858399649,
     "data": [{"id": "4d95b2a0", "title": "t06", "state": "completed", "begin": "1751596902000",
               "end": "1751597011000", "serviceTypes": [2], "product": [1], "maintainType": 1, "env": 1}]}
    """

    topic: str
    data: list[Maintenance]
    ts: Millis = 0
