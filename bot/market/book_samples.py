"""The order book of one symbol over decision bars: means of its features, sampled on a timer."""

import math
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bot.market import book_kernel as kernel
from bot.market.book import Book, State
from bot.market.periods import Periods

SAMPLE_MS: Final = 1_000
LEAST_SHARE: Final = 0.5  # of a span's samples, below which its means are unknown


class BookMeans(NamedTuple):
    """Units as in MicrostructureSampled and LiquiditySampled; NaN = unknown."""

    spread_bps: float = math.nan
    imbalance_5: float = math.nan
    imbalance_10: float = math.nan
    imbalance_50: float = math.nan
    microprice_bps: float = math.nan
    bid_depth: float = math.nan  # quote coin
    ask_depth: float = math.nan
    ofi: float = math.nan


UNKNOWN: Final = BookMeans()


@dataclass(slots=True)
class _Sums:
    count: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 7)
    ofi: float = 0.0
    whole: bool = True  # no order flow escaped


class BookSamples:
    """Call `sample` every SAMPLE_MS and at once when a span ends, for its last order flow; fixed memory.

    span: ms, of a decision bar
    """

    def __init__(self, book: Book, span: int, keep: int = 8) -> None:
        self._book = book
        self._span = span
        self._spans = Periods(span, keep, _Sums)
        self._sampled = 0  # when; the order flow since then is in the book
        self._whole_from: int | None = None  # since then no order flow was lost

    def lost(self) -> None:
        """The book was lost or renewed: what flowed meanwhile is unknown."""
        self._whole_from = None

    def sample(self, now: int) -> None:
        """Add the book as it is at `now` (ms); order flow since the last sample counts where that lay.

        A moment that was sampled already, or one before it, adds nothing.
        """
        if now <= self._sampled:
            return
        flow = self._book.take_ofi()
        span = self._spans.at(self._sampled) if self._sampled else None
        self._sampled = now
        if self._book.state is not State.LIVE:
            self._whole_from = None
        elif self._whole_from is None:
            self._whole_from = now
        elif span is not None:
            span.ofi += flow
        self._add(now)

    def _add(self, now: int) -> None:
        row = self._book.live_features.tolist()
        bid, ask = row[kernel.BID], row[kernel.ASK]
        mid = (bid + ask) / 2
        offset = (row[kernel.MICROPRICE] / mid - 1) * 1e4
        imbalances = row[kernel.IMBALANCE_5 : kernel.IMBALANCE_50 + 1]
        depths = row[kernel.BID_DEPTH : kernel.ASK_DEPTH + 1]
        values = [row[kernel.SPREAD], *imbalances, offset, *depths]
        span = self._spans.at(now)
        if span is None or not all(map(math.isfinite, values)):
            return
        span.count += 1
        span.sums = [total + value for total, value in zip(span.sums, values, strict=True)]

    def means(self, start: int) -> BookMeans:
        """Of the span that began at `start`; unknown unless at least half of its samples are there."""
        span = self._spans.get(start)
        if span is None or span.count * SAMPLE_MS < LEAST_SHARE * self._span:
            return UNKNOWN
        whole = self._whole_from is not None and self._whole_from <= start
        ofi = span.ofi if whole else math.nan
        return BookMeans._make([*(total / span.count for total in span.sums), ofi])
