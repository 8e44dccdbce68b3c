"""Orders, executions, positions and wallets, as the private streams and the REST lists send them.

Money is Decimal. A number that Bybit leaves empty is None; a text that it leaves empty is "".
"""

from decimal import Decimal
from typing import ClassVar

from msgspec import field

from bot.core.types import Side
from bot.exchange.bybit.wire.codec import Finite, Millis, Sequence, Wire, amount, name, names


class Order(Wire, frozen=True):
    """One order. `price` of a market order is the exchange's slippage bound, not the fill price.

    {"orderId": "fd4300ae-7847", "orderLinkId": "t-BTCUSDT-1", "symbol": "BTCUSDT", "side": "Buy",
     "orderType": "Limit", "orderStatus": "New", "price": "1600.00", "qty": "0.10", "leavesQty": "0.10",
     "cumExecQty": "0.00", "avgPrice": "", "timeInForce": "GTC", "rejectReason": "EC_NoError",
     "createdTime": "1684738540559", "updatedTime": "1684738540561"}
    """

    unused: ClassVar[frozenset[str]] = names(
        "blockTradeId isLeverage orderIv ocoTriggerBy lastPriceOnCreated basePrice placeType smpType "
        "smpGroup smpOrderId slippageToleranceType slippageTolerance extraFees rpiTakerAccess "
        "rpiMatchedQty feeCurrency closedPnl parentOrderLinkId cumExecFee bboSideType bboLevel"
    )
    order_id: str
    symbol: str
    side: Side
    order_type: str
    order_status: str
    qty: Decimal
    updated_time: Millis
    category: str = ""
    order_link_id: str = ""
    price: Decimal | None = None
    avg_price: Decimal | None = None
    leaves_qty: Decimal | None = None
    leaves_value: Decimal | None = None
    cum_exec_qty: Decimal | None = None
    cum_exec_value: Decimal | None = None
    cum_fee_detail: dict[str, Decimal] = field(default_factory=dict)  # coin to amount
    time_in_force: str = ""
    position_idx: int = 0
    create_type: str = ""
    cancel_type: str = ""
    reject_reason: str = ""
    stop_order_type: str = ""
    market_unit: str = ""
    trigger_price: Decimal | None = None
    trigger_direction: int = 0
    trigger_by: str = ""
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    tp_trigger_by: str = ""
    sl_trigger_by: str = ""
    tp_limit_price: Decimal | None = None
    sl_limit_price: Decimal | None = None
    tpsl_mode: str = ""
    reduce_only: bool = False
    close_on_trigger: bool = False
    created_time: Millis = 0

    def __post_init__(self) -> None:
        name(self.order_id)
        amount(self.qty, positive=False)  # 0 closes a whole position
        for value in (self.leaves_qty, self.cum_exec_qty, self.price, self.trigger_price, self.stop_loss):
            amount(value, positive=False)


class Orders(Wire, frozen=True):
    """`order` or `order.CATEGORY`.

    {"topic": "order", "id": "5923240c6880ab", "creationTime": 1672364262474, "data": [...]}
    """

    topic: str
    data: list[Order]
    creation_time: Millis = 0
    id: str = ""


