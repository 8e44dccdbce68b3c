"""The figures of a report: equity, each token, calibration."""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bot.core.types import DAY_MS, FillOrigin, Side, Stage
from bot.research import charts
from bot.research.analysis import AS_DECIDED, Analysis, Labels, rolling_accuracy
from bot.research.bootstrap import ClusterBootstrap
from bot.research.charts import BLUE, GREEN, GREY, INK, ORANGE, RED, STAGE_COLOURS
from bot.research.metrics import drawdowns
from bot.research.predictions import Reliability, reliability
from bot.research.report_data import ReportData
from bot.research.trades import RoundTrip

ROLLING_DAYS = 5
_MANY_TRADES = 60  # of one token; more are drawn smaller


def equity_figure(data: ReportData, analysis: Analysis) -> go.Figure:
    """Equity, and below it the drawdown from the peak."""
    ts = np.concatenate(([data.start], data.equity["ts"].to_numpy(np.int64)))
    equity = np.concatenate(([data.initial_balance], data.equity["equity"].to_numpy(float)))
    fall = 100.0 * drawdowns(equity)
    figure = charts.panels(["<b>Equity</b>", "<b>Drawdown from the peak, %</b>"], [0.68, 0.32], 430)
    charts.line(figure, ts, equity, 1, BLUE, "equity", "%{y:,.2f}")
    figure.add_hline(data.initial_balance, row=1, col=1, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_yaxes(tickformat=",.2~f", row=1, col=1)
    charts.line(
        figure, ts, fall, 2, RED, "drawdown", "%{y:.2f}%", fill="tozeroy", fillcolor="rgba(197,48,48,0.12)"
    )
    return figure


def token_figure(data: ReportData, analysis: Analysis, symbol: str) -> go.Figure:
    """Price with trades and stages; MMD² and similarity; confidence; rolling accuracy of the arms."""
    decisions = data.decisions[data.decisions["symbol"] == symbol]
    labels = analysis.labels.of(symbol)
    arms = [arm for arm in labels.p if arm != AS_DECIDED and np.isfinite(labels.p[arm]).any()]
    named = " · ".join(charts.coloured(arm, charts.arm_colour(arm, arms)) for arm in arms)
    figure = charts.panels(
        [
            f"<b>Price</b>   {charts.coloured('▲ long', BLUE)} · {charts.coloured('▼ short', ORANGE)} · "
            f"○ exit · {charts.coloured('✕ stop', RED)}",
            f"{charts.coloured('<b>MMD²</b>', ORANGE, escape=False)} (left) · "
            f"{charts.coloured('<b>similarity</b>', BLUE, escape=False)} (right)",
            f"<b>Calibrated confidence</b>   above the threshold: {charts.coloured('up', BLUE)} · "
            f"{charts.coloured('down', ORANGE)}",
            f"<b>Accuracy of the labels of the last {ROLLING_DAYS} days</b>   {named}",
        ],
        [0.4, 0.2, 0.18, 0.22],
        760,
        secondary_row=2,
    )
    ts = decisions["ts"].to_numpy(np.int64)
    charts.line(figure, ts, decisions["close"].to_numpy(float), 1, INK, "price", "%{y:.6g}", width=1.1)
    _trades(figure, [trip for trip in analysis.trips if trip.symbol == symbol])
    _stages(figure, data, symbol, int(ts[0]) if len(ts) else data.start)
    _similarity(figure, decisions, float(data.config["gate"]["similarity"]))
    _confidence(figure, decisions, float(data.config["gate"]["confidence"]))
    _rolling(figure, data, labels, arms, symbol)
    return figure.update_xaxes(range=[int(ts[0]), data.last])


def reliability_figure(labels: Labels) -> go.Figure:
    """Forecast probability of "up" against the frequency that followed, and how often it was forecast."""
    figure = charts.panels(
        ["<b>How often it went up</b>", "<b>Forecasts</b>"], [0.75, 0.25], 460, dates=False
    )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dot", "width": 1}, hoverinfo="skip",
        showlegend=False, row=1, col=1,
    )  # fmt: skip
    shown = [arm for arm in (AS_DECIDED, "adapted", "frozen") if arm in labels.p]
    for shift, arm in enumerate(shown):
        spoke = np.isfinite(labels.p[arm])
        if spoke.any():
            own = labels.rows(spoke)
            curve = reliability(own.p[arm], own.outcome, ClusterBootstrap.by_day(own.entry))
            _reliability_curve(figure, arm, curve, shift - (len(shown) - 1) / 2)
    figure.update_xaxes(range=[0, 1], dtick=0.1)
    figure.update_xaxes(title_text="forecast probability of up", row=2, col=1)
    figure.update_yaxes(range=[0, 1], dtick=0.2, row=1, col=1)
    figure.update_yaxes(tickformat=",.0f", row=2, col=1)
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return figure.update_layout(
        showlegend=True, legend=legend, hovermode="closest", barmode="group", bargap=0.15,
        margin={"l": 60, "r": 44, "t": 28, "b": 60},
    )  # fmt: skip


# --- panels of the token figure -----------------------------------------------------------------------------


