"""A run over real listings, per arm and token age, beside pooled trees and "always short" on the same bars.

The trees are the rival to beat: boosted on the sources and all listings before, refitted every month on the
labels that had matured by then, and given the run's own calibration, which learns each token's prior. All is
scored on the labels of the run. Net returns are simple, entry to exit, after both taker fees, without spread
and slippage; intervals resample UTC days.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.core.types import DAY_MS
from bot.exchange.recorded import discover
from bot.market.bars import BarTable
from bot.research.analysis import AS_DECIDED, collect_labels
from bot.research.bootstrap import ClusterBootstrap, Estimate, percentile_interval
from bot.research.predictions import log_losses
from bot.research.report_data import ReportData
from bot.research.study_data import POOL_DAYS
from bot.research.study_pooled import boosted, raw_scores
from bot.research.study_table import AGES, CONFIDENT, DRAWS, auc_draws, percent, scaled
from bot.settings import Label
from bot.storage import barfiles
from strategies.learning import sources
from strategies.learning.calibration import Calibrator
from strategies.learning.dataset import LabelledSeries
from strategies.learning.registry import ModelCard, Registry

Floats = NDArray[np.float64]

POOLED: Final = "pooled trees"
ALWAYS_SHORT: Final = "always short"
ALL: Final = (0, 10_000)


class Row(NamedTuple):
    """One arm in one age group, on the bars on which it and the bot's decision had spoken.

    skill: over the token's expanding base rate; behind: its skill less that of the probability that decided,
    on the same bars; net: per label, on its side of every bar; sure: the same on its most confident 5 %
    """

    arm: str
    age: str
    n: int
    effective_n: float
    auc: Estimate
    skill: Estimate
    behind: Estimate
    net: Estimate
    sure: Estimate


def rows_of(data: ReportData, folder: Path, models: Path) -> list[Row]:
    """folder: of the bars that the run was made from; models: where its source model is kept."""
    labels = collect_labels(data)
    frame = data.labels.sort_values("ts", kind="stable")
    said = dict(labels.p)
    said.pop("base", None)
    said["base rate"] = labels.base_rate
    said[POOLED] = _pooled(data, folder, models, frame)
    said[ALWAYS_SHORT] = np.full(len(labels), 0.5 - 1e-9)
    start = frame["bar_start"].to_numpy(np.int64)
    first = {one.symbol: one.first for one in discover(folder, *_market(data))}
    age = (start - np.array([first[name] for name in frame["symbol"]], np.int64)) // DAY_MS
    ret, fee = frame["ret"].to_numpy(float), float(data.config["costs"]["taker_fee"])
    out = []
    for low, high in (ALL, *AGES):
        name = "all" if (low, high) == ALL else f"{low}-{high}"
        for arm, p in said.items():
            rows = np.flatnonzero(
                (age >= low) & (age <= high) & np.isfinite(p) & np.isfinite(said[AS_DECIDED])
            )
            if len(rows):
                facts = _Facts(
                    start[rows], labels.outcome[rows], ret[rows], labels.weight[rows], labels.base_rate[rows]
                )
                out.append(_row(arm, name, facts, p[rows], said[AS_DECIDED][rows], fee))
    return out


class _Facts(NamedTuple):
    t: NDArray[np.int64]
    y: Floats
    ret: Floats
    weight: Floats
    base: Floats


def _row(arm: str, age: str, facts: _Facts, p: Floats, decided: Floats, fee: float) -> Row:
    t, y, ret, weight, base = facts
    bootstrap = ClusterBootstrap.by_day(t, DRAWS)
    loss, of_base, of_decided = (log_losses(one, y) for one in (p, base, decided))
    net = np.where(p < 0.5, -ret, ret) - fee * (2 + ret)
    sure = np.zeros(len(p))
    sure[np.argsort(-np.abs(p - 0.5), kind="stable")[: max(1, int(len(p) * CONFIDENT))]] = 1.0
    constant = float(np.ptp(p)) == 0.0
    nothing = Estimate(float("nan"))
    return Row(
        arm, age, len(p), float(weight.sum()),
        auc_draws(p, y, bootstrap)[0],
        nothing if constant else _less_of(bootstrap.ratio(loss, of_base)),
        nothing if constant or arm == AS_DECIDED else _difference(bootstrap, of_decided - loss, of_base),
        bootstrap.mean(net),
        nothing if constant else bootstrap.ratio(net * sure, sure),
    )  # fmt: skip


def _less_of(ratio: Estimate) -> Estimate:
    return Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)


def _difference(bootstrap: ClusterBootstrap, gain: Floats, of_base: Floats) -> Estimate:
    sums = bootstrap.totals(np.stack((gain, of_base), axis=1))
    drawn = bootstrap.counts @ sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return percentile_interval(float(gain.sum() / of_base.sum()), drawn[:, 0] / drawn[:, 1])


# --- the pooled trees --------------------------------------------------------------------------------------


def _pooled(data: ReportData, folder: Path, models: Path, frame: pd.DataFrame) -> Floats:
    """P(up) of the trees at each label's decision bar; NaN where the features of the bar are not there."""
    label, card = Label.model_validate(data.config["label"]), _source_card(data, models)
    names, interval = _market(data)
    references = [barfiles.read(barfiles.find(folder, name, interval)) for name in names]
    known = sources.build(references, label, card.statistics, card.columns).series
    listed = list(_listings(data, folder, references, card, label))
    embargo = label.horizon_bars * interval // 4
    raw = np.full(len(frame), np.nan)
    symbol, start = frame["symbol"].to_numpy(object), frame["bar_start"].to_numpy(np.int64)
    moments = list(_cuts(data.start, int(start.max()) + 1 if len(start) else data.start))
    for cut, end in zip(moments, [*moments[1:], None], strict=True):
        pool = [*known, *(one for first, one in listed if first < cut)]
        trees = boosted([one.labelled_until(cut - embargo) for one in pool], data.seed)
        inside = (start >= cut) & (start < (end or start.max() + 1))
        for _, one in listed:
            own = np.flatnonzero(inside & (symbol == one.symbol))
            at = np.minimum(np.searchsorted(one.starts, start[own]), len(one) - 1)
            found = one.starts[at] == start[own]
            raw[own[found]] = raw_scores(trees, one.x[at[found]])
    return _calibrated(frame, raw)


