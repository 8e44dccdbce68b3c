"""The arms of a study that learn from the token itself: from its labels, or from its bars alone.

At the beginning of each day (or of some) they learn from what is known by then; the day's rows are then
scored with the weights of that moment.
"""

from collections.abc import Callable
from typing import Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from bot.core.types import DAY_MS
from bot.research import study_pooled as pooled
from bot.research.study_case import (
    Case,
    effective_labels,
    pool_share,
    said,
    scored,
    sequences,
    similarities,
)
from bot.research.study_data import cut_before
from bot.research.study_files import Scores, source_key
from bot.research.study_pooled import Net
from strategies.learning.calibration import fit_temperature
from strategies.learning.few_shot import Prototypes
from strategies.learning.finetuning import fine_tune, select
from strategies.learning.listing_training import (
    Pace,
    Trainer,
    align,
    fit_head,
    fresh_encoder,
    labelled_batches,
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
SELECTED: Final = Pace(steps=40, rate=1e-3)
SELECTED_EVERY: Final = 7  # days
FEW: Final = 100.0  # effective labels under which prototypes take the head's place
ALIGN: Final = Pace(steps=60, rate=1e-4, l2sp=0.1)
ALIGN_WEIGHT: Final = 3.0
ALIGN_DAYS: Final = (3, 7, 14, 30)
TOKEN_TREES: Final = {
    "objective": "binary", "num_leaves": 7, "learning_rate": 0.05, "min_data_in_leaf": 20,
    "feature_fraction": 0.5, "lambda_l2": 1.0, "num_threads": 1, "deterministic": True,
    "force_row_wise": True, "verbose": -1,
}  # fmt: skip
TOKEN_ROUNDS: Final = 60
TOKEN_STRIDE: Final = 4  # rows: neighbours share 15 of 16 bars of their labels


def token_trees(case: Case) -> Scores:
    """Retrained every day on the token alone, as per-pair bots do."""
    n = len(case.rows)
    raw, share = np.zeros(n), np.full(n, 0.5)
    until = np.zeros(n, np.int64)
    for _, begin, rows in case.days():
        known = case.learnt(begin)
        if effective_labels(known) < MIN_LABELS:
            continue
        x, y, weight = pooled.stacked([known], TOKEN_STRIDE)
        params = {**TOKEN_TREES, "seed": case.seed}
        booster = lightgbm.train(params, lightgbm.Dataset(x, y, weight=weight), TOKEN_ROUNDS)
        raw[rows] = np.asarray(booster.predict(case.rows.x[rows], raw_score=True, num_threads=1))
        share[rows], until[rows] = pooled.share_up([known]), begin
    return Scores(raw, share, np.full(n, np.nan), until)


def scratch(case: Case) -> Scores:
    """The same network, which knows nothing but the token."""
    net = pooled.load_net(case.study, source_key(0))
    vol = case.rows.labelled_until(case.market.first + case.study.days[0] * DAY_MS).log_vol
    mean = float(np.nanmean(vol)) if np.isfinite(vol).any() else -5.0
    encoder = fresh_encoder(net.encoder, DROPOUT, mean, case.seed)
    trainer = Trainer(encoder, SCRATCH.rate, 0.0, case.seed, DECAY)
    fresh = net._replace(encoder=encoder, temperature=1.0, share_up=0.5)
    return _daily(case, fresh, trainer, SCRATCH_FIRST, SCRATCH.steps)


def full(case: Case) -> Scores:
    """All weights of the chain, a few small steps a day, held near where they came from."""
    net = case.chain()
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
        if effective_labels(known) >= MIN_LABELS:
            trainer.learn(sequences(known, net), due)
            due, until[rows] = steps, begin
        logit[rows] = scored(case, net, rows)
    return said(case, net, logit, np.full(n, np.nan))._replace(until=until, share=share)


def selected(case: Case) -> Scores:
    """Once a week from the chain anew, by the strategy that the number of effective labels selects."""
    net = case.chain()
    n = len(case.rows)
    logit = np.full(n, np.nan, np.float32)
    until = np.full(n, net.until, np.int64)
    for day, begin, rows in case.days():
        known = case.learnt(begin)
        if day % SELECTED_EVERY == 0 and (strategy := select(effective_labels(known))):
            net = case.chain()._replace(until=begin)
            batches = labelled_batches(sequences(known, net), SELECTED.chunks, case.seed + day)
            fine_tune(net.encoder, batches, strategy, SELECTED.steps, SELECTED.rate)
        logit[rows], until[rows] = scored(case, net, rows), net.until
    return said(case, net, logit, np.full(n, np.nan))._replace(until=until)


def head(case: Case) -> Scores:
    return _head_of(case, pooled.load_net(case.study, source_key(case.twin)))


def chain_head(case: Case) -> Scores:
    return _head_of(case, case.chain())


def _head_of(case: Case, net: Net) -> Scores:
    """Only the head learns, from all matured labels, every day anew from where it came."""
    z = sequences(case.rows, net).measure(net.encoder).z.astype(np.float64)
    whole = np.isfinite(z[:, 0])
    weights = net.encoder.weights()
    anchor = np.append(weights["direction.weight"][0], weights["direction.bias"]).astype(np.float64)
    anchor /= net.temperature
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
                HEAD_PULL * float(z[taught].var(axis=0).mean()),
            )
            until[rows] = begin
        told = z[rows] @ head[:-1] + head[-1]
        raw[rows] = np.where(np.isfinite(told), told, raw[rows])
    similar = similarities(case, net, z.astype(np.float32))
    return Scores(raw, np.full(n, net.share_up), similar, until)