class Execution(Wire, frozen=True):
    """One fill, or a funding payment (`exec_type` "Funding"). `exec_fee` is positive when paid.

    {"category": "linear", "symbol": "BTCUSDT", "execId": "0ab1bdf7-4219", "execPrice": "95900.1",
     "execQty": "0.5", "execFee": "26.3725275", "feeRate": "0.00055", "execType": "Trade", "leavesQty": "0",
     "orderId": "9aac161b-8ed6", "orderLinkId": "", "side": "Sell", "stopOrderType": "UNKNOWN",
     "execTime": "1746270400353", "isMaker": false, "createType": "CreateByUser", "feeCurrency": "USDT"}
    """

    unused: ClassVar[frozenset[str]] = names(
        "tradeIv markIv blockTradeId indexPrice underlyingPrice isLeverage marketUnit execPnl "
        "extraFees execFeeV2"
    )
    symbol: str
    exec_id: str
    exec_price: Decimal
    exec_qty: Decimal
    side: Side
    exec_time: Millis
    order_id: str
    exec_type: str
    category: str = ""
    order_link_id: str = ""
    exec_fee: Decimal | None = None
    exec_value: Decimal | None = None
    fee_rate: Decimal | None = None
    fee_currency: str = ""
    leaves_qty: Decimal | None = None
    order_price: Decimal | None = None
    order_qty: Decimal | None = None
    order_type: str = ""
    stop_order_type: str = ""
    create_type: str = ""
    is_maker: bool = False
    closed_size: Decimal | None = None
    mark_price: Decimal | None = None
    seq: Sequence = -1

    def __post_init__(self) -> None:
        name(self.exec_id)
        amount(self.exec_price)
        amount(self.exec_qty)
        amount(self.leaves_qty, positive=False)


class Executions(Wire, frozen=True):
    """`execution` or `execution.CATEGORY`.

    {"topic": "execution", "id": "386825804", "creationTime": 1746270400355, "data": [...]}
    """

    topic: str
    data: list[Execution]
    creation_time: Millis = 0
    id: str = ""


class FastExecution(Wire, frozen=True):
    """{"category": "linear", "symbol": "ICPUSDT", "execId": "3510f3", "execPrice": "12.015", "execQty": "3",
    "orderId": "443d63fa", "isMaker": false, "orderLinkId": "", "side": "Buy", "execTime": "1716800399334"}
    """

    symbol: str
    exec_id: str
    exec_price: Decimal
    exec_qty: Decimal
    side: Side
    exec_time: Millis
    order_id: str
    category: str = ""
    order_link_id: str = ""
    is_maker: bool = False
    seq: Sequence = -1


class FastExecutions(Wire, frozen=True):
    """`execution.fast` or `execution.fast.CATEGORY`: earlier than `execution`, without fees.

    {"topic": "execution.fast", "creationTime": 1716800399338,
     "data": [{"category": "linear", "symbol": "ICPUSDT", "execId": "3510f361", "execPrice": "12.015",
               "execQty": "3000", "orderId": "443d63fa", "isMaker": false, "orderLinkId": "",
               "side": "Buy", "execTime": "1716800399334", "seq": 34771365464}]}
    """

    topic: str
    data: list[FastExecution]
    creation_time: Millis = 0
    id: str = ""


class Position(Wire, frozen=True):
    """One position; `size` is never negative, `side` is empty when flat.

    {"positionIdx": 0, "symbol": "ETHUSDT", "side": "Sell", "size": "0.01", "entryPrice": "3641.075",
     "leverage": "30", "markPrice": "3641.33", "liqPrice": "51764.83", "takeProfit": "0", "stopLoss": "0",
     "unrealisedPnl": "-0.00255", "curRealisedPnl": "0.0094814", "positionStatus": "Normal",
     "updatedTime": "1762199125472", "category": "linear", "seq": 325852190774}
    """

    unused: ClassVar[frozenset[str]] = names(
        "riskId riskLimitValue tradeMode positionBalance sessionAvgPrice bustPrice tpslMode "
        "autoAddMargin positionIMByMp positionMMByMp mmrSysUpdatedTime mmrSysUpdateTime "
        "leverageSysUpdatedTime isReduceOnly openTime breakEvenPrice delta gamma vega theta"
    )
    symbol: str
    size: Decimal
    side: str = ""
    position_idx: int = 0
    category: str = ""
    entry_price: Decimal | None = None  # the name in the stream
    avg_price: Decimal | None = None  # the name in REST
    mark_price: Decimal | None = None
    liq_price: Decimal | None = None
    leverage: Decimal | None = None
    position_value: Decimal | None = None
    position_im: Decimal | None = field(name="positionIM", default=None)
    position_mm: Decimal | None = field(name="positionMM", default=None)
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    trailing_stop: Decimal | None = None
    unrealised_pnl: Decimal | None = None
    cur_realised_pnl: Decimal | None = None
    cum_realised_pnl: Decimal | None = None
    position_status: str = ""
    adl_rank_indicator: int = 0
    created_time: Millis = 0
    updated_time: Millis = 0
    seq: Sequence = -1

    def __post_init__(self) -> None:
        amount(self.size, positive=False)
        amount(self.stop_loss, positive=False)
        if self.size and self.side not in (Side.BUY, Side.SELL):
            raise ValueError(f"{self.symbol}: a position of {self.size} on the side {self.side!r}")

    @property
    def entry(self) -> Decimal | None:
        """Average entry price; None when flat."""
        return self.entry_price or self.avg_price or None

    @property
    def signed_size(self) -> Decimal:
        return -self.size if self.side == Side.SELL else self.size


