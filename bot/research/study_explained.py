"""What the study's shared network leans on, and how the tokens lie beside the sources, as a page.

The chain as it was when each token was listed is judged on the token's evaluated rows, which it never saw.
"""

from typing import Final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bot.core.types import DAY_MS
from bot.research.study_data import Market, Study, cut_before
from bot.research.study_files import chain_key
from bot.research.study_pooled import Net, load_net, source_series
from strategies.features.spec import NAMES
from strategies.learning.explain import permutation_importance, pictures, principal
from strategies.learning.sequences import Sequences

TOKENS: Final = 12  # spread over the listings: a permutation costs a pass of the network per feature
SPACING: Final = 16  # rows between embeddings in the picture
OF_DOMAIN: Final = 100  # most embeddings of one symbol


def explained(study: Study) -> str:
    """HTML with the importance of every feature and the picture of the embeddings."""
    chosen = np.unique(np.linspace(0, len(study.tokens) - 1, TOKENS).astype(int))
    markets = [Market.load(study, study.tokens[number]) for number in chosen]
    nets = [load_net(study, chain_key(cut_before(study, one.first), twin=False)) for one in markets]
    with threadpool_limits(1):  # small passes and small matrices: threads would only wait for each other
        parts = [_importance(study, markets, nets), *_pictures(study, markets, nets[-1])]
    figures = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0) for number, figure in enumerate(parts)
    ]
    title = f"<h1>What the chain sees, on {len(markets)} tokens</h1>"
    return f"<!doctype html><meta charset='utf-8'><title>Study</title>{title}{''.join(figures)}"


def _importance(study: Study, markets: list[Market], nets: list[Net]) -> go.Figure:
    by_token = [_of_token(study, *pair) for pair in zip(markets, nets, strict=True)]
    names = sorted({name for one in by_token for name in one})
    values = np.array([[one.get(name, np.nan) for name in names] for one in by_token])
    mean, error = np.nanmean(values, axis=0), np.nanstd(values, axis=0) / np.sqrt(len(values))
    order = np.argsort(mean)
    bar = go.Bar(
        x=1e3 * mean[order], y=np.array(names)[order], orientation="h",
        error_x={"array": 1e3 * 1.96 * error[order]},
    )  # fmt: skip
    title = "Permutation importance on held-out rows: rise of the log loss in thousandths of a nat"
    return go.Figure(bar, {"title": title, "height": 200 + 22 * len(names)})


def _of_token(study: Study, market: Market, net: Net) -> dict[str, float]:
    rows = market.series.rows(slice(0, int(np.flatnonzero(market.evaluated(study)).max(initial=0)) + 1))
    seen = _seen(net)
    own, judged = rows.with_columns(seen), market.evaluated(study)[: len(rows)] & (rows.y >= 0)

    def score(x: NDArray[np.float32]) -> NDArray[np.float64]:
        data = Sequences([own.with_rows(x)], net.encoder.receptive_field - 1)
        logit = data.measure(net.encoder).logit.astype(np.float64) / net.temperature
        return np.where(judged, logit, np.nan)

    names = [NAMES[column] for column in net.columns]
    found = permutation_importance(
        score, own.x, (rows.y == 1).astype(np.float64), names, DAY_MS // study.interval
    )
    return {one.feature: one.loss for one in found}


def _pictures(study: Study, markets: list[Market], net: Net) -> list[go.Figure]:
    sources = source_series(study, study.since, net.columns, twin=False)
    ends = [one.rows(slice(-(SPACING * OF_DOMAIN + net.encoder.receptive_field), None)) for one in sources]
    series = [*ends, *(market.series.with_columns(_seen(net)) for market in markets)]
    z, names = [], []
    for one in series:
        own = Sequences([one], net.encoder.receptive_field - 1).measure(net.encoder).z
        spaced = own[np.isfinite(own[:, 0])][::SPACING][:OF_DOMAIN]
        z.append(spaced)
        names += [one.symbol] * len(spaced)
    every, of_symbol = np.concatenate(z), np.array(names)
    _, share = principal(every)
    figures = []
    for method, points in pictures(every).items():
        title = f"Embeddings, {method}" + (f" ({share.sum():.0%} of the variance)" if method == "PCA" else "")
        dots = [
            go.Scatter(
                x=points[of_symbol == symbol, 0], y=points[of_symbol == symbol, 1], mode="markers",
                name=symbol, marker={"size": 5},
            )
            for symbol in dict.fromkeys(names)
        ]  # fmt: skip
        figures.append(go.Figure(dots, {"title": title, "height": 600}))
    return figures


def _seen(net: Net) -> NDArray[np.bool_]:
    seen = np.zeros(len(NAMES), np.bool_)
    seen[net.columns] = True
    return seen
