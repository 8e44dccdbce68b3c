"""Prices, books and contracts of `/v5/market/...`, and `/v5/announcements`: what anybody may ask."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bot.core.types import Side
from bot.exchange.local import candles, views
from bot.exchange.local.candles import Candles
from bot.exchange.local.contract import CLOSED, PRE_LAUNCH, TRADING
from bot.exchange.local.orders import Refused
from bot.exchange.local.terms import PARAMS, text, whole, wrong
from bot.exchange.local.world import Listed, World

Params = Mapping[str, Any]
Handler = Callable[[World, Params], Any]
CATEGORIES: Final = ("linear", "inverse", "spot", "option")


def is_linear(params: Params, default: str = "linear") -> bool:
    """Whether the category is the one that is traded here; the others exist, and are empty."""
    category = text(params, "category", default)
    if category not in CATEGORIES:
        raise Refused(PARAMS, "params error: Category is invalid" if category else "category is required")
    return category == "linear"


def limit_of(params: Params, default: int, largest: int) -> int:
    return min(max(1, whole(params, "limit", default)), largest)


def listed_of(world: World, params: Params) -> Listed:
    symbol = text(params, "symbol")
    listed = world.listed.get(symbol)
    if listed is None or not is_linear(params):
        raise Refused(PARAMS, "params error: Symbol Is Invalid" if symbol else "symbol is required")
    return listed


def kline(world: World, params: Params) -> Any:
    listed = listed_of(world, params)
    rows = _select(listed, listed.trades, params)
    data = [[str(row.start), *candles.texts(row, listed.contract)] for row in rows]
    return {"category": "linear", "symbol": listed.symbol, "list": data}


def price_kline(world: World, params: Params) -> Any:
    """Mark and index price are one and the same here."""
    listed = listed_of(world, params)
    rows = _select(listed, listed.marks, params)
    data = [[str(row.start), *candles.texts(row, listed.contract)[:4]] for row in rows]
    return {"category": "linear", "symbol": listed.symbol, "list": data}


def premium_kline(world: World, params: Params) -> Any:
    listed = listed_of(world, params)
    rows = _select(listed, listed.marks, params)
    data = [[str(row.start), "0", "0", "0", "0"] for row in rows]
    return {"category": "linear", "symbol": listed.symbol, "list": data}


def _select(listed: Listed, source: Candles, params: Params) -> list[candles.Candle]:
    interval = text(params, "interval")
    if interval not in candles.INTERVALS:
        raise wrong("interval invalid")
    first = whole(params, "start") or None
    last = whole(params, "end") or None
    if first is not None and last is not None and first > last:
        raise wrong("start is after end")
    if last is not None and last < 0:
        raise wrong("end invalid")
    limit = limit_of(params, 200, 1_000)
    if listed.contract.status == PRE_LAUNCH:  # nothing has traded
        return []
    return source.select(interval, first, last, limit)


def tickers(world: World, params: Params) -> Any:
    category = text(params, "category")
    if not is_linear(params, ""):
        return {"category": category, "list": []}
    if text(params, "symbol"):
        chosen = [listed_of(world, params)]
    else:
        chosen = [listed for listed in world.listed.values() if listed.contract.status == TRADING]
    return {"category": category, "list": [views.ticker(listed) for listed in chosen]}


def order_book(world: World, params: Params) -> Any:
    listed = listed_of(world, params)
    depth = limit_of(params, 25, 1_000)
    contract, book = listed.contract, listed.market.book
    bids, asks = (
        [
            [contract.price_text(price), contract.quantity_text(lots)]
            for price, lots in book.depth(side, depth)
        ]
        for side in (Side.BUY, Side.SELL)
    )
    seq = world.engine.seq + book.version
    return {
        "s": listed.symbol, "b": bids, "a": asks, "ts": world.now, "u": book.version, "seq": seq,
        "cts": world.now,
    }  # fmt: skip


def recent_trades(world: World, params: Params) -> Any:
    listed = listed_of(world, params)
    newest = list(listed.market.prints)[: -limit_of(params, 500, 1_000) - 1 : -1]
    return {"category": "linear", "list": [views.trade(listed, item) for item in newest]}


def instruments(world: World, params: Params) -> Any:
    """Only what trades, unless a status or a symbol is asked for."""
    category = text(params, "category")
    found: list[dict[str, Any]] = []
    if is_linear(params, ""):
        symbol, status = text(params, "symbol"), text(params, "status")
        for number, listed in enumerate(world.listed.values(), 1):
            view = views.instrument(listed, number)
            wanted = view["status"] == (status or TRADING) or (symbol and not status)
            filters = ("symbol", "baseCoin", "symbolType")
            if wanted and all(text(params, name) in ("", view[name]) for name in filters):
                found.append(view)
    limit = limit_of(params, 500, 1_000)
    first = _offset(params)
    page, rest = found[first : first + limit], found[first + limit :]
    return {"category": category, "list": page, "nextPageCursor": f"first%3D{first + limit}" if rest else ""}


def _offset(params: Params) -> int:
    cursor = text(params, "cursor").replace("%3D", "=").removeprefix("first=")
    if cursor and not cursor.isdecimal():
        raise wrong("cursor invalid")
    return int(cursor or 0)


def funding_history(world: World, params: Params) -> Any:
    listed = listed_of(world, params)
    first, last = whole(params, "startTime"), whole(params, "endTime")
    if first and not last:
        raise wrong("endTime is required with startTime")
    rows = [
        {"symbol": listed.symbol, "fundingRate": format(rate, "f"), "fundingRateTimestamp": str(ts)}
        for ts, rate in reversed(listed.funding)
        if first <= ts <= (last or world.now)
    ]
    return {"category": "linear", "list": rows[: limit_of(params, 200, 200)]}


def risk_limits(world: World, params: Params) -> Any:
    chosen = [listed_of(world, params)] if text(params, "symbol") else list(world.listed.values())
    rows = [
        {
            "id": tier.id,
            "symbol": listed.symbol,
            "riskLimitValue": format(tier.limit, "f"),
            "maintenanceMargin": format(tier.maintenance, "f"),
            "initialMargin": format(tier.initial, "f"),
            "isLowestRisk": int(tier.id == 1),
            "maxLeverage": f"{tier.max_leverage:.2f}",
            "mmDeduction": format(tier.deduction, "f"),
        }
        for listed in chosen
        for tier in listed.contract.tiers
    ]
    return {"category": "linear", "list": rows, "nextPageCursor": ""}


def price_limit(world: World, params: Params) -> Any:
    listed = listed_of(world, params)
    highest, lowest = listed.market.price_limits()
    price = listed.contract.price_text
    return {
        "symbol": listed.symbol, "buyLmt": price(highest), "sellLmt": price(lowest), "ts": str(world.now),
    }  # fmt: skip


def announcements(world: World, params: Params) -> Any:
    rows = [
        {
            "title": f"New listing: {listed.symbol} perpetual contract",
            "description": "",
            "type": {"title": "New Listings", "key": "new_crypto"},
            "tags": ["Derivatives"],
            "url": "",
            "dateTimestamp": listed.asset.instrument.launch_time,
            "startDateTimestamp": listed.asset.instrument.launch_time,
            "endDateTimestamp": listed.asset.instrument.launch_time,
        }
        for listed in world.listed.values()
        if listed.contract.status in (PRE_LAUNCH, CLOSED)
    ]
    return {"total": len(rows), "list": rows}


MARKET: Final[Mapping[str, Handler]] = {
    "/v5/market/kline": kline,
    "/v5/market/mark-price-kline": price_kline,
    "/v5/market/index-price-kline": price_kline,
    "/v5/market/premium-index-price-kline": premium_kline,
    "/v5/market/tickers": tickers,
    "/v5/market/orderbook": order_book,
    "/v5/market/recent-trade": recent_trades,
    "/v5/market/instruments-info": instruments,
    "/v5/market/funding/history": funding_history,
    "/v5/market/risk-limit": risk_limits,
    "/v5/market/price-limit": price_limit,
    "/v5/announcements/index": announcements,
}
