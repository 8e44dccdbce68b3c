"""How large a position may be: a share of equity, shrunk by doubt, by age and by volatility."""

from bot.core.signal import Signal
from bot.core.types import DAY_MS, Stage
from bot.settings import Gate, Risk

_CERTAIN_EDGE = 0.3  # confidence 0.5 + this earns the whole size
_LEAST_FACTOR = 0.1  # of similarity and of age


def position_notional(signal: Signal, equity: float, risk: Risk, gate: Gate) -> float:
    """Notional of the wished position in quote coin, never above `risk.position_share` of equity.

    cap x confidence x similarity x age x volatility x ladder, each factor in (0, 1]; a similarity below
    `gate.similarity` gives 0. A model is as good as new for half of `risk.max_model_days`. What the market
    can bear is the checks' concern (risk.context).
    """
    if signal.similarity < gate.similarity:
        return 0.0
    span = 1.0 - gate.similarity
    similarity = (signal.similarity - gate.similarity) / span if span > 0 else 1.0
    factors = (
        min(1.0, max(0.0, signal.confidence - 0.5) / _CERTAIN_EDGE),
        min(1.0, max(_LEAST_FACTOR, similarity)),
        min(1.0, max(_LEAST_FACTOR, 2 - 2 * signal.model_age / (risk.max_model_days * DAY_MS))),
        min(1.0, risk.target_volatility / signal.sigma) if signal.sigma > 0 else 1.0,
        1.0 if signal.stage is Stage.FULL else risk.small_share,
    )
    notional = equity * risk.position_share
    for factor in factors:
        notional *= factor
    return notional
