"""The endpoints that we use: pybit's name, the path, the rate limit group, and the lane that sends it."""

from typing import Final, Literal, NamedTuple

Lane = Literal["queries", "orders", "cancels"]


class Endpoint(NamedTuple):
    method: str  # of pybit's HTTP
    path: str
    group: str
    write: bool = False
    lane: Lane = "queries"

    @property
    def signed(self) -> bool:
        return not self.path.startswith(("/v5/market/", "/v5/system/"))


TIME: Final = Endpoint("get_server_time", "/v5/market/time", "market")
KLINE: Final = Endpoint("get_kline", "/v5/market/kline", "market")
TICKERS: Final = Endpoint("get_tickers", "/v5/market/tickers", "market")
ORDERBOOK: Final = Endpoint("get_orderbook", "/v5/market/orderbook", "market")
RECENT_TRADES: Final = Endpoint("get_public_trade_history", "/v5/market/recent-trade", "market")
INSTRUMENTS: Final = Endpoint("get_instruments_info", "/v5/market/instruments-info", "market")
FUNDING: Final = Endpoint("get_funding_rate_history", "/v5/market/funding/history", "market")
SYSTEM_STATUS: Final = Endpoint("get_system_status", "/v5/system/status", "market")

OPEN_ORDERS: Final = Endpoint("get_open_orders", "/v5/order/realtime", "orders")
ORDER_HISTORY: Final = Endpoint("get_order_history", "/v5/order/history", "history")
EXECUTIONS: Final = Endpoint("get_executions", "/v5/execution/list", "executions")
POSITIONS: Final = Endpoint("get_positions", "/v5/position/list", "positions")
CLOSED_PNL: Final = Endpoint("get_closed_pnl", "/v5/position/closed-pnl", "closed-pnl")
WALLET: Final = Endpoint("get_wallet_balance", "/v5/account/wallet-balance", "wallet")
ACCOUNT: Final = Endpoint("get_account_info", "/v5/account/info", "account")
FEES: Final = Endpoint("get_fee_rates", "/v5/account/fee-rate", "fees")
LEDGER: Final = Endpoint("get_transaction_log", "/v5/account/transaction-log", "ledger")
KEY: Final = Endpoint("get_api_key_information", "/v5/user/query-api", "key")

CREATE: Final = Endpoint("place_order", "/v5/order/create", "create", True, "orders")
AMEND: Final = Endpoint("amend_order", "/v5/order/amend", "amend", True, "orders")
CREATE_BATCH: Final = Endpoint("place_batch_order", "/v5/order/create-batch", "create-batch", True, "orders")
AMEND_BATCH: Final = Endpoint("amend_batch_order", "/v5/order/amend-batch", "amend-batch", True, "orders")
STOP: Final = Endpoint("set_trading_stop", "/v5/position/trading-stop", "stop", True, "orders")
LEVERAGE: Final = Endpoint("set_leverage", "/v5/position/set-leverage", "leverage", True, "orders")
POSITION_MODE: Final = Endpoint("switch_position_mode", "/v5/position/switch-mode", "mode", True, "orders")
MARGIN_MODE: Final = Endpoint("set_margin_mode", "/v5/account/set-margin-mode", "account", True, "orders")

CANCEL: Final = Endpoint("cancel_order", "/v5/order/cancel", "cancel", True, "cancels")
CANCEL_ALL: Final = Endpoint("cancel_all_orders", "/v5/order/cancel-all", "cancel-all", True, "cancels")
CANCEL_BATCH: Final = Endpoint(
    "cancel_batch_order", "/v5/order/cancel-batch", "cancel-batch", True, "cancels"
)

ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Endpoint))