def _calibrated(frame: pd.DataFrame, raw: Floats) -> Floats:
    """As the run's arms are: what matures teaches the calibration of what is said from then on."""
    p = np.full(len(raw), np.nan)
    start, known = frame["bar_start"].to_numpy(np.int64), frame["ts"].to_numpy(np.int64)
    outcome, weight = frame["outcome"].to_numpy(np.int64), frame["weight"].to_numpy(float)
    symbol = frame["symbol"].to_numpy(object)
    for name in frame["symbol"].unique():
        own = np.flatnonzero((symbol == name) & np.isfinite(raw))
        calibrator, taught = Calibrator(1.0), 0
        by_time = own[np.argsort(start[own], kind="stable")]
        for row in by_time:
            while taught < len(own) and known[own[taught]] <= start[row]:
                one = own[taught]
                calibrator.observe(float(raw[one]), int(outcome[one]), float(weight[one]))
                taught += 1
            p[row] = calibrator.p_up(float(raw[row]))
    return p


def _listings(
    data: ReportData, folder: Path, references: list[BarTable], card: ModelCard, label: Label
) -> Iterator[tuple[int, LabelledSeries]]:
    """(first bar, its first POOL_DAYS) of every token that was listed before the last label of the run."""
    names, interval = _market(data)
    for one in discover(folder, names, interval):
        if one.first < data.last:
            table = barfiles.read(barfiles.find(folder, one.symbol, interval))
            young = table.between(one.first, one.first + POOL_DAYS * DAY_MS)
            for series in sources.listings([young], references, card.statistics, card.columns, label):
                yield one.first, series


def _cuts(start: int, end: int) -> Iterator[int]:
    """The start of the run, then the first moment of every month."""
    moment = start
    while moment < end:
        yield moment
        day = datetime.fromtimestamp(moment / 1000, UTC)
        following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
        moment = int(following.timestamp() * 1000)


def _source_card(data: ReportData, models: Path) -> ModelCard:
    """Of the model that the run began with: pretrained on what came before it."""
    for card in Registry(models).cards().values():
        if card.kind == "pretrained" and card.until == data.start:
            return card
    raise DataError(f"{models}: no source model that ends where run {data.run_id} begins; run it again")


def _market(data: ReportData) -> tuple[tuple[str, ...], int]:
    return tuple(data.config["market"]["sources"]), data.decision_ms


# --- shown -------------------------------------------------------------------------------------------------


def lines(rows: list[Row], data: ReportData) -> list[str]:
    """A Markdown table: AUC and skill in percent, returns in basis points, and what the ladder did."""
    out = [
        "| arm | days | n | eff. n | AUC | skill % | skill − decided % | net bp | net bp, surest 5 % |",
        "|" + "---|" * 9,
    ]
    for r in rows:
        cells = [
            r.arm, r.age, f"{r.n:,}", f"{r.effective_n:,.0f}", percent(r.auc), percent(r.skill, 2),
            percent(r.behind, 2), scaled(r.net, 1e4, 1), scaled(r.sure, 1e4, 1),
        ]  # fmt: skip
        out.append("| " + " | ".join(cells) + " |")
    return [*out, "", _traded(data)]


def _traded(data: ReportData) -> str:
    entered = int((data.decisions["verdict"] == "entered").sum())
    steps = ", ".join(f"{name} {count}" for name, count in data.stages["new"].value_counts().items())
    equity = data.equity["equity"]
    gain = float(equity.iloc[-1] / equity.iloc[0] - 1) if len(equity) else 0.0
    return (
        f"The ladder: {entered} entries at {len(data.decisions):,} decisions, {len(data.fills)} fills, "
        f"equity {gain:+.2%}; moves to {steps}."
    )
