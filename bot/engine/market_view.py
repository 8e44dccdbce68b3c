"""What the engine knows of the market, for risk: instruments, health, liquidity, what moves together."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bot.core.events import (
    BarClosed,
    Event,
    FeedRefused,
    FundingRatePublished,
    InstrumentDelisted,
    InstrumentListed,
    InstrumentStatusChanged,
    LiquiditySampled,
    MarketHealthChanged,
    TokenLeftOut,
)
from bot.core.types import DAY_MS, Instrument, TradingStatus
from bot.market.comovement import Comovement
from bot.settings import Risk
from risk.context import MarketFacts

_TURNOVER_WEIGHT: Final = 1 / 16  # of the newest decision bar
_WARM_UP: Final = 48  # common bars of two tokens before their correlation counts
_OLD: Final = 2  # decision bars after which a sample of the book says nothing any more


@dataclass(slots=True)
class _Symbol:
    status: TradingStatus = TradingStatus.TRADING
    faults: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()  # feeds that the exchange does not give us
    price: float = math.nan
    liquidity: LiquiditySampled | None = None
    funding_rate: float = math.nan
    turnover: float = math.nan


@dataclass(slots=True)
class MarketView:
    """`hear` takes any fact and heeds those of the market; decision bars come by `on_decision_bar`.

    What is said of a symbol before it is listed, or after it was delisted, is not kept, but for its faults:
    they hold until something else is told, for a listing that comes again too.
    """

    risk: Risk
    interval: int  # of decision bars, ms
    instruments: dict[str, Instrument] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # new tokens that are not followed, and why
    _symbols: dict[str, _Symbol] = field(default_factory=dict)
    _comovement: Comovement = field(init=False)
    _handlers: dict[type[Event], Callable[[Any], None]] = field(init=False)

    def __post_init__(self) -> None:
        self._comovement = Comovement(self.risk.correlation_half_life, _WARM_UP)
        self._handlers = {
            InstrumentListed: self._on_listed,
            InstrumentDelisted: self._on_delisted,
            InstrumentStatusChanged: self._on_status,
            MarketHealthChanged: self._on_health,
            FundingRatePublished: self._on_funding,
            LiquiditySampled: self._on_liquidity,
            FeedRefused: self._on_refused,
            TokenLeftOut: self._on_left_out,
        }

    def take_over(self, other: "MarketView") -> None:
        """What `other` was told of what there is to trade."""
        self.instruments |= other.instruments
        self.left_out |= other.left_out

    def hear(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def on_decision_bar(self, bar: BarClosed) -> None:
        self._comovement.update(bar)
        symbol, turnover = self._symbols.get(bar.symbol) or self._of(bar.symbol), bar.turnover
        if turnover >= 0:
            before = symbol.turnover if symbol.turnover >= 0 else turnover
            symbol.turnover = before + _TURNOVER_WEIGHT * (turnover - before)

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        """What is wrong with our view of each symbol that has a fault."""
        return {name: found for name, item in self._symbols.items() if (found := item.faults + item.refused)}

    def price(self, name: str) -> float:
        """The newest; NaN before the first."""
        return self._of(name).price

    def on_bar(self, bar: BarClosed) -> None:
        (self._symbols.get(bar.symbol) or self._of(bar.symbol)).price = bar.close

    def facts(self, name: str, now: int) -> MarketFacts:
        symbol, instrument = self._of(name), self.instruments.get(name)
        facts = MarketFacts(
            status=symbol.status,
            faults=symbol.faults + symbol.refused,
            turnover=symbol.turnover,
            funding_rate=symbol.funding_rate,
            next_funding=_next_funding(instrument, now),
        )
        seen = symbol.liquidity
        if seen is None or now - seen.ts > _OLD * self.interval:
            return facts
        return facts._replace(
            turnover=_least(symbol.turnover, self._turnover_by_day(seen, instrument, now)),
            open_interest=seen.open_interest * seen.mark_price,
            spread=seen.spread_bps / 1e4,
            depth=min(seen.bid_depth, seen.ask_depth),
            mid=seen.mid_price,
            mark=seen.mark_price,
            funding_rate=facts.funding_rate if math.isnan(seen.next_funding_rate) else seen.next_funding_rate,
            next_funding=seen.next_funding_time if seen.next_funding_time > now else facts.next_funding,
        )

    def _turnover_by_day(self, seen: LiquiditySampled, instrument: Instrument | None, now: int) -> float:
        """A decision bar's share of the turnover since yesterday, or since the launch, in quote coin."""
        age = now - instrument.launch_time if instrument else DAY_MS
        return seen.turnover_24h * self.interval / min(DAY_MS, max(self.interval, age))

    def moves_with(self, one: str, other: str) -> int:
        """1 where two tokens rise and fall together, -1 where one rises when the other falls, else 0.

        What is not known yet counts as together: new tokens fall together until they have shown otherwise.
        """
        found = 1.0 if one == other else self._comovement.correlation(one, other)
        if math.isnan(found):
            return 1
        return int(math.copysign(1, found)) if abs(found) >= self.risk.cluster_correlation else 0

    def _of(self, name: str) -> _Symbol:
        symbol = self._symbols.get(name)
        if symbol is None:
            symbol = _Symbol()
            if name in self.instruments:
                self._symbols[name] = symbol
        return symbol

    def _on_listed(self, event: InstrumentListed) -> None:
        self.instruments[event.instrument.symbol] = event.instrument

    def _on_delisted(self, event: InstrumentDelisted) -> None:
        self.instruments.pop(event.symbol, None)
        self._keep_faults(event.symbol, self._of(event.symbol).faults)
        self._comovement.drop(event.symbol)

    def _on_status(self, event: InstrumentStatusChanged) -> None:
        self._of(event.symbol).status = event.status

    def _on_health(self, event: MarketHealthChanged) -> None:
        if event.symbol in self.instruments:
            self._of(event.symbol).faults = event.faults
        else:
            self._keep_faults(event.symbol, event.faults)

    def _keep_faults(self, name: str, faults: tuple[str, ...]) -> None:
        self._symbols.pop(name, None)
        if faults:
            self._symbols[name] = _Symbol(faults=faults)

    def _on_funding(self, event: FundingRatePublished) -> None:
        self._of(event.symbol).funding_rate = event.rate

    def _on_liquidity(self, event: LiquiditySampled) -> None:
        self._of(event.symbol).liquidity = event

    def _on_refused(self, event: FeedRefused) -> None:
        """Told anew at every reconnect."""
        symbol = self._of(event.symbol)
        symbol.refused = tuple(dict.fromkeys((*symbol.refused, event.reason)))

    def _on_left_out(self, event: TokenLeftOut) -> None:
        self.left_out.pop(event.symbol, None)
        if event.reason:
            self.left_out[event.symbol] = event.reason


def _least(one: float, other: float) -> float:
    """Of those that are known, else NaN."""
    if math.isnan(one):
        return other
    return one if math.isnan(other) else min(one, other)


def _next_funding(instrument: Instrument | None, now: int) -> int:
    """By the usual grid; 0 = unknown."""
    period = instrument.funding_interval_ms if instrument else 0
    return (now // period + 1) * period if period else 0
