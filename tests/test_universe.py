"""Who is followed: what is held or named, then the newest that trade well enough, always the same ones."""

from dataclasses import replace
from math import nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.types import DAY_MS, HOUR_MS, Instrument
from bot.market.liquidity import Liquidity, per_day
from bot.market.universe import Choice, Universe
from bot.settings import Universe as Limits
from tests.builders import START, instrument

NOW = START + 100 * DAY_MS
LIMITS = Limits()
WELL = Liquidity(5e6, 0.001, 1e4)
OURS = Universe(LIMITS, days=60, most=3)


def listed(**ages: float) -> dict[str, Instrument]:
    """Instruments by name and age in days."""
    return {
        name: msgspec.structs.replace(instrument(name), launch_time=int(NOW - age * DAY_MS))
        for name, age in ages.items()
    }


def choose(
    offers: dict[str, Instrument],
    universe: Universe = OURS,
    followed: tuple[str, ...] = (),
    held: tuple[str, ...] = (),
    **liquidity: Liquidity,
) -> tuple[list[str], dict[str, str]]:
    known = {name: liquidity.get(name, WELL) for name in offers}
    choice = universe.choose(offers, known, NOW, followed=followed, held=held)
    return [item.symbol for item in choice.followed], choice.left_out


def test_the_newest_get_the_places_and_the_others_are_told() -> None:
    assert choose(listed(A=1, B=2, C=3, D=4, OLD=61)) == (["A", "B", "C"], {"D": "all 3 places are taken"})


def test_listed_together_the_busier_one_comes_first_and_then_the_name_decides() -> None:
    offers = listed(B=1, A=1, C=1)
    assert choose(offers, C=WELL._replace(turnover=9e6))[0] == ["C", "A", "B"]
    assert choose(dict(reversed(offers.items())), C=WELL._replace(turnover=9e6))[0] == ["C", "A", "B"]


@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        ({"turnover": 999_999.0}, "turnover of 999,999 a day < 1,000,000"),
        ({"turnover": nan}, "its turnover is not known yet"),
        ({"spread": 0.0051}, "spread 0.510% > 0.500%"),
        ({"depth": 249.0}, "depth 249 < 250"),
    ],
)
def test_who_misses_a_limit_does_not_enter_and_is_told(lack: dict[str, float], reason: str) -> None:
    assert choose(listed(A=1), A=WELL._replace(**lack)) == ([], {"A": reason})


def test_spread_and_depth_that_are_not_known_are_no_reason_against() -> None:
    assert choose(listed(A=1), A=Liquidity(5e6))[0] == ["A"]


def test_a_market_that_knows_no_turnover_takes_everybody_where_no_limit_is_set() -> None:
    anything = replace(OURS, limits=Limits(min_turnover=0))
    assert choose(listed(A=1), anything, A=Liquidity())[0] == ["A"]


def test_a_token_at_the_limit_does_not_come_and_go() -> None:
    thin = WELL._replace(turnover=600_000.0)
    assert choose(listed(A=1), A=thin)[0] == []
    assert choose(listed(A=9, B=1, C=1, D=1), followed=("A",), A=thin)[0] == ["A", "B", "C"]


def test_who_is_far_below_the_limit_keeps_its_place_until_another_wants_it() -> None:
    dead = WELL._replace(turnover=400_000.0)
    assert choose(listed(A=9, B=1), followed=("A",), A=dead) == (["B", "A"], {})
    assert choose(listed(A=9, B=1, C=1, D=1), followed=("A",), A=dead) == (["B", "C", "D"], {})


def test_nobody_who_is_young_and_liquid_is_driven_out_by_a_newer_one() -> None:
    chosen, left_out = choose(listed(A=9, B=8, C=7, D=1), followed=("A", "B", "C"))
    assert sorted(chosen) == ["A", "B", "C"]
    assert left_out == {"D": "all 3 places are taken"}


def test_what_is_held_stays_whatever_is_against_it() -> None:
    strict = replace(OURS, limits=Limits(never=("H",)), most=1)
    dead = Liquidity(0.0, 0.5, 0.0)
    assert choose(listed(H=900, I=800, A=1), strict, ("H",), ("H", "I"), H=dead)[0] == ["I", "H"]


def test_what_the_configuration_names_is_followed_or_never() -> None:
    limits = Limits(always=("OLD",), never=("A",))
    chosen, left_out = choose(listed(OLD=900, A=1, B=1), replace(OURS, limits=limits), OLD=Liquidity(0.0))
    assert (chosen, left_out) == (["OLD", "B"], {"A": "universe.never names it"})


def test_the_tokens_of_the_command_line_are_the_only_ones() -> None:
    assert choose(listed(OLD=900, A=1), replace(OURS, only=frozenset({"OLD"}))) == (["OLD"], {})


def test_a_young_token_is_judged_by_its_rate_so_far() -> None:
    assert per_day(1e5, 2 * HOUR_MS) == pytest.approx(1.2e6)
    assert per_day(1e5, 60_000) == pytest.approx(2.4e6), "an hour at least: the first trades say little"
    assert per_day(1e5, 9 * DAY_MS) == 1e5


NAMES = tuple("ABCDEFGH")
quote = st.builds(
    Liquidity, st.sampled_from([nan, 0.0, 6e5, 2e6, 9e6]), st.sampled_from([nan, 0.001, 0.007, 0.1]),
    st.sampled_from([nan, 0.0, 150.0, 9e3]),
)  # fmt: skip
few = st.sets(st.sampled_from(NAMES), max_size=5)


@given(
    ages=st.dictionaries(st.sampled_from(NAMES), st.floats(0, 120), min_size=1),
    quotes=st.fixed_dictionaries(dict.fromkeys(NAMES, quote)),
    followed=few, held=few, always=few, never=few, most=st.integers(1, 6),
)  # fmt: skip
def test_whatever_the_facts(
    ages: dict[str, float], quotes: dict[str, Liquidity], followed: set[str], held: set[str],
    always: set[str], never: set[str], most: int,
) -> None:  # fmt: skip
    limits = Limits(always=tuple(sorted(always - never)), never=tuple(sorted(never)))
    universe, offers = Universe(limits, 60, most), listed(**ages)

    def look(now: set[str]) -> Choice:
        return universe.choose(offers, quotes, NOW, followed=now, held=held)

    choice = look(followed)
    chosen = {item.symbol for item in choice.followed}
    assert held & offers.keys() <= chosen, "what is held is never dropped"
    assert len(choice.followed) <= max(most, len(held & offers.keys()))
    assert not chosen & (never - held)
    assert not chosen & choice.left_out.keys()
    for name in chosen - held - set(limits.always) - followed:
        assert offers[name].launch_time > NOW - 60 * DAY_MS
        assert not quotes[name].lacks(limits, inside=False)
    assert {item.symbol for item in look(chosen).followed} == chosen, "a second look changes nothing"
