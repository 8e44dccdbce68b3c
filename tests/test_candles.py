"""Decision bars are built from finer confirmed bars, and only from whole sets of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.errors import DataError
from bot.core.events import BarClosed
from bot.market.bars import COLUMNS, BarTable
from bot.market.candles import Candles

FINE, DECISION = 300_000, 900_000


def fine_table(kept: list[bool], *, turnover_known: bool = True) -> BarTable:
    """Random 5-minute bars on a grid, without those that are not `kept`."""
    rng = np.random.default_rng(len(kept))
    close = 10 * np.exp(np.cumsum(rng.normal(0, 0.01, len(kept))))
    opened = np.concatenate([[10.0], close[:-1]])
    volume = rng.gamma(2, 50, len(kept))
    table = BarTable(
        "AUSDT",
        FINE,
        (np.arange(len(kept), dtype=np.int64) + 6_000_000) * FINE,
        opened,
        np.maximum(opened, close) * 1.001,
        np.minimum(opened, close) * 0.999,
        close,
        volume,
        volume * close if turnover_known else np.full(len(kept), np.nan),
    )
    return table.rows(np.array(kept, bool))


def completed(candles: Candles, bars: list[BarClosed]) -> list[BarClosed]:
    return [whole for bar in bars if (whole := candles.update(bar)) is not None]


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.booleans())
def test_candles_equal_the_resampled_table_bit_for_bit_whatever_is_missing(
    kept: list[bool], turnover_known: bool
) -> None:
    table = fine_table(kept, turnover_known=turnover_known)
    wholes = completed(Candles("AUSDT", DECISION), list(table.events()))
    expected = table.resampled(DECISION)
    assert [bar.start for bar in wholes] == expected.start.tolist()
    for name in COLUMNS:
        np.testing.assert_array_equal([getattr(bar, name) for bar in wholes], getattr(expected, name))


def test_a_decision_bar_closes_with_its_last_part() -> None:
    bars = list(fine_table([True] * 3).events())
    candles = Candles("AUSDT", DECISION)
    assert [candles.update(bar) for bar in bars[:2]] == [None, None]
    whole = candles.update(bars[2])
    assert whole is not None
    assert (whole.ts, whole.start, whole.interval) == (bars[2].ts, bars[0].start, DECISION)
    assert whole.received == bars[2].received


def test_a_bar_of_the_decision_interval_is_returned_as_it_is() -> None:
    bar = next(fine_table([True]).events())
    assert Candles("AUSDT", FINE).update(bar) is bar


def test_repeated_and_older_bars_are_ignored() -> None:
    bars = list(fine_table([True] * 6).events())
    candles = Candles("AUSDT", DECISION)
    shuffled = [bars[0], bars[1], bars[1], bars[0], bars[2], bars[3], bars[2], bars[4], bars[5], bars[5]]
    assert completed(candles, shuffled) == completed(Candles("AUSDT", DECISION), bars)


def test_the_decision_bar_of_a_missing_bar_never_comes() -> None:
    table = fine_table([True, True, True, True, False, True, True, True, True])
    candles = Candles("AUSDT", DECISION)
    wholes = completed(candles, list(table.events()))
    assert [bar.start - table.start[0] for bar in wholes] == [0, 2 * DECISION]


def test_a_stream_that_begins_inside_a_decision_bar_waits_for_the_next() -> None:
    table = fine_table([False] + [True] * 5)
    wholes = completed(Candles("AUSDT", DECISION), list(table.events()))
    assert [bar.start % DECISION for bar in wholes] == [0]
    assert wholes[0].start > table.start[0]


def test_unknown_turnover_stays_unknown() -> None:
    table = fine_table([True] * 3, turnover_known=False)
    (whole,) = completed(Candles("AUSDT", DECISION), list(table.events()))
    assert math.isnan(whole.turnover)


def test_a_bar_of_another_symbol_or_of_an_unfit_interval_is_an_error() -> None:
    bar = next(fine_table([True]).events())
    with pytest.raises(DataError, match="candles of BUSDT"):
        Candles("BUSDT", DECISION).update(bar)
    with pytest.raises(DataError, match="does not fit"):
        Candles("AUSDT", 7 * 60_000).update(bar)
