"""Transfer learning from the source markets to one token. `transfer` is the stable way in.

torch is imported when something is trained, not before: a process that only trades never loads it.
"""

import operator

from numpy.typing import ArrayLike

from bot.core.errors import UsageError
from strategies.learning.window_checks import TransferResult, checked

__all__ = ["TransferResult", "transfer"]


def transfer(
    source_x: ArrayLike,
    source_y: ArrayLike,
    target_x: ArrayLike,
    matured_x: ArrayLike,
    matured_y: ArrayLike,
    test_x: ArrayLike,
    *,
    method: str = "mmd",
    seed: int = 0,
) -> TransferResult:
    """Learn from the source, adapt to the token, and say whether it helped. The same arguments give the same
    result on one machine.

    *_x:      float32 (n, T, F) model-ready windows in time order, T >= 8, F >= 2; they are not standardised
              again, because that destroys what the alignment needs. They must not overlap: one window on
              either side of a scored block is left out, and intervals reckon with blocks of n^(1/3) windows;
              both is too little where windows share bars, or labels prices
    *_y:      int64 (n,), 0 = down, 1 = up
    target_x: unlabelled windows of the token; the newest count most
    matured:  the few labelled windows of the token (scratch rival, calibration, verdict)
    test_x:   what is predicted; nothing is learnt from it
    method:   one of strategies.learning.alignment.METHODS
    seed:     0 <= seed < 2^64

    Raises DataError for broken input, UsageError for an unknown method or such a seed, TrainingFailed where
    values are so large that training diverges. Too few matured labels are refused: verdict "none" with the
    reason.
    """
    if not 0 <= operator.index(seed) < 2**64:
        raise UsageError(f"seed {seed}: it must be at least 0 and below 2^64")
    data = checked(source_x, source_y, target_x, matured_x, matured_y, test_x)
    from strategies.learning.alignment import METHODS  # torch is loaded here
    from strategies.learning.window_transfer import run_transfer

    if method not in METHODS:
        raise UsageError(f"no method {method!r}; choose from {', '.join(METHODS)}")
    return run_transfer(data, method, operator.index(seed))
