"""The vocabulary of the figures: panels, lines, markers, colours. Every text for plotly has to be escaped."""

import html
import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from bot.core.types import Stage
from bot.research.analysis import AS_DECIDED
from bot.research.page import Html, tag

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

INK: Final = "#1f2933"
GREY: Final = "#9aa5b1"
BLUE: Final = "#2b6cb0"
ORANGE: Final = "#c05621"
GREEN: Final = "#2f855a"
RED: Final = "#c53030"
STAGE_COLOURS: Final = {
    Stage.OBSERVE: "#edf0f3",
    Stage.SHADOW: "#e6e2f3",
    Stage.SMALL: "#fdf0cf",
    Stage.FULL: "#d9efdf",
    Stage.SUSPENDED: "#fadcd9",
}
POINTS: Final = 1200  # per line: more than a screen has pixels

_ARM_COLOURS: Final = {"adapted": BLUE, "frozen": GREY, "scratch": ORANGE, AS_DECIDED: INK}
_OTHER_COLOURS: Final = ("#6b46c1", "#2c7a7b", "#b7791f", "#97266d")
_AXIS: Final = "#cbd2d9"
_GRID: Final = "#edf0f3"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def arm_colour(arm: str, arms: Sequence[str]) -> str:
    known = _ARM_COLOURS.get(arm)
    others = [name for name in arms if name not in _ARM_COLOURS]
    return known or _OTHER_COLOURS[others.index(arm) % len(_OTHER_COLOURS)]


def embed(figure: go.Figure, name: str, caption: str = "") -> Html:
    """The figure as a block of the page; `name` is its element id."""
    chart = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    return tag("figure", Html(chart), tag("figcaption", caption) if caption else Html(""))


def thinned(values: Floats, points: int = POINTS) -> NDArray[np.intp]:
    """Indices that keep the outline of a line: first, lowest and highest of each of `points` / 3 pieces."""
    n = len(values)
    if n <= points:
        return np.arange(n)
    edges = np.linspace(0, n, points // 3 + 1).astype(np.intp)
    kept = [n - 1]
    for first, last in itertools.pairwise(edges.tolist()):
        piece = values[first:last]
        kept.append(first)
        if np.isfinite(piece).any():
            kept += [first + int(np.nanargmin(piece)), first + int(np.nanargmax(piece))]
    return np.unique(np.array(kept, np.intp))


def panels(
    titles: list[str], heights: list[float], height: int, *, secondary_row: int = 0, dates: bool = True
) -> go.Figure:
    """Panels one above the other with one horizontal axis, each title at the upper left of its panel."""
    specs = [[{"secondary_y": row + 1 == secondary_row}] for row in range(len(titles))]
    figure = make_subplots(
        rows=len(titles), cols=1, shared_xaxes=True, row_heights=heights, specs=specs, subplot_titles=titles,
        vertical_spacing=36 / height,
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font={"size": 12, "color": INK})
    figure.update_layout(
        template=go.layout.Template(), height=height, margin={"l": 60, "r": 44, "t": 28, "b": 44},
        paper_bgcolor="white", plot_bgcolor="white", font={"family": _FONT, "size": 12, "color": INK},
        showlegend=False, hovermode="x unified",
    )  # fmt: skip
    figure.update_xaxes(showgrid=False, linecolor=_AXIS, showline=True, ticks="outside", tickcolor=_AXIS)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, nticks=6)
    if dates:
        figure.update_xaxes(type="date", hoverformat="%Y-%m-%d %H:%M")
    return figure


def line(
    figure: go.Figure, ts: Times, values: Floats, row: int, colour: str, name: str, hover: str,
    *, width: float = 1.5, secondary_y: bool | None = None, **more: Any,
) -> None:  # fmt: skip
    kept = thinned(values)
    figure.add_scatter(
        x=ms(ts[kept]), y=short(values[kept]), mode="lines", line={"color": colour, "width": width},
        name=html.escape(name), hovertemplate=hover, row=row, col=1, secondary_y=secondary_y, **more,
    )  # fmt: skip


def markers(
    figure: go.Figure, ts: list[int], y: list[float], texts: list[str], marker: dict[str, Any]
) -> None:
    texts = [html.escape(text) for text in texts]
    figure.add_scatter(
        x=ms(np.array(ts, np.int64)), y=y, mode="markers", marker=marker, text=texts,
        hovertemplate="%{text}<extra></extra>", row=1, col=1,
    )  # fmt: skip


def coloured(text: str, colour: str, *, escape: bool = True) -> str:
    return f'<span style="color:{colour}">{html.escape(text) if escape else text}</span>'


def ms(ts: Times) -> Floats:
    """Plotly takes dates as float milliseconds; its binary encoding has no 64-bit integers."""
    return ts.astype(np.float64)


def short(values: Floats) -> NDArray[np.float32]:
    """Half the bytes; no eye sees the difference."""
    return values.astype(np.float32)
