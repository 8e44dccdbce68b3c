"""What a run amounts to, in words: the verdict, the warnings and the targets. Plain text."""

import math
from typing import Final, NamedTuple

from bot.core.types import DAY_MS, Stage
from bot.research.analysis import AS_DECIDED, Analysis, Gain, quantiles
from bot.research.bootstrap import Estimate
from bot.research.page import (
    MISSING,
    Writer,
    fine,
    interval,
    known,
    money,
    number,
    percent,
    points,
    signed_money,
    signed_percent,
)
from bot.research.report_data import ReportData

SUSPECT_SHARPE: Final = 4.0
SUSPECT_ACCURACY: Final = 0.58
_FEW_LABELS: Final = 100.0
_FEW_DAYS: Final = 30
_SPELT_OUT: Final = 6  # tokens without a trade that get a sentence each


def verdict(data: ReportData, analysis: Analysis) -> list[str]:
    """Sentences by paragraph: what came of it, what was not traded and why, whether it knew anything."""
    untraded = [symbol for symbol in data.symbols if symbol not in _traded_symbols(analysis)]
    paragraphs = [
        [_traded(data, analysis), _result(data, analysis)],
        *([_untraded(data, analysis, symbol)] for symbol in untraded[:_SPELT_OUT]),
        [f"Neither did it trade {_counted(len(more), 'other token')}."]
        if (more := untraded[_SPELT_OUT:])
        else [],
        _knowledge(analysis),
    ]
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def warnings(data: ReportData, analysis: Analysis) -> list[str]:
    """What should make a reader doubt the figures."""
    found = []
    days = analysis.performance.days
    if data.state != "finished":
        found.append(f"The run is {data.state}: it covers {_days(data):.1f} days so far.")
    if data.notes:
        found.append(f"About the data: {'; '.join(data.notes)}.")
    if not data.simulated:
        found += _too_good(analysis)
    if 0 < days < _FEW_DAYS:
        found.append(f"{days} days are few: annualised ratios mean little, see their intervals.")
    effective = max((arm.effective_n for arm in analysis.arms.values()), default=0.0)
    if analysis.arms and effective < _FEW_LABELS:
        found.append(
            f"Only {effective:.0f} effective labels have matured: accuracies are uncertain by ten points."
        )
    return found


def _too_good(analysis: Analysis) -> list[str]:
    found = []
    sharpe = analysis.performance.sharpe.value
    if sharpe > SUSPECT_SHARPE:
        found.append(f"A Sharpe ratio of {sharpe:.1f} on real data is too good: look for a leak.")
    for name, arm in analysis.arms.items():
        if arm.accuracy.value > SUSPECT_ACCURACY and arm.effective_n >= _FEW_LABELS:
            found.append(
                f"{percent(arm.accuracy.value)} right ({name}) on real data is too good: look for a leak."
            )
    return found


class Target(NamedTuple):
    name: str
    aim: str
    reached: str
    interval: str
    note: str


def targets(data: ReportData, analysis: Analysis) -> list[Target]:
    """The aims of the project beside what was reached. No verdict: the interval says how much is known."""
    figures = analysis.performance
    adapted = analysis.arms.get("adapted")
    unknown = Estimate(math.nan)
    short = (
        f"always short: {percent(adapted.always_short.value)}" if adapted else "no adapted model was scored"
    )
    distance = quantiles(2.0 * (1.0 - data.decisions["similarity"]))
    mmd = quantiles(data.decisions["mmd"])
    trips = f"{analysis.trades.n:,} round trips after costs"
    spread = "median and range of 90% of the decisions"
    return [
        _target("accuracy on the tokens", "> 55%", adapted.accuracy if adapted else unknown, percent, short),
        *_transfer_targets(analysis),
        _target("A-distance", "< 1.5", distance, number, spread),
        _target("MMD²", "< 0.1", mmd, lambda value: number(value, ".3f"), spread),
        _target("Sharpe ratio", "> 1.5", figures.sharpe, number, "annualised, of daily returns"),
        _target("Sortino ratio", "> 2", figures.sortino, number, "annualised, of daily returns"),
        _target("deepest drawdown", "< 15%", figures.max_drawdown, fine, "at the ends of days"),
        _target("win rate", "> 52%", analysis.win_rate, percent, trips),
        _target("profit factor", "> 1.3", analysis.profit_factor, number, "gross profit / gross loss"),
        _target("Calmar ratio", "> 1", figures.calmar, number, "yearly growth / deepest drawdown"),
    ]  # fmt: skip


