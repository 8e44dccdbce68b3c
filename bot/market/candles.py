"""Decision bars from finer confirmed bars, as they close."""

from bot.core.errors import DataError
from bot.core.events import BarClosed


class Candles:
    """Aggregates the bars of one symbol to `interval` (ms).

    Only whole bars come out: one with a missing part is a gap, as in BarTable.resampled, whose values these
    equal bit for bit. Repeated and older bars are passed over.
    """

    def __init__(self, symbol: str, interval: int) -> None:
        self.symbol = symbol
        self.interval = interval
        self._next: int | None = None  # when the next bar should open
        self._part: BarClosed | None = None  # the open decision bar so far; nothing of it is missing

    def update(self, bar: BarClosed) -> BarClosed | None:
        """Take the next confirmed bar; the decision bar that it completes, if any.

        Raises DataError for a bar of another symbol, or one that does not fit into `interval`.
        """
        self._check(bar)
        if self.is_old(bar):
            return None
        self._next = bar.start + bar.interval
        return self._fold(bar)

    def is_old(self, bar: BarClosed) -> bool:
        """A repeated bar, or one whose time is over: its price is no news."""
        return self._next is not None and bar.start < self._next

    def _check(self, bar: BarClosed) -> None:
        if bar.symbol != self.symbol:
            raise DataError(f"a bar of {bar.symbol} was given to the candles of {self.symbol}")
        if self.interval % bar.interval or bar.start % bar.interval:
            raise DataError(
                f"{bar.symbol}: a bar of {bar.interval} ms that opened at {bar.start} does not fit into "
                f"bars of {self.interval} ms; use an interval that divides it"
            )

    def _fold(self, bar: BarClosed) -> BarClosed | None:
        part, self._part = self._part, None
        if bar.start % self.interval == 0:
            whole = bar
        elif part is not None and part.start + part.interval == bar.start:
            whole = _joined(part, bar)
        else:  # the beginning of this decision bar is missing
            return None
        if whole.interval == self.interval:
            return whole
        self._part = whole
        return None


def _joined(part: BarClosed, bar: BarClosed) -> BarClosed:
    return BarClosed(
        bar.ts,
        bar.received,
        bar.symbol,
        part.start,
        part.interval + bar.interval,
        part.open,
        max(part.high, bar.high),
        min(part.low, bar.low),
        bar.close,
        part.volume + bar.volume,
        part.turnover + bar.turnover,
    )
