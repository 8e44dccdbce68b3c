"""The market in motion: prices, crowd, funding, listings, delistings. It has no clock: `step` gives the time.

The same seed, the same requests and the same steps give the same world.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

from bot.core.money import exact
from bot.core.types import DAY_MS, HOUR_MS, Side
from bot.exchange.local import candles
from bot.exchange.local.assets import Asset
from bot.exchange.local.candles import Candle, Candles
from bot.exchange.local.clearing import Clearing
from bot.exchange.local.contract import CLOSED, PRE_LAUNCH, TRADING, Contract
from bot.exchange.local.crowd import Crowd
from bot.exchange.local.engine import Engine
from bot.exchange.local.market import Print

LONGEST_STEP_MS: Final = 1_000  # of trading; the time that a longer step leaps over is a quiet one


class Day(NamedTuple):
    """The last 24 hours, without the open minute."""

    minute: int
    high: int
    low: int
    volume: int
    turnover: int
    price_before: int
    price_hour_before: int


class Listed:
    """One symbol with everything around its market."""

    def __init__(self, world: "World", asset: Asset, now: int) -> None:
        self.asset = asset
        contract = Contract(asset.instrument, status=PRE_LAUNCH, delivery_time=asset.delivery_time)
        fair = asset.path.at(now).price
        self.market = world.engine.add_market(contract, exact(fair))
        self.shock = 1.0  # what an operator has done to the price
        self.is_shaken = False  # and nobody has traded since
        self.crowd = Crowd(world.engine, self.market, asset.turnover, f"{world.seed}/{asset.symbol}")
        past = [] if asset.history is None else candles.past(contract, asset.history)
        self.trades = Candles(past, self.market.last, now)
        self.marks = Candles(past, self.market.last, now)
        self.market.next_funding = world.next_funding(asset, now)
        self.market.funding_rate = asset.rate_at(now)
        self.market.open_interest = int(asset.turnover / fair / 4 / float(contract.step))
        self.funding: list[tuple[int, Decimal]] = [item for item in asset.funding if item[0] <= now]
        self.unpublished: list[Print] = []
        self._day: Day | None = None

    @property
    def symbol(self) -> str:
        return self.asset.symbol

    @property
    def contract(self) -> Contract:
        return self.market.contract

    def drain(self) -> None:
        """Trades go into the candles, and wait in `unpublished` for the streams."""
        market = self.market
        fresh, market.fresh = market.fresh, []
        for trade in fresh:
            self.trades.add(trade)
        self.unpublished += fresh

    def day(self) -> Day:
        """With the open minute."""
        current: Candle = self.trades.current
        if self._day is None or self._day.minute != current.start:
            self._day = self._last_day(current)
        minute, high, low, volume, turnover, before, hour_before = self._day
        return Day(
            minute,
            max(high, current.high),
            min(low, current.low),
            volume + current.volume,
            turnover + current.turnover,
            before,
            hour_before,
        )

    def _last_day(self, current: Candle) -> Day:
        rows = self.trades.between(current.start - DAY_MS, current.start) or [current]
        hour = self.trades.between(current.start - HOUR_MS, current.start) or [current]
        return Day(
            current.start,
            max(row.high for row in rows),
            min(row.low for row in rows),
            sum(row.volume for row in rows),
            sum(row.turnover for row in rows),
            rows[0].open,
            hour[0].open,
        )


class World:
    def __init__(self, assets: Iterable[Asset], seed: int, now: int) -> None:
        self.seed = seed
        self.start = self.now = now
        self.restarted = 0  # ms: when it last was
        self.engine = Engine(f"{seed}/{now}")
        self.clearing = Clearing(self.engine)
        self.listed: dict[str, Listed] = {}
        for asset in assets:
            self.list(asset)
        self.step(now)

    def list(self, asset: Asset) -> Listed:
        """A new symbol; it trades when its launch time has come."""
        listed = self.listed[asset.symbol] = Listed(self, asset, self.now)
        return listed

    def delist(self, symbol: str, delivery_time: int) -> None:
        """Announce the end of a contract."""
        self.listed[symbol].contract.delivery_time = delivery_time

    def move(self, symbol: str, factor: float) -> None:
        """Multiply the fair price by `factor` from now on; somebody trades there at once."""
        listed = self.listed[symbol]
        listed.shock *= factor
        listed.is_shaken = True

    def next_funding(self, asset: Asset, now: int) -> int:
        interval = asset.instrument.funding_interval_ms
        return (now // interval + 1) * interval

    def step(self, now: int) -> None:
        """Let everything that happens until `now` (ms UTC) happen, in the order of the listing."""
        elapsed, self.now = now - self.now, max(now, self.now)
        for listed in self.listed.values():
            self._turn(listed, now)
            if listed.market.is_trading:
                self._trade(listed, max(elapsed, 0), now)
        self.clearing.liquidate(now)

    def _turn(self, listed: Listed, now: int) -> None:
        """The status follows the clock."""
        contract = listed.contract
        launch = listed.asset.instrument.launch_time
        if contract.status == PRE_LAUNCH and now >= launch:
            contract.status = TRADING
            if launch > self.start:  # there was nothing before it
                listed.trades = Candles([], listed.market.last, now)
                listed.marks = Candles([], listed.market.last, now)
        if contract.status != CLOSED and 0 < contract.delivery_time <= now:
            self.clearing.close_market(listed.market, now)

    def _trade(self, listed: Listed, elapsed: int, now: int) -> None:
        market, asset = listed.market, listed.asset
        fair, volume = asset.path.at(now)
        fair *= listed.shock
        listed.crowd.quote(fair, asset.half_spread(now), now)
        if listed.is_shaken:
            listed.is_shaken = not listed.crowd.take(Side.SELL, 1, now)
        if elapsed:
            listed.crowd.trade(volume, min(elapsed, LONGEST_STEP_MS), fair, now)
        ticks = market.contract.nearest_ticks(fair)
        self.engine.set_mark(market, ticks, ticks, now)
        listed.drain()
        listed.trades.advance(now)
        listed.marks.move(ticks, now)
        if now >= market.next_funding:
            self._fund(listed, now)

    def _fund(self, listed: Listed, now: int) -> None:
        market = listed.market
        self.clearing.pay_funding(market, market.funding_rate, now)
        listed.funding.append((market.next_funding, market.funding_rate))
        market.next_funding = self.next_funding(listed.asset, now)
        market.funding_rate = listed.asset.rate_at(market.next_funding)
