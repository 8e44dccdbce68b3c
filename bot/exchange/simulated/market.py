"""The embedded market of `bot paper`: simulated prices with a known, modest predictability.

Its purpose is to show adaptation at work where the truth is known: `mechanism` says which token shares the
sources' mechanism, and `oracle_p_up` what a perfect observer would have predicted.
"""

import heapq
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.events import Event, InstrumentListed
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS
from bot.exchange.simulated import listings
from bot.exchange.simulated.listings import TOKENS, Mechanism, Plan
from bot.exchange.simulated.process import Array, Factor, streams_of
from bot.exchange.simulated.symbols import SimulatedSymbol
from bot.market.bars import BarTable
from bot.settings import Settings, Simulation

RUN_START: Final = 1_735_689_600_000  # 2025-01-01T00:00Z; a date to count from, no real price is meant


class SimulatedMarket:
    """HistoricalMarket of invented prices, the same for the same seed whatever the number of days.

    simulation: seed, days of the run and of the history, bar length
    sources: symbols with a history; the first one is the market's common factor
    decision_interval_ms, horizon_bars: of the decisions that the oracle is asked about
    plans: the tokens that get listed
    """

    simulated: Final = True

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The market that the settings describe."""
        interval = settings.market.decision_minutes * MINUTE_MS
        return cls(settings.simulation, settings.market.sources, interval, settings.label.horizon_bars)

    def __init__(
        self,
        simulation: Simulation,
        sources: Sequence[str],
        decision_interval_ms: int,
        horizon_bars: int,
        plans: Sequence[Plan] = TOKENS,
    ) -> None:
        self.title: Final = f"Simulated market (seed {simulation.seed})"
        self.notes: Final[tuple[str, ...]] = ()
        self.start: Final = RUN_START
        self.end: Final = RUN_START + simulation.days * DAY_MS
        self._sources = tuple(sources)
        self._decision_interval = decision_interval_ms
        interval = simulation.bar_minutes * MINUTE_MS
        self._horizon = horizon_bars * decision_interval_ms // interval
        origin = self.start - simulation.history_days * DAY_MS
        factor = Factor.draw(
            streams_of(simulation.seed, "factor"), (self.end - origin) // interval, interval / HOUR_MS
        )
        listed = [listings.source(symbol, number, origin) for number, symbol in enumerate(sources)]
        listed += listings.tokens(streams_of(simulation.seed, "listings"), self.start, self.end, plans)
        self._symbols = {
            listing.symbol: SimulatedSymbol.draw(
                listing,
                streams_of(simulation.seed, listing.symbol),
                factor.since((listing.launch_time - origin) // interval),
                self.end,
                interval,
            )
            for listing in listed
        }

    @property
    def symbols(self) -> tuple[str, ...]:
        """The sources, then the tokens in the order of listing."""
        return tuple(self._symbols)

    def mechanism(self, symbol: str) -> Mechanism:
        """How the hidden pressure drives this symbol's price: as in the sources, reversed, one after the
        other, or not at all."""
        return self._of(symbol).listing.mechanism

    def launched(self, symbol: str) -> int:
        """When the symbol was listed, ms."""
        return self._of(symbol).listing.launch_time

    def history(self, symbol: str) -> BarTable:
        """The bars of a source before the run, `history_days` of them. Raises DataError for other symbols."""
        if symbol not in self._sources:
            raise DataError(
                f"{symbol}: no history; the simulated market has one of {', '.join(self._sources)}"
            )
        bars = self._of(symbol).bars
        return bars.between(int(bars.start[0]), self.start)

    def earlier(self, most: int, days: int) -> list[BarTable]:
        """None: every token of this market is listed in the run."""
        return []

    def events(self) -> Iterator[Event]:
        """Listings, bars and funding from `start` to `end`, in the Protocol's order."""
        first = self.start
        tokens = sorted(set(self._symbols) - set(self._sources))
        bars = [
            self._symbols[symbol].bars.between(first, self.end).events()
            for symbol in (*self._sources, *tokens)
        ]
        return heapq.merge(self._listings(first), *bars, self._funding(first), key=attrgetter("ts"))

    def half_spread(self, symbol: str, start: int) -> float:
        """Half of (ask - bid) / mid at the open of the bar `start` (ms); at `end` that of the last close.

        Raises DataError before the listing and for unknown symbols.
        """
        found = self._of(symbol)
        return float(found.half_spread[found.index_at(start)])

    def oracle_p_up(self, symbol: str, start: NDArray[np.int64]) -> Array:
        """P(log return from the next decision bar's open over the horizon > 0 | hidden state), (n,).

        start: int64 (n,) open times (ms) of decision bars; the state is the one at the bar's close. The
        closed form and its derivation are in `process.probability_up`; its only approximation is that
        volatility stays what it is over the horizon. Raises DataError outside the symbol's life.
        """
        entry = np.asarray(start, np.int64) + self._decision_interval
        return self._of(symbol).probability_up(entry, self._horizon)

    def achievable_accuracy(self, symbol: str, start: NDArray[np.int64]) -> float:
        """Accuracy of the best possible forecaster over these decision bars: the mean of max(p, 1 - p)."""
        p_up = self.oracle_p_up(symbol, start)
        return float(np.maximum(p_up, 1 - p_up).mean())

    def _of(self, symbol: str) -> SimulatedSymbol:
        try:
            return self._symbols[symbol]
        except KeyError:
            raise DataError(
                f"{symbol}: not in the simulated market; it has {', '.join(self._symbols)}"
            ) from None

    def _listings(self, first: int) -> Iterator[Event]:
        for name, symbol in self._symbols.items():
            if name not in self._sources:
                ts = max(symbol.listing.launch_time, first)
                yield InstrumentListed(ts, ts, symbol.listing.instrument())

    def _funding(self, first: int) -> Iterator[Event]:
        rates = (event for symbol in self._symbols.values() for event in symbol.funding if event.ts > first)
        return iter(sorted(rates, key=attrgetter("ts")))
