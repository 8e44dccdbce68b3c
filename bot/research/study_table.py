"""The table of a study: how good each arm was, by the token's age, with intervals clustered by UTC day.

`study_comparisons` puts rivals beside each other. The AUC compares bars of all tokens, so that knowing which
token falls more is worth something; `within` compares those of one token only, and there a share that a
token's own labels made is worth less than nothing: the ups that it has counted are missing from what is to
come. So `within` is for arms without the prior. Several twins of an arm are one row, their mean, with an
interval between them: of one twin, the interval of resampled days holds for that one function, and any
function may suit these days. Accuracy says little, since new tokens fall: it stands beside that of "always
short", and the most confident 5 % beside a random pick of the same sides. Returns are simple, entry to exit,
after both taker fees, without spread and slippage.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow.dataset as pds
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.types import DAY_MS
from bot.research.bootstrap import ClusterBootstrap, Estimate, between, percentile_interval
from bot.research.predictions import correctness, log_losses
from bot.research.study_data import Market, Study
from bot.research.study_files import TWIN, twins_of
from bot.research.study_predictions import BASE
from strategies.features.spec import RAW_WARM_UP
from strategies.learning.skill import weighted_auc

Floats = NDArray[np.float64]

AGES: Final = ((3, 7), (8, 14), (15, 30), (31, 60))
CONFIDENT: Final = 0.05
LEVELS: Final = 1024  # ranks that an interval of the AUC distinguishes; its value is exact
DRAWS: Final = 500


class Outcomes(NamedTuple):
    """Labels of the evaluated rows of all tokens, in one order: token by token, in time. All (n,).

    key: (number of the token, t) as one int64
    """

    key: NDArray[np.int64]
    t: NDArray[np.int64]
    day: NDArray[np.int64]
    y: Floats
    ret: Floats
    weight: Floats


class Row(NamedTuple):
    """One arm in one age group; fractions. `net` per confident trade, `lift` over the side-matched pick."""

    arm: str
    age: str
    n: int
    effective_n: float
    tokens: int
    auc: Estimate
    within: Estimate
    skill: Estimate
    balanced: Estimate
    accuracy: Estimate
    always_short: float
    confident: Estimate
    lift: Estimate
    net: Estimate
    short_share: float  # of the confident
    twins: int = 0  # how many it is the mean of


def outcomes(study: Study) -> Outcomes:
    """Raises DataError when no token has a row."""
    parts = []
    for number, symbol in enumerate(study.tokens):
        market = Market.load(study, symbol)
        rows = np.flatnonzero(market.evaluated(study) & (market.series.y >= 0))
        starts = market.series.starts[rows]
        parts.append(
            (
                _key(number, starts),
                starts,
                (starts - market.first) // DAY_MS,
                market.series.y[rows].astype(np.float64),
                market.ret[rows],
                market.series.weight[rows].astype(np.float64),
            )
        )
    facts = Outcomes(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    if not len(facts.key):
        raise DataError(
            f"{study.data}: no bar of any token can be judged; features need {RAW_WARM_UP} bars "
            "without a gap: see `bot data check`"
        )
    return facts


def not_judged(study: Study, facts: Outcomes) -> list[str]:
    """The tokens without a row."""
    judged = set((facts.key >> _TIME_BITS).tolist())
    return [symbol for number, symbol in enumerate(study.tokens) if number not in judged]


def predicted(study: Study, path: Path, facts: Outcomes) -> dict[str, Floats]:
    """Each arm of a predictions file -> its P(up) on the rows of `facts`, (n,), NaN where it has none."""
    data = pds.dataset(path)
    names = sorted(set(data.to_table(columns=["arm"]).column("arm").unique().to_pylist()))
    return {arm: _aligned(data, arm, study.tokens, facts) for arm in names}


def _aligned(data: pds.Dataset, arm: str, tokens: Sequence[str], facts: Outcomes) -> Floats:
    found = data.to_table(columns=["token", "t", "p_up"], filter=pds.field("arm") == arm)
    number = {symbol: index for index, symbol in enumerate(tokens)}
    of_row = np.array([number.get(name, -1) for name in found.column("token").to_pylist()])
    key = _key(of_row, found.column("t").to_numpy())
    order = np.argsort(key)
    position = np.minimum(np.searchsorted(key[order], facts.key), max(len(key) - 1, 0))
    p = np.full(len(facts.key), np.nan)
    if len(key):
        match = key[order][position] == facts.key
        p[match] = found.column("p_up").to_numpy()[order][position[match]]
    return p


def table(study: Study, facts: Outcomes, said: Mapping[str, Floats]) -> Iterator[Row]:
    """Row by row, arm by arm, each on the tokens that it has. said: of `predicted`."""
    for arm in said:
        if TWIN in arm:
            continue
        for like in filter(None, ([arm], twins_of(arm, said))):
            for age, inside in age_groups(study.days, facts):
                rows = np.flatnonzero(inside & np.isfinite(said[like[0]]))
                if len(rows):
                    base = said[BASE][rows]
                    yield _mean([_row(study, one, age, facts, rows, said[one][rows], base) for one in like])


def _mean(rows: list[Row]) -> Row:
    """Of the twins of one arm; an arm is its own mean."""
    first = rows[0]
    if TWIN not in first.arm:
        return first
    if len(rows) == 1:
        return first._replace(twins=1)
    names = [name for name, value in zip(Row._fields, first, strict=True) if isinstance(value, Estimate)]
    means = {name: between([getattr(row, name).value for row in rows]) for name in names}
    short = float(np.mean([row.short_share for row in rows]))
    return Row(**{**first._asdict(), **means, "short_share": short, "twins": len(rows)})


def age_groups(days: tuple[int, int], facts: Outcomes) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(name, its rows): all evaluated days, then those of each age, where that is not the same."""
    first, last = days
    yield "all", (facts.day >= first) & (facts.day <= last)
    for low, high in ((max(low, first), min(high, last)) for low, high in AGES):
        if low <= high and (low, high) != days:
            yield f"{low}-{high}", (facts.day >= low) & (facts.day <= high)


