"""Every signed endpoint: its path, its handler, its limit."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bot.exchange.local import account_api, orders_api
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
    "/v5/asset/coin/query-info": Endpoint("GET", account_api.coin_information, 5),
}
