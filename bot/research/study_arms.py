"""The arms of a study: each turns a token's rows into log odds of "up", day by day, from the past alone.

An arm is asked for every row from the first ready one on. What it says before the evaluated days is not
reported; the prior component learns from it. At the beginning of each day of the token (counted from its
first bar) an arm may learn from the labels known by then, less an embargo; the day's rows are then scored.
"""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from bot.core.errors import DataError
from bot.core.types import DAY_MS
from bot.research import study_pooled as pooled
from bot.research.study_data import Market, Study, bars_of, cut_before
from bot.research.study_files import Scores, chain_key, source_key
from bot.research.study_pooled import Net
from strategies.learning import foundation
from strategies.learning.dataset import LabelledSeries
from strategies.learning.divergences import proxy_a_distance, similarity
from strategies.learning.listing_training import (
    Pace,
    Trainer,
    align,
    fit_head,
    fresh_encoder,
    seed_everything,
)
from strategies.learning.sequences import Sequences

Floats = NDArray[np.float64]

MIN_LABELS: Final = 8.0  # effective labels before a token's own learner says anything
HEAD_PULL: Final = 3000.0  # L2-SP of the head, in effective labels times variance of an embedding
FULL: Final = Pace(steps=8, rate=1e-4, l2sp=10.0)
SCRATCH_FIRST: Final = 40
SCRATCH: Final = Pace(steps=3, rate=3e-4)
DROPOUT: Final = 0.1
DECAY: Final = 0.1
ALIGN: Final = Pace(steps=60, rate=1e-4, l2sp=0.1)
ALIGN_WEIGHT: Final = 3.0
ALIGN_DAYS: Final = (3, 7, 14, 30)
SIMILARITY_EVERY: Final = 7  # days
SPACING: Final = 8  # rows between embeddings that are compared
SAMPLES: Final = 256
MIN_SAMPLES: Final = 24
TOKEN_TREES: Final = {
    "objective": "binary", "num_leaves": 7, "learning_rate": 0.05, "min_data_in_leaf": 20,
    "feature_fraction": 0.5, "lambda_l2": 1.0, "num_threads": 1, "deterministic": True,
    "force_row_wise": True, "verbose": -1,
}  # fmt: skip
TOKEN_ROUNDS: Final = 60
CONTEXT: Final = 256  # bars that a pretrained forecaster sees
TOKEN_STRIDE: Final = 4  # rows: neighbours share 15 of 16 bars of their labels


class Case(NamedTuple):
    """One token under one arm. rows: its rows up to the last evaluated day."""

    study: Study
    market: Market
    rows: LabelledSeries
    twin: bool

    @property
    def seed(self) -> int:
        return self.study.seed + zlib.crc32(self.rows.symbol.encode()) % 100_000

    def days(self) -> Iterator[tuple[int, int, slice]]:
        """(day, its first moment, its rows), for the days that have rows."""
        number = (self.rows.starts - self.market.first) // DAY_MS
        for day in np.unique(number).tolist():
            low, high = np.searchsorted(number, [day, day + 1]).tolist()
            yield day, self.market.first + day * DAY_MS, slice(low, high)

    def learnt(self, cut: int) -> LabelledSeries:
        """The labels known at `cut` less the embargo; the twin's have changed places."""
        known = self.rows.labelled_until(cut - self.study.embargo)
        return pooled.shuffled(known, self.seed) if self.twin else known


def scores(study: Study, arm: str, symbol: str, *, twin: bool) -> Scores:
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


# --- shared models, used as they are ------------------------------------------------------------------------


def _constant(case: Case) -> Scores:
    """Says nothing of its own: the prior alone speaks."""
    n = len(case.rows)
    share = np.full(n, 0.5)
    for _, begin, rows in case.days():
        share[rows] = _pool_share(case.study, begin)
    return Scores(np.log(share / (1 - share)), share, np.full(n, np.nan), np.zeros(n, np.int64))


def _pool_share(study: Study, time: int) -> float:
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


def _pooled_trees(case: Case) -> Scores:
    n = len(case.rows)
    raw, share, until = np.zeros(n), np.full(n, 0.5), np.zeros(n, np.int64)
    for _, begin, rows in case.days():
        trees = _trees(case.study, cut_before(case.study, begin), case.twin)
        raw[rows] = pooled.tree_scores(trees, case.rows.x[rows]) / trees.temperature
        share[rows], until[rows] = trees.share_up, trees.until
    return Scores(raw, share, np.full(n, np.nan), until)


_loaded_trees: dict[tuple[Path, int, bool], pooled.Trees] = {}


