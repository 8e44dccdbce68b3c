"""The report of a run: one HTML file that needs nothing else, not even a network."""

import json
import math
import string
from contextlib import suppress
from importlib import resources
from pathlib import Path

from plotly.offline import get_plotlyjs

from bot.core.errors import RuntimeFault
from bot.research import charts, figures, narrative, sections
from bot.research.analysis import AS_DECIDED, Analysis, analyse
from bot.research.page import (
    Html,
    card,
    clock,
    details,
    fine,
    interval,
    joined,
    known,
    money,
    number,
    percent,
    safe,
    signed_money,
    signed_percent,
    tag,
)
from bot.research.report_data import ReportData


def write_report(data: ReportData, path: Path) -> Path:
    """Write the report of `data` to `path`, whole or not at all, and return the path.

    Raises RuntimeFault when the file cannot be written.
    """
    page = render(data)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise RuntimeFault(
            f"{path}: the report cannot be written ({error.strerror}); the run itself is stored: free some "
            f"space or mend the rights, then `bot report {data.run_id}` writes it"
        ) from None
    return path


def render(data: ReportData) -> str:
    analysis = analyse(data)
    parts = [
        _header(data),
        _verdict(data, analysis),
        _key_figures(data, analysis),
        _equity(data, analysis),
        sections.predictions(data, analysis),
        *(sections.token(data, analysis, symbol) for symbol in data.symbols),
        sections.refusals(analysis),
        sections.costs(analysis),
        sections.trades(analysis),
        sections.targets(data, analysis),
        sections.alarms(data),
        _configuration(data),
        _reading(),
    ]
    template = resources.files("bot.research").joinpath("report.html").read_text(encoding="utf-8")
    banner = tag("div", "SIMULATED MARKET – not real prices", class_="banner") if data.simulated else Html("")
    return string.Template(template).substitute(
        title=safe(f"{data.title} – run {data.run_id}"),
        plotly=get_plotlyjs(),
        banner=banner,
        body=joined(part for part in parts if part),
    )


# --- the top -----------------------------------------------------------------------------------------------


def _header(data: ReportData) -> Html:
    market = "simulated market" if data.simulated else "recorded market"
    facts = (
        f"Run {data.run_id} ({data.kind}) on a {market} · {clock(data.start)} to {clock(data.last)} UTC · "
        f"seed {data.seed} · {data.state}"
    )
    links = [("equity", "Equity"), ("predictions", "Predictions")]
    links += [(sections.anchor(symbol), symbol) for symbol in data.symbols]
    links += [("refusals", "Refusals"), ("costs", "Costs"), ("trades", "Trades"), ("targets", "Targets")]
    nav = tag("nav", joined(tag("a", text, href=f"#{anchor}") for anchor, text in links))
    return joined((tag("h1", data.title), tag("div", facts, class_="soft"), nav, Html("<br>")))


def _verdict(data: ReportData, analysis: Analysis) -> Html:
    paragraphs = joined(tag("p", text) for text in narrative.verdict(data, analysis))
    warned = (tag("p", text, class_="warning") for text in narrative.warnings(data, analysis))
    return joined((tag("section", paragraphs, class_="verdict"), *warned))


def _key_figures(data: ReportData, analysis: Analysis) -> Html:
    of, trades = analysis.performance, analysis.trades
    final = float(analysis.equity[-1])
    exposure = data.equity["exposure"].astype(float)
    luck = ""
    if math.isfinite(analysis.sharpe_beyond_luck):
        luck = f"above 0 with probability {percent(analysis.sharpe_beyond_luck)}"
    if luck and data.trials > 1:
        luck += f", {percent(analysis.sharpe_beyond_trials)} as the best of {data.trials} runs"
    costs = analysis.costs
    fees = costs.taker_fees + costs.maker_fees
    depth = data.equity["drawdown"].astype(float).max()
    each = f"{signed_money(trades.expectancy)} each on average, after costs" if trades.n else ""
    figures_ = (
        ("Net result", signed_money(final - data.initial_balance), known(of.total_return, signed_percent)),
        ("Equity", money(final), f"from {money(data.initial_balance)}"),
        ("Deepest drawdown", fine(depth), f"at the ends of days {known(of.max_drawdown, fine)}"),
        ("Sharpe ratio", number(of.sharpe.value), f"{interval(of.sharpe, number)} {luck}"),
        ("Sortino ratio", number(of.sortino.value), interval(of.sortino, number)),
        ("Round trips", f"{trades.n:,}", each),
        ("Win rate", percent(analysis.win_rate.value), interval(analysis.win_rate, percent)),
        ("Profit factor", number(analysis.profit_factor.value), interval(analysis.profit_factor, number)),
        ("Costs", money(fees + costs.funding), f"fees {money(fees)}, funding {money(costs.funding)}"),
        ("Exposure", percent(exposure.mean()), f"on average, {percent(exposure.max())} at most"),
    )
    cards = (card(label, value, note) for label, value, note in figures_)
    return tag("div", joined(cards), class_="cards")


def _equity(data: ReportData, analysis: Analysis) -> Html:
    if data.equity.empty:
        return sections.section("Equity", "equity", tag("p", "No equity was recorded."))
    caption = "Marked at the close of every decision bar, with unrealised P&L. Dotted: the starting balance."
    chart = charts.embed(figures.equity_figure(data, analysis), "chart-equity", caption)
    return sections.section("Equity", "equity", chart)


def _configuration(data: ReportData) -> Html:
    text = json.dumps(data.config, indent=2, ensure_ascii=False)
    return sections.section("Configuration", "configuration", details("Show all settings", tag("pre", text)))


def _reading() -> Html:
    notes = [
        "Square brackets are 95% intervals from resampling whole UTC days, because labels overlap and one "
        "move touches every token. Effective labels count overlapping ones once (uniqueness).",
        "Accuracy means little beside “always short”: new tokens fall more often than they rise. AUC "
        "(50% = no order) and log-loss skill over the expanding base rate (0 = nothing learnt) say more. "
        "“Confident” is the accuracy where the forecast reached the confidence threshold.",
        "Every figure is out of sample: forecasts were made before the outcome was known. "
        f"“{AS_DECIDED}” is the calibrated probability that decided at the time, whichever arm it came from.",
        "Brier and ECE (expected calibration error) are better the smaller; always 50% has a Brier of 0.25.",
        "MMD² is the unbiased multi-kernel estimate; similarity is 1 − A-distance / 2.",
    ]
    return sections.section("How to read this", "reading", *(tag("p", note, class_="soft") for note in notes))
