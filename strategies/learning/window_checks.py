"""What goes into a transfer on windows, checked, and what comes out. Without torch."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bot.core.errors import DataError
from bot.core.verdict import Verdict

Floats = NDArray[np.float64]

LEAST_BARS: Final = 8
LEAST_FEATURES: Final = 2
LEAST_SOURCE: Final = 200  # windows
LEAST_TARGET: Final = 50
LEAST_MATURED: Final = 20
LEAST_OF_CLASS: Final = 5
STILL: Final = 1e-6  # share of the typical spread below which a feature counts as constant


@dataclass(frozen=True)
class TransferResult:
    """What a transfer says about the test windows, and whether to believe it.

    by_arm:        "frozen", "scratch" and the method -> P(y = 1), (n,), calibrated on the matured labels, the
                   token's class prior included
    without_prior: the same arms with the temperature alone
    probability:   of the arm that the verdict chose; the base rate when it is "none"
    verdict:       "adapted", "frozen", "scratch" or "none"
    reasons:       every comparison in words, and what decided
    divergence_before, divergence_after: unbiased MMD^2 of the embeddings under the frozen and the adapted
                   model; NaN when nothing was trained. It is no reason for anything
    details:       the verdict as an object
    """

    by_arm: dict[str, Floats]
    without_prior: dict[str, Floats]
    probability: Floats
    verdict: str
    reasons: list[str]
    divergence_before: float
    divergence_after: float
    details: Verdict


@dataclass(frozen=True)
class Checked:
    """Windows float32 (n, T, F) and labels int64 (n,), fit to learn from; refusal: why not, or empty."""

    source_x: NDArray[np.float32]
    source_y: NDArray[np.int64]
    target_x: NDArray[np.float32]
    matured_x: NDArray[np.float32]
    matured_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    refusal: str
    base_rate: float


def checked(
    source_x: ArrayLike,
    source_y: ArrayLike,
    target_x: ArrayLike,
    matured_x: ArrayLike,
    matured_y: ArrayLike,
    test_x: ArrayLike,
) -> Checked:
    """Raises DataError for input that is broken, a source that cannot teach among it; too few matured labels
    are a refusal, not an error: every token is young once."""
    source = _windows("source_x", source_x, LEAST_SOURCE)
    shape = source.shape[1:]
    target = _windows("target_x", target_x, LEAST_TARGET, shape)
    matured = _windows("matured_x", matured_x, 0, shape)
    test = _windows("test_x", test_x, 1, shape)
    _check_moves("source_x", source, every=True)
    _check_moves("target_x", target, every=False)
    y = _labels("source_y", source_y, len(source))
    for value, name in ((0, "down"), (1, "up")):
        if (count := int((y == value).sum())) < LEAST_OF_CLASS:
            raise DataError(f"source_y: {count} labels are {name}; one class alone teaches nothing")
    own = _labels("matured_y", matured_y, len(matured))
    refusal = _too_few(own)
    if not refusal:
        _check_moves("matured_x", matured, every=False)
    base_rate = 0.5 if refusal else float(own.mean())
    return Checked(source, y, target, matured, own, test, refusal, base_rate)


def _too_few(y: NDArray[np.int64]) -> str:
    up = int(y.sum())
    if len(y) < LEAST_MATURED or min(up, len(y) - up) < LEAST_OF_CLASS:
        return (
            f"{len(y)} matured labels, {up} of them up: {LEAST_MATURED} and {LEAST_OF_CLASS} of either class "
            "are needed to judge a transfer; wait for more"
        )
    return ""


def _windows(
    name: str, x: ArrayLike, least: int, shape: tuple[int, ...] | None = None
) -> NDArray[np.float32]:
    array = _numbers(name, x)
    if array.size == 0 and least == 0:
        return np.empty((0, *(shape or (0, 0))), np.float32)
    if array.ndim != 3:
        raise DataError(f"{name}: windows of shape (n, T, F) are needed, this is {array.shape}")
    if len(array) < least:
        raise DataError(f"{name}: {len(array)} windows, at least {least} are needed")
    if shape is not None and array.shape[1:] != shape:
        raise DataError(f"{name}: windows of {array.shape[1:]} bars and features, the source's are {shape}")
    if array.shape[1] < LEAST_BARS or array.shape[2] < LEAST_FEATURES:
        raise DataError(
            f"{name}: windows of {array.shape[1:]}; at least {LEAST_BARS} bars and {LEAST_FEATURES} features"
        )
    with np.errstate(over="ignore"):
        windows = np.require(array, np.float32, ["C", "W"])  # torch wants arrays that it could write to
    if not np.isfinite(windows).all():
        column = int(np.flatnonzero(~np.isfinite(windows).all(axis=(0, 1)))[0])
        raise DataError(f"{name}: feature {column} holds NaN or infinity; leave such windows out")
    return windows


def _labels(name: str, y: ArrayLike, n: int) -> NDArray[np.int64]:
    array = _numbers(name, y)
    if array.shape != (n,):
        raise DataError(f"{name}: {n} labels are needed, one for each window, this is {array.shape}")
    if not np.isin(array, (0, 1)).all():
        raise DataError(f"{name}: labels must be 0 (down) or 1 (up)")
    return array.astype(np.int64)


def _check_moves(name: str, x: NDArray[np.float32], *, every: bool) -> None:
    """every: whether one constant feature is one too many; a token's sensor may be dead, the source's not."""
    spread = x.astype(np.float64).std(axis=(0, 1))
    still = spread <= STILL * max(float(np.median(spread)), 1e-12)
    if still.all() or (every and still.any()):
        which = "every feature" if still.all() else f"feature {int(np.flatnonzero(still)[0])}"
        raise DataError(f"{name}: {which} is constant; leave it out, it teaches nothing")


def _numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: numbers are needed, this is {array.dtype}")
    return array
