"""Who trades in the simulated market: two sources with a long past, and invented tokens that get listed.

The tokens share the sources' hidden pressure but show it differently (`TOKEN_SENSING`): a nuisance that the
sources hardly have moves the very sensors that read the sources best.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

import numpy as np

from bot.core.types import DAY_MS, HOUR_MS, Instrument
from bot.exchange.simulated.process import Array, Dynamics, Sensing, Streams
from bot.exchange.simulated.tape import Grid

Mechanism = Literal["shared", "reversed", "none", "turning"]
_DIRECTION: Final[dict[Mechanism, int]] = {"shared": 1, "reversed": -1, "none": 0, "turning": 1}

#                          wick  vwap  volume flow range
SOURCE_SENSING: Final = Sensing(
    pressure=(1.0, -1.0, 1.0, 1.0, 0.6),
    nuisance=((0.0, 0.0, 0.1, 0.0, 0.0),),
    noise=(0.3, 0.3, 0.3, 0.3, 0.3),
)
TOKEN_SENSING: Final = Sensing(
    pressure=(1.0, -1.0, -1.0, 0.5, 0.6),
    nuisance=((0.0, 0.0, 3.0, 0.0, 0.0),),
    noise=(0.3, 0.3, 0.3, 0.3, 0.3),
    shift=0.3,
)


@dataclass(frozen=True, slots=True)
class Profile:
    """How a token's first days differ from later: each amount times exp(-age / its hours).

    The price is pumped by `pump` (log) within hours, gives it back and loses `decay` more; volatility and
    spread start as multiples; trading is frantic for hours, and depth grows for days.
    """

    pump: float
    decay: float
    young: float = 1.0  # 0: an old symbol, nothing of this applies

    def trend(self, age: Array) -> Array:
        """Known part of the log price, relative to the listing; `age` in hours."""
        log_price: Array = self.pump * -np.expm1(-age / 1.5) * np.exp(-age / 16) + self.decay * np.expm1(
            -age / 40
        )
        return log_price

    def log_volatility(self, age: Array) -> Array:
        log_ratio: Array = np.log1p(self.young * 2.5 * np.exp(-age / 12))
        return log_ratio

    def log_turnover(self, age: Array) -> Array:
        log_ratio: Array = self.young * (1.2 * np.exp(-age / 4) - 1.5 * np.exp(-age / 48))
        return log_ratio

    def spread_ratio(self, age: Array) -> Array:
        ratio: Array = 1 + self.young * 1.1 * np.exp(-age / 30)
        return ratio

    def funding_ratio(self, age: Array) -> Array:
        ratio: Array = 1 + self.young * 3 * np.exp(-age / 48)
        return ratio


SEASONED: Final = Profile(pump=0.0, decay=0.0, young=0.0)


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol of the simulated market. `spread` is the usual half-spread, a fraction of the price."""

    symbol: str
    launch_time: int
    mechanism: Mechanism
    dynamics: Dynamics
    sensing: Sensing
    profile: Profile
    first_price: float
    grid: Grid
    daily_turnover: float
    spread: float
    funding_spread: float  # standard deviation of the funding rate per 8 hours

    def instrument(self) -> Instrument:
        return Instrument(
            symbol=self.symbol,
            tick_size=self.grid.tick,
            qty_step=self.grid.step,
            min_qty=self.grid.step,
            max_qty=self.grid.step * 1_000_000,
            max_market_qty=self.grid.step * 200_000,
            min_notional=Decimal(5),
            launch_time=self.launch_time,
            simulated=True,
        )


def source(symbol: str, number: int, launch_time: int) -> Listing:
    """The `number`-th source; the first one carries the market factor undiluted."""
    price, daily_turnover = {0: (60_000.0, 8e9), 1: (2_500.0, 4e9)}.get(number, (100.0, 5e8))
    return Listing(
        symbol=symbol,
        launch_time=launch_time,
        mechanism="shared",
        dynamics=Dynamics(
            volatility=0.0025 if number == 0 else 0.0032,
            coupling=1.0 if number == 0 else 0.9,
            pressure_coupling=1.0 if number == 0 else 0.75,
        ),
        sensing=SOURCE_SENSING,
        profile=SEASONED,
        first_price=price,
        grid=grid_for(price),
        daily_turnover=daily_turnover,
        spread=0.5e-4 if number == 0 else 0.7e-4,
        funding_spread=0.5e-4,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """A token to be listed on a day of the run; a "turning" one is reversed from an age in days on."""

    symbol: str
    day: float
    mechanism: Mechanism
    volatility: float
    coupling: float
    turns_after: float = math.inf


TOKENS: Final = (
    Plan("SIMAUSDT", 1.0, "shared", 0.0065, 0.65),
    Plan("SIMBUSDT", 2.0, "shared", 0.0075, 0.55),
    Plan("SIMCUSDT", 3.0, "reversed", 0.0070, 0.60),
    Plan("SIMDUSDT", 4.5, "shared", 0.0060, 0.70),
    Plan("SIMEUSDT", 6.0, "none", 0.0080, 0.60),
)


def tokens(streams: Streams, run_start: int, run_end: int, plans: Sequence[Plan] = TOKENS) -> list[Listing]:
    """The tokens that get listed before `run_end`, oldest first; times and prices vary with the seed."""
    random = streams("listings")
    listings = []
    for plan in plans:
        delay, price, pump, decay, turnover = random.random(5)
        launch = run_start + int(plan.day * DAY_MS) + int(delay * 12) * HOUR_MS
        first_price = float(f"{0.05 * 100**price:.3g}")
        listing = Listing(
            symbol=plan.symbol,
            launch_time=launch,
            mechanism=plan.mechanism,
            dynamics=Dynamics(
                plan.volatility,
                _DIRECTION[plan.mechanism],
                plan.coupling,
                turns_after=plan.turns_after * DAY_MS / HOUR_MS,
            ),
            sensing=TOKEN_SENSING,
            profile=Profile(pump=0.3 + 0.5 * pump, decay=0.05 + 0.1 * decay),
            first_price=first_price,
            grid=grid_for(first_price),
            daily_turnover=2e7 * 4**turnover,
            spread=3e-4,
            funding_spread=3e-4,
        )
        if launch < run_end:
            listings.append(listing)
    return listings


def grid_for(price: float) -> Grid:
    """A tick of 1/100,000 to 1/1,000,000 of the price; a step worth a few cents to some dozen dollars."""
    magnitude = int(np.floor(np.log10(price)))
    return Grid(tick=Decimal(1).scaleb(magnitude - 5), step=Decimal(1).scaleb(-max(magnitude - 1, 0)))
