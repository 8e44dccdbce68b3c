"""What a model leans on, and what its embeddings look like. A picture is no evidence."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]

SHOWN_MOST: Final = 3_000  # points that t-SNE and UMAP still finish with in seconds


class Importance(NamedTuple):
    """feature; loss: nats per label by which the log loss rises when the feature's values are permuted."""

    feature: str
    loss: float


def permutation_importance(
    score: Callable[[Rows], Floats], x: Rows, y: Floats, names: Sequence[str], block: int, seed: int = 0
) -> list[Importance]:
    """Of held-out rows x (n, F) in time order with outcomes y (n,), 0 or 1; the most important first.

    score: rows -> log odds of "up", (n,), NaN where there are none: those rows do not count. Blocks of
    `block` neighbouring rows change places together: a network of sequences must not see a feature that jumps
    from bar to bar (Breiman, Machine Learning 45, 2001; blocks as in Künsch 1989).
    """
    order = _blocks_permuted(len(x), block, np.random.default_rng(seed))

    def loss(rows: Rows) -> float:
        logit = score(rows)
        judged = np.isfinite(logit)
        return float(np.mean(np.logaddexp(0, logit[judged]) - y[judged] * logit[judged]))

    plain, found = loss(x), []
    for column, name in enumerate(names):
        permuted = x.copy()
        permuted[:, column] = x[order, column]
        found.append(Importance(name, loss(permuted) - plain))
    return sorted(found, key=lambda one: -one.loss)


def _blocks_permuted(n: int, block: int, rng: np.random.Generator) -> NDArray[np.int64]:
    blocks = np.array_split(np.arange(n), max(2, n // block))
    return np.concatenate([blocks[number] for number in rng.permutation(len(blocks))])


def principal(z: NDArray[np.floating], components: int = 2) -> tuple[Floats, Floats]:
    """(n, components) scores of the embeddings z (n, d), and the share of the variance that each holds."""
    centred = z.astype(np.float64) - z.mean(axis=0)
    u, s, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(len(s)), np.abs(axes).argmax(axis=1)])  # the same picture on every machine
    share = s**2 / max(float((s**2).sum()), 1e-300)
    return np.asarray((u * s * signs)[:, :components]), share[:components]


def pictures(z: NDArray[np.floating], seed: int = 0) -> dict[str, Floats]:
    """Name -> (n, 2): PCA always, t-SNE and UMAP where they can be had, of at most SHOWN_MOST embeddings."""
    found = {"PCA": principal(z)[0]}
    if not 50 <= len(z) <= SHOWN_MOST:
        return found
    from sklearn.manifold import TSNE

    found["t-SNE"] = np.asarray(TSNE(random_state=seed, init="pca").fit_transform(z), np.float64)
    if find_spec("umap") is not None:
        from umap import UMAP

        found["UMAP"] = np.asarray(UMAP(random_state=seed).fit_transform(z), np.float64)
    return found
