"""Performance of an account: returns, risk ratios, trades, and how much of a Sharpe ratio may be luck.

Equity series include the starting equity; returns are simple. Crypto trades every day, so daily series are
annualised with 365 periods and no risk-free rate. A statistic that the data cannot support is NaN.
"""

import math
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bot.core.types import DAY_MS
from bot.research.bootstrap import Estimate, percentile_interval, resampled

Floats = NDArray[np.float64]

PERIODS: Final = 365
_LEAST_DAYS: Final = 5  # of fewer days every resample looks alike: an interval would only pretend
_EULER: Final = 0.5772156649015329
_NORMAL: Final = NormalDist()


def simple_returns(equity: Floats) -> Floats:
    """equity (n,) > 0 -> returns (n - 1,)."""
    return equity[1:] / equity[:-1] - 1.0


def daily_closes(ts: NDArray[np.int64], equity: Floats, initial: float) -> Floats:
    """The equity at the end of each UTC day that has a mark, after the `initial` one.

    ts: ms UTC, ascending; a mark at midnight closes the day before.
    """
    day = (ts - 1) // DAY_MS
    last = np.flatnonzero(np.diff(day, append=day[-1:] + 1))
    return np.concatenate(([initial], equity[last]))


def volatility(returns: Floats, periods: int = PERIODS) -> float:
    return float(returns.std(ddof=1)) * math.sqrt(periods) if len(returns) > 1 else math.nan


def sharpe(returns: Floats, periods: int = PERIODS, ddof: int = 1) -> float:
    """Mean over standard deviation, annualised; returns (..., n) are reduced along the last axis."""
    return float(_sharpe(returns, periods, ddof)) if returns.shape[-1] > ddof else math.nan


def sortino(returns: Floats, periods: int = PERIODS) -> float:
    """Mean over downside deviation sqrt(mean(min(r, 0)²)), taken over all periods, annualised."""
    return float(_sortino(returns, periods)) if len(returns) else math.nan


class Drawdown(NamedTuple):
    """The deepest fall: `depth` <= 0 as a fraction of the peak, with both indices in the series."""

    depth: float
    peak: int
    trough: int


def max_drawdown(equity: Floats) -> Drawdown:
    falls = drawdowns(equity)
    if not len(falls):
        return Drawdown(math.nan, 0, 0)
    trough = int(falls.argmin())
    return Drawdown(float(falls[trough]), int(equity[: trough + 1].argmax()), trough)


def drawdowns(equity: Floats) -> Floats:
    """equity (..., n) -> fall from the running peak as a fraction of it, <= 0, same shape."""
    return equity / np.maximum.accumulate(equity, axis=-1) - 1.0


def total_return(equity: Floats) -> float:
    return float(equity[-1] / equity[0]) - 1.0 if len(equity) else math.nan


def cagr(equity: Floats, periods: int = PERIODS) -> float:
    """Growth per year of a series with `periods` steps a year."""
    if len(equity) < 2 or equity[-1] <= 0:
        return math.nan
    return float((equity[-1] / equity[0]) ** (periods / (len(equity) - 1))) - 1.0


def calmar(equity: Floats, periods: int = PERIODS) -> float:
    """CAGR over the depth of the deepest drawdown."""
    depth = abs(max_drawdown(equity).depth)
    return cagr(equity, periods) / depth if depth > 0 else math.nan


class TradeStatistics(NamedTuple):
    """`win_rate` counts every trade, also one that earned nothing; money in quote coin."""

    n: int
    win_rate: float
    win_rate_decided: float  # without the trades that earned exactly nothing
    gross_profit: float
    gross_loss: float
    profit_factor: float
    expectancy: float


def trade_statistics(pnl: Floats) -> TradeStatistics:
    """pnl: net result of each round trip, quote coin (n,)."""
    n, wins, losses = len(pnl), int((pnl > 0).sum()), int((pnl < 0).sum())
    profit, loss = float(pnl[pnl > 0].sum()), float(-pnl[pnl < 0].sum())
    return TradeStatistics(
        n=n,
        win_rate=wins / n if n else math.nan,
        win_rate_decided=wins / (wins + losses) if wins + losses else math.nan,
        gross_profit=profit,
        gross_loss=loss,
        profit_factor=profit / loss if loss else math.nan,
        expectancy=float(pnl.mean()) if n else math.nan,
    )


