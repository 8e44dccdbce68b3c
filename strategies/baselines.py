"""Strategies without a model: yardsticks for the engine and for every claim of skill."""

from collections.abc import Mapping, Sequence

from bot.core.events import BarClosed
from bot.core.signal import Action, Signal
from bot.core.types import Position, Side
from strategies.base import Advice, News


class MovingAverageCross:
    """Long while the fast exponential average is above the slow one, short below; always in the market."""

    def __init__(self, fast: int = 50, slow: int = 200) -> None:
        self._fast_weight = 2 / (fast + 1)
        self._slow_weight = 2 / (slow + 1)
        self._warm_up = slow
        self._state: dict[str, tuple[float, float, int]] = {}

    def on_bar(self, bar: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        close = bar.close
        fast, slow, bars = self._state.get(bar.symbol, (close, close, 0))
        fast += self._fast_weight * (close - fast)
        slow += self._slow_weight * (close - slow)
        self._state[bar.symbol] = fast, slow, bars + 1
        if bars < self._warm_up:
            return ()
        side = Side.BUY if fast > slow else Side.SELL
        position = positions.get(bar.symbol)
        if position is not None and position.side is side:
            return ()
        enter = Signal(
            ts=bar.ts, symbol=bar.symbol, action=Action.ENTER, side=side, bar_start=bar.start, price=close,
            expected_move=0.1, reason="averages crossed",
        )  # fmt: skip
        if position is None:
            return (enter,)
        leave = Signal(
            ts=bar.ts, symbol=bar.symbol, action=Action.EXIT, side=side, bar_start=bar.start, price=close,
            reason="averages crossed",
        )  # fmt: skip
        return leave, enter

    def on_event(self, event: News) -> Sequence[Advice]:
        return ()
