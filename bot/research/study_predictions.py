"""From the scores of every arm to the predictions that are judged, with and without the prior, twins too.

    predictions.parquet    token, t, arm, p_up, confidence, similarity, known_until

`t` is the open time (ms UTC) of the decision bar, `known_until` that of the last bar that was used. An arm is
named `frozen`, `frozen+prior` (with the token's intercept), `frozen~shuffled` (its twin; the second one is
`frozen~shuffled2`), or both.

Arms differ in how sure they are of themselves, and some have no temperature. So that they are compared by
what they know, each is calibrated alike: what it says beyond its training's share of "up" is multiplied by a
slope from the token's labels, refitted daily; the intercept is fitted on the result.

A twin's labels have changed places wherever the pairing of rows and labels can teach: in training, in early
stopping, in calibration, in the ensemble's weights. Shares of "up" are the true ones: a shuffle keeps them,
and the intercept, which depends on the labels through their sum alone, is the same for arm and twin.
"""

import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit, logit

from bot.core.errors import RuntimeFault
from bot.core.types import DAY_MS
from bot.research.study_data import Market, Study
from bot.research.study_files import Scores, scores_path, suffix, twins_done
from strategies.learning.calibration import fit_line
from strategies.learning.few_shot import mixture
from strategies.learning.prior import intercepts

Floats = NDArray[np.float64]

BASE: Final = "base_rate"
POOLED: Final = "pooled_rate"  # the base rate of earlier listings, which a token without labels begins with
SHORT: Final = "always_short"
ENSEMBLE: Final = "ensemble"
MEMBERS: Final = ("frozen", "chain", "chain_head", "scratch", "full", "mmd", "lgbm_pooled", "lgbm_token")
_TOLERANCE: Final = 1e-4  # of log slopes: no figure of a study shows less
_SCHEMA: Final = pa.schema(
    [
        ("token", pa.dictionary(pa.int32(), pa.string())),
        ("t", pa.int64()),
        ("arm", pa.dictionary(pa.int32(), pa.string())),
        ("p_up", pa.float64()),
        ("confidence", pa.float64()),
        ("similarity", pa.float64()),
        ("known_until", pa.int64()),
    ]
)


class Predictions(NamedTuple):
    """One arm on one token's evaluated rows; p_up, similarity float64 (n,); t, known_until int64 (n,) ms."""

    arm: str
    token: str
    t: NDArray[np.int64]
    p_up: Floats
    similarity: Floats
    known_until: NDArray[np.int64]


class _Token(NamedTuple):
    """What all arms of a token share. known (n,): how many leading rows' labels each row knows."""

    study: Study
    symbol: str
    market: Market
    y: Floats
    weight: Floats
    known: NDArray[np.int64]


def of_token(study: Study, symbol: str, arms: tuple[str, ...]) -> Iterator[Predictions]:
    """Every arm of `arms` with finished scores, in all its forms, on the evaluated rows."""
    token = _token(study, symbol)
    found: dict[str, tuple[Scores, Floats]] = {}
    twins = {arm: twins_done(study, arm, symbol) for arm in arms}
    for arm, numbers in twins.items():
        for twin in numbers:
            scores = Scores.load(scores_path(study, arm, symbol, twin))
            for name, p in _forms(token, arm, scores, twin):
                found[name] = scores, p
    for twin in range(max(map(len, twins.values()))):
        members = [name for name in (f"{one}+prior{suffix(twin)}" for one in MEMBERS) if name in found]
        if len(members) > 1:
            first = found[members[0]][0]
            until = np.max([found[name][0].until for name in members], axis=0)
            stacked = np.stack([found[name][1] for name in [BASE, *members]])
            found[f"{ENSEMBLE}{suffix(twin)}"] = first._replace(until=until), _mixed(token, stacked, twin)
    evaluated = token.market.evaluated(study)
    for name, (scores, p) in found.items():
        rows = np.flatnonzero(evaluated[: len(p)])
        step = study.interval
        yield Predictions(
            name, symbol, token.market.series.starts[rows], p[rows], scores.similarity[rows],
            scores.until[rows] - step,
        )  # fmt: skip


