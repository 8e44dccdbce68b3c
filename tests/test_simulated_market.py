"""The embedded market: invented, repeatable, and with a truth that can be looked up."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from bot.core.errors import DataError
from bot.core.events import BarClosed, FundingRatePublished, InstrumentListed
from bot.core.types import DAY_MS, MINUTE_MS
from bot.exchange.simulated.listings import Plan
from bot.exchange.simulated.market import SimulatedMarket
from bot.market.bars import BarTable
from bot.settings import Label, Simulation
from strategies import labels
from strategies.features import pipeline
from strategies.learning.sources import Sources, build, column_indices

DECISION = 15 * MINUTE_MS
HORIZON = 8
SOURCES = ("BTCUSDT", "ETHUSDT")


def market(days: int = 20, seed: int = 7, history_days: int = 120) -> SimulatedMarket:
    return SimulatedMarket(
        Simulation(seed=seed, days=days, history_days=history_days), SOURCES, DECISION, HORIZON
    )


@pytest.fixture(scope="module")
def long_market() -> SimulatedMarket:
    return market(days=45)


@pytest.fixture(scope="module")
def bars(long_market: SimulatedMarket) -> dict[str, BarTable]:
    """Decision bars of the run by symbol."""
    columns: dict[str, list[BarClosed]] = {}
    for event in long_market.events():
        if isinstance(event, BarClosed):
            columns.setdefault(event.symbol, []).append(event)
    return {symbol: table_of(symbol, found).resampled(DECISION) for symbol, found in columns.items()}


def table_of(symbol: str, found: list[BarClosed]) -> BarTable:
    names = ("open", "high", "low", "close", "volume", "turnover")
    start = np.array([bar.start for bar in found])
    return BarTable(
        symbol, found[0].interval, start, *(np.array([getattr(bar, n) for bar in found]) for n in names)
    )


def test_the_same_seed_gives_the_same_market_and_another_seed_another() -> None:
    first, again, other = (list(market(3, seed).events()) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_longer_run_extends_the_path_and_changes_nothing_of_it() -> None:
    short, long = list(market(4).events()), list(market(8).events())
    assert long[: len(short)] == short


def test_events_come_in_time_order_and_a_listing_before_the_first_bar() -> None:
    events = list(market(8).events())
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    listed: set[str] = set(SOURCES)
    for event in events:
        if isinstance(event, InstrumentListed):
            assert event.instrument.simulated
            listed.add(event.instrument.symbol)
        elif isinstance(event, BarClosed | FundingRatePublished):
            assert event.symbol in listed
    closed = [event for event in events if not isinstance(event, InstrumentListed)]
    for event, after in pairwise(closed):  # a rate is published after the bars that its settlement closes
        assert event.ts < after.ts or (
            isinstance(event, BarClosed) or isinstance(after, FundingRatePublished)
        )
    assert len(listed) == 7


def test_every_bar_is_sane_and_on_the_grid(long_market: SimulatedMarket) -> None:
    for event in long_market.events():
        if isinstance(event, BarClosed):
            assert 0 < event.low <= min(event.open, event.close)
            assert max(event.open, event.close) <= event.high
            assert event.volume > 0
            assert event.low <= event.turnover / event.volume * (1 + 1e-9)
            assert event.turnover / event.volume <= event.high * (1 + 1e-9)


def test_only_the_sources_have_a_history_and_it_ends_where_the_run_begins() -> None:
    simulated = market(3)
    history = simulated.history("BTCUSDT")
    assert history.start[-1] + history.interval == simulated.start
    assert simulated.start - history.start[0] == 120 * DAY_MS
    with pytest.raises(DataError, match="no history"):
        simulated.history("SIMAUSDT")
    with pytest.raises(DataError, match="not in the simulated market"):
        simulated.mechanism("NOPEUSDT")


def test_tokens_are_wilder_and_dearer_to_trade_than_the_sources(
    long_market: SimulatedMarket, bars: dict[str, BarTable]
) -> None:
    assert 0.002 < deviation(bars["BTCUSDT"]) < 0.004
    for symbol in long_market.symbols[2:]:
        table = bars[symbol]
        assert 0.004 < deviation(table) < 0.012
        young, old = table.start[:96], table.start[-960:]
        spread = [np.mean([long_market.half_spread(symbol, int(t)) for t in part]) for part in (young, old)]
        assert spread[0] > 1.2 * spread[1] > 1.2e-4


def deviation(table: BarTable) -> float:
    return float(np.diff(np.log(table.close)).std())


def test_what_the_oracle_says_comes_true(long_market: SimulatedMarket, bars: dict[str, BarTable]) -> None:
    """Over all tokens: forecasts of 70 % come true in 70 % of the cases, within four standard errors."""
    said, came = [], []
    for symbol in long_market.symbols[2:]:
        table = bars[symbol]
        entries = table.open[1:-HORIZON]
        exits = table.close[HORIZON:-1]
        said.append(long_market.oracle_p_up(symbol, table.start[: len(entries)]))
        came.append(exits > entries)
    p, up = np.concatenate(said), np.concatenate(came)
    for low in np.arange(0.1, 0.9, 0.1):
        inside = (p >= low) & (p < low + 0.1)
        error = 4 * 0.5 / np.sqrt(inside.sum() / HORIZON)  # windows overlap
        assert abs(p[inside].mean() - up[inside].mean()) < error


def test_achievable_accuracy_is_modest_and_none_without_a_mechanism(
    long_market: SimulatedMarket, bars: dict[str, BarTable]
) -> None:
    for symbol, table in bars.items():
        best = long_market.achievable_accuracy(symbol, table.start[:-HORIZON])
        if long_market.mechanism(symbol) == "none":
            assert best < 0.52
        else:
            assert 0.70 < best < 0.80


def test_one_token_is_reversed_and_one_has_no_mechanism(long_market: SimulatedMarket) -> None:
    kinds = [long_market.mechanism(symbol) for symbol in long_market.symbols[2:]]
    assert sorted(kinds) == ["none", "reversed", "shared", "shared", "shared"]


def test_the_oracle_knows_when_a_token_turns() -> None:
    plan = Plan("TURNUSDT", 1.0, "turning", 0.006, 0.6, turns_after=10.0)
    simulated = SimulatedMarket(Simulation(days=20, history_days=5), SOURCES, DECISION, HORIZON, (plan,))
    launch = simulated.launched("TURNUSDT")
    starts = np.arange(-(-launch // DECISION) * DECISION, simulated.end - DECISION * 9, DECISION)
    young = starts + DECISION < launch + 10 * DAY_MS
    other = SimulatedMarket(
        Simulation(days=20, history_days=5), SOURCES, DECISION, HORIZON, (replace(plan, turns_after=np.inf),)
    )
    said, straight = (one.oracle_p_up("TURNUSDT", starts) for one in (simulated, other))
    np.testing.assert_array_equal(said[young], straight[young])
    assert np.corrcoef(said[~young], straight[~young])[0, 1] < -0.9


# --- what can be learnt, by the features that the bot uses -------------------------------------------------


@pytest.fixture(scope="module")
def sources(long_market: SimulatedMarket) -> Sources:
    return build([long_market.history(name).resampled(DECISION) for name in SOURCES], Label())


def with_lags(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([np.roll(x, lag, axis=0) for lag in (0, 1, 2, 4, 8)], axis=1)[8:]


def read_out(x: NDArray[np.float32], y: NDArray[np.int8], strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=500).fit(with_lags(x)[y[8:] >= 0], y[8:][y[8:] >= 0])


def area(model: LogisticRegression, x: NDArray[np.float32], y: NDArray[np.int8]) -> float:
    known = y[8:] >= 0
    return float(roc_auc_score(y[8:][known], model.predict_proba(with_lags(x))[known, 1]))


def test_the_sources_can_be_learnt_and_their_frozen_knowledge_loses_on_tokens(
    long_market: SimulatedMarket, bars: dict[str, BarTable], sources: Sources
) -> None:
    btc = sources.series[0]
    cut = int(len(btc) * 0.8)
    model = read_out(btc.x[:cut], btc.y[:cut], 0.01)
    at_home = area(model, btc.x[cut:], btc.y[cut:])
    assert at_home > 0.70
    columns = column_indices(sources.columns)
    for symbol in long_market.symbols[2:]:
        table = bars[symbol]
        features = pipeline.batch(
            table, bars["BTCUSDT"], bars["ETHUSDT"], prior=sources.statistics, launch_time=int(table.start[0])
        )
        outcome = labels.batch(table, features.sigma, HORIZON, 1.0).outcome
        x, y = features.x[features.ready][:, columns], outcome[features.ready]
        frozen = area(model, x, y)
        kind = long_market.mechanism(symbol)
        if kind == "shared":
            half = len(x) // 2
            own = area(read_out(x[:half], y[:half], 0.003), x[half:], y[half:])
            assert 0.5 < frozen < at_home - 0.04
            assert own > area(model, x[half:], y[half:]) + 0.02
        elif kind == "reversed":
            assert frozen < 0.45
        else:
            assert 0.45 < frozen < 0.55
