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
        self.next_start = 0  # of the next bar; one that opened earlier is repeated or late: no news
        self._part: BarClosed | None = None  # the open decision bar so far; nothing of it is missing

    def update(self, bar: BarClosed) -> BarClosed | None:
        """Take the next confirmed bar; the decision bar that it completes, if any.

        Raises DataError for a bar of another symbol, or one that does not fit into `interval`.
        """
        start, interval = bar.start, bar.interval
        is_whole = interval == self.interval
        if bar.symbol != self.symbol or start % interval or (not is_whole and self.interval % interval):
            raise self._misfit(bar)
        if start < self.next_start:
            return None
        self.next_start = start + interval
        return bar if is_whole else self._fold(bar)

    def _misfit(self, bar: BarClosed) -> DataError:
        if bar.symbol != self.symbol:
            return DataError(f"a bar of {bar.symbol} was given to the candles of {self.symbol}")
        return DataError(
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
