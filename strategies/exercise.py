"""A strategy for rehearsals: it trades for the sake of the orders, and must never trade for money."""

from collections.abc import Mapping, Sequence

from bot.core.events import BarClosed, InstrumentDelisted, InstrumentListed
from bot.core.signal import Action, Signal
from bot.core.types import Position, Side
from strategies.base import Advice, News


class Exercise:
    """Enters every listed token at one bar and leaves at the next, long and short in turn.

    sources are looked at only, as in the real strategy.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = sources
        self._side: dict[str, Side] = {}  # of the next entry

    def on_bar(self, bar: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        side = self._side.get(bar.symbol)
        if side is None:
            return ()
        if bar.symbol in positions:
            return (self._signal(bar, Action.EXIT, None),)
        self._side[bar.symbol] = side.opposite
        return (self._signal(bar, Action.ENTER, side),)

    def on_event(self, event: News) -> Sequence[Advice]:
        if isinstance(event, InstrumentListed) and event.instrument.symbol not in self._sources:
            self._side.setdefault(event.instrument.symbol, Side.BUY)
        elif isinstance(event, InstrumentDelisted):
            self._side.pop(event.symbol, None)
        return ()

    def _signal(self, bar: BarClosed, action: Action, side: Side | None) -> Signal:
        return Signal(
            ts=bar.ts, symbol=bar.symbol, action=action, side=side, bar_start=bar.start, price=bar.close,
            expected_move=0.1, reason="rehearsal",
        )  # fmt: skip
