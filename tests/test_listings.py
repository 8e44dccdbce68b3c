"""What the chain learns from: the first rows of the newest tokens, with the labels that have matured."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies.labels import Matured
from strategies.learning.dataset import LabelledSeries
from strategies.listings import Listings

STEP = 900


def matured(start: int, outcome: int = 1, weight: float = 0.5) -> Matured:
    return Matured(start, start + STEP, start + 3 * STEP, outcome, 0.01, weight, -5.0)


def filled(tokens: dict[str, int], rows: int = 10, most: int = 3) -> Listings:
    """Row i of a token holds i."""
    listings = Listings(2, rows, most)
    for symbol, count in tokens.items():
        for i in range(count):
            listings.add(symbol, i * STEP, np.full(2, i, np.float32))
    return listings


@given(st.lists(st.integers(1, 600), min_size=1, max_size=6), st.integers(1, 500), st.integers(1, 4))
def test_it_keeps_the_first_rows_of_the_newest_tokens(counts: list[int], rows: int, most: int) -> None:
    tokens = {f"T{number}": count for number, count in enumerate(counts)}
    kept = filled(tokens, rows, most).snapshot()
    expected = [(symbol, min(count, rows)) for symbol, count in tokens.items()][-most:]
    assert list(kept.listings) == expected
    assert kept.starts.tolist() == [i * STEP for _, count in expected for i in range(count)]
    np.testing.assert_array_equal(kept.rows[:, 1], kept.starts // STEP)
    assert len(kept.labels) == len(kept.weights) == len(kept.log_vol) == len(kept.starts)


def test_a_label_finds_its_row_and_one_that_is_not_kept_is_ignored() -> None:
    listings = filled({"A": 5, "B": 2})
    listings.label("A", matured(3 * STEP))
    for symbol, start in (("A", 3 * STEP + 1), ("A", 99 * STEP), ("C", STEP)):
        listings.label(symbol, matured(start, 0))
    kept = listings.snapshot()
    assert kept.labels.tolist() == [-1, -1, -1, 1, -1, -1, -1]
    assert kept.weights[3] == 0.5
    assert kept.log_vol[3] == -5.0
    assert np.isnan(kept.log_vol[[0, 6]]).all()


def test_effective_labels_count_bars_that_opened_before() -> None:
    listings = filled({"A": 5, "B": 5})
    for symbol in ("A", "B"):
        for i in range(4):
            listings.label(symbol, matured(i * STEP))
    assert listings.effective_labels(2 * STEP) == 4 * 0.5
    assert listings.effective_labels(100 * STEP) == 8 * 0.5


def test_a_snapshot_does_not_change_afterwards() -> None:
    listings = filled({"A": 5})
    kept = listings.snapshot()
    listings.label("A", matured(3 * STEP))
    listings.add("A", 5 * STEP, np.zeros(2, np.float32))
    assert (kept.labels == -1).all()
    assert len(kept.rows) == 5


def test_a_token_of_before_joins_with_what_is_known_of_it_and_lives_on() -> None:
    known = np.arange(300) < 290
    before = LabelledSeries(
        "OLD", STEP, STEP * np.arange(300, dtype=np.int64), np.ones((300, 2), np.float32),
        np.where(known, 1, -1).astype(np.int8), np.full(300, 0.25, np.float32),
        np.where(known, -5.0, np.nan).astype(np.float32), STEP * np.arange(3, 303, dtype=np.int64),
    )  # fmt: skip
    listings = Listings(2, 250, 3)
    listings.join(before)
    listings.add("NEW", 0, np.zeros(2, np.float32))
    kept = listings.snapshot()
    assert kept.listings == (("OLD", 250), ("NEW", 1))
    assert kept.labels.tolist() == [1] * 250 + [-1]
    assert listings.effective_labels(250 * STEP) == 250 * 0.25
