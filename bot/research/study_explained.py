"""What the study's shared network leans on, and how the tokens lie beside the sources, as a page.

The chain as it was when each token was listed is judged on the token's evaluated rows, which it never saw.
"""

from collections.abc import Sequence
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
from strategies.learning.two_sample import apart

TOKENS: Final = 12  # spread over the listings: a permutation costs a pass of the network per feature
SPACING: Final = 16  # rows between embeddings in the picture
OF_DOMAIN: Final = 100  # most embeddings of one symbol
BLOCK: Final = 6  # neighbouring embeddings that change sides together: longer than what a network sees


def explained(study: Study) -> str:
    """HTML with the importance of every feature and the picture of the embeddings."""
    chosen = np.unique(np.linspace(0, len(study.tokens) - 1, TOKENS).astype(int))
    markets = [Market.load(study, study.tokens[number]) for number in chosen]
    nets = [load_net(study, chain_key(cut_before(study, one.first), 0)) for one in markets]
    with threadpool_limits(1):  # small passes and small matrices: threads would only wait for each other
        embedded = _embedded(study, markets, nets[-1])
        parts = [_importance(study, markets, nets), *_pictures(embedded)]
        distances = _distances(embedded, study.sources)
    figures = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0) for number, figure in enumerate(parts)
    ]
    title = f"<h1>What the chain sees, on {len(markets)} tokens</h1>"
    return f"<!doctype html><meta charset='utf-8'><title>Study</title>{title}{''.join(figures)}{distances}"


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


def _embedded(study: Study, markets: list[Market], net: Net) -> dict[str, NDArray[np.float32]]:
    """Spaced embeddings of every source and token in time order, under one network: (n, Z) by symbol."""
    sources = source_series(study, study.since, net.columns, 0)
    ends = [one.rows(slice(-(SPACING * OF_DOMAIN + net.encoder.receptive_field), None)) for one in sources]
    series = [*ends, *(market.series.with_columns(_seen(net)) for market in markets)]
    found = {}
    for one in series:
        z = Sequences([one], net.encoder.receptive_field - 1).measure(net.encoder).z
        found[one.symbol] = z[np.isfinite(z[:, 0])][::SPACING][:OF_DOMAIN]
    return found


def _pictures(embedded: dict[str, NDArray[np.float32]]) -> list[go.Figure]:
    every = np.concatenate(list(embedded.values()))
    of_symbol = np.repeat(list(embedded), [len(z) for z in embedded.values()])
    _, share = principal(every)
    figures = []
    for method, points in pictures(every).items():
        title = f"Embeddings, {method}" + (f" ({share.sum():.0%} of the variance)" if method == "PCA" else "")
        dots = [
            go.Scatter(
                x=points[of_symbol == symbol, 0], y=points[of_symbol == symbol, 1], mode="markers",
                name=symbol, marker={"size": 5},
            )
            for symbol in embedded
        ]  # fmt: skip
        figures.append(go.Figure(dots, {"title": title, "height": 600}))
    return figures


def _distances(embedded: dict[str, NDArray[np.float32]], sources: Sequence[str]) -> str:
    """HTML: how far each token's embeddings lie from the first source's, and whether that is chance."""
    rows = []
    for symbol, z in embedded.items():
        if symbol == sources[0] or len(z) < 4 * BLOCK:
            continue
        far = apart(embedded[sources[0]], z, BLOCK)
        cells = [
            symbol,
            f"{far.mmd:.4f}",
            f"{far.p_value:.3f}",
            "yes" if far.differs else "no",
            f"{far.similarity:.2f}",
        ]
        rows.append("<tr><td>" + "</td><td>".join(cells) + "</td></tr>")
    heads = ("", "MMD², unbiased", "p, blocks permuted", "MMDAgg at 5 %: differs", "similarity, 1 - PAD / 2")
    head = "<tr><th>" + "</th><th>".join(heads) + "</th></tr>"
    said = "A distance is no reason to trust or to trade: it falls as well when the labels are reversed."
    return f"<h2>How far from {sources[0]}</h2><p>{said}</p><table>{head}{''.join(rows)}</table>"


def _seen(net: Net) -> NDArray[np.bool_]:
    seen = np.zeros(len(NAMES), np.bool_)
    seen[net.columns] = True
    return seen
