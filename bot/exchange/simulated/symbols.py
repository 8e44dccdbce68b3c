"""One simulated symbol from its listing to the end of the run: bars, quotes, funding and what lies behind."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.events import FundingRatePublished
from bot.core.types import DAY_MS, HOUR_MS
from bot.exchange.simulated.listings import Listing
from bot.exchange.simulated.process import (
    QUARTER_HOUR,
    Array,
    Factor,
    Path,
    Streams,
    autoregression,
    draw_path,
    probability_up,
)
from bot.exchange.simulated.tape import print_bars
from bot.market.bars import BarTable

USUAL_FUNDING: Final = 1e-4
LARGEST_FUNDING: Final = 5e-3
FUNDING_HALF_LIFE: Final = 24.0  # hours


@dataclass(frozen=True, slots=True)
class SimulatedSymbol:
    """What is visible of a symbol (bars, half-spreads, funding) and what is not (path, trend).

    half_spread, trend: (n + 1,) at the open of each of the n bars and at the last close
    """

    listing: Listing
    bars: BarTable
    half_spread: Array
    funding: list[FundingRatePublished]
    path: Path
    trend: Array

    @classmethod
    def draw(cls, listing: Listing, streams: Streams, factor: Factor, end: int, interval: int) -> Self:
        """The symbol's life from launch to `end` (ms) in bars of `interval`; `factor` begins there too."""
        start = np.arange(listing.launch_time, end, interval, dtype=np.int64)
        bar_hours = interval / HOUR_MS
        hour_of_day = (start % DAY_MS) / HOUR_MS
        age = np.append(start, end) / HOUR_MS - listing.launch_time / HOUR_MS
        profile = listing.profile
        path = draw_path(
            streams,
            listing.dynamics,
            listing.sensing,
            factor,
            hour_of_day,
            profile.log_volatility(age[:-1]),
            bar_hours,
        )
        trend = profile.trend(age)
        unrest = path.sigma / (listing.dynamics.volatility * np.sqrt(bar_hours / QUARTER_HOUR))
        usual_turnover = listing.daily_turnover * bar_hours / 24 * unrest**0.8
        tape = print_bars(
            streams,
            path,
            listing.first_price,
            trend,
            usual_turnover * np.exp(profile.log_turnover(age[:-1])),
            listing.grid,
            bar_hours,
        )
        unrest_before = np.append(unrest[:1], unrest)  # quotes at an open know only what was before it
        return cls(
            listing=listing,
            bars=BarTable(
                listing.symbol,
                interval,
                start,
                tape.open,
                tape.high,
                tape.low,
                tape.close,
                tape.volume,
                tape.turnover,
            ),
            half_spread=listing.spread * unrest_before**0.7 * profile.spread_ratio(age),
            funding=_funding(listing, streams("funding"), end),
            path=path,
            trend=trend,
        )

    def index_at(self, moment: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Index of the bar that opens at `moment` (ms); n at the last close. Raises DataError outside."""
        index = (np.asarray(moment, np.int64) - self.listing.launch_time) // self.bars.interval
        if index.size and not (index.min() >= 0 and index.max() <= len(self.bars)):
            raise DataError(
                f"{self.listing.symbol}: asked about a time outside its life from {self.listing.launch_time} "
                f"to {int(self.bars.start[-1]) + self.bars.interval} (ms UTC)"
            )
        return index

    def probability_up(self, entry: NDArray[np.int64], bars: int) -> Array:
        """P(log return over `bars` bars from the open at `entry` > 0 | hidden state at `entry`), (n,).

        A change of direction within the horizon is not foreseen.
        """
        index = self.index_at(entry)
        last = np.maximum(index - 1, 0)
        ahead = np.minimum(index + bars, len(self.bars))
        return probability_up(
            self.path.pressure[last],
            self.listing.dynamics.directions(index * self.bars.interval / HOUR_MS),
            (self.trend[ahead] - self.trend[index]) / self.path.sigma[last],
            bars,
            self.bars.interval / HOUR_MS,
        )


def _funding(listing: Listing, random: np.random.Generator, end: int) -> list[FundingRatePublished]:
    interval = listing.instrument().funding_interval_ms
    times = np.arange((listing.launch_time // interval + 1) * interval, end + 1, interval, dtype=np.int64)
    mood = autoregression(random, len(times), FUNDING_HALF_LIFE, interval / HOUR_MS)
    heat = listing.profile.funding_ratio((times - listing.launch_time) / HOUR_MS)
    rates = np.clip(USUAL_FUNDING + listing.funding_spread * heat * mood, -LARGEST_FUNDING, LARGEST_FUNDING)
    return [
        FundingRatePublished(ts, ts, listing.symbol, round(rate, 6))
        for ts, rate in zip(times.tolist(), rates.tolist(), strict=True)
    ]
