"""The process behind the embedded market: its hidden pressure, its closed forms and what bars look like."""

from decimal import Decimal

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.core.events import BarClosed, FundingRatePublished, InstrumentListed
from bot.core.types import DAY_MS, HOUR_MS, MINUTE_MS
from bot.exchange.simulated.listings import SOURCE_SENSING
from bot.exchange.simulated.market import SimulatedMarket
from bot.exchange.simulated.process import (
    Dynamics,
    Factor,
    Path,
    draw_path,
    probability_up,
    response,
    streams_of,
)
from bot.market.bars import BarTable
from bot.settings import Simulation

BAR_HOURS = 1 / 12
HORIZON = 24  # bars of five minutes
DECISION = 15 * MINUTE_MS
COUNT = 300_000
BLOCKS = COUNT // HORIZON  # horizons that do not overlap


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return SimulatedMarket(Simulation(seed=7, days=30, history_days=60), ("BTCUSDT", "ETHUSDT"), DECISION, 8)


@pytest.fixture(scope="module")
def tables(market: SimulatedMarket) -> dict[str, BarTable]:
    """Decision bars of the run, of tokens from the fourth day of their life."""
    found: dict[str, list[BarClosed]] = {}
    for event in market.events():
        if isinstance(event, BarClosed):
            found.setdefault(event.symbol, []).append(event)
    names = ("open", "high", "low", "close", "volume", "turnover")
    return {
        symbol: BarTable(
            symbol,
            bars[0].interval,
            np.array([bar.start for bar in bars]),
            *(np.array([getattr(bar, name) for bar in bars]) for name in names),
        )
        .resampled(DECISION)
        .between(bars[0].start + 3 * DAY_MS, market.end)
        for symbol, bars in found.items()
    }


def path(direction: int, turns_after: float = np.inf) -> Path:
    dynamics = Dynamics(0.003, direction, coupling=0.5, turns_after=turns_after)
    factor = Factor.draw(streams_of(3, "factor"), COUNT, BAR_HOURS)
    hour = np.arange(COUNT) * BAR_HOURS % 24
    return draw_path(streams_of(3, "X"), dynamics, SOURCE_SENSING, factor, hour, np.zeros(COUNT), BAR_HOURS)


