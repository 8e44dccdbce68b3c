"""One token under one arm of a study: its days, the labels that it knows at each, and what nets say of it."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.core.types import DAY_MS
from bot.research import study_pooled as pooled
from bot.research.study_data import Market, Study, cut_before
from bot.research.study_files import Scores, chain_key
from bot.research.study_pooled import Net
from strategies.learning.dataset import LabelledSeries
from strategies.learning.divergences import proxy_a_distance, similarity
from strategies.learning.sequences import Sequences

Floats = NDArray[np.float64]

SIMILARITY_EVERY: Final = 7  # days
SPACING: Final = 8  # rows between embeddings that are compared
SAMPLES: Final = 256
MIN_SAMPLES: Final = 24


class Case(NamedTuple):
    """One token under one arm. rows: its rows up to the last evaluated day."""

    study: Study
    market: Market
    rows: LabelledSeries
    twin: int

    @property
    def seed(self) -> int:
        return self.study.seed + 1_000_000 * self.twin + zlib.crc32(self.rows.symbol.encode()) % 100_000

    def days(self) -> Iterator[tuple[int, int, slice]]:
        """(day, its first moment, its rows), for the days that have rows."""
        number = (self.rows.starts - self.market.first) // DAY_MS
        for day in np.unique(number).tolist():
            low, high = np.searchsorted(number, [day, day + 1]).tolist()
            yield day, self.market.first + day * DAY_MS, slice(low, high)

    def learnt(self, cut: int) -> LabelledSeries:
        """The labels known at `cut` less the embargo; the twin's have changed places."""
        known = self.rows.labelled_until(cut - self.study.embargo)
        return pooled.shuffled([known], self.seed)[0] if self.twin else known

    def chain(self) -> Net:
        """The chain as it was when the token was listed: it knows nothing of the token."""
        cut = cut_before(self.study, self.market.first)
        return pooled.load_net(self.study, chain_key(cut, self.twin))


def pool_share(study: Study, time: int) -> float:
    """Of "up" among the earlier listings' labels that were known at the newest cut."""
    if time < study.since:
        return 0.5
    return _shares(study, cut_before(study, time))


_known_shares: dict[tuple[Path, int], float] = {}


def _shares(study: Study, cut: int) -> float:
    key = study.output, cut
    if key not in _known_shares:
        series = pooled.earlier_listings(study, cut)
        enough = pooled.with_enough(series)
        _known_shares[key] = pooled.share_up(series) if enough else 0.5
    return _known_shares[key]


def effective_labels(series: LabelledSeries) -> float:
    return float(series.weight[series.y >= 0].sum())


def sequences(series: LabelledSeries, net: Net) -> Sequences:
    kept = np.zeros(series.x.shape[1], np.bool_)
    kept[net.columns] = True
    return Sequences([series.with_columns(kept)], net.encoder.receptive_field - 1)


def scored(case: Case, net: Net, rows: slice) -> NDArray[np.float32]:
    """Logits of these rows, with the rows before them as context."""
    context = net.encoder.receptive_field - 1
    before = max(0, rows.start - context)
    part = sequences(case.rows.rows(slice(before, rows.stop)), net)
    return part.measure(net.encoder).logit[rows.start - before :]


def said(case: Case, net: Net, logit: NDArray[np.float32], similar: Floats) -> Scores:
    """Rows without an output (too soon after a gap) get the prior of the training."""
    n = len(case.rows)
    silent = np.log(net.share_up / (1 - net.share_up)) * net.temperature
    raw = np.where(np.isfinite(logit), logit, silent).astype(np.float64) / net.temperature
    return Scores(raw, np.full(n, net.share_up), similar, np.full(n, net.until, np.int64))


def similarities(case: Case, net: Net, z: NDArray[np.float32]) -> Floats:
    """1 - A-distance / 2 between source and token embeddings, measured weekly on what had been seen.

    The classifier learns from the earlier half of either side and is judged on the later one.
    """
    n = len(case.rows)
    similar = np.full(n, np.nan)
    source = _source_embeddings(case, net)
    newest = np.nan
    for day, _, rows in case.days():
        if day % SIMILARITY_EVERY == 0:
            seen = z[: rows.start]
            seen = seen[np.isfinite(seen[:, 0])][-SAMPLES * SPACING :: SPACING]
            if len(seen) >= 2 * MIN_SAMPLES and len(source) >= 2 * MIN_SAMPLES:
                earlier, later = len(source) // 2, len(seen) // 2
                distance = proxy_a_distance(
                    (source[:earlier], seen[:later]), (source[earlier:], seen[later:])
                )
                newest = similarity(distance)
        similar[rows] = newest
    return similar


_newest_source: dict[Path, LabelledSeries] = {}


def _source_embeddings(case: Case, net: Net) -> NDArray[np.float32]:
    """Spaced embeddings of the first source's newest bars before the study."""
    key = case.study.output
    if key not in _newest_source:
        newest = pooled.source_series(case.study, case.study.since, net.columns, 0)[0]
        _newest_source[key] = newest.rows(slice(-(SAMPLES * SPACING + net.encoder.receptive_field), None))
    rows = _newest_source[key]
    z = Sequences([rows], net.encoder.receptive_field - 1).measure(net.encoder).z
    return z[np.isfinite(z[:, 0])][::SPACING]
