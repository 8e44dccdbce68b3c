"""The numbers behind a report, computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bot.core.reasons import kind
from bot.core.types import Side
from bot.research import metrics
from bot.research.bootstrap import ClusterBootstrap, Estimate
from bot.research.predictions import (
    PredictionStatistics,
    correctness,
    expanding_base_rate,
    prediction_statistics,
    skill,
)
from bot.research.report_data import ReportData
from bot.research.selection import paired_gain
from bot.research.trades import RoundTrip, round_trips

Floats = NDArray[np.float64]

AS_DECIDED: Final = "as decided"  # the calibrated probability that decided, whichever arm it came from


@dataclass(frozen=True, slots=True)
class Labels:
    """Matured labels in order of `known`, all (n,); `p` by arm, NaN where the arm had not spoken."""

    symbol: NDArray[np.object_]
    entry: NDArray[np.int64]
    known: NDArray[np.int64]
    outcome: Floats
    weight: Floats
    base_rate: Floats  # expanding, of the same token
    p: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.known)

    def rows(self, selection: NDArray[np.bool_]) -> "Labels":
        return Labels(
            self.symbol[selection],
            self.entry[selection],
            self.known[selection],
            self.outcome[selection],
            self.weight[selection],
            self.base_rate[selection],
            {arm: p[selection] for arm, p in self.p.items()},
        )

    def of(self, symbol: str) -> "Labels":
        return self.rows(self.symbol == symbol)


class Gain(NamedTuple):
    """One arm against another on the labels that both predicted."""

    arm: str
    rival: str
    n: int
    accuracy: Estimate  # difference, as a fraction
    skill: Estimate  # log-loss skill over the rival


class Costs(NamedTuple):
    """Quote coin, positive when paid."""

    taker_fees: float
    maker_fees: float
    funding: float
    slippage: float  # paid beyond the close that decided, where that is known
    slippage_share: float  # share of the turnover for which it is known
    turnover: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """`arms` and `gains` are of all tokens together, `by_token` of each."""

    performance: metrics.Performance
    equity: Floats  # daily, the start included
    sharpe_beyond_luck: float
    sharpe_beyond_trials: float
    trips: list[RoundTrip]
    trades: metrics.TradeStatistics
    win_rate: Estimate
    profit_factor: Estimate
    labels: Labels
    arms: dict[str, PredictionStatistics]
    gains: list[Gain]
    by_token: dict[str, dict[str, PredictionStatistics]]
    costs: Costs
    refusals: pd.DataFrame  # symbol, kind, times, example

    @property
    def closed_trips(self) -> list[RoundTrip]:
        return [trip for trip in self.trips if trip.closed]


def analyse(data: ReportData) -> Analysis:
    confidence = float(data.config["gate"]["confidence"])
    equity = metrics.daily_closes(
        data.equity["ts"].to_numpy(np.int64), data.equity["equity"].to_numpy(float), data.initial_balance
    )
    returns = metrics.simple_returns(equity)
    trips = round_trips(data.fills, data.funding)
    pnl, by_day = _pnl([trip for trip in trips if trip.closed])
    labels = collect_labels(data)
    return Analysis(
        performance=metrics.performance(equity),
        equity=equity,
        sharpe_beyond_luck=metrics.probabilistic_sharpe(returns),
        # under the null the Sharpe ratio of n returns has variance 1 / n
        sharpe_beyond_trials=metrics.deflated_sharpe(returns, data.trials, 1.0 / max(len(returns), 1)),
        trips=trips,
        trades=metrics.trade_statistics(pnl),
        win_rate=by_day.mean((pnl > 0).astype(float)),
        profit_factor=by_day.ratio(np.maximum(pnl, 0.0), np.maximum(-pnl, 0.0)),
        labels=labels,
        arms=arm_statistics(labels, confidence),
        gains=arm_gains(labels),
        by_token={symbol: arm_statistics(labels.of(symbol), confidence) for symbol in data.symbols},
        costs=_costs(data),
        refusals=_refusals(data.alarms),
    )


def collect_labels(data: ReportData) -> Labels:
    """Labels with what each arm had said, and with the probability that decided."""
    decided = data.decisions[["symbol", "bar_start", "p_up"]].rename(columns={"p_up": AS_DECIDED})
    frame = data.labels.merge(decided, on=["symbol", "bar_start"], how="left").sort_values(
        "ts", kind="stable"
    )
    spoken: list[dict[str, float]] = frame["p_up"].tolist()
    arms = sorted({arm for row in spoken for arm in row})
    p = {arm: np.array([row.get(arm, np.nan) for row in spoken], float) for arm in arms}
    if len(frame):
        p[AS_DECIDED] = frame[AS_DECIDED].to_numpy(float)
    symbol = frame["symbol"].to_numpy(object)
    entry, known = frame["t_entry"].to_numpy(np.int64), frame["ts"].to_numpy(np.int64)
    outcome, weight = frame["outcome"].to_numpy(float), frame["weight"].to_numpy(float)
    base = np.full(len(frame), 0.5)
    for name in np.unique(symbol.astype(str)):
        own = symbol == name
        base[own] = expanding_base_rate(outcome[own], weight[own], known[own], entry[own])
    return Labels(symbol, entry, known, outcome, weight, base, p)


def arm_statistics(labels: Labels, confidence: float) -> dict[str, PredictionStatistics]:
    """Each arm on the labels that it predicted; arms that never spoke are left out."""
    result = {}
    for arm, p in labels.p.items():
        spoke = np.isfinite(p)
        if not spoke.any():
            continue
        own = labels.rows(spoke)
        bootstrap = ClusterBootstrap.by_day(own.entry)
        result[arm] = prediction_statistics(
            p[spoke], own.outcome, own.weight, own.base_rate, bootstrap, confidence
        )
    return result


def arm_gains(labels: Labels) -> list[Gain]:
    """What adaptation is worth: the adapted arm against every other one."""
    adapted = labels.p.get("adapted")
    if adapted is None:
        return []
    rivals = [arm for arm in labels.p if arm not in ("adapted", AS_DECIDED)]
    gains = [_gain(labels, adapted, rival) for rival in rivals]
    return [gain for gain in gains if gain.n]


def _gain(labels: Labels, p: Floats, rival: str) -> Gain:
    both = np.isfinite(p) & np.isfinite(labels.p[rival])
    mine, theirs, outcome = p[both], labels.p[rival][both], labels.outcome[both]
    bootstrap = ClusterBootstrap.by_day(labels.entry[both])
    accuracy = paired_gain(correctness(mine, outcome), correctness(theirs, outcome), bootstrap)
    return Gain("adapted", rival, int(both.sum()), accuracy, skill(mine, outcome, theirs, bootstrap))


def rolling_accuracy(
    labels: Labels, arm: str, window: int, least: int = 50
) -> tuple[NDArray[np.int64], Floats]:
    """Accuracy of the predictions whose labels became known in the last `window` ms, at each new label."""
    spoke = np.isfinite(labels.p[arm])
    known = labels.known[spoke]
    right = correctness(labels.p[arm][spoke], labels.outcome[spoke])
    sums = np.concatenate(([0.0], np.cumsum(right)))
    first = np.searchsorted(known, known - window, side="right")
    n = np.arange(1, len(known) + 1) - first
    accuracy = (sums[1:] - sums[first]) / np.maximum(n, 1)
    enough = n >= least
    return known[enough], accuracy[enough]


def quantiles(values: pd.Series) -> Estimate:
    """Median with the range that holds 90 % of the values: a spread, not an interval of the median."""
    finite = values.dropna().to_numpy(float)
    if not len(finite):
        return Estimate(float("nan"))
    middle, low, high = np.quantile(finite, (0.5, 0.05, 0.95))
    return Estimate(float(middle), float(low), float(high))


def _pnl(closed: Sequence[RoundTrip]) -> tuple[Floats, ClusterBootstrap]:
    exits = np.array([trip.closed for trip in closed], np.int64)
    return np.array([trip.net for trip in closed], float), ClusterBootstrap.by_day(exits)


def _costs(data: ReportData) -> Costs:
    fills = data.fills
    notional = fills["price"] * fills["qty"]
    sent = data.orders[["link_id", "created"]]
    closes = data.decisions[["symbol", "ts", "close"]].drop_duplicates(["symbol", "ts"])
    known = fills.merge(sent, on="link_id").merge(
        closes, left_on=["symbol", "created"], right_on=["symbol", "ts"], suffixes=("", "_decision")
    )
    sign = known["side"].map({side.value: side.sign for side in Side}).astype(float)
    turnover = float(notional.sum())
    maker = fills["is_maker"].astype(bool)
    return Costs(
        taker_fees=float(fills["fee"][~maker].sum()),
        maker_fees=float(fills["fee"][maker].sum()),
        funding=float(data.funding["amount"].sum()),
        slippage=float((sign * (known["price"] - known["close"]) * known["qty"]).sum()),
        slippage_share=float((known["price"] * known["qty"]).sum()) / turnover if turnover else 0.0,
        turnover=turnover,
    )


def _refusals(alarms: pd.DataFrame) -> pd.DataFrame:
    """symbol, kind, times and the newest example, most frequent first."""
    refused = alarms[alarms["kind"] == "Refused"]
    frame = refused.assign(kind=[kind(str(text)) for text in refused["text"]])
    grouped = frame.groupby(["symbol", "kind"], sort=False)["text"].agg(["size", "last"]).reset_index()
    grouped.columns = pd.Index(["symbol", "kind", "times", "example"])
    return grouped.sort_values("times", ascending=False, kind="stable", ignore_index=True)
