"""Models that many tokens share: the source network, the chain's second link, and the pooled trees.

Each has a cut, learns from labels that were known before it, and is used for decisions after it. A twin is
the same with its labels shuffled within the training window: what it reaches, nothing has taught it.
"""

import json
from typing import Any, Final, NamedTuple

import lightgbm
import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.types import DAY_MS
from bot.research.study_data import Market, Study, source_statistics
from bot.research.study_files import chain_key, registry, source_key, trees_path
from strategies.features.spec import COUNT, NAMES, VERSION
from strategies.learning.calibration import fit_temperature
from strategies.learning.dataset import LabelledSeries
from strategies.learning.encoder import Encoder
from strategies.learning.files import write_atomically
from strategies.learning.listing_training import Pace, chain
from strategies.learning.pretraining import pretrain
from strategies.learning.registry import Model, ModelCard
from strategies.learning.sequences import Sequences
from strategies.learning.skill import Estimate

Floats = NDArray[np.float64]

TREES: Final = {
    "objective": "binary", "num_leaves": 15, "learning_rate": 0.03, "min_data_in_leaf": 1000,
    "feature_fraction": 0.5, "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 10.0,
    "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip
ROUNDS: Final = 150
STRIDE: Final = 12  # rows of the pooled trees: neighbours share 15 of 16 bars of their labels
TAIL_DAYS: Final = 30  # newest part of the pool that calibrates
CHAIN: Final = Pace(steps=250, rate=5e-4, l2sp=1e-2, chunks=8)
CHAIN_MMD: Final = 1.0
_VARIES: Final = 1e-6


class Net(NamedTuple):
    """columns: numbers of the features that it sees; share_up: of its training labels."""

    encoder: Encoder
    columns: NDArray[np.int64]
    temperature: float
    share_up: float
    until: int


class Trees(NamedTuple):
    booster: lightgbm.Booster
    temperature: float
    share_up: float
    until: int


def shuffled(series: list[LabelledSeries], seed: int) -> list[LabelledSeries]:
    """The same rows; the outcomes of the labelled ones change places, over all of `series`.

    The share of "up" of the whole stays, and no other. Were each series shuffled for itself, or the listings
    apart from the sources, those that fall more would still do so, and a network learns that from how their
    rows look: six twins of the chain then had an AUC of 51.0 % [50.7, 51.4].
    """
    y = np.concatenate([one.y for one in series])
    labelled = np.flatnonzero(y >= 0)
    y[labelled] = np.random.default_rng([seed, len(y)]).permutation(y[labelled])
    parts = np.split(y, np.cumsum([len(one) for one in series])[:-1])
    return [one.with_labels(part) for one, part in zip(series, parts, strict=True)]


def source_series(study: Study, cut: int, columns: NDArray[np.int64], twin: int) -> list[LabelledSeries]:
    """What was known of the sources at `cut`."""
    known = [_known(study, Market.load(study, name).series, cut) for name in study.sources]
    seen = [one.with_columns(_mask(columns)) for one in known]
    return shuffled(seen, _seed(study, twin)) if twin else seen


def earlier_listings(study: Study, cut: int) -> list[LabelledSeries]:
    """What was known at `cut` of every token listed before; all features."""
    before = [name for name, first in study.listings if first < cut]
    known = [_known(study, Market.load(study, name).pooled(), cut) for name in before]
    return [one for one in known if (one.y >= 0).any()]


def _known(study: Study, series: LabelledSeries, cut: int) -> LabelledSeries:
    return series.labelled_until(cut - study.embargo)


def _seed(study: Study, twin: int) -> int:
    return study.seed + 1_000_000 * twin


def share_up(series: list[LabelledSeries]) -> float:
    """Uniqueness-weighted share of "up", two labels of ignorance included."""
    up = sum(float(one.weight[one.y == 1].sum()) for one in series)
    return (up + 1) / (sum(float(one.weight[one.y >= 0].sum()) for one in series) + 2)


# --- the source network and the chain ----------------------------------------------------------------------


def fit_source(study: Study, twin: int) -> None:
    """Pretrain on what the sources did before the study, and nothing later."""
    every = np.arange(COUNT)
    rows = np.concatenate([one.x for one in source_series(study, study.since, every, 0)])
    columns = np.flatnonzero(rows.std(axis=0) > _VARIES)
    series = source_series(study, study.since, columns, twin)
    trained = pretrain(series, study.model, study.horizon, _seed(study, twin))
    card = _card(study, source_key(twin), study.since, trained.architecture, columns, study.sources)
    card = _measured(card, trained.temperature, share_up(series), trained.metrics)
    registry(study).save(trained.weights, card)


def fit_chain(study: Study, cut: int, twin: int) -> None:
    """From the source network to the listings before `cut`. The newest listings' rows calibrate."""
    key = chain_key(cut, twin)
    base = load_net(study, source_key(twin))
    sources = source_series(study, cut, base.columns, 0)
    listings = [one.with_columns(_mask(base.columns)) for one in earlier_listings(study, cut)]
    if twin:
        every = shuffled([*sources, *listings], _seed(study, twin))
        sources, listings = every[: len(sources)], every[len(sources) :]
    card = _card(
        study, key, cut, base.encoder.architecture, base.columns, tuple(one.symbol for one in listings)
    )
    context = base.encoder.receptive_field - 1
    middle = cut - TAIL_DAYS * DAY_MS
    before = [one for one in (_known(study, each, middle) for each in listings) if len(one)]
    temperature, pooled = base.temperature, base.share_up
    if before and with_enough(before):
        source = Sequences(sources, context)
        chain(base.encoder, source, Sequences(before, context), CHAIN, CHAIN_MMD, _seed(study, twin))
        tail = Sequences([one.labelled_from(middle).since(middle, context) for one in listings], context)
        temperature = _temperature(tail.measure(base.encoder).logit, tail)
        pooled = share_up(listings)
    card = _measured(card, temperature, pooled, {})
    registry(study).save(base.encoder.weights(), card)


def with_enough(series: list[LabelledSeries]) -> bool:
    """Less than a hundred effective labels teach nothing."""
    return sum(float(one.weight[one.y >= 0].sum()) for one in series) >= 100


def load_net(study: Study, key: str) -> Net:
    found = registry(study).find_pretrained(key)
    if found is None:
        raise DataError(f"{study.output / 'models'}: no model {key}; start the study again")
    return _net(found)


def _net(model: Model) -> Net:
    card = model.card
    columns = np.array([NAMES.index(name) for name in card.columns], np.int64)
    encoder = Encoder.from_weights(model.weights, card.architecture)
    return Net(encoder, columns, card.temperature, card.metrics["share_up"].value, card.until)


def _card(
    study: Study,
    key: str,
    cut: int,
    architecture: Any,
    columns: NDArray[np.int64],
    symbols: tuple[str, ...],
) -> ModelCard:
    statistics = source_statistics(study)
    return ModelCard(
        kind="pretrained",
        architecture=architecture,
        features=VERSION,
        columns=tuple(NAMES[column] for column in columns),
        location=tuple(statistics.location.tolist()),
        scale=tuple(statistics.scale.tolist()),
        symbols=symbols,
        since=0,
        until=cut,
        temperature=1.0,
        metrics={},
        key=key,
        seed=study.seed,
    )


def _measured(card: ModelCard, temperature: float, share: float, metrics: dict[str, Estimate]) -> ModelCard:
    shares = {**metrics, "share_up": Estimate(share, share, share, 0.0)}
    return msgspec.structs.replace(card, temperature=temperature, metrics=shares)


def _mask(columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(COUNT, np.bool_)
    mask[columns] = True
    return mask


def _temperature(logit: NDArray[np.float32], tail: Sequences) -> float:
    """At least 1: a calibration on one month may calm a model, never sharpen it."""
    weight = tail.weight.numpy()
    judged = np.isfinite(logit) & (weight > 0)
    fitted = fit_temperature(
        logit[judged].astype(np.float64),
        tail.y.numpy()[judged].astype(np.float64),
        weight[judged].astype(np.float64),
    )
    return max(1.0, fitted)


# --- pooled trees ------------------------------------------------------------------------------------------


def fit_trees(study: Study, cut: int, twin: int) -> None:
    """Boosted trees on sources and earlier listings together, refitted at every cut: the rival to beat."""
    path, seed = trees_path(study, cut, twin), _seed(study, twin)
    series = [*source_series(study, cut, np.arange(COUNT), 0), *earlier_listings(study, cut)]
    if twin:
        series = shuffled(series, seed)
    middle = cut - TAIL_DAYS * DAY_MS
    first = boosted([_known(study, one, middle) for one in series], seed)
    x, y, weight = stacked([one.labelled_from(middle) for one in series], STRIDE)
    temperature = 1.0
    if len(y):
        temperature = max(1.0, fit_temperature(raw_scores(first, x), y, weight))
    content = {
        "booster": boosted(series, seed).model_to_string(),
        "temperature": temperature,
        "share_up": share_up(series),
        "until": cut,
    }
    write_atomically(path, json.dumps(content).encode())


def load_trees(study: Study, cut: int, twin: int) -> Trees:
    try:
        content = json.loads(trees_path(study, cut, twin).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{trees_path(study, cut, twin)}: not readable ({error}); delete it") from None
    booster = lightgbm.Booster(model_str=content["booster"])
    return Trees(booster, content["temperature"], content["share_up"], content["until"])


def tree_scores(trees: Trees, x: NDArray[np.float32]) -> Floats:
    """Log odds of "up", before the temperature."""
    return raw_scores(trees.booster, x)


def boosted(series: list[LabelledSeries], seed: int) -> lightgbm.Booster:
    x, y, weight = stacked(series, STRIDE)
    data = lightgbm.Dataset(x, y, weight=weight)
    leaf = min(TREES["min_data_in_leaf"], max(1, len(y) // 20))  # type: ignore[call-overload]
    return lightgbm.train({**TREES, "min_data_in_leaf": leaf, "seed": seed}, data, ROUNDS)


def stacked(series: list[LabelledSeries], stride: int) -> tuple[NDArray[np.float32], Floats, Floats]:
    """x (n, F), y (n,), weight (n,) of every `stride`-th labelled row of all series."""
    picked = [np.flatnonzero(one.y >= 0)[::stride] for one in series]
    pairs = list(zip(series, picked, strict=True))
    return (
        np.concatenate([one.x[rows] for one, rows in pairs]),
        np.concatenate([one.y[rows] for one, rows in pairs]).astype(np.float64),
        np.concatenate([one.weight[rows] for one, rows in pairs]).astype(np.float64),
    )


def raw_scores(booster: lightgbm.Booster, x: NDArray[np.float32]) -> Floats:
    """Log odds of "up" (n,)."""
    if not len(x):
        return np.empty(0)
    return np.asarray(booster.predict(x, raw_score=True, num_threads=1), np.float64)
