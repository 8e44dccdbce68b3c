"""What the engine asks of a strategy."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from bot.core.commands import AdaptModel, ExtendChain
from bot.core.events import BarClosed, Event
from bot.core.records import BreakerReleased, BreakerTripped, Record
from bot.core.signal import Signal
from bot.core.types import Position

News = Event | BreakerTripped | BreakerReleased
Advice = Signal | AdaptModel | ExtendChain | Record


class Strategy(Protocol):
    """Pure: the answer depends on the events so far and nothing else."""

    def on_bar(self, bar: BarClosed, positions: Mapping[str, Position]) -> Sequence[Advice]:
        """A decision bar closed. Signals may concern any token, not only `bar.symbol`."""
        ...

    def on_event(self, event: News) -> Sequence[Advice]:
        """News of the market, of a model, or of a token's own breaker."""
        ...