def _trees(study: Study, cut: int, twin: bool) -> pooled.Trees:  # noqa: FBT001 - a cache's key
    key = study.output, cut, twin
    if key not in _loaded_trees:
        _loaded_trees[key] = pooled.load_trees(study, cut, twin=twin)
    return _loaded_trees[key]


def _frozen(case: Case) -> Scores:
    return _as_is(case, pooled.load_net(case.study, source_key(twin=case.twin)))


def _chain(case: Case) -> Scores:
    return _as_is(case, _chain_net(case))


def _chain_net(case: Case) -> Net:
    """The chain as it was when the token was listed: it knows nothing of the token."""
    cut = cut_before(case.study, case.market.first)
    return pooled.load_net(case.study, chain_key(cut, twin=case.twin))


def _as_is(case: Case, net: Net) -> Scores:
    data = _sequences(case.rows, net)
    measured = data.measure(net.encoder)
    return _said(case, net, measured.logit, _similarities(case, net, measured.z))


def _said(case: Case, net: Net, logit: NDArray[np.float32], similar: Floats) -> Scores:
    """Rows without an output (too soon after a gap) get the prior of the training."""
    n = len(case.rows)
    silent = np.log(net.share_up / (1 - net.share_up)) * net.temperature
    raw = np.where(np.isfinite(logit), logit, silent).astype(np.float64) / net.temperature
    return Scores(raw, np.full(n, net.share_up), similar, np.full(n, net.until, np.int64))


# --- the token's own learners ------------------------------------------------------------------------------


def _token_trees(case: Case) -> Scores:
    """Retrained every day on the token alone, as per-pair bots do."""
    n = len(case.rows)
    raw, share = np.zeros(n), np.full(n, 0.5)
    until = np.zeros(n, np.int64)
    for _, begin, rows in case.days():
        known = case.learnt(begin)
        if _labels(known) < MIN_LABELS:
            continue
        x, y, weight = pooled.stacked([known], TOKEN_STRIDE)
        params = {**TOKEN_TREES, "seed": case.seed}
        booster = lightgbm.train(params, lightgbm.Dataset(x, y, weight=weight), TOKEN_ROUNDS)
        raw[rows] = np.asarray(booster.predict(case.rows.x[rows], raw_score=True, num_threads=1))
        share[rows], until[rows] = pooled.share_up([known]), begin
    return Scores(raw, share, np.full(n, np.nan), until)


def _scratch(case: Case) -> Scores:
    """The same network, which knows nothing but the token."""
    net = pooled.load_net(case.study, source_key(twin=False))
    vol = case.rows.labelled_until(case.market.first + 3 * DAY_MS).log_vol
    mean = float(np.nanmean(vol)) if np.isfinite(vol).any() else -5.0
    encoder = fresh_encoder(net.encoder, DROPOUT, mean, case.seed)
    trainer = Trainer(encoder, SCRATCH.rate, 0.0, case.seed, DECAY)
    fresh = net._replace(encoder=encoder, temperature=1.0, share_up=0.5)
    return _daily(case, fresh, trainer, SCRATCH_FIRST, SCRATCH.steps)


def _full(case: Case) -> Scores:
    """All weights of the chain, a few small steps a day, held near where they came from."""
    net = _chain_net(case)
    return _daily(case, net, Trainer(net.encoder, FULL.rate, FULL.l2sp, case.seed), FULL.steps, FULL.steps)


def _daily(case: Case, net: Net, trainer: Trainer, first: int, steps: int) -> Scores:
    """Learn at the beginning of each day, then score it with the weights of that moment."""
    n = len(case.rows)
    logit = np.full(n, np.nan, np.float32)
    until = np.full(n, net.until, np.int64)
    share = np.full(n, net.share_up)
    due = first
    for _, begin, rows in case.days():
        known = case.learnt(begin)
        if _labels(known) >= MIN_LABELS:
            trainer.learn(_sequences(known, net), due)
            due, until[rows] = steps, begin
        logit[rows] = _scored(case, net, rows)
    said = _said(case, net, logit, np.full(n, np.nan))
    return said._replace(until=until, share=share)


def _scored(case: Case, net: Net, rows: slice) -> NDArray[np.float32]:
    context = net.encoder.receptive_field - 1
    before = max(0, rows.start - context)
    part = _sequences(case.rows.rows(slice(before, rows.stop)), net)
    return part.measure(net.encoder).logit[rows.start - before :]


def _head(case: Case) -> Scores:
    return _head_of(case, pooled.load_net(case.study, source_key(twin=case.twin)))


def _chain_head(case: Case) -> Scores:
    return _head_of(case, _chain_net(case))


