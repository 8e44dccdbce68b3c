"""A step of the chain: from the source model over all tokens seen so far to the one that tokens start from.

The labels of the listings teach, weighted by uniqueness, by their age, and by how much a listing looks like
the newest ones; the source is rehearsed beside them and the embeddings of both are aligned (`chain` of
`listing_training`). The newest labels of all tokens, purged, teach nothing: they judge the step.
"""

import math
import time
from dataclasses import replace
from itertools import accumulate

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.commands import ExtendChain
from bot.core.errors import DataError
from bot.core.events import AdaptationReport
from bot.core.types import DAY_MS
from bot.settings import Adaptation
from strategies.learning.architecture import Weights
from strategies.learning.calibration import fit_temperature
from strategies.learning.dataset import LabelledSeries, SourceReplay, split
from strategies.learning.divergences import proxy_a_distance, similarity
from strategies.learning.domains import MIN_SAMPLES, Domains, compare, report_of, spaced
from strategies.learning.encoder import Encoder
from strategies.learning.listing_training import Pace, chain, seed_everything
from strategies.learning.registry import Model
from strategies.learning.sequences import Sequences

CHUNKS = 8  # of the listings in one step; half as many of the source
HALF_LIFE_DAYS = 90.0  # of what a label weighs
COMPARED_ROWS = 1_000  # newest rows of a listing that are compared with the newest of all
LEAST_WEIGHT = 0.1  # of a listing that looks like nothing that is listed now
PSEUDO_LABELS = 2_000.0  # effective labels at which a week's temperature counts as much as the one before


def extend(
    source: Model, rival: Model, replay: SourceReplay, job: ExtendChain, plan: Adaptation
) -> tuple[Weights, float, AdaptationReport]:
    """(weights, temperature, report); the same arguments give the same bits on one machine.

    Raises DataError when the snapshot is broken, TrainingFailed when training diverges.
    """
    began = time.process_time()
    seed_everything(job.seed)
    encoder = Encoder.from_weights(source.weights, source.card.architecture)
    domains = _domains(replay, job, plan, encoder)
    before = compare(encoder, domains)
    pace = Pace(plan.chain_steps, plan.chain_learning_rate, plan.chain_l2sp, CHUNKS)
    chain(encoder, domains.source, domains.target, pace, plan.chain_mmd_weight, job.seed)
    now = compare(encoder, domains, before)
    temperature, gain, error = _judged(encoder, rival, domains.target_tail)
    report = msgspec.structs.replace(
        report_of(before, now, domains, plan.chain_steps, began),
        gain=gain,
        gain_labels=float(domains.target_tail.weight.sum()),
        gain_error=error,
    )
    return encoder.weights(), temperature, report


def _domains(replay: SourceReplay, job: ExtendChain, plan: Adaptation, encoder: Encoder) -> Domains:
    """Source and listings, each parted by time; the sides of a split never touch."""
    context, tail = encoder.receptive_field - 1, job.cut - plan.chain_tail_days * DAY_MS
    parted = [split(one, tail, replay.horizon) for one in _series(job, replay.series[0].step, replay.horizon)]
    held = Sequences([newest.since(tail, context) for _, newest in parted], context)
    taught = [one for one, _ in parted if len(one)]
    sources = [split(one, replay.cut, replay.horizon) for one in replay.series]
    source = Sequences([one for one, _ in sources], context)
    target = Sequences(_weighted(taught, held, encoder, job.cut), context)
    return Domains(
        source=source,
        target=target,
        source_tail=Sequences([newest.since(replay.cut, context) for _, newest in sources], context),
        target_tail=held,
        prior_logit=_log_odds(target.share_up) - _log_odds(source.share_up),
        labels=sum(float(one.weight[one.y >= 0].sum()) for one in taught),
    )


