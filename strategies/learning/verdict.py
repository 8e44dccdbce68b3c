"""Did the transfer help? Rivals scored on the same matured labels, and a verdict with its reasons.

This is the verdict of a trial, on all of its labels at once: the adapted model is compared with scratch and
with the frozen model, everything with the base rate. Scores are log losses in nats, compared in pairs by a
moving block bootstrap (Künsch 1989), because neighbouring windows share prices. A token that is followed has
its verdict from its contest, by evidence that may be looked at after every label.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot.core.verdict import ADAPTED, BASE_RATE, FROZEN, NONE, SCRATCH, Gain, Verdict

Floats = NDArray[np.float64]

LEVEL: Final = 0.05  # of every decision, shared by the arms that are compared with the base rate
PROMOTION: Final = 0.01  # of "the adapted model beats the frozen one": a needless change is the dearer error
RESAMPLES: Final = 2_000
FORGETTING: Final = 0.03  # loss of accuracy on the source at which an adaptation has forgotten


def judge(
    probabilities: Mapping[str, Floats], base_rate: Floats, y: Floats, backward_transfer: float, seed: int = 0
) -> Verdict:
    """probabilities: of each arm, P(y = 1) for the matured windows in time order, none of them learnt from
    the label that it is scored on; "frozen" and "scratch" must be there, "adapted" may.

    base_rate: (n,) what a forecaster of the class shares alone said, out of sample too.
    """
    losses = {arm: log_loss(p, y) for arm, p in probabilities.items()}
    right = {arm: (p > 0.5) == (y > 0.5) for arm, p in probabilities.items()}
    losses[BASE_RATE], right[BASE_RATE] = log_loss(base_rate, y), (base_rate > 0.5) == (y > 0.5)

    def gain(arm: str, rival: str, level: float) -> Gain:
        accuracy = float(np.mean(right[arm]) - np.mean(right[rival]))
        return paired_gain(arm, rival, losses[rival] - losses[arm], accuracy, level, seed)

    over_base = {arm: gain(arm, BASE_RATE, LEVEL / len(probabilities)) for arm in probabilities}
    gains = list(over_base.values())
    credible = {arm for arm, one in over_base.items() if one.low > 0}
    chosen, reasons = NONE, []
    if ADAPTED in probabilities:
        over_frozen, over_scratch = gain(ADAPTED, FROZEN, PROMOTION), gain(ADAPTED, SCRATCH, LEVEL)
        gains += [over_frozen, over_scratch]
        refusal = _refusal(credible, over_frozen, over_scratch, backward_transfer)
        if refusal:
            reasons.append(f"the adapted model is refused: {refusal}")
        else:
            chosen = ADAPTED
            reasons.append("it beats the base rate and the frozen model, and scratch does not beat it")
    if chosen == NONE:
        chosen = _without_adaptation(credible, scratch := gain(SCRATCH, FROZEN, LEVEL))
        gains.append(scratch)
        reasons.append(
            "no arm beats the base rate: nothing here may be traded on"
            if chosen == NONE
            else f"the {chosen} model beats the base rate"
        )
    return Verdict(chosen, tuple(reasons), tuple(gains), backward_transfer)


def _refusal(credible: set[str], over_frozen: Gain, over_scratch: Gain, backward_transfer: float) -> str:
    """Why the adapted model is not taken; empty if it is."""
    if ADAPTED not in credible:
        return "it does not beat the base rate"
    if over_scratch.high < 0:
        return "negative transfer, the token's own labels alone do better"
    if over_frozen.low <= 0 or over_frozen.accuracy <= 0:
        return "its gain over the frozen model is not significant"
    if backward_transfer < -FORGETTING:
        return f"it lost {-backward_transfer:.1%} accuracy on the source"
    return ""


def _without_adaptation(credible: set[str], scratch_over_frozen: Gain) -> str:
    """The frozen model where it is credible, unless the scratch model is and beats it."""
    if SCRATCH in credible and (FROZEN not in credible or scratch_over_frozen.low > 0):
        return SCRATCH
    return FROZEN if FROZEN in credible else NONE


def log_loss(p: Floats, y: Floats) -> Floats:
    """(n,) cross-entropy in nats; certainty is cut at 1e-6."""
    p = np.clip(p.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(-np.where(y > 0.5, np.log(p), np.log1p(-p)))


def paired_gain(
    arm: str, rival: str, difference: Floats, accuracy: float, level: float = LEVEL, seed: int = 0
) -> Gain:
    """Interval of the mean of `difference` (n,) in time order, by the moving block bootstrap."""
    n = len(difference)
    block = block_length(n)
    rng = np.random.default_rng([seed, n])
    begins = rng.integers(0, n - block + 1, (RESAMPLES, -(-n // block)))
    rows = (begins[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :n]
    low, high = np.quantile(difference[rows].mean(axis=1), [level / 2, 1 - level / 2])
    value = float(difference.mean())
    return Gain(arm, rival, value, float(low), float(high), accuracy, effective_size(difference))


def block_length(n: int) -> int:
    """n^(1/3) windows, the order that minimises the error of the interval (Hall, Horowitz & Jing 1995)."""
    return max(1, min(n // 4, int(np.cbrt(n) + 0.5)))


def effective_size(values: Floats) -> float:
    """n / (1 + 2 sum of the autocorrelations up to the block's length), between 1 and n."""
    n = len(values)
    centred = values - values.mean()
    variance = float(centred @ centred)
    if variance <= 0:
        return float(n)
    lags = range(1, block_length(n) + 1)
    inflation = 1 + 2 * sum(float(centred[lag:] @ centred[:-lag]) / variance for lag in lags)
    return float(np.clip(n / max(inflation, 1e-9), 1, n))
