"""Bars in, normalised feature rows out: live, for many tokens at once, or a whole table by the same code."""

import copy
import math
from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.events import BarClosed, MicrostructureSampled
from bot.market.bars import BarTable
from strategies.features import kernel, normaliser
from strategies.features.inputs import Batch, chunks
from strategies.features.normaliser import PRIOR_SAMPLES, SourceStatistics, robust_statistics, state_type
from strategies.features.spec import COUNT, NAMES, RAW_WARM_UP, SPEC, WARM_UP

_NORMALISED = np.flatnonzero([feature.normalised for feature in SPEC])
_MASKABLE = np.array([feature.maskable for feature in SPEC])
_BITS = np.array([NAMES.index(feature.bit) if feature.bit else -1 for feature in SPEC])
# A normalised feature is clipped afterwards; one that is passed on must lie in its range at once.
_MOST_FLOAT = np.finfo(np.float64).max
_LEAST = np.array([-_MOST_FLOAT if feature.normalised else feature.low for feature in SPEC])
_MOST = np.array([_MOST_FLOAT if feature.normalised else feature.high for feature in SPEC])
_SCRATCH = np.zeros(1, kernel.SCRATCH)
_NORM_STATE = state_type(len(_NORMALISED))


class FeatureRow(msgspec.Struct, frozen=True, gc=False):
    """What one decision bar of one token looks like to the model.

    x: float32 (COUNT,), zeros while not ready; sigma: standard deviation of the last 96 log returns per
    decision bar, NaN while they are fewer; have, need: bars towards readiness; until: start (ms) of the last
    bar that the normalisation statistics have seen, 0 = none
    """

    x: NDArray[np.float32]
    sigma: float
    ready: bool
    have: int
    need: int
    until: int


class FeatureTable(NamedTuple):
    """FeatureRows of a bar table. starts, until: int64 (n,) ms; x: float32 (n, COUNT); sigma: (n,)."""

    starts: NDArray[np.int64]
    x: NDArray[np.float32]
    sigma: NDArray[np.float64]
    ready: NDArray[np.bool_]
    until: NDArray[np.int64]


class RawTable(NamedTuple):
    """Features before normalisation. values: float64 (n, COUNT), NaN = missing; runs: bars since a gap."""

    starts: NDArray[np.int64]
    values: NDArray[np.float64]
    sigma: NDArray[np.float64]
    runs: NDArray[np.int64]


