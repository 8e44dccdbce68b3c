"""Live bars in the order in which a recorded market gives them.

Each bar once; each symbol's without a gap that could be filled; those of one moment together, sources first.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from bot.core.events import BarClosed

_REMEMBERED: Final = 256  # bars of a symbol
_HELD: Final = 2_048  # of a symbol, behind one that is lacking; the newest beyond them are asked for again


class Arrival(Enum):
    """What became of a bar that was offered."""

    TAKEN = auto()
    KNOWN = auto()  # it came before as it is
    CORRECTED = auto()  # it came before with other values; one that was told stays as it was told
    LATE = auto()  # it had been given up
    PASSED = auto()  # not followed: the symbol, the interval or the time


class BarSequencer:
    """Pure. Bars of one interval (ms) go in by `offer` as they come, and out by `ready` in their turn.

    A moment waits until each followed symbol has its bar. What is waited for is known by `lacking`; that a
    bar will never come is said by `skip`.
    """

    def __init__(self, interval: int, sources: Sequence[str]) -> None:
        self.interval = interval
        self._rank = {symbol: rank for rank, symbol in enumerate(sources)}
        self._first: dict[str, int] = {}  # open of the first bar to tell
        self._next: dict[str, int] = {}  # open of the next bar to tell
        self._held: dict[str, dict[int, BarClosed]] = {}
        self._told: dict[str, dict[int, BarClosed]] = {}  # the newest, to know a repetition from a correction

    @property
    def symbols(self) -> list[str]:
        return list(self._next)

    def follow(self, symbol: str, first: int) -> None:
        """Tell the bars of a symbol that open at or after `first` (ms). Again: nothing."""
        first += -first % self.interval
        self._first.setdefault(symbol, first)
        self._next.setdefault(symbol, first)
        self._held.setdefault(symbol, {})
        self._told.setdefault(symbol, {})

    def drop(self, symbol: str) -> None:
        """Follow it no more."""
        self._first.pop(symbol, None)
        self._next.pop(symbol, None)
        self._held.pop(symbol, None)
        self._told.pop(symbol, None)

    def offer(self, bar: BarClosed) -> Arrival:
        due = self._next.get(bar.symbol)
        if due is None or bar.interval != self.interval or bar.start < self._first[bar.symbol]:
            return Arrival.PASSED
        known = self._held[bar.symbol].get(bar.start) or self._told[bar.symbol].get(bar.start)
        if bar.start >= due:
            held = self._held[bar.symbol]
            held[bar.start] = bar
            if len(held) > _HELD:
                del held[max(held)]
        if known is not None:
            return Arrival.KNOWN if _values(known) == _values(bar) else Arrival.CORRECTED
        return Arrival.TAKEN if bar.start >= due else Arrival.LATE

    def ready(self, overdue: int = 0) -> list[BarClosed]:
        """What can be told now. Nobody waits for a bar that closed by `overdue` (ms) and is not there."""
        out: list[BarClosed] = []
        while True:
            awaited = {
                symbol: start
                for symbol, start in self._next.items()
                if start in self._held[symbol] or start + self.interval > overdue
            }
            moment = min(awaited.values(), default=0)
            due = [symbol for symbol, start in awaited.items() if start == moment]
            if not due or any(moment not in self._held[symbol] for symbol in due):
                break
            for symbol in sorted(due, key=lambda name: (self._rank.get(name, len(self._rank)), name)):
                bar = self._told[symbol][moment] = self._held[symbol].pop(moment)
                if len(self._told[symbol]) > _REMEMBERED:
                    del self._told[symbol][next(iter(self._told[symbol]))]
                out.append(bar)
                self._next[symbol] = moment + self.interval
        return out

    def lacking(self, until: int) -> list[tuple[str, int, int]]:
        """(symbol, open of its first missing bar, end of the missing ones) for all that closed by `until`."""
        found = []
        for symbol, first in self._next.items():
            held = self._held[symbol]
            while first in held:
                first += self.interval
            end = min((start for start in held if start > first), default=until)
            if first + self.interval <= min(end, until):
                found.append((symbol, first, min(end, until)))
        return found

    def skip(self, symbol: str, first: int, end: int) -> None:
        """The exchange has no bars that open within [first, end): a gap."""
        if symbol in self._next and self._next[symbol] >= first:
            self._next[symbol] = max(self._next[symbol], end)

    def behind(self, now: int) -> tuple[str, int]:
        """The symbol whose next bar is the longest overdue, and by how many ms; ("", 0) for none."""
        if not self._next:
            return "", 0
        symbol, start = min(self._next.items(), key=lambda item: item[1])
        return symbol, max(0, now - start - self.interval)


def _values(bar: BarClosed) -> tuple[float, ...]:
    values = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return (*values, bar.turnover) if bar.turnover == bar.turnover else values
