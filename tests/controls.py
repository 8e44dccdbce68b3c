"""Synthetic domains whose right answer is known, for the learning tests.

A hidden two-state chain decides each label; one hidden reading shows it through noise, the others are
distractors; sensors are rotations of the readings. Kinds of target market:

covariate:   rescaled, with slow noise and offsets in directions that the source hardly excites
none:        the source's own law
reversed:    covariate, and every label is the opposite
irrelevant:  covariate, and labels that nothing shows
label_shift: 80 % of the labels are up, what they look like is unchanged
blind:       covariate, and the reading that shows the state is broken
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from bot.core.commands import AdaptModel
from strategies.learning.dataset import LabelledSeries, SourceReplay

STEP = 900_000
FEATURES = 10
LOUD = 4  # readings that the source excites; the first one shows the state
HORIZON = 8


def _slow(rng: np.random.Generator, n: int, columns: int, memory: float) -> NDArray[np.float64]:
    """Autoregressive columns of unit variance."""
    shocks = rng.standard_normal((n + 200, columns)) * np.sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], shocks, axis=0)[200:])


def _chain(rng: np.random.Generator, n: int, share_up: float) -> NDArray[np.bool_]:
    """A two-state Markov chain with that stationary share, in either state for about five bars."""
    leave = {True: 0.4 * (1 - share_up), False: 0.4 * share_up}
    uniform, states, state = rng.random(n), [], bool(rng.random() < share_up)
    for u in uniform:
        state = state != (u < leave[state])
        states.append(state)
    return np.array(states)


class World:
    """One draw of mixing directions, shared by a source and its targets."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        self.mixing = np.linalg.qr(rng.standard_normal((FEATURES, FEATURES)))[0] * 1.5
        self.offset = np.where(np.arange(FEATURES) < LOUD, 0.0, rng.normal(0.0, 3.0, FEATURES))

    def series(self, symbol: str, n: int, kind: str, part: int, *, labels: bool = True) -> LabelledSeries:
        """n bars of the kind ("source" or one of the above); different parts are independent draws."""
        rng = np.random.default_rng([self.seed, 1, part])
        up = _chain(rng, n, 0.8 if kind == "label_shift" else 0.5)
        readings = _slow(rng, n, FEATURES, 0.5) * np.where(np.arange(FEATURES) < LOUD, 1.0, 0.02)
        if kind != "blind":
            readings[:, 0] += np.where(up, 1.0, -1.0)
        if kind in ("covariate", "reversed", "irrelevant", "blind"):
            quiet = np.arange(FEATURES) >= LOUD
            readings = 1.2 * readings + np.where(quiet, 4.0, 0.0) * _slow(rng, n, FEATURES, 0.9) + self.offset
        if kind == "irrelevant":
            up = _chain(rng, n, 0.5)
        y = (~up if kind == "reversed" else up).astype(np.int8)
        starts = STEP * (1_000_000 * part + np.arange(n, dtype=np.int64))
        return LabelledSeries(
            symbol=symbol,
            step=STEP,
            starts=starts,
            x=(readings @ self.mixing).astype(np.float32),
            y=y if labels else np.full(n, -1, np.int8),
            weight=np.full(n, 1 / HORIZON if labels else 0.0, np.float32),
            log_vol=(-6 + 0.3 * readings[:, 1]).astype(np.float32),
            t_known=starts + (HORIZON + 1) * STEP,
        )


def snapshot(series: LabelledSeries, seed: int = 1, base_model: str = "base") -> AdaptModel:
    cut = int(series.starts[-1]) + series.step
    return AdaptModel(
        ts=cut,
        symbol=series.symbol,
        cut=cut,
        base_model=base_model,
        seed=seed,
        rows=series.x,
        starts=series.starts,
        labels=series.y,
        weights=series.weight,
    )


def replay(series: LabelledSeries, cut: int) -> SourceReplay:
    return SourceReplay((series,), cut, HORIZON)
