"""Results of the private REST endpoints: orders, positions, account."""

from decimal import Decimal
from typing import ClassVar

from msgspec import field

from bot.exchange.bybit.wire.codec import Millis, Wire, names
from bot.exchange.bybit.wire.private import Execution, Order, Position, Wallet


class Nothing(Wire, frozen=True):
    """{}: the whole answer is in `retCode`."""


class OrderIds(Wire, frozen=True):
    """The acknowledgement of create, amend and cancel; the order stream tells what became of it.

    {"orderId": "1321003749386327552", "orderLinkId": "spot-test-postonly"}
    """

    order_id: str
    order_link_id: str = ""


class CancelledAll(Wire, frozen=True):
    """{"list": [{"orderId": "1616024329462743808", "orderLinkId": "1616024329462743809"}], "success": "1"}"""

    orders: list[OrderIds] = field(name="list", default_factory=list)
    success: bool = False


class BatchItem(Wire, frozen=True):
    """{"category": "spot", "symbol": "BTCUSDT", "orderId": "1666800494330512128",
    "orderLinkId": "spot-btc-03", "createAt": "1713434102752"}
    """

    category: str = ""
    symbol: str = ""
    order_id: str = ""  # empty when this order failed
    order_link_id: str = ""
    create_at: Millis = 0


class Batch(Wire, frozen=True):
    """{"list": [...]}; the verdict on each item is at the same place in `retExtInfo.list`."""

    items: list[BatchItem] = field(name="list")


class BatchVerdict(Wire, frozen=True):
    """{"code": 170213, "msg": "Order does not exist."}"""

    code: int
    text: str = field(name="msg", default="")


class PreCheck(Wire, frozen=True):
    """Margin rates before and after an order, in 1/10,000.

    {"orderId": "24920bdb", "orderLinkId": "test129", "preImrE4": 30, "preMmrE4": 21,
     "postImrE4": 357, "postMmrE4": 294}
    """

    pre_initial: int = field(name="preImrE4")
    pre_maintenance: int = field(name="preMmrE4")
    post_initial: int = field(name="postImrE4")
    post_maintenance: int = field(name="postMmrE4")
    order_id: str = ""
    order_link_id: str = ""


class OrderList(Wire, frozen=True):
    """{"category": "linear", "list": [...], "nextPageCursor": "page_args%3Dfd4300ae"}"""

    orders: list[Order] = field(name="list")
    category: str = ""
    next_page_cursor: str = ""


class ExecutionList(Wire, frozen=True):
    """{"category": "linear", "list": [...], "nextPageCursor": "132766%3A2%2C132766%3A2"}"""

    executions: list[Execution] = field(name="list")
    category: str = ""
    next_page_cursor: str = ""


class PositionList(Wire, frozen=True):
    """{"category": "linear", "list": [...], "nextPageCursor": ""}"""

    positions: list[Position] = field(name="list")
    category: str = ""
    next_page_cursor: str = ""


class SymbolLeverage(Wire, frozen=True):
    """{"symbol": "MNTUSDT", "leverage": "10", "side": "Sell", "positionIdx": 2}"""

    symbol: str
    leverage: Decimal
    side: str = ""
    position_idx: int = 0


class SymbolLeverageList(Wire, frozen=True):
    """{"category": "linear", "list": [...]}"""

    symbols: list[SymbolLeverage] = field(name="list")
    category: str = ""


class ClosedPnl(Wire, frozen=True):
    """{"symbol": "ETHPERP", "side": "Sell", "orderId": "5a373bfe", "qty": "3", "closedSize": "3",
    "avgEntryPrice": "1194.97", "avgExitPrice": "1180.59", "closedPnl": "-47.4065323",
    "updatedTime": "1672214887236"}
    """

    unused: ClassVar[frozenset[str]] = names(
        "orderType leverage cumEntryValue cumExitValue orderPrice execType fillCount openFee closeFee"
    )
    symbol: str
    side: str
    order_id: str
    qty: Decimal
    closed_size: Decimal
    avg_entry_price: Decimal
    avg_exit_price: Decimal
    closed_pnl: Decimal
    created_time: Millis = 0
    updated_time: Millis = 0


class ClosedPnlList(Wire, frozen=True):
    """{"category": "linear", "list": [...], "nextPageCursor": "5a373bfe%3A1672214887231423699"}"""

    closed: list[ClosedPnl] = field(name="list")
    category: str = ""
    next_page_cursor: str = ""


class WalletList(Wire, frozen=True):
    """{"list": [{"accountType": "UNIFIED", "totalEquity": "3.31", "coin": [...]}]}"""

    accounts: list[Wallet] = field(name="list")


class Transaction(Wire, frozen=True):
    """One line of the account's ledger. `change` = cash flow + funding - fee, in `currency`.

    {"id": "592324_XRPUSDT_161440249321", "symbol": "XRPUSDT", "side": "Buy", "funding": "-0.003676",
     "fee": "0", "cashFlow": "0", "change": "-0.003676", "cashBalance": "5086.55825002",
     "transactionTime": "1672128000000", "type": "SETTLEMENT", "currency": "USDT", "category": "linear"}
    """

    unused: ClassVar[frozenset[str]] = names("transSubType bonusChange extraFees")
    id: str
    type: str
    currency: str
    transaction_time: Millis
    symbol: str = ""
    category: str = ""
    side: str = ""
    qty: Decimal | None = None
    size: Decimal | None = None
    trade_price: Decimal | None = None
    funding: Decimal | None = None
    fee: Decimal | None = None
    fee_rate: Decimal | None = None
    cash_flow: Decimal | None = None
    change: Decimal | None = None
    cash_balance: Decimal | None = None
    order_id: str = ""
    order_link_id: str = ""
    trade_id: str = ""