def _row(
    study: Study,
    arm: str,
    age: str,
    facts: Outcomes,
    rows: NDArray[np.intp],
    p: Floats,
    base: Floats,
) -> Row:
    y = facts.y[rows]
    bootstrap = ClusterBootstrap.by_day(facts.t[rows], DRAWS)
    token = facts.key[rows] >> _TIME_BITS
    right = correctness(p, y)
    loss, base_loss = log_losses(p, y), log_losses(base, y)
    ratio = bootstrap.ratio(loss, base_loss)
    confident, lift, net, short = _confident(p, y, facts.ret[rows], bootstrap, study.taker_fee)
    return Row(
        arm,
        age,
        len(rows),
        float(facts.weight[rows].sum()),
        len(np.unique(token)),
        auc_draws(p, y, bootstrap)[0],
        auc_draws(p, y, bootstrap, token)[0],
        Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low),
        _balanced(right, y, bootstrap),
        bootstrap.mean(right),
        float(1 - y.mean()),
        confident,
        lift,
        net,
        short,
    )


def auc_draws(
    p: Floats, y: Floats, bootstrap: ClusterBootstrap, group: NDArray[np.int64] | None = None
) -> tuple[Estimate, Floats]:
    """The AUC, and its value in each resample of days (ranks in LEVELS steps).

    group (n,): an "up" is compared with the "downs" of its group only; None: with all.
    """
    groups = [np.arange(len(p))] if group is None else _members(group)
    days = bootstrap.clusters
    wins, pairs = np.zeros((2, days, days))  # ups of one day against downs of another
    won = compared = 0.0
    for rows in groups:
        present, day = np.unique(bootstrap.cluster[rows], return_inverse=True)
        ups, downs = _counted(p[rows], y[rows], day)
        where = np.ix_(present, present)
        wins[where] += ups @ (np.cumsum(downs, axis=1) - downs / 2).T
        pairs[where] += np.outer(ups.sum(axis=1), downs.sum(axis=1))
        if ups.any() and downs.any():
            won += weighted_auc(p[rows], y[rows], np.ones(len(rows))) * ups.sum() * downs.sum()
            compared += ups.sum() * downs.sum()
    counts = bootstrap.counts
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = ((counts @ wins) * counts).sum(axis=1) / ((counts @ pairs) * counts).sum(axis=1)
    return percentile_interval(won / compared if compared else math.nan, draws), draws


