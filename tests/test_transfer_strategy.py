"""The strategy over many tokens: the bars of one moment are decided together, once the sources are there."""

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from bot.core.events import (
    AdaptationFailed,
    BarClosed,
    CandidateArrived,
    FundingRatePublished,
    InstrumentDelisted,
    MicrostructureSampled,
)
from bot.core.records import Alarm, FeaturesSeen, GateDecided, Readiness, StageChanged
from bot.core.signal import Action, Signal
from bot.core.types import Stage
from bot.settings import Settings
from strategies.base import Advice
from strategies.features.kernel import SHORT
from strategies.features.spec import COUNT, NAMES, SPEC, WARM_UP
from strategies.transfer import TransferStrategy
from tests.builders import BAR, START, bar, listed
from tests.test_token import GOOD, HINT, KNOWS, SURE, model

BTC, ETH, NEW, OLD = "BTCUSDT", "ETHUSDT", "NEWUSDT", "OLDUSDT"
SETTINGS = Settings(adaptation={"first_bars": 400})


class Market:
    """Random walks of the sources and tokens, bar after bar, into the strategy."""

    def __init__(self, *tokens: str) -> None:
        base = model("pretrained", bias=SURE, kind="pretrained")
        self.models = {"pretrained": base}
        self.strategy = TransferStrategy(SETTINGS, base, self.models)
        rng = np.random.default_rng(3)
        names = (BTC, ETH, NEW, OLD)
        steps = rng.normal(0, 0.003, (len(names), 2 * WARM_UP + 50))
        self._prices = dict(zip(names, 100 * np.exp(np.cumsum(steps, axis=1)), strict=True))
        for token in tokens or (NEW,):
            self.strategy.on_event(listed(token))

    def bar(self, symbol: str, index: int) -> BarClosed:
        opened, price = self._prices[symbol][index : index + 2]
        return bar(
            index, price, symbol, opened=opened, high=max(opened, price) * 1.001,
            low=min(opened, price) * 0.999, volume=1e6 + index,
        )  # fmt: skip

    def play(self, first: int, last: int, symbols: Sequence[str] = (BTC, ETH, NEW)) -> list[Advice]:
        return [
            advice
            for index in range(first, last)
            for symbol in symbols
            for advice in self.strategy.on_bar(self.bar(symbol, index), {})
        ]


def signals(advice: Sequence[Advice]) -> list[Signal]:
    return [one for one in advice if isinstance(one, Signal)]


@pytest.fixture
def market() -> Market:
    """One bar before the token is ready."""
    market = Market()
    warming = market.play(0, WARM_UP - 1)
    assert not signals(warming)
    progress = [one for one in warming if isinstance(one, Readiness)]
    assert (progress[-1].have, progress[-1].need) == (WARM_UP - 1, WARM_UP)
    return market


@pytest.mark.parametrize("order", [(BTC, ETH, NEW), (NEW, BTC, ETH), (BTC, NEW, ETH)])
def test_a_token_is_decided_once_in_a_moment_whatever_the_order_of_its_bars(
    market: Market, order: tuple[str, ...]
) -> None:
    (signal,) = signals(market.play(WARM_UP - 1, WARM_UP, order))
    assert signal.symbol == NEW
    assert signal.action is Action.ENTER
    assert signal.ts == START + WARM_UP * BAR
    assert signal.statistics_until == signal.bar_start


def test_the_order_of_bars_changes_no_number() -> None:
    said = []
    for order in ((BTC, ETH, NEW, OLD), (OLD, NEW, ETH, BTC)):
        decided = signals(Market(NEW, OLD).play(0, WARM_UP + 5, order))
        said.append(sorted((one.ts, one.symbol, one.sigma, one.p_up) for one in decided))
    assert said[0] == said[1]
    assert len(said[0]) == 12


def test_sources_and_unlisted_symbols_are_not_traded(market: Market) -> None:
    decided = signals(market.play(WARM_UP - 1, WARM_UP + 3, (BTC, ETH, NEW, OLD)))
    assert {signal.symbol for signal in decided} == {NEW}


