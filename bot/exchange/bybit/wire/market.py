"""Results of the market data REST endpoints (`/v5/market/...`). Market data is float."""

from typing import ClassVar

from msgspec import Struct, field

from bot.core.types import Side
from bot.exchange.bybit.wire.codec import Finite, Millis, Price, Sequence, Size, Wire, names
from bot.exchange.bybit.wire.public import Level, Maintenance, TickerData


class KlineRow(Struct, frozen=True, array_like=True, gc=False):
    """["1715176800000", "62440.14", "62841.64", "62160.72", "62564.68", "706.187244", "44137837.83"]"""

    start: Millis
    open: Size
    high: Size
    low: Size
    close: Size
    volume: Size  # base coin (linear, spot)
    turnover: Size


class KlineList(Wire, frozen=True):
    """`kline`, newest first; the newest may still be open.

    {"category": "linear", "symbol": "BTCUSDT", "list": [["1709891679000", "27450", ...]]}
    """

    symbol: str
    rows: list[KlineRow] = field(name="list")
    category: str = ""


class PriceRow(Struct, frozen=True, array_like=True, gc=False):
    """["1652486400000", "-0.000587", "-0.000344", "-0.000480", "-0.000344"]"""

    start: Millis
    open: Finite
    high: Finite
    low: Finite
    close: Finite


class PriceKlineList(Wire, frozen=True):
    """`mark-price-kline`, `index-price-kline`, `premium-index-price-kline`; premiums may be negative.

    {"symbol": "BTCUSDT", "category": "linear", "list": [["1670608800000", "17164.16", ...]]}
    """

    symbol: str
    rows: list[PriceRow] = field(name="list")
    category: str = ""


class TickerList(Wire, frozen=True):
    """{"category": "linear", "list": [{"symbol": "BTCUSDT", "lastPrice": "16597.00", ...}]}"""

    tickers: list[TickerData] = field(name="list")
    category: str = ""


class BookSnapshot(Wire, frozen=True):
    """`orderbook`. `u` belongs to the 1000-level stream and cannot be joined with other depths.

    {"s": "BTCUSDT", "a": [["65557.7", "16.606555"]], "b": [["65485.47", "47.081829"]],
     "ts": 1716863719031, "u": 230704, "seq": 1432604333, "cts": 1716863718905}
    """

    bids: list[Level] = field(name="b")
    asks: list[Level] = field(name="a")
    ts: Millis
    update_id: Sequence = field(name="u")
    sequence: Sequence = field(name="seq", default=-1)
    symbol: str = field(name="s", default="")
    cts: Millis = 0


class RpiBookSnapshot(Wire, frozen=True):
    """{"s": "BTCUSDT", "a": [["116600.00", "4.428", "0.000"]], "b": [], "ts": 1758078286128, "u": 2841}"""

    bids: list[tuple[Price, Size, Size]] = field(name="b")
    asks: list[tuple[Price, Size, Size]] = field(name="a")
    ts: Millis
    update_id: Sequence = field(name="u")
    sequence: Sequence = field(name="seq", default=-1)
    symbol: str = field(name="s", default="")
    cts: Millis = 0


class PublicTrade(Wire, frozen=True):
    """{"execId": "a905d5c3", "symbol": "BTCUSDT", "price": "27450.50", "size": "0.005", "side": "Buy",
    "time": "1709891679000", "isBlockTrade": false}
    """

    exec_id: str
    symbol: str
    price: Price
    size: Size
    side: Side  # of the taker
    time: Millis
    is_block: bool = field(name="isBlockTrade", default=False)
    is_rpi: bool = field(name="isRPITrade", default=False)
    sequence: Sequence = field(name="seq", default=-1)
    mark_price: Finite | None = field(name="mP", default=None)
    index_price: Finite | None = field(name="iP", default=None)
    mark_iv: Finite | None = field(name="mIv", default=None)
    iv: Finite | None = None


class PublicTradeList(Wire, frozen=True):
    """{"category": "linear", "list": [{"execId": "a905d5c3", "price": "27450.50", ...}]}"""

    trades: list[PublicTrade] = field(name="list")
    category: str = ""