def ahead(drawn: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pressure at the ends of separate horizons, and the log return of the horizon after each."""
    returns = (drawn.sigma * drawn.returns).reshape(BLOCKS, HORIZON).sum(axis=1)
    return drawn.pressure[HORIZON - 1 :: HORIZON][:-1], returns[1:]


@pytest.mark.parametrize("direction", [1, -1, 0])
def test_the_oracle_is_right_as_often_as_it_says(direction: int) -> None:
    pressure, returns = ahead(path(direction))
    p = probability_up(pressure, direction, np.zeros(len(pressure)), HORIZON, BAR_HOURS)
    right = np.where(p >= 0.5, returns > 0, returns < 0)
    assert right.mean() == pytest.approx(np.maximum(p, 1 - p).mean(), abs=4 * 0.5 / np.sqrt(BLOCKS))


@pytest.mark.parametrize(("direction", "sign"), [(1, 1), (-1, -1)])
def test_pressure_lifts_a_price_and_pushes_a_reversed_one_down(direction: int, sign: int) -> None:
    pressure, returns = ahead(path(direction))
    assert sign * np.corrcoef(pressure, returns)[0, 1] > 0.3


def test_a_mechanism_that_turns_is_reversed_from_then_on() -> None:
    half = COUNT // 2
    pressure, returns = ahead(path(1, turns_after=half * BAR_HOURS))
    before, after = np.arange(len(returns)) < half // HORIZON - 1, np.arange(len(returns)) > half // HORIZON
    assert np.corrcoef(pressure[before], returns[before])[0, 1] > 0.3
    assert np.corrcoef(pressure[after], returns[after])[0, 1] < -0.3
    np.testing.assert_array_equal(path(1).returns[:half], path(1, half * BAR_HOURS).returns[:half])
    np.testing.assert_array_equal(path(-1).returns[half:], path(1, half * BAR_HOURS).returns[half:])


def test_without_a_mechanism_the_pressure_says_nothing() -> None:
    pressure, returns = ahead(path(0))
    assert abs(np.corrcoef(pressure, returns)[0, 1]) < 4 / np.sqrt(BLOCKS)
    assert probability_up(np.array([3.0]), 0, np.zeros(1), HORIZON, BAR_HOURS) == pytest.approx(0.5)


def test_past_returns_predict_nothing_although_the_pressure_lasts() -> None:
    drawn = path(1)
    x = drawn.returns
    for lag in (1, 2, 12, 24):
        assert abs(np.corrcoef(x[lag:], x[:-lag])[0, 1]) < 4 * x.std() / np.sqrt(COUNT)
    assert np.corrcoef(drawn.pressure[24:], drawn.pressure[:-24])[0, 1] == pytest.approx(0.5, abs=0.03)


def test_volatility_clusters() -> None:
    drawn = path(1)
    size = np.abs(drawn.sigma * drawn.returns)
    assert np.corrcoef(np.log(drawn.sigma[12:]), np.log(drawn.sigma[:-12]))[0, 1] > 0.7
    assert np.corrcoef(size[12:], size[:-12])[0, 1] > 0.1


def test_what_is_seen_of_the_pressure_has_two_unequal_humps_and_unit_variance() -> None:
    seen = response(np.random.default_rng(0).standard_normal(COUNT))
    assert seen.mean() == pytest.approx(0, abs=0.01)
    assert seen.var() == pytest.approx(1, abs=0.01)
    shares = np.histogram(seen, bins=5)[0] / COUNT
    assert shares[4] > 1.2 * shares[0] > 1.2 * shares[2]


def test_prices_lie_on_the_tick_volumes_on_the_step_and_bars_join(market: SimulatedMarket) -> None:
    events = list(market.events())
    grids = {
        event.instrument.symbol: (event.instrument.tick_size, event.instrument.qty_step)
        for event in events
        if isinstance(event, InstrumentListed)
    }
    closes: dict[str, float] = {}
    for number, event in enumerate(events):
        if isinstance(event, BarClosed):
            assert event.open == closes.get(event.symbol, event.open)
            closes[event.symbol] = event.close
            if number % 17 == 0 and event.symbol in grids:
                tick, step = grids[event.symbol]
                for price in (event.open, event.high, event.low, event.close):
                    assert Decimal(repr(price)) % tick == 0
                assert Decimal(repr(event.volume)) % step == 0


def test_eth_follows_btc_and_tokens_follow_it_more_loosely(tables: dict[str, BarTable]) -> None:
    def correlation(symbol: str) -> float:
        own = tables[symbol]
        btc = tables["BTCUSDT"].between(int(own.start[0]), int(own.start[-1]) + DECISION)
        own = own.between(int(btc.start[0]), int(btc.start[-1]) + DECISION)
        return float(np.corrcoef(np.diff(np.log(own.close)), np.diff(np.log(btc.close)))[0, 1])

    of_eth = correlation("ETHUSDT")
    assert 0.6 < of_eth < 0.95
    for symbol in tables:
        if symbol.startswith("SIM"):
            assert 0.1 < correlation(symbol) < of_eth


def test_spreads_widen_with_volatility(market: SimulatedMarket, tables: dict[str, BarTable]) -> None:
    for symbol, table in tables.items():
        spread = np.array([market.half_spread(symbol, int(start)) for start in table.start])
        reach = np.log(table.high / table.low)
        wild, calm = reach > np.quantile(reach, 0.9), reach < np.quantile(reach, 0.1)
        assert spread[wild].mean() > 1.2 * spread[calm].mean()


def test_a_token_is_listed_within_the_first_week_and_funded_every_eight_hours(
    market: SimulatedMarket,
) -> None:
    listed, funded = {}, {}
    for event in market.events():
        if isinstance(event, InstrumentListed):
            listed[event.instrument.symbol] = event.instrument.launch_time
        elif isinstance(event, FundingRatePublished):
            funded.setdefault(event.symbol, []).append(event.ts)
            assert abs(event.rate) <= 0.005
    for symbol, launch in listed.items():
        if symbol.startswith("SIM"):
            assert market.start + DAY_MS <= launch <= market.start + 7 * DAY_MS
            assert launch % HOUR_MS == 0
        assert set(np.diff(funded[symbol])) == {8 * HOUR_MS}