def test_a_token_that_the_configuration_bans_is_told_and_never_decided() -> None:
    banned = Settings(universe={"never": (NEW,)})
    strategy = TransferStrategy(banned, model("pretrained", bias=SURE, kind="pretrained"), {})
    (told,) = strategy.on_event(listed(NEW))
    assert isinstance(told, Alarm)
    assert told.text == "not traded: universe.never names it"
    assert strategy.on_bar(bar(0, 100.0, NEW), {}) == []


def test_a_token_whose_sources_stay_away_is_decided_in_the_next_moment_and_opens_nothing(
    market: Market,
) -> None:
    assert not signals(market.play(WARM_UP - 1, WARM_UP, (BTC, NEW)))
    late, punctual = signals(market.play(WARM_UP, WARM_UP + 1))
    assert (late.ts, late.action) == (START + WARM_UP * BAR, Action.NONE)
    assert "late" in late.reason
    assert punctual.action is Action.ENTER


def test_a_bar_that_comes_after_its_moment_opens_nothing(market: Market) -> None:
    market.play(WARM_UP - 1, WARM_UP, (BTC, ETH))
    market.play(WARM_UP, WARM_UP + 1, (BTC, ETH))
    (late,) = signals(market.strategy.on_bar(market.bar(NEW, WARM_UP - 1), {}))
    assert late.action is Action.NONE


