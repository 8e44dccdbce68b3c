"""Holes in the confirmed bars of one symbol that nobody could fill."""

from bot.core.events import BarClosed


class BarGaps:
    """Told the bars in order and what was given up. Times: ms UTC.

    A hole is open until a whole decision bar has come after it. From then on the features know: they begin
    anew, and their readiness says how many bars they still want.
    """

    def __init__(self, interval: int) -> None:
        """interval: of a decision bar, ms"""
        self.lost = 0
        self._interval = interval
        self._due: int | None = None  # open of the next bar
        self._whole_at: int | None = None  # close of the first decision bar behind the hole

    @property
    def is_open(self) -> bool:
        return self._whole_at is not None

    def on_bar(self, bar: BarClosed) -> None:
        if self._due is not None and bar.start > self._due:
            self.lose(self._due, bar.start, bar.interval)
        self._due = max(self._due or 0, bar.ts)
        if self._whole_at is not None and bar.ts >= self._whole_at:
            self._whole_at = None

    def lose(self, first: int, end: int, interval: int) -> None:
        """The bars of `interval` that open within [first, end) will not come."""
        first = max(first, self._due or 0)
        if first >= end:
            return
        self.lost += (end - first) // interval
        self._due = end
        self._whole_at = end + -end % self._interval + self._interval