class FeatureBank:
    """Feature state of many tokens. Every bar changes only its own token; nothing refers to later bars.

    prior: statistics of the source markets towards which young tokens' are shrunk; None = no shrinkage
    """

    def __init__(self, prior: SourceStatistics | None = None) -> None:
        if prior is not None and not len(prior.location) == len(prior.scale) == COUNT:
            raise DataError(
                f"the source statistics cover {len(prior.location)} features, this version has {COUNT}: "
                "pretrain the model again"
            )
        self._location = np.zeros(COUNT) if prior is None else np.asarray(prior.location, np.float64)
        self._scale = np.ones(COUNT) if prior is None else np.asarray(prior.scale, np.float64)
        self._strength = 0.0 if prior is None else PRIOR_SAMPLES
        self._index: dict[str, int] = {}
        self._free: list[int] = []  # places of tokens that were removed
        self._tokens = np.zeros(4, kernel.TOKEN)
        self._norms = np.zeros(4, _NORM_STATE)
        self._batch = Batch(1)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._index

    def add(self, symbol: str, launch_time: int) -> None:
        """Know a token from now on; again does nothing. launch_time: ms, for its age."""
        if symbol in self._index:
            return
        position = self._free.pop() if self._free else len(self._index)
        if position == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
            self._norms = np.concatenate([self._norms, np.zeros_like(self._norms)])
        self._index[symbol] = position
        self._tokens[position]["launch"] = launch_time

    def remove(self, symbol: str) -> None:
        """Forget a token; listed again, it is a new one. Raises KeyError for one that is not known."""
        position = self._index.pop(symbol)
        self._tokens[position] = np.zeros((), kernel.TOKEN)
        self._norms[position] = np.zeros((), _NORM_STATE)
        self._free.append(position)

    def copy(self) -> Self:
        """An independent bank in the same state."""
        return copy.deepcopy(self)

    def refused(self, symbol: str) -> int:
        """Bars repeated, out of order or not sane, and warm rows with a value out of its range, so far."""
        return int(self._norms[self._index[symbol]]["refused"])

    def update(
        self,
        bar: BarClosed,
        first: BarClosed | None,
        second: BarClosed | None,
        funding_rate: float = math.nan,
        micro: MicrostructureSampled | None = None,
    ) -> FeatureRow:
        """Take the next decision bar of a token.

        first, second: the references' bars and micro: book and trades of the same start; None, like a
        funding rate that is NaN, is missing
        """
        return self.update_many([bar], first, second, [funding_rate], [micro])[0]

    def update_many(
        self,
        bars: Sequence[BarClosed],
        first: BarClosed | None,
        second: BarClosed | None,
        funding_rates: Sequence[float],
        micro: Sequence[MicrostructureSampled | None],
    ) -> list[FeatureRow]:
        """`update` for the bars of one moment and interval, in order."""
        if not bars:
            return []
        b = self._batch
        if len(bars) != len(b.tokens):
            b = self._batch = Batch(len(bars))
        b.tokens[:] = [self._index[bar.symbol] for bar in bars]
        b.take(bars, first, second, funding_rates, micro)
        self._advance(b, bars[0].interval)
        results = b.x.copy(), b.sigma.tolist(), b.ready.tolist(), b.have.tolist()
        return list(map(FeatureRow, *results, repeat(WARM_UP), b.until.tolist()))

    def replay(
        self,
        table: BarTable,
        first: BarTable,
        second: BarTable,
        funding: NDArray[np.float64] | None = None,
        micro: NDArray[np.float64] | None = None,
    ) -> FeatureTable:
        """`update` with every bar of a table, for a known token.

        funding: (n,) rate in force at each bar's close; micro: (n, 8) values of MicrostructureSampled in its
        order; NaN or None = missing
        """
        n = len(table)
        result = FeatureTable(
            table.start,
            np.empty((n, COUNT), np.float32),
            np.empty(n),
            np.empty(n, np.bool_),
            np.empty(n, np.int64),
        )
        token = self._index[table.symbol]
        for rows, b in chunks(table, first, second, funding, micro):
            b.tokens[:] = token
            self._advance(b, table.interval)
            result.x[rows] = b.x
            result.sigma[rows] = b.sigma
            result.ready[rows] = b.ready
            result.until[rows] = b.until
        return result

    def _advance(self, b: Batch, interval: int) -> None:
        kernel.take_logs(b.columns)
        kernel.advance(
            self._tokens, _SCRATCH, b.tokens, b.starts, interval, b.columns, b.raw, b.sigma, b.runs
        )
        normaliser.normalise(
            self._norms, b.tokens, b.starts, b.runs, b.raw, _NORMALISED, _BITS, _LEAST, _MOST,
            self._location, self._scale, self._strength, RAW_WARM_UP, b.x, b.have, b.ready, b.until,
        )  # fmt: skip


def batch(
    table: BarTable,
    first: BarTable,
    second: BarTable,
    funding: NDArray[np.float64] | None = None,
    launch_time: int = 0,
    prior: SourceStatistics | None = None,
    micro: NDArray[np.float64] | None = None,
) -> FeatureTable:
    """Features of a whole table from a fresh state: bit for bit what `update` gives bar by bar."""
    bank = FeatureBank(prior)
    bank.add(table.symbol, launch_time)
    return bank.replay(table, first, second, funding, micro)


def raw_batch(
    table: BarTable,
    first: BarTable,
    second: BarTable,
    funding: NDArray[np.float64] | None = None,
    launch_time: int = 0,
    micro: NDArray[np.float64] | None = None,
) -> RawTable:
    """Features before normalisation, NaN where missing; the missing bits are still 0."""
    n = len(table)
    result = RawTable(table.start, np.empty((n, COUNT)), np.empty(n), np.empty(n, np.int64))
    state = np.zeros(1, kernel.TOKEN)
    state["launch"] = launch_time
    for rows, b in chunks(table, first, second, funding, micro):
        kernel.take_logs(b.columns)
        kernel.advance(
            state, _SCRATCH, b.tokens, b.starts, table.interval, b.columns,
            result.values[rows], result.sigma[rows], result.runs[rows],
        )  # fmt: skip
    return result


def fit_source_statistics(sources: Sequence[RawTable]) -> SourceStatistics:
    """Statistics of the warm rows of all source markets together.

    Raises DataError when there are too few of them.
    """
    warm = [source.values[source.runs >= RAW_WARM_UP] for source in sources]
    until = max((int(source.starts[-1]) for source in sources if len(source.starts)), default=0)
    return robust_statistics(np.concatenate([np.empty((0, COUNT)), *warm]), _NORMALISED, _MASKABLE, until)
