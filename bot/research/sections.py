"""The sections of a report: what the predictions were worth, each token, and what the account did."""

import math
from collections.abc import Mapping

import msgspec

from bot.core.types import HOUR_MS, FillOrigin, Side, Stage
from bot.core.verdict import Gain, Verdict
from bot.research import charts, figures, narrative
from bot.research.analysis import AS_DECIDED, Analysis
from bot.research.bootstrap import Estimate
from bot.research.page import (
    MISSING,
    Html,
    clock,
    details,
    estimated,
    joined,
    money,
    number,
    percent,
    points,
    safe,
    signed_money,
    signed_percent,
    table,
    tag,
)
from bot.research.predictions import PredictionStatistics
from bot.research.report_data import ReportData


def section(title: str, anchor: str, *parts: Html) -> Html:
    return joined((tag("h2", title, id=anchor), tag("section", joined(part for part in parts if part))))


def anchor(symbol: str) -> str:
    return "token-" + "".join(c if c.isalnum() else "-" for c in symbol)


# --- predictions -------------------------------------------------------------------------------------------


def predictions(data: ReportData, analysis: Analysis) -> Html:
    if not analysis.arms:
        return section("Predictions", "predictions", tag("p", "No label has matured yet."))
    best = [item.accuracy for symbol, item in data.achievable.items() if symbol in analysis.by_token]
    achievable = sum(best) / len(best) if best else None
    chart = charts.embed(
        figures.reliability_figure(analysis.labels),
        "chart-reliability",
        "Calibration: on the dotted line a forecast of 70% comes true in 70% of the cases. "
        "Bars are 95% intervals over days.",
    )
    return section(
        "Predictions for all tokens", "predictions", _arms(analysis.arms, achievable), _gains(analysis), chart
    )  # fmt: skip


def _arms(arms: Mapping[str, PredictionStatistics], achievable: float | None) -> Html:
    headings = ["arm", "labels", "accuracy", "always short", "balanced", "confident", "AUC", "log-loss skill"]
    headings += ["Brier", "ECE"]
    if achievable is not None:
        headings.insert(4, "achievable")
    ordered = sorted(arms.items(), key=lambda item: (item[0] != AS_DECIDED, item[0] != "adapted", item[0]))
    return table(headings, [_arm_row(name, arm, achievable) for name, arm in ordered])


def _arm_row(name: str, arm: PredictionStatistics, achievable: float | None) -> list[object]:
    confident = estimated(arm.confident_accuracy) if arm.confident_n else safe(MISSING)
    row: list[object] = [
        tag("span", name, class_="t"),
        joined((safe(f"{arm.n:,}"), tag("small", f"{arm.effective_n:,.0f} effective")), ""),
        estimated(arm.accuracy),
        percent(arm.always_short.value),
        estimated(arm.balanced_accuracy),
        joined((confident, tag("small", f"{arm.confident_n:,} labels")), ""),
        estimated(arm.auc),
        estimated(arm.skill, signed_percent),
        number(arm.brier.value, ".4f"),
        percent(arm.ece.value),
    ]
    if achievable is not None:
        row.insert(4, percent(achievable))
    return row


def _gains(analysis: Analysis) -> Html:
    if not analysis.gains:
        return Html("")
    rows = [
        [f"adapted − {gain.rival}", f"{gain.n:,}", estimated(gain.accuracy, points),
         estimated(gain.skill, signed_percent)]
        for gain in analysis.gains
    ]  # fmt: skip
    headings = ["on the same labels", "labels", "accuracy, points", "log-loss skill over it"]
    return joined((tag("h3", "What adaptation is worth"), table(headings, rows)))


# --- one token ---------------------------------------------------------------------------------------------