def _trades(figure: go.Figure, trips: list[RoundTrip]) -> None:
    size = 8 if len(trips) < _MANY_TRADES else 5
    for side, shape, colour in ((Side.BUY, "triangle-up", BLUE), (Side.SELL, "triangle-down", ORANGE)):
        own = [trip for trip in trips if trip.side is side]
        texts = [f"{'long' if side is Side.BUY else 'short'} {trip.qty:g} at {trip.entry:g}" for trip in own]
        marker = {
            "symbol": shape,
            "size": size + 1,
            "color": colour,
            "line": {"color": "white", "width": 0.5},
        }
        charts.markers(figure, [t.opened for t in own], [t.entry for t in own], texts, marker)
    closed = [trip for trip in trips if trip.closed]
    stopped = [trip for trip in closed if trip.origin == FillOrigin.STOP_LOSS]
    left = [trip for trip in closed if trip.origin != FillOrigin.STOP_LOSS]
    for own, shape, colour in ((left, "circle-open", INK), (stopped, "x-thin", RED)):
        texts = [
            f"{trip.origin.replace('_', ' ')} exit at {trip.exit:g}, net {trip.net:+.2f}" for trip in own
        ]
        marker = {"symbol": shape, "size": size, "color": colour, "line": {"color": colour, "width": 1.4}}
        charts.markers(figure, [t.closed for t in own], [t.exit for t in own], texts, marker)


def _stages(figure: go.Figure, data: ReportData, symbol: str, first: int) -> None:
    changes = data.stages[data.stages["symbol"] == symbol]
    starts = [first, *(max(int(ts), first) for ts in changes["ts"])]
    names = [*(changes["old"].tolist()[:1]), *changes["new"].tolist()]
    ends = [*starts[1:], max(data.last, starts[-1])]
    for start, end, name in zip(starts, ends, names, strict=False):
        if end > start:
            figure.add_shape(
                type="rect", x0=start, x1=end, y0=0, y1=1, xref="x", yref="y domain", layer="below",
                line={"width": 0}, fillcolor=STAGE_COLOURS[Stage(name)],
            )  # fmt: skip


def _similarity(figure: go.Figure, decisions: pd.DataFrame, threshold: float) -> None:
    ts = decisions["ts"].to_numpy(np.int64)
    charts.line(figure, ts, decisions["mmd"].to_numpy(float), 2, ORANGE, "MMD²", "%{y:.3f}", width=1.2)
    similarity = decisions["similarity"].to_numpy(float)
    charts.line(figure, ts, similarity, 2, BLUE, "similarity", "%{y:.2f}", width=1.2, secondary_y=True)
    figure.add_hline(
        threshold, row=2, col=1, secondary_y=True, line={"color": BLUE, "width": 1, "dash": "dot"}
    )
    figure.update_yaxes(rangemode="tozero", row=2, col=1, secondary_y=False)
    figure.update_yaxes(range=[0, 1.02], dtick=0.5, showgrid=False, row=2, col=1, secondary_y=True)


def _confidence(figure: go.Figure, decisions: pd.DataFrame, threshold: float) -> None:
    ts = decisions["ts"].to_numpy(np.int64)
    confidence = decisions["confidence"].to_numpy(float)
    charts.line(figure, ts, confidence, 3, GREY, "confidence", "%{y:.2f}", width=0.7)
    p = decisions["p_up"].to_numpy(float)
    for chosen, colour in (((p > 0.5), BLUE), ((p < 0.5), ORANGE)):
        above = chosen & (confidence >= threshold)
        rows = np.flatnonzero(above)
        rows = rows[charts.thinned(confidence[rows], charts.POINTS // 2)]
        figure.add_scatter(
            x=charts.ms(ts[rows]), y=charts.short(confidence[rows]), mode="markers", hoverinfo="skip",
            marker={"size": 3, "color": colour}, row=3, col=1,
        )  # fmt: skip
    figure.add_hline(threshold, row=3, col=1, line={"color": INK, "width": 1, "dash": "dot"})
    top = float(np.nanmax(confidence)) if np.isfinite(confidence).any() else threshold
    figure.update_yaxes(range=[0.5, max(top, threshold) + 0.03], row=3, col=1)


def _rolling(figure: go.Figure, data: ReportData, labels: Labels, arms: list[str], symbol: str) -> None:
    figure.add_hline(50, row=4, col=1, line={"color": GREY, "width": 1})
    for arm in arms:
        known, accuracy = rolling_accuracy(labels, arm, ROLLING_DAYS * DAY_MS)
        colour = charts.arm_colour(arm, arms)
        width = 1.8 if arm == "adapted" else 1.2
        charts.line(figure, known, 100 * accuracy, 4, colour, arm, "%{y:.1f}%", width=width)
    achievable = data.achievable.get(symbol)
    if achievable is not None:
        figure.add_hline(
            100 * achievable.accuracy, row=4, col=1, line={"color": GREEN, "width": 1.2, "dash": "dash"},
            annotation={"text": "achievable", "font": {"color": GREEN, "size": 11}},
            annotation_position="top left",
        )  # fmt: skip
    figure.update_yaxes(ticksuffix="%", row=4, col=1)


def _reliability_curve(figure: go.Figure, arm: str, curve: Reliability, shift: float) -> None:
    filled = curve.n > 0
    colour = charts.arm_colour(arm, [arm])
    frequency = curve.frequency[filled]
    figure.add_scatter(
        x=curve.forecast[filled] + 0.006 * shift, y=frequency, mode="lines+markers", name=html.escape(arm),
        line={"color": colour, "width": 1.5}, marker={"size": 6, "color": colour},
        error_y={
            "type": "data", "symmetric": False, "array": np.nan_to_num(curve.high[filled] - frequency),
            "arrayminus": np.nan_to_num(frequency - curve.low[filled]), "thickness": 1, "width": 2,
        },
        hovertemplate="forecast %{x:.2f}, up %{y:.2f}", row=1, col=1,
    )  # fmt: skip
    centres = (np.arange(len(curve.n)) + 0.5) / len(curve.n)
    figure.add_bar(
        x=centres, y=curve.n.astype(float), marker={"color": colour}, showlegend=False, row=2, col=1,
        hovertemplate="%{y:,.0f} forecasts", name=html.escape(arm),
    )  # fmt: skip