def prototypes(case: Case) -> Scores:
    """Class means in the chain's embedding while labels are few, then the head of `chain_head`.

    What prototypes say of many dimensions is far too sure: the temperature comes from what they said before,
    once enough of those labels are known.
    """
    later, net = chain_head(case), case.chain()
    z = sequences(case.rows, net).measure(net.encoder).z.astype(np.float64)
    whole = np.isfinite(z[:, 0])
    told = np.full(len(z), np.nan)
    raw, share, until = later.raw.copy(), later.share.copy(), later.until.copy()
    for _, begin, rows in case.days():
        known = case.learnt(begin)
        taught = np.flatnonzero((known.y >= 0) & whole[: len(known)])
        y = known.y[taught].astype(np.int64)
        if not MIN_LABELS <= known.weight[taught].sum() < FEW or y.min() == y.max():
            continue
        told[rows] = Prototypes(z[taught], y).logit(z[rows])
        judged = np.isfinite(told[taught])
        weight = known.weight[taught][judged].astype(np.float64)
        if weight.sum() >= MIN_LABELS:
            temperature = max(
                1.0, fit_temperature(told[taught][judged], y[judged].astype(np.float64), weight)
            )
            speaks = np.flatnonzero(whole[rows]) + rows.start
            raw[speaks], share[speaks], until[speaks] = told[speaks] / temperature, 0.5, begin
    return Scores(raw, share, later.similarity, until)


def aligned(method: str) -> Callable[[Case], Scores]:
    """From the sources' network, on some days, without the token's labels."""

    def arm(case: Case) -> Scores:
        key = source_key(case.twin)
        net = pooled.load_net(case.study, key)
        context = net.encoder.receptive_field - 1
        cut = cut_before(case.study, case.market.first)
        source = Sequences(pooled.source_series(case.study, cut, net.columns, case.twin), context)
        n = len(case.rows)
        logit = np.full(n, np.nan, np.float32)
        until, similar = np.full(n, net.until, np.int64), np.full(n, np.nan)
        for day, begin, rows in case.days():
            if day in ALIGN_DAYS:
                net = pooled.load_net(case.study, key)
                seen = sequences(case.rows.labelled_until(begin), net)
                if len(seen.cut(128).rows):
                    share = pool_share(case.study, begin)
                    align(net.encoder, source, seen, method, ALIGN, ALIGN_WEIGHT, share, case.seed + day)
                    net = net._replace(until=begin)
            logit[rows], until[rows] = scored(case, net, rows), net.until
        return said(case, net, logit, similar)._replace(until=until)

    return arm