class MarginAdded(Position, frozen=True):
    """The answer to added margin: a position that may not say its side."""

    def __post_init__(self) -> None:
        amount(self.size, positive=False)


class Positions(Wire, frozen=True):
    """`position` or `position.CATEGORY`; one message for every create, amend and cancel of an order.

    {"topic": "position", "id": "1003076014fb", "creationTime": 1762199126022, "data": [...]}
    """

    topic: str
    data: list[Position]
    creation_time: Millis = 0
    id: str = ""


class Coin(Wire, frozen=True):
    """One coin of the unified account.

    {"coin": "USDT", "equity": "1000.50", "walletBalance": "1000.50", "locked": "0", "unrealisedPnl": "0",
     "usdValue": "1000.50", "totalOrderIM": "", "totalPositionIM": "", "spotBorrow": "0"}
    """

    unused: ClassVar[frozenset[str]] = names(
        "availableToWithdraw availableToBorrow free accruedInterest collateralSwitch marginCollateral "
        "spotHedgingQty colRes totalPositionMM"
    )
    coin: str
    wallet_balance: Decimal
    equity: Decimal | None = None
    usd_value: Decimal | None = None
    locked: Decimal | None = None
    borrow_amount: Decimal | None = None
    spot_borrow: Decimal | None = None
    unrealised_pnl: Decimal | None = None
    cum_realised_pnl: Decimal | None = None
    total_order_im: Decimal | None = field(name="totalOrderIM", default=None)
    total_position_im: Decimal | None = field(name="totalPositionIM", default=None)
    bonus: Decimal | None = None


class Wallet(Wire, frozen=True):
    """The unified account, in USD.

    {"accountType": "UNIFIED", "totalEquity": "3.31", "totalWalletBalance": "3.00",
     "totalAvailableBalance": "3.00", "totalPerpUPL": "0", "accountIMRate": "0", "coin": [...]}
    """

    unused: ClassVar[frozenset[str]] = names(
        "accountLTV accountIMRateByMp accountMMRateByMp totalInitialMarginByMp totalMaintenanceMarginByMp"
    )
    coin: list[Coin]
    account_type: str = ""
    total_equity: Decimal | None = None
    total_wallet_balance: Decimal | None = None
    total_margin_balance: Decimal | None = None
    total_available_balance: Decimal | None = None
    total_unrealised_pnl: Decimal | None = field(name="totalPerpUPL", default=None)
    total_initial_margin: Decimal | None = None
    total_maintenance_margin: Decimal | None = None
    initial_margin_rate: Finite | None = field(name="accountIMRate", default=None)
    maintenance_margin_rate: Finite | None = field(name="accountMMRate", default=None)


class Wallets(Wire, frozen=True):
    """`wallet`.

    {"topic": "wallet", "id": "592324d2bce751", "creationTime": 1700034722104, "data": [...]}
    """

    topic: str
    data: list[Wallet]
    creation_time: Millis = 0
    id: str = ""
