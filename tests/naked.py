"""How long positions were without a stop, as the local exchange itself sees it."""

import time

from bot.exchange.local.account import Account
from bot.exchange.local.venue import Venue


class NakedWatch:
    """Looks whenever the exchange tells anybody anything. To be made in the exchange's own loop."""

    def __init__(self, venue: Venue, account: Account) -> None:
        self.longest = 0.0  # seconds
        self.account = account
        self._since: dict[str, float] = {}
        flush = venue.flush

        def watched() -> None:
            self._look()
            flush()

        venue.flush = watched  # type: ignore[method-assign]

    def _look(self) -> None:
        now = time.monotonic()
        naked = {item.contract.symbol for item in self.account.held() if item.stop_loss is None}
        for symbol in naked:
            self.longest = max(self.longest, now - self._since.setdefault(symbol, now))
        for symbol in self._since.keys() - naked:
            del self._since[symbol]