def _transfer_targets(analysis: Analysis) -> list[Target]:
    """Transfer gain is defined against a model from scratch; without one, the frozen model has to serve."""
    by_rival = {gain.rival: gain for gain in analysis.gains}
    gain: Gain | None = by_rival.get("scratch") or by_rival.get("frozen")
    if gain is None:
        return [Target("transfer gain, points", "> 5", MISSING, "", "no rival was scored on the same labels")]
    note = f"accuracy of adapted − {gain.rival} on the same {gain.n:,} labels"
    return [_target("transfer gain, points", "> 5", gain.accuracy, points, note)]


def _target(name: str, aim: str, reached: Estimate, write: Writer, note: str) -> Target:
    return Target(name, aim, write(reached.value), interval(reached, write), note)


# --- sentences ---------------------------------------------------------------------------------------------


def _traded_symbols(analysis: Analysis) -> set[str]:
    return {trip.symbol for trip in analysis.trips}


def _traded(data: ReportData, analysis: Analysis) -> str:
    of = len(data.symbols)
    n = len(_traded_symbols(analysis))
    within = f"In {_days(data):.1f}".removesuffix(".0") + " days the bot"
    trips = len(analysis.closed_trips)
    still_open = len(analysis.trips) - trips
    tail = f", {still_open} still open" if still_open else ""
    if not n:
        return f"{within} watched {_counted(of, 'token')} and traded none."
    return f"{within} traded {n} of {_counted(of, 'token')}: {_counted(trips, 'round trip')}{tail}."


def _result(data: ReportData, analysis: Analysis) -> str:
    if not len(data.equity):
        return "No equity was recorded."
    total = analysis.performance.total_return
    net = analysis.equity[-1] - data.initial_balance
    fees = analysis.costs.taker_fees + analysis.costs.maker_fees
    if not analysis.trips:
        return "The account did not change."
    return (
        f"Net result {signed_money(net)} ({signed_percent(total.value)}) after {money(fees)} of fees and "
        f"{money(analysis.costs.funding)} of funding{_meaning(total)}."
    )


def _meaning(total: Estimate) -> str:
    limits = interval(total, signed_percent)
    if not limits:
        return ""
    if total.low > 0:
        return f"; the 95% interval {limits} lies above zero"
    if total.high < 0:
        return f"; the 95% interval {limits} lies below zero"
    return f"; the 95% interval {limits} holds zero, so this may be luck"


def _untraded(data: ReportData, analysis: Analysis, symbol: str) -> str:
    """Where the token stands, and what kept it there."""
    stages = data.stages[data.stages["symbol"] == symbol]
    stage = str(stages["new"].iloc[-1]) if len(stages) else Stage.OBSERVE.value
    decisions = data.decisions[data.decisions["symbol"] == symbol]
    if decisions.empty:
        return f"It did not trade {symbol}: its features were still warming up."
    needed = float(data.config["gate"]["similarity"])
    facts = [f"similarity {number(float(decisions['similarity'].iloc[-1]))} ({number(needed)} needed)"]
    arm = analysis.by_token[symbol].get(AS_DECIDED)
    if arm is not None:
        facts.append(f"log-loss skill over the base rate {known(arm.skill, signed_percent)}")
        facts.append(f"{arm.effective_n:.0f} effective labels")
    refused = analysis.refusals[analysis.refusals["symbol"] == symbol]
    if len(refused):
        reason = refused.iloc[0]["example"]
        facts.append(
            f"{_counted(int(refused['times'].sum()), 'entry', 'entries')} refused, mostly “{reason}”"
        )
    else:
        spoken = decisions["reason"][decisions["reason"] != ""]
        facts += [f"last word “{spoken.iloc[-1]}”"] if len(spoken) else []
    return f"It did not trade {symbol}, which ended in {stage}: {'; '.join(facts)}."


def _knowledge(analysis: Analysis) -> list[str]:
    name = "adapted" if "adapted" in analysis.arms else AS_DECIDED
    arm = analysis.arms.get(name)
    if arm is None:
        return ["No label has matured yet, so nothing is known about the predictions."]
    who = "The adapted model" if name == "adapted" else "The bot"
    text = (
        f"{who} was right on {known(arm.accuracy)} of "
        f"{arm.n:,} matured labels ({arm.effective_n:,.0f} effective), where always-short was right on "
        f"{percent(arm.always_short.value)}; its log-loss skill over the base rate is "
        f"{known(arm.skill, signed_percent)}."
    )
    frozen = next((gain for gain in analysis.gains if gain.rival == "frozen"), None)
    if frozen is None or not interval(frozen.accuracy, points):
        return [text]
    gain = known(frozen.accuracy, points)
    return [
        text,
        f"Adaptation was worth {gain} points of accuracy over the frozen model on the same labels.",
    ]


def _days(data: ReportData) -> float:
    return max(data.last - data.start, 0) / DAY_MS


def _counted(n: int, noun: str, plural: str = "") -> str:
    return f"{n} {noun}" if n == 1 else f"{n:,} {plural or noun + 's'}"
