"""Labelled feature rows, split by time, cut into chunks of sequences."""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from strategies.learning.files import write_atomically


@dataclass(frozen=True, slots=True)
class LabelledSeries:
    """Feature rows of one symbol, oldest first, with the outcome of the decision at each row.

    step:    ms between rows; a larger distance is a gap, which no sequence crosses
    starts:  int64 (n,) open time of each row's bar, ms UTC
    x:       float32 (n, F) normalised features
    y:       int8 (n,) 1 = the entry-to-exit return was positive, 0 = not, -1 = no label
    weight:  float32 (n,) uniqueness of the label, 0 where there is none
    log_vol: float32 (n,) log realised volatility per bar over the label's horizon, NaN where unknown
    t_known: int64 (n,) ms UTC when label and volatility were known
    """

    symbol: str
    step: int
    starts: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.int8]
    weight: NDArray[np.float32]
    log_vol: NDArray[np.float32]
    t_known: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def segments(self) -> NDArray[np.int64]:
        """(n,) number of gaps before each row."""
        return np.cumsum(np.diff(self.starts, prepend=self.starts[:1]) > self.step)

    def check(self) -> None:
        """Raise DataError unless times ascend and the features are finite numbers that vary."""
        if (np.diff(self.starts) < self.step).any():
            raise DataError(f"{self.symbol}: bar times are not ascending in steps of {self.step} ms")
        if not np.isfinite(self.x).all():
            column = int(np.flatnonzero(~np.isfinite(self.x).all(axis=0))[0])
            raise DataError(
                f"{self.symbol}: feature {column} holds NaN or infinity; leave out rows that are not ready"
            )

    def rows(self, selection: slice) -> Self:
        arrays = ("starts", "x", "y", "weight", "log_vol", "t_known")
        return replace(self, **{name: getattr(self, name)[selection] for name in arrays})

    def with_columns(self, kept: NDArray[np.bool_]) -> Self:
        """The same rows with the features where `kept` (F,)."""
        return replace(self, x=np.ascontiguousarray(self.x[:, kept]))

    def with_rows(self, x: NDArray[np.float32]) -> Self:
        """The same bars and labels with other features."""
        return replace(self, x=x)

    def with_labels(self, y: NDArray[np.int8]) -> Self:
        """The same rows with other outcomes; -1 where there were none."""
        return replace(self, y=y)

    def without_labels(self, hidden: NDArray[np.bool_]) -> Self:
        """The same rows; where `hidden` (n,), they are context only."""
        return replace(
            self,
            y=np.where(hidden, np.int8(-1), self.y),
            weight=np.where(hidden, np.float32(0), self.weight),
            log_vol=np.where(hidden, np.float32(np.nan), self.log_vol),
        )

    def labelled_until(self, time: int) -> Self:
        """Rows that closed by `time` and only the labels that were known then (purged)."""
        series = self.rows(slice(0, int(np.searchsorted(self.starts, time - self.step, side="right"))))
        return series.without_labels(series.t_known > time)

    def labelled_from(self, time: int) -> Self:
        """All rows, as context; labels only of bars that opened at or after `time`."""
        return self.without_labels(self.starts < time)

    def since(self, time: int, context: int) -> Self:
        """The rows that opened at or after `time` and the `context` rows before them."""
        first = int(np.searchsorted(self.starts, time))
        return self.rows(slice(max(0, first - context), None))


def split(series: LabelledSeries, cut: int, horizon: int) -> tuple[LabelledSeries, LabelledSeries]:
    """(train, tail) around `cut` (ms): purged before it, embargoed for `horizon` bars after it.

    No training label was known later than `cut`, and no label of the tail begins within `horizon` bars of
    it, so that the intervals of the two sides never touch (López de Prado 2018, ch. 7).
    """
    return series.labelled_until(cut), series.labelled_from(cut + horizon * series.step)


def cut_time(series: Sequence[LabelledSeries], share: float) -> int:
    """The time (ms) after which the last `share` of all labelled rows lies: one cut for all symbols."""
    starts = np.sort(np.concatenate([one.starts[one.y >= 0] for one in series]))
    if not len(starts):
        raise DataError("there are no labels; the label's horizon must be shorter than the history")
    return int(starts[min(len(starts) - 1, int(len(starts) * (1 - share)))])


class Chunks(NamedTuple):
    """Sequences cut from one series.

    rows: int64 (k, context + length) row numbers; counts: bool, the same shape, rows whose output counts.
    Each chunk begins with `context` rows that only warm the network up. The last chunk before a gap is
    filled by repeating its last row to the right, where a causal network cannot see it from the outputs.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.bool_]


def chunks(series: LabelledSeries, context: int, length: int, offset: int = 0) -> Chunks:
    """Cut every gap-free run into chunks whose outputs tile it; its first `context` rows are never outputs.

    offset in [0, length) moves the boundaries: the first chunk of a run then has that many outputs fewer.
    """
    edges = np.flatnonzero(np.diff(series.segments, prepend=-1, append=-1))
    rows, counts = [], []
    columns = np.arange(context + length)
    for first, end in pairwise(edges):
        begins = np.arange(first - offset, end - context, length)
        wanted = begins[:, None] + columns
        rows.append(np.clip(wanted, first, end - 1))
        counts.append((columns >= context) & (wanted < end) & (wanted >= first + context))
    shape = (0, context + length)
    if not rows:
        return Chunks(np.empty(shape, np.int64), np.empty(shape, np.bool_))
    kept = np.concatenate(counts)
    some = kept.any(axis=1)
    return Chunks(np.concatenate(rows)[some], kept[some])


@dataclass(frozen=True, slots=True)
class SourceReplay:
    """The source data that adaptation rehearses, and where its held-out tail begins.

    cut:     ms; the pretrained model learnt from nothing later, so rows after it measure forgetting
    horizon: bars of the label
    """

    series: tuple[LabelledSeries, ...]
    cut: int
    horizon: int

    def save(self, path: Path) -> None:
        arrays: dict[str, NDArray[np.generic]] = {
            "header": np.array([self.cut, self.horizon, len(self.series)])
        }
        for number, one in enumerate(self.series):
            arrays[f"{number}.symbol"] = np.array(one.symbol)
            arrays[f"{number}.step"] = np.array(one.step)
            for name in ("starts", "x", "y", "weight", "log_vol", "t_known"):
                arrays[f"{number}.{name}"] = getattr(one, name)
        arrays["digest"] = _digest(arrays)
        buffer = BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises DataError when the file is missing, damaged or not a replay file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if not np.array_equal(arrays.pop("digest"), _digest(arrays)):
                raise ValueError("its checksum is wrong")
            cut, horizon, count = (int(value) for value in arrays["header"])
            series = tuple(
                LabelledSeries(
                    symbol=str(arrays[f"{number}.symbol"]),
                    step=int(arrays[f"{number}.step"]),
                    **{
                        n: arrays[f"{number}.{n}"]
                        for n in ("starts", "x", "y", "weight", "log_vol", "t_known")
                    },
                )
                for number in range(count)
            )
        except FileNotFoundError:
            raise DataError(f"{path}: no replay of the source; pretrain again") from None
        # a damaged zip may claim to be encrypted or of an unknown kind (RuntimeError)
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
            raise DataError(
                f"{path}: not a readable replay file ({error}); delete it and pretrain again"
            ) from None
        return cls(series, cut, horizon)


def _digest(arrays: Mapping[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
