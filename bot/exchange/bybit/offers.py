"""What Bybit lists, measured: turnover and spread by the tickers, depth by the books of those that count."""

import math
from collections.abc import Collection, Mapping

from msgspec import UNSET

from bot.core.types import Instrument
from bot.exchange.bybit.errors import ExchangeError, Kind
from bot.exchange.bybit.rest.market import MarketRest
from bot.exchange.bybit.wire.market import BookSnapshot
from bot.exchange.bybit.wire.public import MaybeNumber, TickerData
from bot.market.liquidity import Liquidity, per_day
from bot.market.universe import Choice, Universe

_NEAR = 1e-3  # of mid: how far from it an order still counts as depth


async def choose(
    market: MarketRest,
    universe: Universe,
    listed: Mapping[str, Instrument],
    now: int,
    *,
    followed: Collection[str],
    held: Collection[str],
) -> Choice:
    """Of `listed`, the tokens to follow from `now` (ms) on. Raises ExchangeError."""
    known = {
        ticker.symbol: liquidity(ticker, now - listed[ticker.symbol].launch_time)
        for ticker in await market.tickers()
        if ticker.symbol in listed
    }
    while True:
        choice = universe.choose(listed, known, now, followed=followed, held=held)
        new = [item.symbol for item in choice.followed if item.symbol not in followed]
        unknown = [name for name in new if math.isnan(known.get(name, Liquidity()).depth)]
        if not unknown:
            return choice
        for name in unknown:
            known[name] = known.get(name, Liquidity())._replace(depth=await _depth(market, name))


async def _depth(market: MarketRest, symbol: str) -> float:
    try:
        return depth(await market.order_book(symbol))
    except ExchangeError as error:
        if error.kind is not Kind.REFUSED:  # that means that there is no book
            raise
        return 0.0


def liquidity(ticker: TickerData, age: int) -> Liquidity:
    """Of a symbol that was launched `age` ms ago; its depth is not in a ticker."""
    bid, ask, turnover = map(_number, (ticker.bid_price, ticker.ask_price, ticker.turnover_24h))
    mid = (bid + ask) / 2
    return Liquidity(per_day(turnover, age), (ask - bid) / mid if mid > 0 else math.nan)


def depth(book: BookSnapshot) -> float:
    """Quote coin within 10 bps of mid, the thinner side; 0 where a side is empty."""
    if not (book.bids and book.asks):
        return 0.0
    mid = (float(book.bids[0][0]) + float(book.asks[0][0])) / 2
    near = [
        [float(price) * float(size) for price, size in side if abs(float(price) / mid - 1) <= _NEAR]
        for side in (book.bids, book.asks)
    ]
    return min(map(sum, near))


def _number(value: MaybeNumber) -> float:
    return math.nan if value is None or value is UNSET else float(value)
