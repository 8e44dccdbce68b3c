"""The two sides of an adaptation: what is learnt from, what is held out to measure, and the measuring."""

import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bot.core.commands import AdaptModel
from bot.core.errors import DataError
from bot.core.events import AdaptationReport
from strategies.learning.dataset import LabelledSeries, SourceReplay, split
from strategies.learning.divergences import mmd, proxy_a_distance, similarity
from strategies.learning.encoder import Encoder
from strategies.learning.sequences import Sequences

HELD_OUT = 0.2  # newest share of the token's rows: never learnt from, they measure
PRIOR_LABELS = 50.0  # pseudo-count that pulls the token's class prior towards the source's
SPACING = 8  # rows between embeddings of one sample, where there are enough: neighbours are nearly equal
SAMPLES = 256  # most embeddings of one domain in a sample
MIN_SAMPLES = 24  # fewer are no sample


class Domains(NamedTuple):
    """source, target: learnt from. The tails begin after them, purged and embargoed; only measured.

    prior_logit: log odds of "up" on the token, estimated from its matured labels and shrunk to the source's,
                 minus the source's log odds
    labels:      effective (uniqueness-weighted) matured labels of `target`
    """

    source: Sequences
    target: Sequences
    source_tail: Sequences
    target_tail: Sequences
    prior_logit: float
    labels: float


class Distance(NamedTuple):
    """Between the held-out tails: unbiased MK-MMD^2, 1 - A-distance / 2; on the source's: accuracy, logit."""

    mmd: float
    similarity: float
    source_accuracy: float
    source_logit: float


def prepare(replay: SourceReplay, snapshot: AdaptModel, window: int, context: int) -> Domains:
    """Split both domains by time. Raises DataError when the snapshot is broken or too short.

    context: rows that an embedding needs before its own
    """
    learn, tail = parted(replay, snapshot, window, context)
    sources = [split(one, replay.cut, replay.horizon) for one in replay.series]
    source = Sequences([learnt for learnt, _ in sources], context)
    target = Sequences([learn], context)
    labels = float(target.weight.sum())
    share_up = (float(target.weight @ target.y) + PRIOR_LABELS * source.share_up) / (labels + PRIOR_LABELS)
    return Domains(
        source=source,
        target=target,
        source_tail=Sequences([held.since(replay.cut, context) for _, held in sources], context),
        target_tail=Sequences([tail], context),
        prior_logit=_log_odds(share_up) - _log_odds(source.share_up),
        labels=labels,
    )


def parted(
    replay: SourceReplay, snapshot: AdaptModel, window: int, context: int
) -> tuple[LabelledSeries, LabelledSeries]:
    """(what the token teaches, its held-out tail with the context before it). Raises as `prepare` does."""
    token = series_of(snapshot, replay, window)
    usable = _with_context(token, context)
    need = 3 * MIN_SAMPLES
    if len(usable) < need:
        raise DataError(
            f"{token.symbol}: {len(usable)} rows with {context} unbroken rows before each, "
            f"{need} are needed; wait for {need - len(usable)} more bars"
        )
    cut = int(token.starts[usable[-max(MIN_SAMPLES, int(len(usable) * HELD_OUT))]])
    learn, tail = split(token, cut, replay.horizon)
    return learn, tail.since(cut, context)


def compare(encoder: Encoder, domains: Domains, before: Distance | None = None) -> Distance:
    """Measure on the tails. The classifier behind the similarity learns from earlier rows than it judges.

    before: of the pretrained model. What the logits have moved since then towards the token's class prior is
    taken off before the source is judged: a learnt prior is no forgetting.
    """
    source, target = domains.source_tail.measure(encoder), domains.target_tail.measure(encoder)
    in_time = source.z[np.argsort(domains.source_tail.starts, kind="stable")]
    half = len(in_time) // 2
    later = spaced(in_time[half:]), spaced(target.z)
    a_distance = proxy_a_distance((spaced(in_time[:half]), spaced(domains.target.measure(encoder).z)), later)
    mean_logit = float(np.nanmean(source.logit))
    moved = 0.0 if before is None else mean_logit - before.source_logit
    learnt_prior = float(np.clip(moved, min(0.0, domains.prior_logit), max(0.0, domains.prior_logit)))
    return Distance(
        mmd=float(mmd(torch.from_numpy(later[0]), torch.from_numpy(later[1]), unbiased=True)),
        similarity=similarity(a_distance),
        source_accuracy=_accuracy(domains.source_tail, source.logit - learnt_prior),
        source_logit=mean_logit,
    )


def report_of(
    before: Distance, now: Distance, domains: Domains, steps: int, began: float
) -> AdaptationReport:
    """What the training since `began` (process time, s) has changed."""
    return AdaptationReport(
        mmd_before=before.mmd,
        mmd_after=now.mmd,
        similarity_before=before.similarity,
        similarity_after=now.similarity,
        source_accuracy_before=before.source_accuracy,
        source_accuracy_after=now.source_accuracy,
        target_labels=domains.labels,
        steps=steps,
        seconds=time.process_time() - began,
    )


def series_of(snapshot: AdaptModel, replay: SourceReplay, window: int) -> LabelledSeries:
    """The newest `window` rows. Raises DataError unless they are whole and the source's in shape.

    Labels are known at the latest when their horizon after the entry has passed.
    """
    step = replay.series[0].step
    token = LabelledSeries(
        symbol=snapshot.symbol,
        step=step,
        starts=snapshot.starts,
        x=snapshot.rows,
        y=snapshot.labels,
        weight=snapshot.weights,
        log_vol=np.full(len(snapshot.rows), np.nan, np.float32),
        t_known=snapshot.starts + (replay.horizon + 1) * step,
    ).rows(slice(-window, None))
    token.check()
    if token.x.shape[1] != replay.series[0].x.shape[1]:
        raise DataError(
            f"{token.symbol}: {token.x.shape[1]} features, the source has {replay.series[0].x.shape[1]}"
        )
    return token


def _with_context(series: LabelledSeries, context: int) -> NDArray[np.int64]:
    """Numbers of the rows with at least `context` rows before them in their gap-free run."""
    segments = series.segments
    position = np.arange(len(series)) - np.searchsorted(segments, segments)
    return np.flatnonzero(position >= context)


def spaced(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Evenly spaced rows of z, without those that had no context."""
    whole = z[np.isfinite(z[:, 0])]
    count = min(len(whole), int(np.clip(len(whole) // SPACING, MIN_SAMPLES, SAMPLES)))
    return whole[np.linspace(0, len(whole) - 1, count).astype(np.int64)]


def _log_odds(share: float) -> float:
    return float(np.log(share / (1 - share)))


def _accuracy(domain: Sequences, logit: NDArray[np.float32]) -> float:
    weight = domain.weight.numpy()
    judged = (weight > 0) & np.isfinite(logit)
    right = (logit[judged] > 0) == (domain.y.numpy()[judged] > 0)
    return float(np.average(right, weights=weight[judged]))
