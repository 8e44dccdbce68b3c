"""What a restart must not forget: losses, halts, what waits for a person, entries, since when we hold.

Why we hold something is in the database of our earlier runs; what was lost meanwhile the exchange knows, also
of what a stop ended while no bot ran.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console

from bot.core.types import DAY_MS, MINUTE_MS, Side
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.reconciliation import Opening
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.transfers import transfers
from bot.exchange.bybit.wire.account import ClosedPnl
from bot.execution.orders import Orders
from bot.live.parts import warn
from bot.settings import Risk
from bot.storage.database import Database, Mark, Run
from risk.breaker import Breaker

_LONGEST = 7 * DAY_MS - MINUTE_MS  # of one question for closed positions


class Memory:
    """Of the `earlier` runs of one account, at the start of another at `started` (ms UTC).

    owners: whose a symbol is; what others won or lost is none of our business.
    """

    def __init__(
        self, risk: Risk, database: Database, earlier: Iterable[Run], started: int, owners: Ownership
    ) -> None:
        self._risk = risk
        self._database = database
        self._owners = owners
        self._runs = [run.id for run in earlier]
        self._started = started
        self.unseen = database.unseen(self._runs)  # what a person must still see to, "" for nothing
        self._cleared = database.cleared(self._runs)  # what was lost before counts no more
        self._today = max(self._cleared, started // DAY_MS * DAY_MS)

    async def restore(
        self, rest: Rest, opening: Opening, breaker: Breaker, books: Portfolio, orders: Orders,
        console: Console,
    ) -> None:  # fmt: skip
        """Raises ExchangeError."""
        cooldown = int(self._risk.cooldown_minutes * MINUTE_MS)
        since = max(min(self._today, self._started - cooldown), self._started - _LONGEST)
        closed = [
            item
            for item in await rest.account.closed_pnl(since, opening.ts)
            if self._owners.is_ours(item.symbol, "", item.updated_time)
        ]
        await self._restore_breaker(rest, opening, breaker, self._lost_today(closed), console)
        held = self._database.last_entries(self._runs)
        books.restore(
            {
                symbol: held[symbol, side]
                for symbol, position in opening.positions.items()
                if (symbol, side := Side.BUY if position.qty > 0 else Side.SELL) in held
            },
            {item.symbol: item.updated_time for item in reversed(closed) if item.closed_pnl < 0},
        )
        orders.restore(self._database.entries(self._runs, self._started - DAY_MS))

    def _lost_today(self, closed: Sequence[ClosedPnl]) -> Mapping[str, float]:
        """By each token, in positions that have ended; a gain is negative."""
        lost: Counter[str] = Counter()
        for item in closed:
            if item.updated_time >= self._today:
                lost[item.symbol] -= float(item.closed_pnl)  # type: ignore[assignment]
        return lost

    async def _restore_breaker(
        self, rest: Rest, opening: Opening, breaker: Breaker, lost: Mapping[str, float], console: Console
    ) -> None:
        """No restart makes good a loss or ends a halt. What came or went since then, while a run was there or
        not, is neither gain nor loss.
        """
        database, runs, days = self._database, self._runs, self._risk.rolling_days
        first = database.opening_equity(runs, self._today)
        highs = database.highs(runs, max(self._cleared, (self._started // DAY_MS - days) * DAY_MS))
        peak, halts = database.peak(runs, self._cleared), database.halts(runs)
        marks = [mark for mark in (first, peak, *highs.values()) if mark is not None]
        moved = []
        if marks:
            moved = await transfers(rest, self._owners, min(mark.ts for mark in marks), opening.ts)

        def now_worth(mark: Mark) -> float:
            later = [line.change or 0 for line in moved if line.transaction_time > mark.ts]
            return mark.equity + float(sum(later))

        breaker.restore(
            self._started,
            now_worth(first) if first else None,
            {day: now_worth(mark) for day, mark in highs.items()},
            now_worth(peak) if peak else None,
            halts,
            lost,
        )
        for halt in halts:
            if not halt.until or halt.until > self._started:
                end = "the next UTC day, or `bot resume`" if halt.until else "`bot resume`"
                warn(console, [f"an earlier run halted: {halt.reason}. No entries before {end}"])