class Performance(NamedTuple):
    """A daily equity series in figures, each with the interval that resampled days give."""

    days: int
    total_return: Estimate
    cagr: float
    volatility: Estimate
    sharpe: Estimate
    sortino: Estimate
    max_drawdown: Estimate  # fraction of the peak, >= 0
    calmar: Estimate


def performance(equity: Floats, draws: int = 2000, seed: int = 0) -> Performance:
    """Figures of a daily series (n + 1,), start included; intervals from days drawn with replacement."""
    returns = simple_returns(equity)
    drawn = _replicates(returns, draws, seed)
    return Performance(
        days=len(returns),
        total_return=percentile_interval(total_return(equity), drawn.total_return),
        cagr=cagr(equity),
        volatility=percentile_interval(volatility(returns), drawn.volatility),
        sharpe=percentile_interval(sharpe(returns), drawn.sharpe),
        sortino=percentile_interval(sortino(returns), drawn.sortino),
        max_drawdown=percentile_interval(-max_drawdown(equity).depth, drawn.depth),
        calmar=percentile_interval(calmar(equity), drawn.calmar),
    )


class _Replicates(NamedTuple):
    """The same figures of every resample, all (draws,)."""

    total_return: Floats
    volatility: Floats
    sharpe: Floats
    sortino: Floats
    depth: Floats
    calmar: Floats


def _replicates(returns: Floats, draws: int, seed: int) -> _Replicates:
    days = len(returns)
    if days < _LEAST_DAYS:
        return _Replicates(*(np.empty(0) for _ in _Replicates._fields))
    drawn = resampled(returns, draws, seed)
    paths: Floats = np.cumprod(np.column_stack((np.ones(draws), 1.0 + drawn)), axis=1, dtype=np.float64)
    depth = -drawdowns(paths).min(axis=1)
    growth = np.maximum(paths[:, -1], 0.0) ** (PERIODS / days) - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        calmars = growth / depth
    spread: Floats = drawn.std(axis=1, ddof=1, dtype=np.float64) * math.sqrt(PERIODS)
    return _Replicates(
        paths[:, -1] - 1.0, spread, _sharpe(drawn, PERIODS, 1), _sortino(drawn, PERIODS), depth, calmars
    )


def probabilistic_sharpe(returns: Floats, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio per period exceeds `benchmark` (per period).

    Bailey & López de Prado 2012; skewness and non-excess kurtosis of the sample enter the standard error.
    """
    if len(returns) < 3 or returns.std() == 0:
        return math.nan
    ratio = float(_sharpe(returns, 1, 1))
    return _NORMAL.cdf((ratio - benchmark) * math.sqrt((len(returns) - 1) / _sharpe_variance(returns, ratio)))


def expected_max_sharpe(trials: int, variance: float) -> float:
    """Best Sharpe ratio that luck alone gives among `trials` (Bailey & López de Prado 2014, eq. 1).

    variance: of the trials' Sharpe ratios, per period. One trial has nothing to be deflated by: 0.
    """
    if trials < 2:
        return 0.0
    first = _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    second = _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(variance) * ((1.0 - _EULER) * first + _EULER * second)


def deflated_sharpe(returns: Floats, trials: int, variance: float) -> float:
    """Probability that the Sharpe ratio is more than the best of `trials` lucky ones."""
    return probabilistic_sharpe(returns, expected_max_sharpe(trials, variance))


def min_track_record(returns: Floats, benchmark: float = 0.0, confidence: float = 0.95) -> float:
    """Number of periods after which the Sharpe ratio would exceed `benchmark` with `confidence`."""
    ratio = sharpe(returns, periods=1)
    if not ratio > benchmark:
        return math.inf
    return 1.0 + _sharpe_variance(returns, ratio) * (_NORMAL.inv_cdf(confidence) / (ratio - benchmark)) ** 2


def _sharpe_variance(returns: Floats, ratio: float) -> float:
    """(n - 1) times the sampling variance of a per-period Sharpe ratio."""
    centred = returns - returns.mean()
    scale = math.sqrt(float((centred**2).mean()))
    skew = float((centred**3).mean()) / scale**3
    kurtosis = float((centred**4).mean()) / scale**4
    return 1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2


def _sharpe(returns: Floats, periods: int, ddof: int) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(returns.mean(axis=-1) / returns.std(axis=-1, ddof=ddof) * math.sqrt(periods))


def _sortino(returns: Floats, periods: int) -> Floats:
    downside = np.sqrt((np.minimum(returns, 0.0) ** 2).mean(axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(returns.mean(axis=-1) / downside * math.sqrt(periods))