def _members(group: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """The row numbers of each group."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _counted(p: Floats, y: Floats, day: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """(days, LEVELS) each: how many ups and downs of each day have each rank."""
    _, rank = np.unique(p, return_inverse=True)
    level = (np.argsort(np.argsort(p, kind="stable"), kind="stable") * LEVELS) // len(p)
    level = np.minimum.reduceat(level[np.argsort(rank, kind="stable")], _firsts(rank))[rank]  # ties stay ties
    shape = int(day.max()) + 1, LEVELS
    flat = day * LEVELS + level
    ups, downs = (np.bincount(flat, one, shape[0] * shape[1]).reshape(shape) for one in (y, 1 - y))
    return ups.astype(np.float64), downs.astype(np.float64)


def _firsts(rank: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where each rank begins among the sorted rows."""
    counts = np.bincount(rank)
    return np.concatenate(([0], np.cumsum(counts)[:-1]))


def _balanced(right: Floats, y: Floats, bootstrap: ClusterBootstrap) -> Estimate:
    totals = bootstrap.totals(np.stack((right * y, y, right * (1 - y), 1 - y), axis=1))

    def mean_recall(sums: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3]) / 2)

    return percentile_interval(float(mean_recall(totals.sum(axis=0))), mean_recall(bootstrap.counts @ totals))


def _confident(
    p: Floats, y: Floats, ret: Floats, bootstrap: ClusterBootstrap, fee: float
) -> tuple[Estimate, Estimate, Estimate, float]:
    """(accuracy, lift over random picks of the same sides, net return, share of shorts) of the surest."""
    sure = np.abs(p - 0.5)
    count = max(1, int(len(p) * CONFIDENT))
    picked = np.zeros(len(p))
    picked[np.argsort(-sure, kind="stable")[:count]] = 1.0
    right = correctness(p, y)
    short = float(picked @ (p < 0.5) / picked.sum())
    accuracy = bootstrap.ratio(right * picked, picked)
    sides = bootstrap.totals(
        np.stack((right * picked, picked, (p < 0.5) * picked, y, np.ones(len(p))), axis=1)
    )

    def lift(sums: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            up, shorts = sums[..., 3] / sums[..., 4], sums[..., 2] / sums[..., 1]
            return np.asarray(sums[..., 0] / sums[..., 1] - shorts * (1 - up) - (1 - shorts) * up)

    over = percentile_interval(float(lift(sides.sum(axis=0))), lift(bootstrap.counts @ sides))
    net = np.where(p < 0.5, -ret, ret) - fee * (2 + ret)
    return accuracy, over, bootstrap.ratio(net * picked, picked), short


_TIME_BITS: Final = 42  # milliseconds until the year 2109


def _key(token: int | NDArray[np.int64], t: NDArray[np.int64]) -> NDArray[np.int64]:
    return (np.asarray(token, np.int64) << _TIME_BITS) + t


def lines(rows: Sequence[Row]) -> list[str]:
    """A Markdown table; percentages, AUC in percent, net returns in basis points."""
    head = (
        "| arm | days | n | eff. n | AUC | within | skill % | balanced | accuracy | short | top 5 % | lift "
        "| short share | net bp |"
    )
    out = [head, "|" + "---|" * 14]
    for r in rows:
        cells = [
            r.arm if r.twins < 2 else f"{r.arm} x{r.twins}", r.age, f"{r.n:,}", f"{r.effective_n:,.0f}",
            percent(r.auc), percent(r.within), percent(r.skill, 2),
            percent(r.balanced), percent(r.accuracy), f"{100 * r.always_short:.1f}", percent(r.confident),
            percent(r.lift), f"{100 * r.short_share:.0f}", scaled(r.net, 1e4, 0),
        ]  # fmt: skip
        out.append("| " + " | ".join(cells) + " |")
    return out


def percent(estimate: Estimate, digits: int = 1) -> str:
    return scaled(estimate, 100.0, digits)


def scaled(estimate: Estimate, factor: float, digits: int) -> str:
    if not math.isfinite(estimate.value):
        return ""
    value = f"{factor * estimate.value:.{digits}f}"
    if not math.isfinite(estimate.low):
        return value
    return f"{value} [{factor * estimate.low:.{digits}f}, {factor * estimate.high:.{digits}f}]"