class FundingRate(Wire, frozen=True):
    """{"symbol": "ETHPERP", "fundingRate": "0.0001", "fundingRateTimestamp": "1672041600000"}"""

    symbol: str
    rate: Finite = field(name="fundingRate")
    ts: Millis = field(name="fundingRateTimestamp")


class FundingHistory(Wire, frozen=True):
    """{"category": "linear", "list": [...]}, newest first."""

    rates: list[FundingRate] = field(name="list")
    category: str = ""


class OpenInterest(Wire, frozen=True):
    """{"openInterest": "63910691.00000000", "singleOpenInterest": "3195534", "timestamp": "1780963200000"}"""

    open_interest: Size
    timestamp: Millis
    single_open_interest: Size | None = None


class OpenInterestList(Wire, frozen=True):
    """{"symbol": "BTCUSD", "category": "inverse", "list": [...], "nextPageCursor": "lastid%3D1"}"""

    history: list[OpenInterest] = field(name="list")
    symbol: str = ""
    category: str = ""
    next_page_cursor: str = ""


class LongShortRatio(Wire, frozen=True):
    """{"symbol": "BTCUSDT", "buyRatio": "0.5777", "sellRatio": "0.4223", "timestamp": "1695772800000"}"""

    symbol: str
    buy_ratio: Size
    sell_ratio: Size
    timestamp: Millis


class LongShortRatioList(Wire, frozen=True):
    """{"list": [{"symbol": "BTCUSDT", ...}], "nextPageCursor": ""}"""

    ratios: list[LongShortRatio] = field(name="list")
    next_page_cursor: str = ""


class OrderPriceLimit(Wire, frozen=True):
    """{"symbol": "BTCUSDT", "buyLmt": "105878.10", "sellLmt": "103781.60", "ts": "1750302284491"}"""

    symbol: str
    highest_buy: Size = field(name="buyLmt")
    lowest_sell: Size = field(name="sellLmt")
    ts: Millis = 0


class RiskTier(Wire, frozen=True):
    """{"id": 1, "symbol": "BTCUSD", "riskLimitValue": "150", "maintenanceMargin": "0.5",
    "initialMargin": "1", "isLowestRisk": 1, "maxLeverage": "100.00"}
    """

    id: int
    symbol: str
    risk_limit_value: Size
    maintenance_margin: Size
    initial_margin: Size
    max_leverage: Size
    is_lowest_risk: bool = False
    mm_deduction: Size | None = None


class RiskTierList(Wire, frozen=True):
    """{"category": "inverse", "list": [...]}"""

    tiers: list[RiskTier] = field(name="list")
    category: str = ""
    next_page_cursor: str = ""


class InsurancePool(Wire, frozen=True):
    """{"coin": "USDT", "symbol": "BTCUSDT", "balance": "92203504694.9", "maxBalance": "92231510324.7",
    "insurancePnlRatio": "-0.3", "pnlRatio": "-0.56", "adlTriggerThreshold": "10000", "adlStopRatio": "-0.25"}
    """

    coin: str
    symbol: str
    balance: Finite
    max_balance: Finite
    insurance_pnl_ratio: Finite
    pnl_ratio: Finite
    adl_trigger_threshold: Finite
    adl_stop_ratio: Finite


class InsurancePoolList(Wire, frozen=True):
    """{"updatedTime": "1757733960000", "list": [...]}"""

    pools: list[InsurancePool] = field(name="list")
    updated_time: Millis = 0


class FeeGroup(Wire, frozen=True):
    """{"groupName": "Innovation-Zone", "symbols": ["HAEDALUSDT"], "weightingFactor": 1, ...}"""

    unused: ClassVar[frozenset[str]] = names("weightingFactor symbolsNumbers feeRates updateTime groupId")
    group_name: str
    symbols: list[str] = field(default_factory=list)


class FeeGroupList(Wire, frozen=True):
    """{"list": [{"groupName": "Innovation-Zone", ...}]}"""

    groups: list[FeeGroup] = field(name="list")


class ServerTime(Wire, frozen=True):
    """{"timeSecond": "1688639403", "timeNano": "1688639403423213947"}"""

    time_second: Millis
    time_nano: Sequence


class SystemStatusList(Wire, frozen=True):
    """{"list": [{"id": "4d95b2a0", "title": "t06", "state": "completed", "begin": "1751596902000", ...}]}"""

    status: list[Maintenance] = field(name="list")
