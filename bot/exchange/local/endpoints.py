"""Every signed endpoint: its path, its handler, its limit."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bot.exchange.local import account_api, funds_api, orders_api
from bot.exchange.local.api import Handler


class Endpoint(NamedTuple):
    """`limit`: requests per second and account (linear, no VIP)."""

    method: str
    handler: Handler
    limit: int
    op: str = ""  # its name on the order entry stream

    @property
    def is_batch(self) -> bool:
        return self.op.endswith("-batch")


ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "/v5/order/create": Endpoint("POST", orders_api.create, 10, "order.create"),
    "/v5/order/amend": Endpoint("POST", orders_api.amend, 10, "order.amend"),
    "/v5/order/cancel": Endpoint("POST", orders_api.cancel, 10, "order.cancel"),
    "/v5/order/create-batch": Endpoint("POST", orders_api.batch(orders_api.create), 10, "order.create-batch"),
    "/v5/order/amend-batch": Endpoint("POST", orders_api.batch(orders_api.amend), 10, "order.amend-batch"),
    "/v5/order/cancel-batch": Endpoint("POST", orders_api.batch(orders_api.cancel), 10, "order.cancel-batch"),
    "/v5/order/cancel-all": Endpoint("POST", orders_api.cancel_all, 10),
    "/v5/order/realtime": Endpoint("GET", orders_api.open_orders, 50),
    "/v5/order/history": Endpoint("GET", orders_api.order_history, 50),
    "/v5/execution/list": Endpoint("GET", orders_api.executions, 50),
    "/v5/position/list": Endpoint("GET", account_api.positions, 50),
    "/v5/position/set-leverage": Endpoint("POST", account_api.set_leverage, 10),
    "/v5/position/switch-mode": Endpoint("POST", account_api.switch_mode, 10),
    "/v5/position/trading-stop": Endpoint("POST", account_api.trading_stop, 10),
    "/v5/position/closed-pnl": Endpoint("GET", account_api.closed_pnl, 50),
    "/v5/account/wallet-balance": Endpoint("GET", account_api.wallet, 50),
    "/v5/account/info": Endpoint("GET", account_api.account_info, 50),
    "/v5/account/set-margin-mode": Endpoint("POST", account_api.set_margin_mode, 10),
    "/v5/account/fee-rate": Endpoint("GET", account_api.fee_rates, 5),
    "/v5/account/transaction-log": Endpoint("GET", account_api.transactions, 25),
    "/v5/user/query-api": Endpoint("GET", account_api.key_information, 10),
    "/v5/position/add-margin": Endpoint("POST", account_api.add_margin, 10),
    "/v5/position/set-auto-add-margin": Endpoint("POST", account_api.set_auto_add_margin, 10),
    "/v5/position/symbol-info": Endpoint("GET", funds_api.symbol_leverage, 50),
    "/v5/order/disconnected-cancel-all": Endpoint("POST", funds_api.protect_disconnected, 5),
    "/v5/account/instruments-info": Endpoint("GET", funds_api.account_instruments, 50),
    "/v5/account/query-dcp-info": Endpoint("GET", funds_api.disconnect_protection, 50),
    "/v5/account/smp-group": Endpoint("GET", funds_api.trade_prevention_group, 50),
    "/v5/account/user-setting-config": Endpoint("GET", funds_api.user_settings, 50),
    "/v5/account/withdrawal": Endpoint("GET", funds_api.withdrawable, 50),
    "/v5/account/collateral-info": Endpoint("GET", funds_api.collateral, 50),
    "/v5/asset/coin/query-info": Endpoint("GET", funds_api.no_rows, 5),
    "/v5/asset/deposit/query-record": Endpoint("GET", funds_api.no_rows, 5),
    "/v5/asset/withdraw/query-record": Endpoint("GET", funds_api.no_rows, 5),
    "/v5/asset/transfer/query-inter-transfer-list": Endpoint("GET", funds_api.no_list, 10),
    "/v5/asset/transfer/inter-transfer": Endpoint("POST", funds_api.transfer, 20),
    "/v5/asset/coin-greeks": Endpoint("GET", funds_api.no_list, 5),
    "/v5/account/borrow-history": Endpoint("GET", funds_api.no_list, 50),
    "/v5/account/mmp-state": Endpoint("GET", funds_api.no_protection, 50),
    "/v5/account/set-limit-px-action": Endpoint("POST", funds_api.not_offered, 10),
    "/v5/order/pre-check": Endpoint("POST", funds_api.not_offered, 10),
    "/v5/position/move-history": Endpoint("GET", funds_api.no_list, 50),
    "/v5/position/switch-isolated": Endpoint("POST", funds_api.not_unified, 10),
    "/v5/position/set-tpsl-mode": Endpoint("POST", funds_api.not_unified, 10),
    "/v5/position/set-risk-limit": Endpoint("POST", funds_api.not_unified, 10),
    "/v5/asset/transfer/query-account-coins-balance": Endpoint("GET", funds_api.coin_balances, 5),
    "/v5/asset/transfer/query-account-coin-balance": Endpoint("GET", funds_api.coin_balance, 5),
}
