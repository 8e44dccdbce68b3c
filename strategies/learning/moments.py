"""Second moments of a token's bars made equal to the source's by one linear map: where the MMD begins.

Matching covariances is the MMD with a quadratic kernel (CORAL, Sun & Saenko, ECCV 2016). One covariance
leaves every rotation free; covariances between bars some time apart fix it, because hidden factors differ in
how long they last (second-order blind identification, Belouchrani et al., IEEE Trans. Signal Processing 45,
1997).
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]

LAGS: Final = (0, 1, 2, 4, 8, 16)  # bars; those up to a third of the window are used
FLOOR: Final = 0.03  # of the mean variance: what the source hardly moves is not blown up by whitening
RIDGE: Final = 1e-3  # pull to the identity where the source lives: what the moments leave open stays there
ITERATIONS: Final = 400


class Moments(NamedTuple):
    """mean (F,); covariances (L, F, F): between bars at each lag, and of the windows' means."""

    mean: Floats
    covariances: Floats


def moments(x: NDArray[np.floating], weight: NDArray[np.floating]) -> Moments:
    """Of windows x (n, T, F), each counting its weight (n,)."""
    share, x = weight / weight.sum(), x.astype(np.float64)
    bars = x.shape[1]
    mean = share @ x.mean(axis=1)
    x = x - mean
    weighted = x * share[:, None, None]
    found = [
        np.tensordot(weighted[:, : bars - lag], x[:, lag:], axes=([0, 1], [0, 1])) / (bars - lag)
        for lag in LAGS
        if lag <= bars // 3
    ]
    found.append((x.mean(axis=1) * share[:, None]).T @ x.mean(axis=1))
    return Moments(mean, np.stack(found))


def matching_map(source: Moments, target: Moments) -> tuple[Floats, Floats]:
    """(A, b) such that the moments of x A + b, x of the target, are nearly the source's; (F, F), (F,).

    Nearness is measured in the source's whitened directions. The search starts from the identity and from the
    shortest map between the two Gaussians, and keeps the better end.
    """
    plain, size = source.covariances[0], len(source.mean)
    one, typical = np.eye(size), np.trace(plain) / size
    floored = plain + FLOOR * typical * one
    whitening = np.linalg.inv(_root(floored))
    goal = whitening @ source.covariances @ whitening
    backwards = target.covariances.transpose(0, 2, 1)

    def distance(flat: Floats) -> tuple[float, Floats]:
        """And its gradient."""
        a = flat.reshape(size, size)
        seen = a @ whitening
        apart = seen.T @ target.covariances @ seen - goal
        slope = target.covariances @ seen @ apart.transpose(0, 2, 1) + backwards @ seen @ apart
        pull = RIDGE / typical * floored @ (a - one)  # how far the map moves windows of the source
        value = np.square(apart).sum() / len(goal) + ((a - one) * pull).sum()
        gradient = 2 / len(goal) * slope.sum(axis=0) @ whitening + 2 * pull
        return float(value), gradient.ravel()

    options = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS}
    starts = (one, _shortest(plain, target.covariances[0]))
    with threadpool_limits(1):  # on matrices this small, threads wait for each other forty times longer
        ends = [minimize(distance, a.ravel(), jac=True, method="L-BFGS-B", options=options) for a in starts]
    best = min(ends, key=lambda end: float(end.fun)).x.reshape(size, size)
    return best, source.mean - target.mean @ best


def _shortest(source: Floats, target: Floats) -> Floats:
    """The optimal transport map between centred Gaussians: symmetric, it moves points least."""
    floor = 1e-4 * np.trace(source) / len(source) * np.eye(len(source))
    root = _root(target + floor)
    back = np.linalg.inv(root)
    return np.asarray(back @ _root(root @ (source + floor) @ root) @ back)


def _root(matrix: Floats) -> Floats:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 1e-12)) @ vectors.T)
