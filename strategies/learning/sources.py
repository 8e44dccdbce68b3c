"""From the source markets' bars to labelled series: what the model is pretrained on."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.market.bars import BarTable
from bot.settings import Label
from strategies import labels
from strategies.features import pipeline
from strategies.features.normaliser import SourceStatistics
from strategies.features.spec import NAMES, SHOWN
from strategies.learning.dataset import LabelledSeries

_VARIES = 1e-6  # least standard deviation of a feature that can teach anything


class Sources(NamedTuple):
    """series: one per source; statistics: robust location and scale of the raw features.

    columns: names of the features that are shown and vary in the sources, in order. The model sees only
    these: a feature that is constant there (the age of a token, say) would reach the network with weights
    that nothing taught.
    """

    series: list[LabelledSeries]
    statistics: SourceStatistics
    columns: tuple[str, ...]


def build(
    tables: Sequence[BarTable],
    label: Label,
    statistics: SourceStatistics | None = None,
    columns: Sequence[str] | None = None,
) -> Sources:
    """Features and labels of the sources' decision bars. The references of a source are the other sources.

    statistics, columns: those of a model that is there already, instead of what these bars would give.
    Bars alone: funding, book and trades are missing here, so no model made of this sees them.
    Raises DataError when there is no history or none of it is ready.
    """
    others = [_references(tables, number) for number in range(len(tables))]
    pairs = list(zip(tables, others, strict=True))
    if statistics is None:
        raw = [pipeline.raw_batch(table, first, second) for table, (first, second) in pairs]
        statistics = pipeline.fit_source_statistics(raw)
    series = [_series(table, first, second, statistics, label) for table, (first, second) in pairs]
    rows = np.concatenate([one.x for one in series])
    if not len(rows):
        raise DataError("no bar of the sources has all its features; give them a longer history")
    varying = (rows.std(axis=0) > _VARIES) & np.array(SHOWN)
    seen = varying if columns is None else np.isin(NAMES, columns)
    kept = [one.with_columns(seen) for one in series]
    return Sources(kept, statistics, tuple(np.array(NAMES)[seen].tolist()))


def listings(
    tables: Iterable[BarTable],
    references: Sequence[BarTable],
    statistics: SourceStatistics,
    columns: Sequence[str],
    label: Label,
) -> Iterator[LabelledSeries]:
    """Rows and labels of tokens, one by one, as the live path would have computed them from their first bars.

    references: the sources' bars of the same time; statistics, columns: of the source model. Funding is left
    out: the model does not see it. Tokens that are too short to have a row are left out too.
    """
    first, second = references[0], references[1 % len(references)]
    seen = np.isin(NAMES, list(columns))
    for table in tables:
        if len(table) and len(series := _series(table, first, second, statistics, label)):
            yield series.with_columns(seen)


def column_indices(columns: Sequence[str]) -> NDArray[np.int64]:
    """Where a model's features are in the feature row."""
    return np.array([NAMES.index(name) for name in columns], np.int64)


def _references(tables: Sequence[BarTable], number: int) -> tuple[BarTable, BarTable]:
    """The first two other sources; a market never refers to itself, unless it is alone."""
    others = [table for index, table in enumerate(tables) if index != number] or [tables[number]]
    return others[0], others[-1] if len(others) == 1 else others[1]


def _series(
    table: BarTable, first: BarTable, second: BarTable, statistics: SourceStatistics, label: Label
) -> LabelledSeries:
    features = pipeline.batch(table, first, second, prior=statistics)
    outcomes = labels.batch(table, features.sigma, label.horizon_bars, label.barrier_sigmas)
    ready = features.ready
    return LabelledSeries(
        symbol=table.symbol,
        step=table.interval,
        starts=features.starts[ready],
        x=features.x[ready],
        y=outcomes.outcome[ready],
        weight=np.nan_to_num(outcomes.weight[ready]).astype(np.float32),
        log_vol=outcomes.log_vol[ready].astype(np.float32),
        t_known=outcomes.t_known[ready],
    )
