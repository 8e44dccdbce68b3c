"""The signed endpoints of orders and executions."""

from collections.abc import Sequence
from typing import Any, Final

from bot.exchange.local import render
from bot.exchange.local.account import Account
from bot.exchange.local.api import Answer, Asked, Handler, Params, cut, require_linear, window
from bot.exchange.local.market_api import is_linear
from bot.exchange.local.orders import Order, Refused
from bot.exchange.local.terms import text, whole, wrong

BATCH_LIMIT: Final = 20
CANCEL_ALL_LIMIT: Final = 500


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


def batch(act: Handler) -> Handler:
    """Each order of a batch has its own fate; a new one is told when it was born."""

    def handler(asked: Asked) -> Answer:
        require_linear(asked.params)
        items = batch_items(asked.params)
        rows, verdicts = [], []
        for number, item in enumerate(items):
            named = item if isinstance(item, dict) else {}
            row = {"category": "linear", "symbol": text(named, "symbol"), "orderId": ""}
            row |= {"orderLinkId": text(named, "orderLinkId")}
            born = ""
            try:
                if number >= asked.admitted:
                    raise Refused(10006, "Too many visits!")
                ids = act(asked._replace(params={**named, "category": "linear"})).result
                row |= ids
                born = str(asked.now)
                verdicts.append({"code": 0, "msg": "OK"})
            except Refused as error:
                verdicts.append({"code": error.code, "msg": error.text})
            rows.append(row | {"createAt": born} if act is create else row)
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
    if only := text(asked.params, "stopOrderType"):
        chosen = [order for order in chosen if order.stop_type in ("", only)]
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
    """Open ones; by id also one that has just finished; with openOnly=1 the last 500 closed ones too.

    A restart keeps finished ones in the history only.
    """
    account, params, since = asked.account, asked.params, asked.world.restarted
    if not is_linear(params, ""):
        return _page(asked, [])
    if (found := _by_id(account, params)) is not None:
        return _page(asked, [order for order in found if order.is_open or order.updated >= since])
    orders = list(account.open_orders.values())
    if whole(params, "openOnly") == 1:
        orders += [order for order in account.finished if order.updated >= since][-500:]
    return _page(asked, _filtered(orders, params))


def order_history(asked: Asked) -> Answer:
    account, params = asked.account, asked.params
    if not is_linear(params, ""):
        return _page(asked, [])
    orders = _by_id(account, params)
    if orders is None:
        orders = list(account.finished)
        if any(text(params, name) for name in ("symbol", "baseCoin", "settleCoin", "orderFilter")):
            orders = _filtered(orders, {"settleCoin": "USDT", **params})
    first, last = window(params, asked.now)
    status = text(params, "orderStatus")
    orders = [
        order
        for order in orders
        if not order.is_open and first <= order.created <= last and status in ("", order.status)
    ]
    return _page(asked, orders)


def _by_id(account: Account, params: Params) -> list[Order] | None:
    order_id, link_id = text(params, "orderId"), text(params, "orderLinkId")
    if not (order_id or link_id):
        return None
    order = account.orders.get(order_id) if order_id else account.by_link.get(link_id)
    return [] if order is None else [order]


def _page(asked: Asked, orders: list[Order]) -> Answer:
    params = asked.params
    shown = [order for order in orders if order.id not in asked.hidden]
    newest = sorted(shown, key=lambda order: (order.created, order.number), reverse=True)
    rows, cursor = cut(newest, params, 20, 50)
    views = [render.order_view(order) for order in rows]
    return Answer({"category": text(params, "category"), "list": views, "nextPageCursor": cursor})


def executions(asked: Asked) -> Answer:
    """By orderId > orderLinkId, and then by nothing else; or by symbol > baseCoin, kind and time."""
    params = asked.params
    rows = list(asked.account.executions) if is_linear(params, "") else []
    rows = [row for row in rows if row["orderId"] not in asked.hidden]
    for name in ("orderId", "orderLinkId"):
        if value := text(params, name):
            rows = [row for row in rows if row[name] == value]
            break
    else:
        symbol, base, kind = (text(params, name) for name in ("symbol", "baseCoin", "execType"))
        first, last = window(params, asked.now)
        is_settled_here = text(params, "settleCoin", "USDT") == "USDT"
        rows = [
            row
            for row in rows
            if is_settled_here
            and first <= int(row["execTime"]) <= last
            and symbol in ("", row["symbol"])
            and (symbol or base in ("", row["symbol"].removesuffix("USDT")))
            and kind in ("", row["execType"])
        ]
    page, cursor = cut(rows[::-1], params, 50, 100)
    page = [row | {"extraFees": ""} for row in page]  # a list on the stream
    return Answer({"category": text(params, "category"), "list": page, "nextPageCursor": cursor})