def token(data: ReportData, analysis: Analysis, symbol: str) -> Html:
    achievable = data.achievable.get(symbol)
    arms = analysis.by_token.get(symbol, {})
    trips = [trip for trip in analysis.closed_trips if trip.symbol == symbol]
    net = sum(trip.net for trip in trips)
    facts = f"{len(trips)} round trips, net {signed_money(net)}" if trips else "not traded"
    parts: list[Html] = [tag("p", facts, class_="soft")]
    if achievable is not None:
        best = percent(achievable.accuracy)
        made = (
            f"Simulated with mechanism “{achievable.mechanism}”: a perfect observer would be right on {best}."
        )
        parts.append(tag("p", made))
    decisions = data.decisions[data.decisions["symbol"] == symbol]
    if len(decisions):
        figure = figures.token_figure(data, analysis, symbol)
        parts += [_stage_legend(set(decisions["stage"])), charts.embed(figure, f"chart-{anchor(symbol)}")]
    else:
        parts.append(tag("p", "No decision was made: its features were still warming up."))
    parts.append(_arms(arms, achievable.accuracy if achievable else None) if arms else Html(""))
    parts += [_transfer(data, symbol), _history(data, symbol)]
    return section(symbol, anchor(symbol), *parts)


def _stage_legend(present: set[str]) -> Html:
    chips = (
        tag("span", stage.value, class_="chip", style=f"background:{charts.STAGE_COLOURS[stage]}")
        for stage in Stage
        if stage.value in present
    )
    return tag("div", tag("span", "Stage: ", class_="soft"), joined(chips, ""))


def _transfer(data: ReportData, symbol: str) -> Html:
    """The newest verdict on the transfer, with every comparison that was made."""
    judged = data.verdicts[data.verdicts["symbol"] == symbol]
    if judged.empty:
        return Html("")
    newest = judged.iloc[-1]
    gains = tuple(msgspec.convert(gain, Gain) for gain in newest["gains"])
    verdict = Verdict(newest["chosen"], tuple(newest["reasons"]), gains, newest["backward_transfer"])
    rows = [
        [tag("span", f"{gain.arm} − {gain.rival}", class_="t"), _nats(gain), number(gain.e_value, ".3g"),
         number(gain.labels, ".0f")]
        for gain in verdict.gains
    ]  # fmt: skip
    said = f"{clock(int(newest['ts']))}: {verdict.chosen}. {'; '.join(verdict.reasons)}."
    if not math.isnan(verdict.backward_transfer):
        said += f" Accuracy on the source {100 * verdict.backward_transfer:+.1f} points after the adaptation."
    headings = ["arm − rival", "gain, nats", "evidence", "effective labels"]
    grid = table(headings, rows) if rows else Html("")
    return joined((tag("h3", "Does the transfer help?"), tag("p", said), grid))


def _nats(gain: Gain) -> Html:
    return estimated(Estimate(gain.value, gain.low, gain.high), lambda value: number(value, "+.4f"))


def _history(data: ReportData, symbol: str) -> Html:
    """Every verdict of the gate and every change of stage, in order of time."""
    rows: list[tuple[int, list[object]]] = []
    for stage in data.stages[data.stages["symbol"] == symbol].to_dict("records"):
        change = tag("b", f"{stage['old']} → {stage['new']}", class_="t")
        rows.append((stage["ts"], [change, "; ".join(stage["reasons"]), "", "", ""]))
    for gate in data.gates[data.gates["symbol"] == symbol].to_dict("records"):
        what = f"{gate['arm']} model: {str(gate['verdict']).replace('_', ' ')}"
        mmd = f"{number(gate['mmd_before'], '.3f')} → {number(gate['mmd_after'], '.3f')}"
        figures_ = [number(gate["similarity"]), mmd, number(gate["effective_labels"], ".0f")]
        rows.append(
            (
                gate["ts"],
                [
                    tag("span", what, class_="t", title=str(gate["model_id"])),
                    "; ".join(gate["reasons"]),
                    *figures_,
                ],
            )
        )
    if not rows:
        return Html("")
    rows.sort(key=lambda row: row[0])
    headings = ["time, UTC", "what", "reasons", "similarity", "MMD²", "labels"]
    grid = table(
        headings, [[tag("span", clock(ts), class_="t"), *cells] for ts, cells in rows], text_columns=3
    )
    return details(
        f"Stages and gate decisions ({len(rows)})", tag("div", grid, class_="long"), unfolded=len(rows) <= 12
    )


