"""`/v5/market/instruments-info` for linear, inverse, spot and option, in one type."""

from decimal import Decimal
from typing import ClassVar

from msgspec import field

from bot.exchange.bybit.wire.codec import Millis, Wire, names


class PriceFilter(Wire, frozen=True):
    """{"minPrice": "0.50", "maxPrice": "999999.00", "tickSize": "0.50"}"""

    tick_size: Decimal
    min_price: Decimal | None = None
    max_price: Decimal | None = None


class LotSizeFilter(Wire, frozen=True):
    """Derivatives have the first block, spot the second; both share the order quantities.

    {"maxOrderQty": "100", "minOrderQty": "0.001", "qtyStep": "0.001", "minNotionalValue": "5"}
    {"basePrecision": "0.000001", "quotePrecision": "0.00000001", "minOrderAmt": "1"}
    """

    unused: ClassVar[frozenset[str]] = names("postOnlyMaxOrderQty postOnlyMaxLimitOrderSize maxOrderAmt")
    qty_step: Decimal | None = None
    min_notional_value: Decimal | None = None
    max_market_order_qty: Decimal | None = field(name="maxMktOrderQty", default=None)

    base_precision: Decimal | None = None
    quote_precision: Decimal | None = None
    min_order_amt: Decimal | None = None
    max_limit_order_qty: Decimal | None = None
    max_spot_market_order_qty: Decimal | None = field(name="maxMarketOrderQty", default=None)

    min_order_qty: Decimal | None = None
    max_order_qty: Decimal | None = None


class LeverageFilter(Wire, frozen=True):
    """{"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"}"""

    min_leverage: Decimal | None = None
    max_leverage: Decimal | None = None
    leverage_step: Decimal | None = None


class RiskParameters(Wire, frozen=True):
    """{"priceLimitRatioX": "0.05", "priceLimitRatioY": "0.05"}"""

    price_limit_ratio_x: Decimal | None = None
    price_limit_ratio_y: Decimal | None = None


class InstrumentInfo(Wire, frozen=True):
    """One instrument. `status`: PreLaunch, Trading, Delivering, Closed.

    A perpetual has `deliveryTime` 0; a positive one announces its delisting.

    {"symbol": "BTCUSDT", "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "BTC",
     "quoteCoin": "USDT", "settleCoin": "USDT", "launchTime": "1585526400000", "deliveryTime": "0",
     "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
     "priceFilter": {"minPrice": "0.50", "maxPrice": "999999.00", "tickSize": "0.50"},
     "lotSizeFilter": {"maxOrderQty": "100.000", "minOrderQty": "0.001", "qtyStep": "0.001",
                       "minNotionalValue": "5", "maxMktOrderQty": "50"}, "fundingInterval": 480}
    """

    unused: ClassVar[frozenset[str]] = names(
        "symbolId priceScale deliveryFeeRate unifiedMarginTrade copyTrading innovation marginTrading "
        "stTag optionsType forbidUplWithdrawal preListingInfo xstockMultiplier isPublicRpi "
        "myRpiPermission skipCallAuction"
    )
    symbol: str
    status: str
    base_coin: str
    quote_coin: str
    price_filter: PriceFilter
    lot_size_filter: LotSizeFilter
    settle_coin: str = ""
    contract_type: str = ""
    symbol_type: str = ""
    display_name: str = ""
    launch_time: Millis = 0
    delivery_time: Millis = 0
    funding_interval: int = 0  # minutes
    lower_funding_rate: Decimal | None = None
    upper_funding_rate: Decimal | None = None
    leverage_filter: LeverageFilter | None = None
    risk_parameters: RiskParameters | None = None
    is_pre_listing: bool = False


class InstrumentList(Wire, frozen=True):
    """{"category": "linear", "list": [...], "nextPageCursor": ""}"""

    instruments: list[InstrumentInfo] = field(name="list")
    category: str = ""
    next_page_cursor: str = ""