def _calibrated(token: _Token, scores: Scores, twin: int) -> Floats:
    """(n,) log odds that mean what they say, walking forward; about the training's share of "up"."""
    known = logit(scores.share)
    beyond = scores.raw - known
    found, line = np.empty(len(beyond)), (0.0, 1.0)
    for rows, seen, y in _days(token, len(beyond), twin):
        # the intercept is fitted too, lest the slope learn the share of "up"; `prior` has a better one
        line = fit_line(beyond[:seen], y[:seen], token.weight[:seen], line, _TOLERANCE)
        found[rows] = known[rows] + line[1] * beyond[rows]
    return found


def _mixed(token: _Token, members: Floats, twin: int) -> Floats:
    """(n,) of the ensemble; members (k, n). A twin's are weighed by what is known when each day begins."""
    n = members.shape[1]
    if not twin:
        return mixture(members, token.y[:n], token.weight[:n], token.known[:n])
    p = np.empty(n)
    for rows, seen, y in _days(token, n, twin):
        end = rows.stop
        known = np.minimum(token.known[:end], seen)
        p[rows] = mixture(members[:, :end], y[:end], token.weight[:end], known)[rows]
    return p


def _days(token: _Token, n: int, twin: int) -> Iterator[tuple[slice, int, Floats]]:
    """(a day's rows, how many labels are known when it begins, the labels), for the first n rows.

    Of a twin, the known labels have changed places, each day anew.
    """
    series = token.market.series
    rng = np.random.default_rng([token.study.seed, twin, zlib.crc32(token.symbol.encode())])
    day = (series.starts[:n] - token.market.first) // DAY_MS
    for first, end in pairwise([*np.flatnonzero(np.diff(day, prepend=-1)).tolist(), n]):
        seen, y = int(token.known[first]), token.y
        if twin:
            labelled = np.flatnonzero(token.weight[:seen] > 0)
            y = y.copy()
            y[labelled] = rng.permutation(y[labelled])
        yield slice(first, end), seen, y


def _token(study: Study, symbol: str) -> _Token:
    market = Market.load(study, symbol)
    series = market.series
    known = np.searchsorted(series.t_known, series.starts + series.step, side="right")
    weight = np.where(series.y >= 0, series.weight, 0.0).astype(np.float64)
    return _Token(study, symbol, market, (series.y == 1).astype(np.float64), weight, known)


def _forms(token: _Token, arm: str, scores: Scores, twin: int) -> Iterator[tuple[str, Floats]]:
    """(name, P(up)) of the arm alone and with the prior component."""
    n = len(scores.raw)
    base = Scores.load(scores_path(token.study, BASE, token.symbol, 0))
    pooled = base.raw - logit(scores.share)  # from the training's share of "up" to the listings'
    score = scores.raw if arm == BASE else _calibrated(token, scores, twin)
    b = intercepts(score, token.y[:n], token.weight[:n], token.known[:n], pooled)
    alone, with_prior = expit(score), expit(score + b)
    if arm == BASE:
        if not twin:
            yield BASE, with_prior
            yield POOLED, alone
            yield SHORT, np.minimum(alone, 0.499)
        return
    yield f"{arm}{suffix(twin)}", alone
    yield f"{arm}+prior{suffix(twin)}", with_prior


def write(path: Path, predictions: Iterator[Predictions]) -> None:
    """One Parquet file, whole or not at all. Raises RuntimeFault when the disk refuses."""
    unfinished = path.with_suffix(".unfinished")
    try:
        with pq.ParquetWriter(unfinished, _SCHEMA, compression="zstd") as writer:
            for one in predictions:
                writer.write_table(_table(one))
        unfinished.replace(path)
    except OSError as error:
        raise RuntimeFault(f"{path}: cannot be written ({error}); free space or choose --output") from None


def _table(one: Predictions) -> pa.Table:
    n = len(one.t)
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([one.token])),
        pa.array(one.t),
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([one.arm])),
        pa.array(one.p_up),
        pa.array(np.maximum(one.p_up, 1 - one.p_up)),
        pa.array(one.similarity),
        pa.array(one.known_until),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)
