"""Bars as the kernel reads them, in columns: those of one moment, or a table in chunks."""

import math
from collections.abc import Iterator, Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from bot.core.events import BarClosed, MicrostructureSampled
from bot.market.bars import BarTable
from strategies.features import kernel
from strategies.features.spec import COUNT

# Rows of a table in work at once: few, so that they stay in the processor's cache, and no power of two, with
# which all columns would compete for the same few places in it.
CHUNK = 2000

_BAR = Struct(f"{kernel.SPREAD_BPS}d").pack
_BOOK = Struct(f"{kernel.OWN - kernel.SPREAD_BPS}d").pack
_NO_BOOK = _BOOK(*[math.nan] * (kernel.OWN - kernel.SPREAD_BPS))


class Batch:
    """Arrays for up to `size` bars on their way through the kernels."""

    def __init__(self, size: int) -> None:
        self.tokens = np.zeros(size, np.int64)
        self.starts = np.zeros(size, np.int64)
        self.columns = np.full((kernel.INPUTS + len(kernel.LOGGED), size), np.nan)
        self.raw = np.empty((size, COUNT))
        self.sigma = np.empty(size)
        self.runs = np.empty(size, np.int64)
        self.x = np.empty((size, COUNT), np.float32)
        self.have = np.empty(size, np.int64)
        self.ready = np.empty(size, np.bool_)
        self.until = np.empty(size, np.int64)

    def take(
        self,
        bars: Sequence[BarClosed],
        first: BarClosed | None,
        second: BarClosed | None,
        funding_rates: Sequence[float],
        micro: Sequence[MicrostructureSampled | None],
    ) -> None:
        """As many bars as there is room for, of one moment."""
        self.starts[:] = [bar.start for bar in bars]
        parts: list[bytes] = []  # attribute by attribute into bytes: nothing in Python is faster
        for bar, rate, seen in zip(bars, funding_rates, micro, strict=True):
            parts.append(_BAR(bar.open, bar.high, bar.low, bar.close, bar.volume, bar.turnover, rate))
            parts.append(
                _NO_BOOK
                if seen is None or seen.start != bar.start
                else _BOOK(
                    seen.spread_bps, seen.imbalance_5, seen.imbalance_10, seen.imbalance_50,
                    seen.microprice_bps, seen.ofi, seen.trade_imbalance, seen.large_share,
                )
            )  # fmt: skip
        self.columns[: kernel.OWN] = np.frombuffer(b"".join(parts)).reshape(len(bars), kernel.OWN).T
        for row, reference in ((kernel.FIRST_CLOSE, first), (kernel.SECOND_CLOSE, second)):
            self.columns[row] = math.nan
            if reference is not None:
                self.columns[row, self.starts == reference.start] = reference.close


def chunks(
    table: BarTable,
    first: BarTable,
    second: BarTable,
    funding: NDArray[np.float64] | None,
    micro: NDArray[np.float64] | None,
) -> Iterator[tuple[slice, Batch]]:
    """CHUNK rows at a time; the arrays of one chunk are used again for the next."""
    missing = np.broadcast_to(np.nan, len(table))
    inputs = (
        table.open,
        table.high,
        table.low,
        table.close,
        table.volume,
        table.turnover,
        missing if funding is None else funding,
        *([missing] * (kernel.OWN - kernel.SPREAD_BPS) if micro is None else micro.T),
        _closes_at(first, table.start),
        _closes_at(second, table.start),
    )
    batch = Batch(min(CHUNK, len(table)))
    for begin in range(0, len(table), CHUNK):
        rows = slice(begin, min(begin + CHUNK, len(table)))
        size = rows.stop - rows.start
        if size != len(batch.tokens):
            batch = Batch(size)
        batch.starts[:] = table.start[rows]
        for row, values in zip(batch.columns, inputs, strict=False):
            row[:] = values[rows]
        yield rows, batch


def _closes_at(reference: BarTable, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The reference's closes of the bars that opened at `starts`, NaN where it has none."""
    if np.array_equal(reference.start, starts):
        return reference.close
    closes = np.full(len(starts), np.nan)
    _, here, there = np.intersect1d(starts, reference.start, assume_unique=True, return_indices=True)
    closes[here] = reference.close[there]
    return closes
