"""From the scores of every arm to the predictions that are judged, with and without the prior, twins too.

    predictions.parquet    token, t, arm, p_up, confidence, similarity, known_until

`t` is the open time (ms UTC) of the decision bar, `known_until` that of the last bar that was used. An arm is
named `frozen`, `frozen+prior` (with the token's intercept), `frozen~shuffled` (its twin), or both.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit, logit

from bot.core.errors import RuntimeFault
from bot.research.study_data import Market, Study
from bot.research.study_files import Scores, scores_path
from strategies.learning.few_shot import mixture
from strategies.learning.prior import intercepts

Floats = NDArray[np.float64]

BASE: Final = "base_rate"
POOLED: Final = "pooled_rate"  # the base rate of earlier listings, which a token without labels begins with
SHORT: Final = "always_short"
TWIN: Final = "~shuffled"
ENSEMBLE: Final = "ensemble"
MEMBERS: Final = ("frozen", "chain", "chain_head", "scratch", "full", "mmd", "lgbm_pooled", "lgbm_token")
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
    for arm in arms:
        for twin in (False, True):
            if scores_path(study, arm, symbol, twin=twin).exists():
                scores = Scores.load(scores_path(study, arm, symbol, twin=twin))
                for name, p in _forms(token, arm, scores, twin=twin):
                    found[name] = scores, p
    for suffix in ("", TWIN):
        members = [f"{name}+prior{suffix}" for name in MEMBERS if f"{name}+prior{suffix}" in found]
        if len(members) > 1:
            first = found[members[0]][0]
            until = np.max([found[name][0].until for name in members], axis=0)
            stacked = np.stack([found[name][1] for name in [BASE, *members]])
            n = stacked.shape[1]
            p = mixture(stacked, token.y[:n], token.weight[:n], token.known[:n])
            found[f"{ENSEMBLE}{suffix}"] = first._replace(until=until), p
    evaluated = token.market.evaluated(study)
    for name, (scores, p) in found.items():
        rows = np.flatnonzero(evaluated[: len(p)])
        step = study.interval
        yield Predictions(
            name, symbol, token.market.series.starts[rows], p[rows], scores.similarity[rows],
            scores.until[rows] - step,
        )  # fmt: skip


def _token(study: Study, symbol: str) -> _Token:
    market = Market.load(study, symbol)
    series = market.series
    known = np.searchsorted(series.t_known, series.starts + series.step, side="right")
    weight = np.where(series.y >= 0, series.weight, 0.0).astype(np.float64)
    return _Token(study, symbol, market, (series.y == 1).astype(np.float64), weight, known)


def _forms(token: _Token, arm: str, scores: Scores, *, twin: bool) -> Iterator[tuple[str, Floats]]:
    """(name, P(up)) of the arm alone and with the prior component."""
    n = len(scores.raw)
    base = Scores.load(scores_path(token.study, BASE, token.symbol, twin=False))
    pooled = base.raw - logit(scores.share)  # from the training's share of "up" to the listings'
    b = intercepts(scores.raw, token.y[:n], token.weight[:n], token.known[:n], pooled)
    alone, with_prior = expit(scores.raw), expit(scores.raw + b)
    if arm == BASE:
        if not twin:
            yield BASE, with_prior
            yield POOLED, alone
            yield SHORT, np.minimum(alone, 0.499)
        return
    suffix = TWIN if twin else ""
    yield f"{arm}{suffix}", alone
    yield f"{arm}+prior{suffix}", with_prior


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
