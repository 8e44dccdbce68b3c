"""The public topics: what each of them says at a moment, and what has changed since it last said it."""

from collections.abc import Iterator
from typing import Any, Final, Protocol

from bot.core.types import HOUR_MS, Side
from bot.exchange.local import candles, views
from bot.exchange.local.faults import Faults
from bot.exchange.local.orders import Refused
from bot.exchange.local.world import Listed, World

DEPTHS: Final = {1: 10, 50: 20, 200: 100, 1000: 200}  # levels: push interval in ms
TICKER_MS: Final = 100
KLINE_MS: Final = 1_000
PRICE_LIMIT_MS: Final = 300
RPI_DEPTH, RPI_MS = 50, 100
QUIET: Final = ("insurance.USDT", "adlAlert.USDT")
REPEAT_MS: Final = 3_000  # depth 1 repeats itself
TRADES_PER_MESSAGE: Final = 1_024

Frame = dict[str, Any]


class Topic(Protocol):
    """One public topic with at least one subscriber."""

    def snapshot(self, now: int) -> Frame | None:
        """What a new subscriber gets; the others have the same knowledge already."""

    def changes(self, now: int) -> Iterator[Frame]:
        """What every subscriber gets."""


class BookTopic:
    """`orderbook.DEPTH.SYMBOL`: `u` grows by one with each change told.

    Whoever comes later gets what the others know already, under the same `u` and with a `seq` that fits it.
    """

    def __init__(self, name: str, listed: Listed, world: World, depth: int, faults: Faults) -> None:
        self._name = name
        self._listed = listed
        self._world = world
        self._depth = depth
        self._faults = faults
        self._interval = DEPTHS[depth]
        self._version = -1
        self._seq = 0  # of `_sides`
        self._at = 0  # ms UTC, likewise
        self._pushed = 0
        self._sides: dict[Side, dict[int, int]] = {Side.BUY: {}, Side.SELL: {}}
        self.update = 1_000 + world.engine.seq % 1_000

    def restart(self) -> None:
        """After a restart of the service the next snapshot has u = 1."""
        self.update = 1

    def snapshot(self, now: int) -> Frame | None:
        if self._version < 0:
            self._take()
        return self._frame("snapshot", self._levels(self._sides), now)

    def changes(self, now: int) -> Iterator[Frame]:
        book = self._listed.market.book
        is_due = now - self._pushed >= self._interval
        if self._depth == 1:
            if is_due and book.version != self._version:
                before, self._pushed = self._sides, now
                self._take()
                if before != self._sides:
                    self.update += 1
                    yield self._frame("snapshot", self._levels(self._sides), now)
            elif now - self._pushed >= REPEAT_MS:
                self._pushed = now
                yield self._frame("snapshot", self._levels(self._sides), now)
            return
        if not is_due or book.version == self._version:
            return
        before = self._sides
        self._take()
        delta = {
            side: {
                **{price: 0 for price in before[side] if price not in self._sides[side]},
                **{p: q for p, q in self._sides[side].items() if before[side].get(p) != q},
            }
            for side in Side
        }
        if not any(delta.values()):
            return
        self._pushed = now
        self.update += 1
        if self._faults.strike("gap", self._name):
            return
        if self._faults.strike("crossed_book", self._name):
            self._cross(delta)
        yield self._frame("delta", self._levels(delta), now)

    def _take(self) -> None:
        book = self._listed.market.book
        self._version = book.version
        self._seq, self._at = self._world.engine.seq + book.version, self._world.now
        self._sides = {side: dict(book.depth(side, self._depth)) for side in Side}

    def _cross(self, delta: dict[Side, dict[int, int]]) -> None:
        """A bid above the best ask. It is taken back by the delta that follows."""
        best = self._listed.market.book.best_price(Side.SELL)
        if best is not None:
            delta[Side.BUY][best + 1] = 1
            self._sides[Side.BUY][best + 1] = 1

    def _levels(self, sides: dict[Side, dict[int, int]]) -> tuple[list[list[str]], list[list[str]]]:
        contract = self._listed.contract
        bids, asks = (
            [
                [contract.price_text(price), contract.quantity_text(lots) if lots else "0"]
                for price, lots in sorted(sides[side].items(), reverse=side is Side.BUY)
            ]
            for side in (Side.BUY, Side.SELL)
        )
        return bids, asks

    def _frame(self, kind: str, levels: tuple[list[list[str]], list[list[str]]], now: int) -> Frame:
        bids, asks = levels
        data = {"s": self._listed.symbol, "b": bids, "a": asks, "u": self.update, "seq": self._seq}
        return {"topic": self._name, "type": kind, "ts": now, "data": data, "cts": self._at}


class RpiBookTopic(BookTopic):
    """`orderbook.rpi.SYMBOL`: a third column for retail price improvement, of which there is none."""

    def __init__(self, name: str, listed: Listed, world: World, faults: Faults) -> None:
        super().__init__(name, listed, world, RPI_DEPTH, faults)
        self._interval = RPI_MS

    def _levels(self, sides: dict[Side, dict[int, int]]) -> tuple[list[list[str]], list[list[str]]]:
        bids, asks = super()._levels(sides)
        return [[*level, "0"] for level in bids], [[*level, "0"] for level in asks]


class TradeTopic:
    def __init__(self, name: str, listed: Listed) -> None:
        self._name = name
        self._listed = listed
        self._last = listed.market.last

    def snapshot(self, now: int) -> Frame | None:
        return None

    def changes(self, now: int) -> Iterator[Frame]:
        trades = self._listed.unpublished
        for first in range(0, len(trades), TRADES_PER_MESSAGE):
            data = []
            for trade in trades[first : first + TRADES_PER_MESSAGE]:
                data.append(views.stream_trade(self._listed, trade, self._last))
                self._last = trade.price
            yield {"topic": self._name, "type": "snapshot", "ts": now, "data": data}


