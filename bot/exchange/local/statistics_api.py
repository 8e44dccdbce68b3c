"""`/v5/market/...` besides prices and books: who holds what, what insures it, what a contract ended at."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS, Side
from bot.exchange.local.contract import CLOSED
from bot.exchange.local.market_api import is_linear, limit_of, listed_of
from bot.exchange.local.terms import choice, text, whole, wrong
from bot.exchange.local.world import Listed, World

Params = Mapping[str, Any]
PERIODS: Final = {
    "5min": 5 * MINUTE_MS, "15min": 15 * MINUTE_MS, "30min": 30 * MINUTE_MS, "1h": HOUR_MS, "4h": 4 * HOUR_MS,
    "1d": DAY_MS,
}  # fmt: skip
POOL: Final = "1000000"  # USDT that insure all contracts together; it bears what wallets cannot, for ever
RPI_LEVELS: Final = 50


def _history(
    world: World, listed: Listed, params: Params, period: str, largest: int
) -> tuple[list[int], str]:
    """Full intervals since the launch, newest first: a page of at most `largest`, and its cursor."""
    length = PERIODS[choice(params, period, tuple(PERIODS))]
    newest = min(whole(params, "endTime", world.now), world.now) // length * length
    cursor = text(params, "cursor").replace("%3D", "=").removeprefix("before=")
    if cursor and not cursor.isdecimal():
        raise wrong("cursor invalid")
    if cursor:
        newest = min(newest, int(cursor) - length)
    oldest = max(whole(params, "startTime"), listed.asset.instrument.launch_time)
    times = range(newest, oldest - 1, -length)
    page = list(times[: limit_of(params, 50, largest)])
    return page, f"before%3D{page[-1]}" if len(page) < len(times) else ""


def open_interest(world: World, params: Params) -> Any:
    """It does not change here."""
    listed = listed_of(world, params)
    size, whole_amount = listed.contract.quantity_text, listed.market.open_interest
    times, cursor = _history(world, listed, params, "intervalTime", 200)
    rows = [
        {
            "openInterest": size(whole_amount),
            "singleOpenInterest": size(whole_amount // 2),
            "timestamp": str(ts),
        }
        for ts in times
    ]
    return {"symbol": listed.symbol, "category": "linear", "list": rows, "nextPageCursor": cursor}


def account_ratio(world: World, params: Params) -> Any:
    """Half of the crowd is long, always."""
    listed = listed_of(world, params)
    times, cursor = _history(world, listed, params, "period", 500)
    half = {"symbol": listed.symbol, "buyRatio": "0.5", "sellRatio": "0.5"}
    return {"list": [{**half, "timestamp": str(ts)} for ts in times], "nextPageCursor": cursor}


def insurance(world: World, params: Params) -> Any:
    symbols = ",".join(listed.symbol for listed in world.listed.values())
    rows = [{"coin": "USDT", "symbols": symbols, "balance": POOL, "value": POOL}]
    wanted = text(params, "coin", "USDT") == "USDT"
    return {"updatedTime": _minute(world), "list": rows if wanted else []}


def adl_alert(world: World, params: Params) -> Any:
    symbol = text(params, "symbol")
    rows = [
        {
            "coin": "USDT", "symbol": listed.symbol, "balance": POOL, "maxBalance": "", "pnlRatio": "0",
            "insurancePnlRatio": "-0.3", "adlTriggerThreshold": "10000", "adlStopRatio": "-0.25",
        }
        for listed in world.listed.values()
        if symbol in ("", listed.symbol)
    ]  # fmt: skip
    return {"updatedTime": _minute(world), "list": rows}


def _minute(world: World) -> str:
    return str(world.now // MINUTE_MS * MINUTE_MS)


def delivery_prices(world: World, params: Params) -> Any:
    """Of the contracts that have been delisted: the price that their positions were settled at."""
    category, symbol = text(params, "category"), text(params, "symbol")
    rows = [
        {
            "symbol": listed.symbol,
            "deliveryPrice": listed.contract.price_text(listed.market.mark),
            "deliveryTime": str(listed.contract.delivery_time),
        }
        for listed in world.listed.values()
        if is_linear(params, "") and listed.contract.status == CLOSED and symbol in ("", listed.symbol)
    ]
    return {"category": category, "list": rows, "nextPageCursor": ""}


def of_options(_: World, params: Params) -> Any:
    """What there is for options alone; none are traded here."""
    if text(params, "category") != "option":
        raise wrong("category only supports option")
    return {"category": "option", "list": []}


def rpi_book(world: World, params: Params) -> Any:
    """The book with a third column for retail price improvement, of which there is none."""
    listed = listed_of(world, params)
    contract, book = listed.contract, listed.market.book
    none = contract.quantity_text(0)
    bids, asks = (
        [
            [contract.price_text(price), contract.quantity_text(lots), none]
            for price, lots in book.depth(side, limit_of(params, RPI_LEVELS, RPI_LEVELS))
        ]
        for side in (Side.BUY, Side.SELL)
    )
    now = world.now
    seq = world.engine.seq + book.version
    return {"s": listed.symbol, "b": bids, "a": asks, "ts": now, "u": book.version, "seq": seq, "cts": now}


def index_components(world: World, params: Params) -> Any:
    """The index is the simulated fair price, and its only component."""
    name = text(params, "indexName")
    listed = world.listed.get(name)
    if listed is None:
        raise wrong("indexName invalid")
    price = listed.contract.price_text(listed.market.index)
    part = {
        "exchange": "local", "spotPair": name, "equivalentPrice": price, "multiplier": "1", "price": price,
        "weight": format(Decimal(1), "f"),
    }  # fmt: skip
    return {"indexName": name, "lastPrice": price, "updateTime": str(world.now), "components": [part]}


STATISTICS: Final[Mapping[str, Callable[[World, Params], Any]]] = {
    "/v5/market/open-interest": open_interest,
    "/v5/market/account-ratio": account_ratio,
    "/v5/market/insurance": insurance,
    "/v5/market/adlAlert": adl_alert,
    "/v5/market/delivery-price": delivery_prices,
    "/v5/market/new-delivery-price": of_options,
    "/v5/market/historical-volatility": of_options,
    "/v5/market/rpi_orderbook": rpi_book,
    "/v5/market/index-price-components": index_components,
}
