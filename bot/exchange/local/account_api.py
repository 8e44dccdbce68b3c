"""The signed endpoints: orders, executions, positions, account, key."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bot.core.types import DAY_MS
from bot.exchange.local import render
from bot.exchange.local.account import Account
from bot.exchange.local.clearing import Clearing
from bot.exchange.local.gate import Key
from bot.exchange.local.market_api import is_linear, limit_of, listed_of
from bot.exchange.local.orders import Order, Refused
from bot.exchange.local.terms import PARAMS, text, whole, wrong
from bot.exchange.local.world import World

Params = Mapping[str, Any]
BATCH_LIMIT: Final = 20
CANCEL_ALL_LIMIT: Final = 500


class Asked(NamedTuple):
    """A request that has passed the gate. `admitted`: items of a batch that the rate limit lets through."""

    world: World
    key: Key
    params: Params
    now: int
    admitted: int = 1

    @property
    def account(self) -> Account:
        return self.key.account

    @property
    def clearing(self) -> Clearing:
        return self.world.clearing


class Answer(NamedTuple):
    result: Any
    extra: Any = None


Handler = Callable[[Asked], Answer]


# --- orders -----------------------------------------------------------------------------------------------


def require_linear(params: Params) -> None:
    if not is_linear(params, ""):
        raise Refused(PARAMS, "params error: only linear contracts are traded here")


def _ids(order: Order) -> dict[str, str]:
    return {"orderId": order.id, "orderLinkId": order.link_id}


def create(asked: Asked) -> Answer:
    require_linear(asked.params)
    return Answer(_ids(asked.world.engine.create(asked.account, asked.params, asked.now)))


def amend(asked: Asked) -> Answer:
    require_linear(asked.params)
    return Answer(_ids(asked.world.engine.amend(asked.account, asked.params, asked.now)))


def cancel(asked: Asked) -> Answer:
    require_linear(asked.params)
    return Answer(_ids(asked.world.engine.cancel(asked.account, asked.params, asked.now)))


def _batch(act: Handler) -> Handler:
    """Each order of a batch has its own fate."""

    def handler(asked: Asked) -> Answer:
        require_linear(asked.params)
        items = batch_items(asked.params)
        rows, verdicts = [], []
        for number, item in enumerate(items):
            named = item if isinstance(item, dict) else {}
            row = {"category": "linear", "symbol": text(named, "symbol"), "orderId": ""}
            row |= {"orderLinkId": text(named, "orderLinkId"), "createAt": ""}
            try:
                if number >= asked.admitted:
                    raise Refused(10006, "Too many visits!")
                ids = act(asked._replace(params={**named, "category": "linear"})).result
                row |= ids | {"createAt": str(asked.now)}
                verdicts.append({"code": 0, "msg": "OK"})
            except Refused as error:
                verdicts.append({"code": error.code, "msg": error.text})
            rows.append(row)
        return Answer({"list": rows}, {"list": verdicts})

    return handler


def batch_items(params: Params) -> Sequence[Any]:
    items = params.get("request")
    if not isinstance(items, list) or not items:
        raise wrong("request is required")
    if len(items) > BATCH_LIMIT:
        raise wrong(f"at most {BATCH_LIMIT} orders in a batch")
    return items


def cancel_all(asked: Asked) -> Answer:
    require_linear(asked.params)
    chosen = _filtered(list(asked.account.open_orders.values()), asked.params)
    for order in chosen[:CANCEL_ALL_LIMIT]:
        if order.is_open:  # one may have ended with another
            asked.world.engine.cancel(asked.account, {"symbol": order.symbol, "orderId": order.id}, asked.now)
    return Answer({"list": [_ids(order) for order in chosen[:CANCEL_ALL_LIMIT]], "success": "1"})


def _filtered(orders: list[Order], params: Params) -> list[Order]:
    """By symbol > baseCoin > settleCoin, of which one is required, and by orderFilter."""
    symbol, base, settle = (text(params, name) for name in ("symbol", "baseCoin", "settleCoin"))
    if not (symbol or base or settle):
        raise wrong("symbol, baseCoin or settleCoin is required")
    if symbol:
        orders = [order for order in orders if order.symbol == symbol]
    elif base:
        orders = [order for order in orders if order.contract.base_coin == base]
    elif settle != "USDT":
        orders = []
    match text(params, "orderFilter"):
        case "Order" | "OpenOrder":
            return [order for order in orders if not order.stop_type]
        case "StopOrder" | "tpslOrder":
            return [order for order in orders if order.stop_type]
    return orders


def open_orders(asked: Asked) -> Answer:
    """Open ones; by id also one that has just finished; with openOnly=1 the last 500 closed ones too."""
    account, params = asked.account, asked.params
    if not is_linear(params, ""):
        return _page([], params)
    if (found := _by_id(account, params)) is not None:
        return _page(found, params)
    orders = list(account.open_orders.values())
    if whole(params, "openOnly") == 1:
        orders += list(account.finished)[-500:]
    return _page(_filtered(orders, params), params)


def order_history(asked: Asked) -> Answer:
    account, params = asked.account, asked.params
    if not is_linear(params, ""):
        return _page([], params)
    orders = _by_id(account, params)
    if orders is None:
        orders = list(account.finished)
        if any(text(params, name) for name in ("symbol", "baseCoin", "settleCoin", "orderFilter")):
            orders = _filtered(orders, {"settleCoin": "USDT", **params})
    first, last = _window(params, asked.world.now)
    status = text(params, "orderStatus")
    orders = [
        order
        for order in orders
        if not order.is_open and first <= order.created <= last and status in ("", order.status)
    ]
    return _page(orders, params)


def _by_id(account: Account, params: Params) -> list[Order] | None:
    order_id, link_id = text(params, "orderId"), text(params, "orderLinkId")
    if not (order_id or link_id):
        return None
    order = account.orders.get(order_id) if order_id else account.by_link.get(link_id)
    return [] if order is None else [order]


def _window(params: Params, now: int) -> tuple[int, int]:
    """At most seven days; without any the last seven."""
    first, last = whole(params, "startTime"), whole(params, "endTime")
    if not last:
        last = first + 7 * DAY_MS if first else now + DAY_MS
    first = first or last - 7 * DAY_MS
    if last - first > 7 * DAY_MS + DAY_MS:
        raise wrong("the time range exceeds 7 days")
    return first, last


def _page(orders: list[Order], params: Params) -> Answer:
    newest = sorted(orders, key=lambda order: (order.created, order.number), reverse=True)
    rows, cursor = _cut(newest, params, 20, 50)
    views = [render.order_view(order) for order in rows]
    return Answer({"category": text(params, "category"), "list": views, "nextPageCursor": cursor})


def _cut(rows: list[Any], params: Params, default: int, largest: int) -> tuple[list[Any], str]:
    """One page. The cursor counts from the oldest row, so that new rows do not shift the pages."""
    limit = limit_of(params, default, largest)
    cursor = text(params, "cursor").replace("%3A", ":").removeprefix("left:")
    left = int(cursor) if cursor.isdigit() else len(rows)
    first = max(0, len(rows) - left)
    page = rows[first : first + limit]
    rest = len(rows) - first - len(page)
    return page, f"left%3A{rest}" if rest > 0 else ""


def executions(asked: Asked) -> Answer:
    params, rows = asked.params, list(asked.account.executions)
    if not is_linear(params, ""):
        rows = []
    for name in ("orderId", "orderLinkId", "symbol", "execType"):
        if value := text(params, name):
            rows = [row for row in rows if row[name] == value]
    if text(params, "settleCoin", "USDT") != "USDT":
        rows = []
    if not (text(params, "orderId") or text(params, "orderLinkId")):
        first, last = _window(params, asked.world.now)
        rows = [row for row in rows if first <= int(row["execTime"]) <= last]
    page, cursor = _cut(rows[::-1], params, 50, 100)
    return Answer({"category": text(params, "category"), "list": page, "nextPageCursor": cursor})


# --- positions --------------------------------------------------------------------------------------------


def positions(asked: Asked) -> Answer:
    """By symbol also when flat (in hedge mode both sides); by settle coin only what is held."""
    account, world, params = asked.account, asked.world, asked.params
    category, symbol = text(params, "category"), text(params, "symbol")
    if not is_linear(params, ""):
        held = []
    elif symbol:
        market = listed_of(world, params).market
        indices = (1, 2) if symbol in account.hedged else (0,)
        held = [account.holding(market.contract, index) for index in indices]
    elif text(params, "settleCoin") or text(params, "baseCoin"):
        held = account.held() if text(params, "settleCoin", "USDT") == "USDT" else []
    else:
        raise wrong("symbol or settleCoin is required")
    rows = []
    for holding in held:
        market = world.engine.markets[holding.contract.symbol]
        price = asked.clearing.liquidation_price(account, holding)
        rows.append(render.position_view(holding, market, price, "avgPrice"))
    return Answer({"category": category, "list": rows, "nextPageCursor": ""})


def set_leverage(asked: Asked) -> Answer:
    require_linear(asked.params)
    asked.clearing.set_leverage(asked.account, asked.params, asked.now)
    return Answer({})


def switch_mode(asked: Asked) -> Answer:
    require_linear(asked.params)
    asked.clearing.switch_mode(asked.account, asked.params)
    return Answer({})


def trading_stop(asked: Asked) -> Answer:
    require_linear(asked.params)
    asked.world.engine.triggers.trading_stop(asked.account, asked.params, asked.now)
    return Answer({})


def closed_pnl(asked: Asked) -> Answer:
    first, last = _window(asked.params, asked.world.now)
    symbol = text(asked.params, "symbol")
    rows = [
        row
        for row in asked.account.closed
        if first <= row["updated"] <= last and symbol in ("", row["order"].symbol)
    ]
    page, cursor = _cut(rows[::-1], asked.params, 50, 100)
    views = [render.closed_view(row) for row in page]
    return Answer({"category": "linear", "list": views, "nextPageCursor": cursor})


# --- account ----------------------------------------------------------------------------------------------


def wallet(asked: Asked) -> Answer:
    if text(asked.params, "accountType") != "UNIFIED":
        raise wrong("accountType only support UNIFIED.")
    view = render.wallet_view(asked.account)
    if coins := text(asked.params, "coin"):
        blank = {name: "0" if isinstance(value, str) else value for name, value in view["coin"][0].items()}
        view["coin"] = [
            view["coin"][0] if coin == "USDT" else blank | {"coin": coin} for coin in coins.split(",")
        ]
    return Answer({"list": [view]})


def account_info(asked: Asked) -> Answer:
    return Answer({
        "marginMode": asked.account.margin_mode,
        "updatedTime": str(asked.account.updated),
        "unifiedMarginStatus": 5,
        "dcpStatus": "OFF",
        "timeWindow": 10,
        "smpGroup": 0,
        "isMasterTrader": False,
        "spotHedgingStatus": "OFF",
    })  # fmt: skip


def set_margin_mode(asked: Asked) -> Answer:
    asked.clearing.set_margin_mode(asked.account, asked.params, asked.now)
    return Answer({"reasons": []})


def fee_rates(asked: Asked) -> Answer:
    symbol = text(asked.params, "symbol")
    rows = [
        {
            "symbol": listed.symbol,
            "takerFeeRate": format(listed.contract.taker_fee, "f"),
            "makerFeeRate": format(listed.contract.maker_fee, "f"),
        }
        for listed in asked.world.listed.values()
        if is_linear(asked.params) and symbol in ("", listed.symbol)
    ]
    return Answer({"list": rows})


def transactions(asked: Asked) -> Answer:
    first, last = _window(asked.params, asked.world.now)
    kind = text(asked.params, "type")
    entries = list(enumerate(asked.account.ledger, 1))
    rows = [
        (number, entry) for number, entry in entries if first <= entry.ts <= last and kind in ("", entry.kind)
    ]
    page, cursor = _cut(rows[::-1], asked.params, 20, 50)
    views = [render.ledger_view(entry, number) for number, entry in page]
    return Answer({"list": views, "nextPageCursor": cursor})


def key_information(asked: Asked) -> Answer:
    key = asked.key
    return Answer({
        "id": str(key.account.uid), "note": "local", "apiKey": key.key, "readOnly": int(key.read_only),
        "secret": "",
        "permissions": {
            "ContractTrade": ["Order", "Position"], "Spot": [], "Wallet": [], "Options": [],
            "Derivatives": ["DerivativesTrade"], "Exchange": [], "NFT": [], "BlockTrade": [],
            "Affiliate": [], "CopyTrading": [], "Earn": [],
        },
        "ips": ["127.0.0.1"], "type": 1, "deadlineDay": 90, "expiredAt": "2099-01-01T00:00:00Z",
        "createdAt": "2025-01-01T00:00:00Z", "unified": 0, "uta": 1, "userID": key.account.uid,
        "inviterID": 0, "vipLevel": "No VIP", "mktMakerLevel": "0", "affiliateID": 0, "rsaPublicKey": "",
        "isMaster": True, "parentUid": "0", "kycLevel": "LEVEL_DEFAULT", "kycRegion": "",
    })  # fmt: skip


def coin_information(asked: Asked) -> Answer:
    """ccxt asks for it with the markets; nothing is deposited or withdrawn here."""
    return Answer({"rows": []})


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
    "/v5/order/create": Endpoint("POST", create, 10, "order.create"),
    "/v5/order/amend": Endpoint("POST", amend, 10, "order.amend"),
    "/v5/order/cancel": Endpoint("POST", cancel, 10, "order.cancel"),
    "/v5/order/create-batch": Endpoint("POST", _batch(create), 10, "order.create-batch"),
    "/v5/order/amend-batch": Endpoint("POST", _batch(amend), 10, "order.amend-batch"),
    "/v5/order/cancel-batch": Endpoint("POST", _batch(cancel), 10, "order.cancel-batch"),
    "/v5/order/cancel-all": Endpoint("POST", cancel_all, 10),
    "/v5/order/realtime": Endpoint("GET", open_orders, 50),
    "/v5/order/history": Endpoint("GET", order_history, 50),
    "/v5/execution/list": Endpoint("GET", executions, 50),
    "/v5/position/list": Endpoint("GET", positions, 50),
    "/v5/position/set-leverage": Endpoint("POST", set_leverage, 10),
    "/v5/position/switch-mode": Endpoint("POST", switch_mode, 10),
    "/v5/position/trading-stop": Endpoint("POST", trading_stop, 10),
    "/v5/position/closed-pnl": Endpoint("GET", closed_pnl, 50),
    "/v5/account/wallet-balance": Endpoint("GET", wallet, 50),
    "/v5/account/info": Endpoint("GET", account_info, 50),
    "/v5/account/set-margin-mode": Endpoint("POST", set_margin_mode, 10),
    "/v5/account/fee-rate": Endpoint("GET", fee_rates, 5),
    "/v5/account/transaction-log": Endpoint("GET", transactions, 25),
    "/v5/user/query-api": Endpoint("GET", key_information, 10),
    "/v5/asset/coin/query-info": Endpoint("GET", coin_information, 5),
}