def _head_of(case: Case, net: Net) -> Scores:
    """Only the head learns, from all matured labels, every day anew from where it came."""
    z = _sequences(case.rows, net).measure(net.encoder).z.astype(np.float64)
    whole = np.isfinite(z[:, 0])
    weights = net.encoder.weights()
    anchor = np.append(weights["direction.weight"][0], weights["direction.bias"]).astype(np.float64)
    anchor /= net.temperature
    scale = np.nanvar(z[: max(1, len(z) // 4)], axis=0).mean() if whole.any() else 1.0
    n = len(case.rows)
    raw = np.full(n, np.log(net.share_up / (1 - net.share_up)))
    until = np.full(n, net.until, np.int64)
    for _, begin, rows in case.days():
        known = case.learnt(begin)
        head = anchor
        taught = np.flatnonzero((known.y >= 0) & whole[: len(known)])
        if known.weight[taught].sum() >= MIN_LABELS:
            head = fit_head(
                z[taught],
                known.y[taught].astype(np.float64),
                known.weight[taught].astype(np.float64),
                anchor,
                HEAD_PULL * float(scale),
            )
            until[rows] = begin
        said = z[rows] @ head[:-1] + head[-1]
        raw[rows] = np.where(np.isfinite(said), said, raw[rows])
    similar = _similarities(case, net, z.astype(np.float32))
    return Scores(raw, np.full(n, net.share_up), similar, until)


# --- forecasters of other people ---------------------------------------------------------------------------


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


# --- alignment without the token's labels -----------------------------------------------------------------


def _aligned(method: str) -> Callable[[Case], Scores]:
    def scored(case: Case) -> Scores:
        key = source_key(twin=case.twin)
        net = pooled.load_net(case.study, key)
        context = net.encoder.receptive_field - 1
        cut = cut_before(case.study, case.market.first)
        source = Sequences(pooled.source_series(case.study, cut, net.columns, twin=case.twin), context)
        n = len(case.rows)
        logit = np.full(n, np.nan, np.float32)
        until, similar = np.full(n, net.until, np.int64), np.full(n, np.nan)
        for day, begin, rows in case.days():
            if day in ALIGN_DAYS:
                net = pooled.load_net(case.study, key)
                seen = _sequences(case.rows.labelled_until(begin), net)
                if len(seen.cut(128).rows):
                    share = _pool_share(case.study, begin)
                    align(net.encoder, source, seen, method, ALIGN, ALIGN_WEIGHT, share, case.seed + day)
                    net = net._replace(until=begin)
            logit[rows], until[rows] = _scored(case, net, rows), net.until
        return _said(case, net, logit, similar)._replace(until=until)

    return scored


# --- parts -------------------------------------------------------------------------------------------------


def _labels(series: LabelledSeries) -> float:
    return float(series.weight[series.y >= 0].sum())


def _sequences(series: LabelledSeries, net: Net) -> Sequences:
    kept = np.zeros(series.x.shape[1], np.bool_)
    kept[net.columns] = True
    return Sequences([series.with_columns(kept)], net.encoder.receptive_field - 1)


def _similarities(case: Case, net: Net, z: NDArray[np.float32]) -> Floats:
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
        newest = pooled.source_series(case.study, case.study.since, net.columns, twin=False)[0]
        _newest_source[key] = newest.rows(slice(-(SAMPLES * SPACING + net.encoder.receptive_field), None))
    rows = _newest_source[key]
    z = Sequences([rows], net.encoder.receptive_field - 1).measure(net.encoder).z
    return z[np.isfinite(z[:, 0])][::SPACING]


_SCORERS: Final[dict[str, Callable[[Case], Scores]]] = {
    "base_rate": _constant,
    "frozen": _frozen,
    "lgbm_pooled": _pooled_trees,
    "lgbm_token": _token_trees,
    "chain": _chain,
    "chain_head": _chain_head,
    "head": _head,
    "scratch": _scratch,
    "full": _full,
    "mmd": _aligned("mmd"),
    "coral": _aligned("coral"),
    "adversarial": _aligned("adversarial"),
    "unaligned": _aligned("mmd_detached"),
    "chronos": _foundation,
    "moirai": _foundation,
}
ARMS: Final = tuple(_SCORERS)

_NEEDS_CHAIN: Final = {"chain", "chain_head", "full"}


def needs(arms: tuple[str, ...]) -> tuple[bool, bool, bool]:
    """Whether these arms need (the source network, the chain, the pooled trees)."""
    trees = "lgbm_pooled" in arms
    chain = bool(_NEEDS_CHAIN & set(arms))
    source = chain or bool(set(arms) - {"base_rate", "lgbm_pooled", "lgbm_token", *foundation.NAMES})
    return source, chain, trees
