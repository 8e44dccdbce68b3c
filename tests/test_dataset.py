"""Splitting by time and cutting into sequences: no label crosses a cut, no sequence crosses a gap."""

from dataclasses import replace

import numpy as np
import pytest

from bot.core.errors import DataError
from strategies.learning.dataset import SourceReplay, chunks, cut_time, split
from tests.controls import HORIZON, STEP, World

SERIES = World(0).series("S", 200, "source", 0)


def gappy(n: int, gaps: list[int]):
    """A series whose rows at `gaps` open one bar late."""
    series = World(0).series("S", n, "source", 0)
    late = sum((np.arange(n) >= gap).astype(np.int64) for gap in gaps)
    return replace(series, starts=series.starts + STEP * late, t_known=series.t_known + STEP * late)


def test_no_training_label_is_known_after_the_cut():
    cut = int(SERIES.starts[100])
    train, _ = split(SERIES, cut, HORIZON)

    labelled = train.y >= 0
    assert train.starts[-1] + STEP == cut
    assert train.t_known[labelled].max() <= cut
    assert labelled.sum() == 100 - HORIZON
    assert np.isnan(train.log_vol[~labelled]).all()
    assert (train.weight[~labelled] == 0).all()


def test_the_tail_begins_a_horizon_after_the_cut_and_keeps_its_context():
    cut = int(SERIES.starts[100])
    _, tail = split(SERIES, cut, HORIZON)

    assert np.flatnonzero(tail.y >= 0).min() == 100 + HORIZON
    np.testing.assert_array_equal(tail.x, SERIES.x)
    assert len(tail.since(cut, 30)) == 130


def test_the_intervals_of_the_two_sides_never_touch():
    train, tail = split(SERIES, int(SERIES.starts[100]), HORIZON)

    first_of_tail = tail.starts[tail.y >= 0].min()
    assert train.t_known[train.y >= 0].max() < first_of_tail


def test_one_cut_serves_all_symbols():
    other = World(0).series("T", 100, "source", 0)

    assert cut_time([SERIES, other], 0.25) == np.sort(np.r_[SERIES.starts, other.starts])[225]


def test_a_history_without_labels_is_an_error():
    with pytest.raises(DataError, match="no labels"):
        cut_time([SERIES.without_labels(np.ones(200, bool))], 0.25)


@pytest.mark.parametrize("offset", [0, 1, 15])
@pytest.mark.parametrize("gaps", [[], [90], [3, 90, 95, 150]])
def test_outputs_tile_every_run_after_its_context(offset, gaps):
    series, context, length = gappy(200, gaps), 10, 16

    rows, counts = chunks(series, context, length, offset)

    covered = np.sort(rows[counts])
    runs = np.split(np.arange(200), gaps)
    np.testing.assert_array_equal(covered, np.concatenate([run[context:] for run in runs]))


def test_no_chunk_crosses_a_gap_and_its_context_precedes_its_outputs():
    series, context, length = gappy(200, [60, 130]), 10, 16
    segments = series.segments

    rows, counts = chunks(series, context, length)

    assert rows.shape[1] == context + length
    assert (segments[rows] == segments[rows[:, :1]]).all()
    for chunk, counted in zip(rows, counts, strict=True):
        first = np.flatnonzero(counted)[0]
        np.testing.assert_array_equal(np.diff(chunk[first - context : first + counted.sum()]), 1)


def test_runs_without_room_for_an_output_give_no_chunk():
    assert len(chunks(gappy(30, [10, 20]), context=10, length=16).rows) == 0


@pytest.mark.parametrize("broken", ["starts", "x"])
def test_disorder_and_nan_are_named(broken):
    if broken == "starts":
        series, message = replace(SERIES, starts=SERIES.starts[::-1]), "not ascending"
    else:
        x = SERIES.x.copy()
        x[7, 2] = np.nan
        series, message = replace(SERIES, x=x), "feature 2 holds NaN"

    with pytest.raises(DataError, match=message):
        series.check()


def test_a_replay_survives_the_disk(tmp_path):
    path = tmp_path / "replay.npz"
    SourceReplay((SERIES, gappy(50, [20])), 123, HORIZON).save(path)

    loaded = SourceReplay.load(path)

    assert (loaded.cut, loaded.horizon, len(loaded.series)) == (123, HORIZON, 2)
    for name in ("starts", "x", "y", "weight", "log_vol", "t_known"):
        np.testing.assert_array_equal(getattr(loaded.series[0], name), getattr(SERIES, name))
    assert loaded.series[1].step == STEP
    assert [file.name for file in tmp_path.iterdir()] == ["replay.npz"]


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_missing_or_damaged_replay_is_a_data_error(tmp_path, content):
    path = tmp_path / "replay.npz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError, match="pretrain again"):
        SourceReplay.load(path)


def test_a_truncated_replay_is_a_data_error(tmp_path):
    path = tmp_path / "replay.npz"
    SourceReplay((SERIES,), 123, HORIZON).save(path)
    path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(DataError, match="pretrain again"):
        SourceReplay.load(path)


def test_a_changed_byte_of_a_replay_is_a_data_error_or_changes_nothing(tmp_path):
    """Wherever it lies: in the data, in the headers, in the directory of the archive."""
    path = tmp_path / "replay.npz"
    SourceReplay((gappy(50, [20]),), 123, HORIZON).save(path)
    whole = path.read_bytes()
    before = SourceReplay.load(path)
    for position in range(0, len(whole), 7):
        for flip in (1, 0x80):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
            try:
                after = SourceReplay.load(path)
            except DataError:
                continue
            np.testing.assert_array_equal(after.series[0].x, before.series[0].x)
            assert (after.cut, after.horizon) == (before.cut, before.horizon)


def test_the_replay_of_something_else_is_no_replay(tmp_path):
    path = tmp_path / "replay.npz"
    np.savez(path, header=np.array([1, 2, 0]), digest=np.zeros(32, np.uint8))

    with pytest.raises(DataError, match="checksum"):
        SourceReplay.load(path)
