"""The arms of a study: each turns a token's rows into log odds of "up", day by day, from the past alone.

An arm is asked for every row from the first ready one on. What it says before the evaluated days is not
reported; the prior component learns from it. At the beginning of each day of the token (counted from its
first bar) an arm may learn from the labels known by then, less an embargo; the day's rows are then scored.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from scipy.special import logit

from bot.core.errors import DataError
from bot.core.types import DAY_MS
from bot.research import study_learners as learners
from bot.research import study_pooled as pooled
from bot.research.study_case import Case, pool_share, said, sequences, similarities
from bot.research.study_data import Market, Study, bars_of, cut_before
from bot.research.study_files import Scores, source_key
from bot.research.study_pooled import Net
from strategies.learning import foundation
from strategies.learning.listing_training import seed_everything

CONTEXT: Final = 256  # bars that a pretrained forecaster sees


def scores(study: Study, arm: str, symbol: str, twin: int) -> Scores:
    """Every row of the token up to the last evaluated day."""
    market = Market.load(study, symbol)
    end = market.first + (study.days[1] + 1) * DAY_MS
    rows = market.series.rows(slice(0, int(np.searchsorted(market.series.starts, end))))
    case = Case(study, market, rows, twin)
    seed_everything(case.seed)
    found = _SCORERS[arm](case)
    seen = np.maximum(found.until, np.maximum(rows.starts, market.until[: len(rows)]) + rows.step)
    if (seen > rows.starts + rows.step).any():
        raise DataError(f"{symbol}, {arm}: a prediction would have used later bars")
    return found._replace(until=seen)


def _constant(case: Case) -> Scores:
    """Says nothing of its own: the prior alone speaks."""
    n = len(case.rows)
    share = np.full(n, 0.5)
    for _, begin, rows in case.days():
        share[rows] = pool_share(case.study, begin)
    return Scores(np.log(share / (1 - share)), share, np.full(n, np.nan), np.zeros(n, np.int64))


def _pooled_trees(case: Case) -> Scores:
    n = len(case.rows)
    raw, share, until = np.zeros(n), np.full(n, 0.5), np.zeros(n, np.int64)
    for _, begin, rows in case.days():
        trees = _trees(case.study, cut_before(case.study, begin), case.twin)
        raw[rows] = pooled.tree_scores(trees, case.rows.x[rows]) / trees.temperature
        share[rows], until[rows] = trees.share_up, trees.until
    return Scores(raw, share, np.full(n, np.nan), until)


_loaded_trees: dict[tuple[Path, int, int], pooled.Trees] = {}


def _trees(study: Study, cut: int, twin: int) -> pooled.Trees:
    key = study.output, cut, twin
    if key not in _loaded_trees:
        _loaded_trees[key] = pooled.load_trees(study, cut, twin)
    return _loaded_trees[key]


def _frozen(case: Case) -> Scores:
    return _as_is(case, pooled.load_net(case.study, source_key(case.twin)))


def _chain(case: Case) -> Scores:
    return _as_is(case, case.chain())


def _as_is(case: Case, net: Net) -> Scores:
    measured = sequences(case.rows, net).measure(net.encoder)
    return said(case, net, measured.logit, similarities(case, net, measured.z))


def _foundation(case: Case) -> Scores:
    """Zero-shot: P(close after the horizon > close now), from log closes; silent where a gap is near."""
    name, _, place = case.study.foundation.partition("=")
    table = bars_of(case.study, case.rows.symbol)
    price = np.log(table.close).astype(np.float32)
    at = np.searchsorted(table.start, case.rows.starts)
    first = at - CONTEXT + 1
    whole = (first >= 0) & (
        table.start[at] - table.start[np.maximum(first, 0)] == (CONTEXT - 1) * table.interval
    )
    windows = np.lib.stride_tricks.sliding_window_view(price, CONTEXT)[first[whole]]
    contexts = windows - windows[:, -1:]  # their scale is that of returns
    raw = np.zeros(len(at))
    if whole.any():
        quantiles = foundation.load(name, place).quantiles(contexts, case.study.horizon)
        raw[whole] = logit(foundation.probability_above(quantiles, np.zeros(len(contexts))))
    n = len(at)
    return Scores(raw, np.full(n, 0.5), np.full(n, np.nan), np.zeros(n, np.int64))


_SCORERS: Final[dict[str, Callable[[Case], Scores]]] = {
    "base_rate": _constant,
    "frozen": _frozen,
    "lgbm_pooled": _pooled_trees,
    "lgbm_token": learners.token_trees,
    "chain": _chain,
    "chain_head": learners.chain_head,
    "prototypes": learners.prototypes,
    "head": learners.head,
    "selected": learners.selected,
    "scratch": learners.scratch,
    "full": learners.full,
    "mmd": learners.aligned("mmd"),
    "class_mmd": learners.aligned("class_mmd"),
    "coral": learners.aligned("coral"),
    "adversarial": learners.aligned("adversarial"),
    "combined": learners.aligned("combined"),
    "unaligned": learners.aligned("mmd_detached"),
    "chronos": _foundation,
    "moirai": _foundation,
}
ARMS: Final = tuple(_SCORERS)

_NEEDS_CHAIN: Final = {"chain", "chain_head", "prototypes", "selected", "full"}


def needs(arms: tuple[str, ...]) -> tuple[bool, bool, bool]:
    """Whether these arms need (the source network, the chain, the pooled trees)."""
    trees = "lgbm_pooled" in arms
    chain = bool(_NEEDS_CHAIN & set(arms))
    source = chain or bool(set(arms) - {"base_rate", "lgbm_pooled", "lgbm_token", *foundation.NAMES})
    return source, chain, trees
