"""Public objects as Bybit writes them: instruments, tickers, trades, candles."""

from decimal import Decimal
from typing import Any, Final

from bot.core.types import HOUR_MS, MINUTE_MS, Side
from bot.exchange.local import candles
from bot.exchange.local.candles import Candle
from bot.exchange.local.contract import PRE_LAUNCH, PRICE_LIMIT_X, PRICE_LIMIT_Y
from bot.exchange.local.market import Print
from bot.exchange.local.world import Listed

FUNDING_CAP: Final = "0.005"
CENT: Final = Decimal("0.01")


def instrument(listed: Listed, number: int) -> dict[str, Any]:
    contract, filters = listed.contract, listed.asset.instrument
    step = format(filters.qty_step, "f")
    is_young = contract.status == PRE_LAUNCH
    return {
        "symbol": contract.symbol,
        "symbolId": number,
        "contractType": "LinearPerpetual",
        "status": contract.status,
        "baseCoin": contract.base_coin,
        "quoteCoin": "USDT",
        "settleCoin": "USDT",
        "symbolType": "innovation" if contract.symbol.startswith("SIM") else "",
        "launchTime": str(filters.launch_time),
        "deliveryTime": str(contract.delivery_time),
        "deliveryFeeRate": "",
        "priceScale": str(-int(filters.tick_size.normalize().as_tuple().exponent)),
        "leverageFilter": {
            "minLeverage": "1",
            "maxLeverage": f"{contract.max_leverage:.2f}",
            "leverageStep": "0.01",
        },
        "priceFilter": {
            "minPrice": format(filters.tick_size, "f"),
            "maxPrice": format(filters.tick_size * 10_000_000, "f"),
            "tickSize": format(filters.tick_size, "f"),
        },
        "lotSizeFilter": {
            "maxOrderQty": format(filters.max_qty, "f"),
            "minOrderQty": format(filters.min_qty, "f"),
            "qtyStep": step,
            "postOnlyMaxOrderQty": format(filters.max_qty, "f"),
            "maxMktOrderQty": format(filters.max_market_qty, "f"),
            "minNotionalValue": format(filters.min_notional, "f"),
        },
        "unifiedMarginTrade": True,
        "fundingInterval": filters.funding_interval_ms // MINUTE_MS,
        "copyTrading": "none",
        "upperFundingRate": FUNDING_CAP,
        "lowerFundingRate": f"-{FUNDING_CAP}",
        "isPreListing": is_young,
        "preListingInfo": None,
        "riskParameters": {
            "priceLimitRatioX": str(PRICE_LIMIT_X),
            "priceLimitRatioY": str(PRICE_LIMIT_Y),
        },
        "displayName": "",
        "forbidUplWithdrawal": False,
    }


def ticker(listed: Listed) -> dict[str, Any]:
    """By REST; the stream sends the same fields and one more."""
    contract, market, day = listed.contract, listed.market, listed.day()
    price, size = contract.price_text, contract.quantity_text
    bid, ask = market.book.depth(Side.BUY, 1), market.book.depth(Side.SELL, 1)
    change = (market.last - day.price_before) / day.price_before
    interest = contract.quantity(market.open_interest)
    return {
        "symbol": contract.symbol,
        "lastPrice": price(market.last),
        "indexPrice": price(market.index),
        "markPrice": price(market.mark),
        "prevPrice24h": price(day.price_before),
        "price24hPcnt": f"{change:.6f}",
        "highPrice24h": price(day.high),
        "lowPrice24h": price(day.low),
        "prevPrice1h": price(day.price_hour_before),
        "openInterest": size(market.open_interest),
        "openInterestValue": format((interest * contract.price(market.mark)).quantize(CENT), "f"),
        "singleOpenInterest": size(market.open_interest // 2),
        "singleOpenInterestValue": "",
        "turnover24h": format((contract.unit * day.turnover).normalize(), "f"),
        "volume24h": size(day.volume),
        "fundingRate": format(market.funding_rate, "f"),
        "nextFundingTime": str(market.next_funding),
        "predictedDeliveryPrice": "",
        "basisRate": "",
        "basis": "",
        "deliveryFeeRate": "",
        "deliveryTime": str(contract.delivery_time),
        "ask1Price": price(ask[0][0]) if ask else "",
        "ask1Size": size(ask[0][1]) if ask else "",
        "bid1Price": price(bid[0][0]) if bid else "",
        "bid1Size": size(bid[0][1]) if bid else "",
        "preOpenPrice": "",
        "preQty": "",
        "curPreListingPhase": "",
        "fundingIntervalHour": str(listed.asset.instrument.funding_interval_ms // HOUR_MS),
        "fundingCap": FUNDING_CAP,
        "basisRateYear": "",
    }


def trade(listed: Listed, item: Print) -> dict[str, Any]:
    """Of `recent-trade`."""
    return {
        "execId": item.id,
        "symbol": listed.symbol,
        "price": listed.contract.price_text(item.price),
        "size": listed.contract.quantity_text(item.lots),
        "side": item.side.value,
        "time": str(item.ts),
        "isBlockTrade": False,
        "isRPITrade": False,
        "seq": str(item.seq),
    }


def stream_trade(listed: Listed, item: Print, last: int) -> dict[str, Any]:
    direction = "PlusTick" if item.price > last else "MinusTick" if item.price < last else "ZeroPlusTick"
    return {
        "T": item.ts,
        "s": listed.symbol,
        "S": item.side.value,
        "v": listed.contract.quantity_text(item.lots),
        "p": listed.contract.price_text(item.price),
        "L": direction,
        "i": item.id,
        "BT": False,
        "RPI": False,
        "seq": item.seq,
    }


def stream_candle(
    listed: Listed, interval: str, candle: Candle, now: int, *, confirm: bool
) -> dict[str, Any]:
    opened, high, low, close, volume, turnover = candles.texts(candle, listed.contract)
    return {
        "start": candle.start,
        "end": candles.close_time(interval, candle.start) - 1,
        "interval": interval,
        "open": opened,
        "close": close,
        "high": high,
        "low": low,
        "volume": volume,
        "turnover": turnover,
        "confirm": confirm,
        "timestamp": now,
    }