def _weighted(
    listings: list[LabelledSeries], newest: Sequences, encoder: Encoder, cut: int
) -> list[LabelledSeries]:
    """The same rows; a label weighs by its age and by how much its token looks like what is listed now."""
    now = spaced(newest.measure(encoder).z)
    found = []
    for one in listings:
        rows = Sequences([one.rows(slice(-COMPARED_ROWS, None))], newest.context)
        like = _similarity(spaced(rows.measure(encoder).z), now)
        age = (cut - one.starts) / DAY_MS
        weight = one.weight * max(LEAST_WEIGHT, like) * 0.5 ** (age / HALF_LIFE_DAYS)
        found.append(replace(one, weight=weight.astype(np.float32)))
    return found


def _similarity(z: NDArray[np.float32], now: NDArray[np.float32]) -> float:
    """1 - A-distance / 2 of two samples in time order; 1 where either is too short to tell."""
    half, middle = len(z) // 2, len(now) // 2
    if min(half, middle) < MIN_SAMPLES:
        return 1.0
    return similarity(proxy_a_distance((z[:half], now[:middle]), (z[half:], now[middle:])))


def _series(job: ExtendChain, step: int, horizon: int) -> list[LabelledSeries]:
    """The listings one by one. Raises DataError for a label that nobody could know at the cut."""
    ends = list(accumulate(count for _, count in job.listings))
    if ends[-1:] != [len(job.rows)]:
        raise DataError(f"a snapshot of {len(job.rows)} rows for listings of {sum(ends[-1:])}")
    known = job.starts + (horizon + 1) * step
    if early := int(((job.labels >= 0) & (known > job.cut)).sum()):
        raise DataError(f"{early} labels of the listings were not known at the cut; nothing is learnt")
    found = []
    for (symbol, count), end in zip(job.listings, ends, strict=True):
        part = slice(end - count, end)
        series = LabelledSeries(
            symbol, step, job.starts[part], job.rows[part], job.labels[part], job.weights[part],
            job.log_vol[part], known[part],
        )  # fmt: skip
        series.check()
        found.append(series)
    return found


def _judged(encoder: Encoder, rival: Model, tail: Sequences) -> tuple[float, float, float]:
    """(temperature, gain over the rival in nats per label, its standard error) on the newest labels; NaN gain
    and error without any.

    Each model is judged with the temperature that suits it best there: it is the ordering that counts. One
    week says little about the temperature itself, which may calm a model but never sharpen it. Days are what
    the error counts: on one day all tokens move together.
    """
    judged = tail.weight.numpy() > 0
    other = Encoder.from_weights(rival.weights, rival.card.architecture)
    logits = [tail.measure(one).logit.astype(np.float64) for one in (encoder, other)]
    judged &= np.isfinite(logits[0])
    if not judged.any():
        return max(1.0, rival.card.temperature), math.nan, math.nan
    y = tail.y.numpy()[judged].astype(np.float64)
    weight = tail.weight.numpy()[judged].astype(np.float64)
    temperatures = [max(1.0, fit_temperature(logit[judged], y, weight)) for logit in logits]
    losses = [
        np.logaddexp(0, s) - y * s
        for s in (logit[judged] / t for logit, t in zip(logits, temperatures, strict=True))
    ]
    trust = weight.sum() / (weight.sum() + PSEUDO_LABELS)
    temperature = temperatures[0] ** trust * max(1.0, rival.card.temperature) ** (1 - trust)
    return float(temperature), *_mean_by_days(losses[1] - losses[0], weight, tail.starts[judged])


def _mean_by_days(
    value: NDArray[np.float64], weight: NDArray[np.float64], starts: NDArray[np.int64]
) -> tuple[float, float]:
    """Weighted mean of values (n,) and its standard error, in which the days are the observations: that of a
    ratio of two sums (Cochran, Sampling Techniques, 1977, ch. 6). NaN error with one day."""
    days, day = np.unique(starts // DAY_MS, return_inverse=True)
    mean = float(np.average(value, weights=weight))
    if len(days) < 2:
        return mean, math.nan
    residual = np.bincount(day, weight * (value - mean))
    return mean, math.sqrt(float(residual @ residual) * len(days) / (len(days) - 1)) / float(weight.sum())


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))