def rows_of(market: Market) -> dict[int, NDArray[np.float32]]:
    """What the token's model sees, by the number of the bar."""
    seen = [item for item in market.play(0, 2 * WARM_UP) if isinstance(item, FeaturesSeen)]
    return {(item.ts - START) // BAR - 1: np.array(item.x, np.float32) for item in seen}


class LateToken(Market):
    """The token's bar of one moment comes in the next one, when the sources' have already come."""

    late = WARM_UP + 5

    def play(self, first: int, last: int, symbols: Sequence[str] = (BTC, ETH, NEW)) -> list[Advice]:
        advice = super().play(first, self.late, symbols)
        advice += super().play(self.late, self.late + 1, (BTC, ETH))
        advice += super().play(self.late + 1, self.late + 2, (BTC, ETH))
        advice += super().play(self.late, self.late + 1, (NEW,))
        advice += super().play(self.late + 1, self.late + 2, (NEW,))
        return advice + super().play(self.late + 2, last, symbols)


class LateSource(Market):
    """A source's bar of one moment comes in the next one."""

    late = WARM_UP + 5

    def play(self, first: int, last: int, symbols: Sequence[str] = (BTC, ETH, NEW)) -> list[Advice]:
        advice = super().play(first, self.late, symbols)
        advice += super().play(self.late, self.late + 1, (ETH, NEW))
        advice += super().play(self.late + 1, self.late + 2, (NEW,))
        advice += super().play(self.late, self.late + 1, (BTC,))
        advice += super().play(self.late + 1, self.late + 2, (BTC, ETH))
        return advice + super().play(self.late + 2, last, symbols)


def test_a_bar_that_comes_late_has_the_features_that_it_would_have_had() -> None:
    punctual, late = rows_of(Market()), rows_of(LateToken())
    assert len(punctual) == WARM_UP + 1
    assert punctual.keys() == late.keys()
    for index, row in punctual.items():
        np.testing.assert_array_equal(late[index], row, err_msg=f"bar {index}")


def test_a_source_that_comes_after_its_moment_was_missing_there_and_in_the_return_after_it() -> None:
    punctual, late = rows_of(Market()), rows_of(LateSource())
    when = LateSource.late
    group = [number for number, feature in enumerate(SPEC) if feature.group in ("reference", "missing")]
    others = [number for number in range(COUNT) if number not in group]
    missing = NAMES.index("reference_missing")
    for index, row in punctual.items():
        np.testing.assert_array_equal(late[index][others], row[others])
        if index < when:
            np.testing.assert_array_equal(late[index], row)
    assert [late[index][missing] for index in (when - 1, when, when + 1)] == [0, 1, 1]
    assert not late[when + 1 + SHORT][missing]


def test_references_of_long_ago_are_forgotten(market: Market) -> None:
    market.play(WARM_UP - 1, 2 * WARM_UP)
    assert len(market.strategy._references) < WARM_UP


@pytest.mark.parametrize("feature", ["imbalance_5", "trade_imbalance", "funding"])
def test_book_trades_and_funding_of_the_moment_reach_the_model(feature: str) -> None:
    market = Market()
    base = model("pretrained", KNOWS, kind="pretrained")
    columns = [feature if place == HINT else name for place, name in enumerate(base.card.columns)]
    base = replace(base, card=replace(base.card, columns=tuple(columns)))
    market.strategy = TransferStrategy(SETTINGS, base, {})
    market.strategy.on_event(listed(NEW))
    market.play(0, WARM_UP - 1)
    said = []
    for index, value in enumerate([1.0, -1.0], WARM_UP - 1):
        start, end = START + index * BAR, START + (index + 1) * BAR
        book = MicrostructureSampled(end, end, NEW, start, 2.0, value, value, value, 0.1, 5.0, value, 0.2)
        market.strategy.on_event(book)
        market.strategy.on_event(FundingRatePublished(start, start, NEW, value * 1e-3))
        said += [signal.p_up for signal in signals(market.play(index, index + 1))]
    (without,) = signals(market.play(WARM_UP + 1, WARM_UP + 2))
    assert said[0] > 0.75
    assert said[1] < 0.25
    if feature != "funding":  # which stays in force
        assert without.p_up == pytest.approx(0.5)


def test_a_rate_that_is_settled_at_the_close_counts_from_the_next_bar_on() -> None:
    market, settled = Market(), START + (WARM_UP + 5) * BAR
    for ts, rate in ((START, 1e-4), (settled, -1e-4)):  # both before every bar: what counts is when they were
        market.strategy.on_event(FundingRatePublished(ts, ts, NEW, rate))
    rows, funding = rows_of(market), NAMES.index("funding")
    for index in range(WARM_UP, 2 * WARM_UP):
        assert np.sign(rows[index][funding]) == (1 if START + (index + 1) * BAR <= settled else -1), index


def test_a_delisted_token_is_suspended_and_forgotten(market: Market) -> None:
    ts = START + WARM_UP * BAR
    change, _ = market.strategy.on_event(InstrumentDelisted(ts, ts, NEW))
    assert isinstance(change, StageChanged)
    assert change.new is Stage.SUSPENDED
    assert market.strategy.on_event(InstrumentDelisted(ts, ts, NEW)) == ()
    assert market.play(WARM_UP - 1, WARM_UP + 3) == []


def test_a_token_that_is_listed_again_begins_anew_and_nothing_of_it_was_kept(market: Market) -> None:
    ts = START + WARM_UP * BAR
    micro = MicrostructureSampled(ts, ts, NEW, ts - BAR, 2.0, 0.1, 0.1, 0.1, 0.1, 5.0, 0.1, 0.2)
    for event in (FundingRatePublished(ts, ts, NEW, 1e-4), micro, InstrumentDelisted(ts, ts, NEW)):
        market.strategy.on_event(event)
    strategy = market.strategy
    assert not strategy._funding
    assert not strategy._microstructure
    assert NEW not in strategy._bank
    strategy.on_event(listed(NEW))
    first, *_ = market.play(WARM_UP, WARM_UP + 1)
    assert isinstance(first, Readiness)
    assert first.have == 1


def test_candidates_reach_their_token_and_failures_a_person(market: Market) -> None:
    market.play(WARM_UP - 1, WARM_UP)
    ts = START + WARM_UP * BAR
    market.models["adapted"] = model("adapted", KNOWS)
    (verdict,) = market.strategy.on_event(CandidateArrived(ts, ts, NEW, "adapted", ts, GOOD))
    assert isinstance(verdict, GateDecided)
    assert verdict.verdict == "shadow"
    assert market.strategy.on_event(CandidateArrived(ts, ts, OLD, "adapted", ts, GOOD)) == ()
    (alarm,) = market.strategy.on_event(AdaptationFailed(ts, ts, NEW, ts, "predictions collapsed"))
    assert isinstance(alarm, Alarm)
    assert "collapsed" in alarm.text


def test_a_token_is_listed_once(market: Market) -> None:
    market.play(WARM_UP - 1, WARM_UP)
    assert market.strategy.on_event(listed(NEW)) == ()
    (signal,) = signals(market.play(WARM_UP, WARM_UP + 1))
    assert signal.stage is Stage.SHADOW