class TransactionLog(Wire, frozen=True):
    """{"nextPageCursor": "21963%3A1%2C14954%3A1", "list": [...]}"""

    transactions: list[Transaction] = field(name="list")
    next_page_cursor: str = ""


class AccountInfo(Wire, frozen=True):
    """{"marginMode": "REGULAR_MARGIN", "updatedTime": "1697078946000", "unifiedMarginStatus": 4, ...}"""

    unused: ClassVar[frozenset[str]] = names("dcpStatus timeWindow smpGroup isMasterTrader spotHedgingStatus")
    unified_margin_status: int  # 5 and 6: unified trading account 2.0
    margin_mode: str  # ISOLATED_MARGIN, REGULAR_MARGIN (cross), PORTFOLIO_MARGIN
    updated_time: Millis = 0


class FeeRate(Wire, frozen=True):
    """{"symbol": "BTCUSDT", "takerFeeRate": "0.0006", "makerFeeRate": "0.0001"}"""

    unused: ClassVar[frozenset[str]] = names("baseCoin")
    taker_fee_rate: Decimal
    maker_fee_rate: Decimal
    symbol: str = ""


class FeeRateList(Wire, frozen=True):
    """{"list": [...]}"""

    rates: list[FeeRate] = field(name="list")
    category: str = ""


class ApiKey(Wire, frozen=True):
    """What the key in use may do. Unknown permission groups are kept: they come and go.

    {"apiKey": "XXXXXXXX", "readOnly": 1, "permissions": {"ContractTrade": ["Order", "Position"],
     "Wallet": ["AccountTransfer"]}, "ips": ["*"], "deadlineDay": -2, "expiredAt": "1970-01-01T00:00:00Z",
     "uta": 1, "userID": 1448939, "isMaster": true, "parentUid": "0", "vipLevel": "PRO-1"}
    """

    unused: ClassVar[frozenset[str]] = names(
        "id note secret createdAt unified inviterID mktMakerLevel affiliateID rsaPublicKey kycLevel "
        "kycRegion userIDInt64 inviterIDInt64 affiliateIDInt64"
    )
    permissions: dict[str, list[str]]
    read_only: bool
    api_key: str = ""
    ips: list[str] = field(default_factory=list)  # ["*"]: not bound to an address
    type: int = 0
    deadline_day: int | None = None
    expired_at: str = ""
    uta: bool | None = None
    user_id: int = field(name="userID", default=0)
    is_master: bool = True
    parent_uid: str = ""
    vip_level: str = ""


class Refusal(Wire, frozen=True):
    """{"reasonCode": "3400000", "reasonMsg": "Equity needs to be equal to or greater than 1000 USDC"}"""

    code: int = field(name="reasonCode", default=0)
    text: str = field(name="reasonMsg", default="")


class MarginModeResult(Wire, frozen=True):
    """{"reasons": [{"reasonCode": "3400000", "reasonMsg": "..."}]}"""

    reasons: list[Refusal] = field(default_factory=list)


class Collateral(Wire, frozen=True):
    """{"currency": "BTC", "collateralRatio": "0.95", "collateralSwitch": true, "borrowAmount": "0", ...}"""

    unused: ClassVar[frozenset[str]] = names(
        "availableToBorrow freeBorrowingAmount freeBorrowAmount maxBorrowingAmount hourlyBorrowRate "
        "borrowUsageRate borrowable otherBorrowAmount freeBorrowingLimit"
    )
    currency: str
    collateral_ratio: Decimal | None = None
    collateral_switch: bool = False
    margin_collateral: bool = False
    borrow_amount: Decimal | None = None


class CollateralList(Wire, frozen=True):
    """{"list": [{"currency": "BTC", ...}]}"""

    coins: list[Collateral] = field(name="list")


class SmpGroup(Wire, frozen=True):
    """{"smpGroup": 0}"""

    smp_group: int


class UserSettings(Wire, frozen=True):
    """{"lpaSpot": false, "lpaPerp": false, "smsef": false, "fmsef": false}"""

    unused: ClassVar[frozenset[str]] = names("smsef fmsef deltaHedgeEnable")
    moves_spot_orders_to_price_limit: bool = field(name="lpaSpot", default=False)
    moves_perpetual_orders_to_price_limit: bool = field(name="lpaPerp", default=False)


class Withdrawable(Wire, frozen=True):
    """{"availableWithdrawal": "4.54549050", "availableWithdrawalMap": {"BTC": "4.54549050"}}"""

    available_withdrawal: Decimal | None = None
    by_coin: dict[str, Decimal] = field(name="availableWithdrawalMap", default_factory=dict)


class SpotBorrowQuota(Wire, frozen=True):
    """{"symbol": "BTCUSDT", "side": "Buy", "maxTradeQty": "6.6065", "maxTradeAmount": "218014.01",
    "spotMaxTradeQty": "0.2728", "spotMaxTradeAmount": "9004.75", "borrowCoin": "USDT"}
    """

    symbol: str
    side: str
    max_trade_qty: Decimal
    max_trade_amount: Decimal
    spot_max_trade_qty: Decimal | None = None
    spot_max_trade_amount: Decimal | None = None
    borrow_coin: str = ""
