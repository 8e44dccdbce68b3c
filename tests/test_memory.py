"""What adaptation learns from: the newest rows of a token with the labels that have matured."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from strategies.memory import TokenMemory

STEP = 900


def filled(count: int, capacity: int = 8, gap_after: int | None = None) -> TokenMemory:
    """Row i holds i; the bar after number `gap_after` comes one bar late."""
    memory = TokenMemory(2, capacity)
    for i in range(count):
        late = STEP if gap_after is not None and i > gap_after else 0
        memory.add(i * STEP + late, np.full(2, i, np.float32))
    return memory


@given(count=st.integers(0, 60), capacity=st.integers(1, 9), wanted=st.integers(1, 12))
def test_it_hands_out_the_newest_rows_in_order_and_never_more_than_its_capacity(
    count: int, capacity: int, wanted: int
) -> None:
    memory = filled(count, capacity)
    rows, starts, labels, weights = memory.newest(wanted)
    kept = min(count, capacity, wanted)
    assert rows[:, 0].tolist() == list(range(count - kept, count))
    assert starts.tolist() == [i * STEP for i in range(count - kept, count)]
    assert (labels == -1).all()
    assert (weights == 0).all()
    assert len(memory) == min(count, capacity)


def test_a_label_finds_its_row_and_an_unknown_time_finds_none() -> None:
    memory = filled(5)
    memory.label(3 * STEP, 1, 0.5)
    memory.label(3 * STEP + 1, 0, 0.9)
    memory.label(99 * STEP, 0, 0.9)
    _, _, labels, weights = memory.newest(5)
    assert labels.tolist() == [-1, -1, -1, 1, -1]
    assert weights.tolist() == [0, 0, 0, 0.5, 0]


def test_labels_move_with_their_rows_when_old_ones_are_dropped() -> None:
    memory = TokenMemory(2, 4)
    for i in range(40):
        memory.add(i * STEP, np.full(2, i, np.float32))
        if i >= 2:
            memory.label((i - 2) * STEP, i % 2, 1.0)
    rows, _, labels, _ = memory.newest(4)
    assert rows[:, 0].tolist() == [36, 37, 38, 39]
    assert labels.tolist() == [0, 1, -1, -1]


def test_what_it_hands_out_is_a_copy() -> None:
    memory = filled(3)
    memory.newest(3)[0][:] = 9
    memory.newest_unbroken(3, STEP)[:] = 9
    assert memory.newest(3)[0][:, 0].tolist() == [0, 1, 2]


def test_rows_before_a_gap_are_no_part_of_an_unbroken_past() -> None:
    assert filled(6, gap_after=2).newest_unbroken(10, STEP)[:, 0].tolist() == [3, 4, 5]
    assert filled(6, gap_after=2).newest_unbroken(2, STEP)[:, 0].tolist() == [4, 5]
    assert filled(6).newest_unbroken(4, STEP)[:, 0].tolist() == [2, 3, 4, 5]
    assert len(filled(0).newest_unbroken(4, STEP)) == 0
