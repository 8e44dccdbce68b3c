"""What a strategy would like to do with one token at one decision bar, and why."""

from enum import StrEnum

import msgspec

from bot.core.types import Side, Stage


class Action(StrEnum):
    ENTER = "enter"
    EXIT = "exit"
    HOLD = "hold"  # keep the open position
    NONE = "none"  # nothing to do; recorded all the same


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """A wish, not an order: only risk can make an order of it.

    `side` is the direction of the wished position (of the model's opinion, for NONE and HOLD).
    `sigma` is the volatility of one decision bar's log return, `expected_move` the size of the move
    expected over `horizon_bars`, both as fractions of the price.
    """

    ts: int
    symbol: str
    action: Action
    side: Side | None
    bar_start: int
    price: float
    stage: Stage = Stage.FULL
    arm: str = ""
    model_id: str = ""
    p_up: float = 0.5
    confidence: float = 1.0
    similarity: float = 1.0
    mmd: float = 0.0
    model_age: int = 0  # ms since the newest data that the model learnt from; 0 where there is no model
    effective_labels: float = 0.0
    statistics_until: int = 0  # start of the last bar in the statistics that normalised the features, ms
    sigma: float = 0.0
    expected_move: float = 0.0
    horizon_bars: int = 1
    reason: str = ""
    waits_for: str = ""  # what the ladder still wants before the next step
