"""What the backtest and paper modes need of a market: a past to learn from and a run to live through."""

from collections.abc import Iterator
from typing import Protocol

from bot.core.events import Event
from bot.market.bars import BarTable


class HistoricalMarket(Protocol):
    """Recorded or simulated; the engine does not know which."""

    @property
    def simulated(self) -> bool:
        """True when no price of this market ever existed."""

    @property
    def title(self) -> str:
        """How reports and pages name it."""

    @property
    def start(self) -> int:
        """First moment of the run, ms UTC."""

    @property
    def end(self) -> int:
        """Last moment of the run, ms UTC."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know: what was inferred, missing or left out."""

    def history(self, symbol: str) -> BarTable:
        """Every bar of a source symbol that closed at or before `start`.

        Raises DataError for a symbol that has no history.
        """

    def earlier(self, most: int, days: int) -> list[BarTable]:
        """The first `days` days of the `most` newest tokens that are no part of the run, up to `start`.

        The oldest first; none where the market knows of no earlier listings.
        """

    def events(self) -> Iterator[Event]:
        """The run in `ts` order; at equal `ts`: listings, the sources' bars, the others by name, funding."""

    def half_spread(self, symbol: str, start: int) -> float:
        """Half of (ask - bid) / mid at the open of the bar `start` (ms); O(1)."""