class TickerTopic:
    def __init__(self, name: str, listed: Listed, world: World) -> None:
        self._name = name
        self._listed = listed
        self._world = world
        self._told: dict[str, Any] = {}
        self._pushed = 0

    def snapshot(self, now: int) -> Frame | None:
        self._told = self._told or self._ticker()
        return self._frame("snapshot", self._told, now)

    def changes(self, now: int) -> Iterator[Frame]:
        if now - self._pushed < TICKER_MS:
            return
        self._pushed = now
        ticker = self._ticker()
        changed = {name: value for name, value in ticker.items() if self._told.get(name) != value}
        self._told = ticker
        if changed:
            yield self._frame("delta", {"symbol": self._listed.symbol, **changed}, now)

    def _ticker(self) -> dict[str, Any]:
        ticker = views.ticker(self._listed)
        hours = self._listed.asset.instrument.funding_interval_ms // HOUR_MS
        return {"tickDirection": "ZeroPlusTick", **ticker, "fundingIntervalHour": str(hours)}

    def _frame(self, kind: str, data: dict[str, Any], now: int) -> Frame:
        return {"topic": self._name, "type": kind, "data": data, "cs": self._world.engine.seq, "ts": now}


class KlineTopic:
    def __init__(self, name: str, listed: Listed, world: World, interval: str) -> None:
        self._name = name
        self._listed = listed
        self._world = world
        self._interval = interval
        self._start = candles.open_time(interval, world.now)
        self._pushed = 0
        self._told: candles.Candle | None = None

    def snapshot(self, now: int) -> Frame | None:
        return self._frame(self._start, now, confirm=False)

    def changes(self, now: int) -> Iterator[Frame]:
        current = candles.open_time(self._interval, self._world.now)
        while self._start < current:  # closed by the clock, with or without a trade
            if frame := self._frame(self._start, now, confirm=True):
                yield frame
            self._start = candles.close_time(self._interval, self._start)
        if now - self._pushed >= KLINE_MS:
            candle = self._listed.trades.at(self._interval, self._start)
            if candle is not None and candle != self._told:
                self._told, self._pushed = candle, now
                if frame := self._frame(self._start, now, confirm=False):
                    yield frame

    def _frame(self, start: int, now: int, *, confirm: bool) -> Frame | None:
        candle = self._listed.trades.at(self._interval, start)
        if candle is None:
            return None
        data = views.stream_candle(self._listed, self._interval, candle, now, confirm=confirm)
        return {"topic": self._name, "type": "snapshot", "ts": now, "data": [data]}


class LiquidationTopic:
    def __init__(self, name: str, listed: Listed) -> None:
        self._name = name
        self._listed = listed

    def snapshot(self, now: int) -> Frame | None:
        return None

    def changes(self, now: int) -> Iterator[Frame]:
        contract = self._listed.contract
        data = [
            {
                "T": ts,
                "s": contract.symbol,
                "S": side.value,
                "v": contract.quantity_text(lots),
                "p": contract.price_text(price),
            }
            for ts, side, lots, price in self._listed.market.liquidations
        ]
        if data:
            yield {"topic": self._name, "type": "snapshot", "ts": now, "data": data}


class PriceLimitTopic:
    def __init__(self, name: str, listed: Listed) -> None:
        self._name = name
        self._listed = listed
        self._told: tuple[int, int] | None = None
        self._pushed = 0

    def snapshot(self, now: int) -> Frame | None:
        self._told = self._told or self._listed.market.price_limits()
        return self._frame(self._told, now)

    def changes(self, now: int) -> Iterator[Frame]:
        limits = self._listed.market.price_limits()
        if limits != self._told and now - self._pushed >= PRICE_LIMIT_MS:
            self._told, self._pushed = limits, now
            yield self._frame(limits, now)

    def _frame(self, limits: tuple[int, int], now: int) -> Frame:
        highest, lowest = (self._listed.contract.price_text(price) for price in limits)
        data = {"symbol": self._listed.symbol, "buyLmt": highest, "sellLmt": lowest}
        return {"topic": self._name, "data": data, "ts": now}


class QuietTopic:
    """A topic that tells of changes in what never changes here: `insurance.USDT`, `adlAlert.USDT`."""

    def snapshot(self, now: int) -> Frame | None:
        return None

    def changes(self, now: int) -> Iterator[Frame]:
        yield from ()


def public_topic(name: str, world: World, faults: Faults) -> Topic:
    """Raises Refused for a topic that there is not."""
    kind, _, rest = name.partition(".")
    detail, _, symbol = rest.rpartition(".")
    listed = world.listed.get(symbol)
    if name in QUIET:
        return QuietTopic()
    if listed is not None and not listed.market.is_closed:
        if kind == "orderbook" and detail.isdigit() and int(detail) in DEPTHS:
            return BookTopic(name, listed, world, int(detail), faults)
        if kind == "orderbook" and detail == "rpi":
            return RpiBookTopic(name, listed, world, faults)
        if kind == "priceLimit" and not detail:
            return PriceLimitTopic(name, listed)
        if kind == "publicTrade" and not detail:
            return TradeTopic(name, listed)
        if kind == "tickers" and not detail:
            return TickerTopic(name, listed, world)
        if kind == "kline" and detail in candles.INTERVALS:
            return KlineTopic(name, listed, world, detail)
        if kind == "allLiquidation" and not detail:
            return LiquidationTopic(name, listed)
    raise Refused(10001, f"error:handler not found,topic:{name}")