# --- the account -------------------------------------------------------------------------------------------


def refusals(analysis: Analysis) -> Html:
    if analysis.refusals.empty:
        return section("Refusals", "refusals", tag("p", "Risk refused nothing."))
    rows = []
    for _, same in analysis.refusals.groupby("kind", sort=False):
        tokens = (f"{row['symbol']} {row['times']:,}" for row in same.to_dict("records"))
        rows.append([same["example"].iloc[0], ", ".join(tokens), f"{same['times'].sum():,}"])
    note = tag("p", "By reason, with its newest wording, and how often for which token.", class_="soft")
    grid = table(["reason", "tokens", "times"], rows, text_columns=2)
    return section("Refusals", "refusals", note, grid)


def costs(analysis: Analysis) -> Html:
    costs = analysis.costs
    gross = sum(trip.gross for trip in analysis.closed_trips)

    def row(name: str, value: float, note: str = "") -> list[object]:
        share = number(1e4 * value / costs.turnover) if costs.turnover else MISSING
        return [name, note, signed_money(value), share]

    known = percent(costs.slippage_share, ".0f")
    rows = [
        row("taker fees", costs.taker_fees),
        row("maker fees", costs.maker_fees),
        row("funding", costs.funding, "negative where more was received than paid"),
        row(
            "spread and slippage",
            costs.slippage,
            f"beyond the close that decided; known for {known} of the turnover; part of the trades' result",
        ),
    ]
    earned = f"Closed trades earned {signed_money(gross)} before fees and funding."
    note = f"Turnover {money(costs.turnover)}. {earned}"
    grid = table(["paid for", "", "quote coin", "bp of turnover"], rows, text_columns=2)
    return section("Costs", "costs", tag("p", note), grid)


def trades(analysis: Analysis) -> Html:
    if not analysis.trips:
        return section("Trades", "trades", tag("p", "There were none."))
    rows = [
        [
            tag("span", clock(trip.opened), class_="t"), trip.symbol,
            "long" if trip.side is Side.BUY else "short",
            trip.origin.replace("_", " ") if trip.closed else "still open",
            f"{(trip.closed - trip.opened) / HOUR_MS:.1f} h" if trip.closed else MISSING,
            f"{trip.qty:g}", f"{trip.entry:g}", f"{trip.exit:g}" if trip.closed else MISSING,
            signed_money(trip.gross), money(trip.fees), money(trip.funding), tag("b", signed_money(trip.net)),
        ]
        for trip in analysis.trips
    ]  # fmt: skip
    headings = [
        "entered, UTC", "token", "side", "exit by", "held", "quantity", "entry", "exit", "gross", "fees",
        "funding", "net",
    ]  # fmt: skip
    stops = sum(trip.origin == FillOrigin.STOP_LOSS for trip in analysis.trips)
    grid = tag("div", table(headings, rows, text_columns=4), class_="long")
    summary = f"All {len(rows)} round trips, {stops} of them ended by a stop"
    return section("Trades", "trades", details(summary, grid, unfolded=len(rows) <= 15))


def targets(data: ReportData, analysis: Analysis) -> Html:
    note = (
        "What the project aims at. A target is no test: the interval says how much this run knows about it."
    )
    rows = [
        [target.name, target.note, target.aim, target.reached, target.interval or MISSING]
        for target in narrative.targets(data, analysis)
    ]
    grid = table(["target", "", "aim", "reached", "95% interval"], rows, text_columns=2)
    return section("Targets", "targets", tag("p", note, class_="soft"), grid)


def alarms(data: ReportData) -> Html:
    alarms = data.alarms[data.alarms["kind"] != "Refused"]
    if alarms.empty:
        return Html("")
    rows = [
        [tag("span", clock(row["ts"]), class_="t"), row["kind"], row["symbol"] or MISSING, row["text"]]
        for row in alarms.to_dict("records")
    ]
    grid = tag("div", table(["time, UTC", "kind", "token", "text"], rows, text_columns=4), class_="long")
    return section("Alarms", "alarms", grid)
