"""What a restart must not forget: losses, halts, what waits for a person, entries, since when we hold.

Why we hold something is in the database of our earlier runs; what was lost meanwhile the exchange knows, also
of what a stop ended while no bot ran.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import NamedTuple

from rich.console import Console

from bot.core.records import Alarm, BreakerTripped
from bot.core.types import DAY_MS, MINUTE_MS, Side
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.reconciliation import Opening
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.transfers import SETTLE, ledger
from bot.exchange.bybit.wire.account import ClosedPnl, Transaction
from bot.execution.orders import Orders
from bot.live.parts import warn
from bot.settings import Risk
from bot.storage.database import Database, Mark, Run
from risk.breaker import Breaker

_LONGEST = 7 * DAY_MS - MINUTE_MS  # of one question for closed positions
_BEFORE = MINUTE_MS  # what we did then may have ended later
_RECALLED = "an order that had been given up was carried out after all while no bot ran"


class Memory:
    """Of the `earlier` runs of one account, at the start of another at `started` (ms UTC).

    owners: whose a symbol is; what others won or lost is none of our business.
    """

    def __init__(
        self, risk: Risk, database: Database, earlier: Sequence[Run], started: int, owners: Ownership
    ) -> None:
        self._risk = risk
        self._database = database
        self._owners = owners
        self._runs = [run.id for run in earlier]
        self._told = max((run.last_ts for run in earlier if run.last_ts > run.start_ts), default=0)
        self._started = started
        self.unseen = database.unseen(self._runs)  # what a person must still see to, "" for nothing
        self._cleared = database.cleared(self._runs)  # what was lost before counts no more
        self._today = max(self._cleared, started // DAY_MS * DAY_MS)

    async def restore(
        self, rest: Rest, opening: Opening, breaker: Breaker, books: Portfolio, orders: Orders,
        console: Console,
    ) -> list[Alarm | BreakerTripped]:  # fmt: skip
        """What the run must tell of it. Raises ExchangeError."""
        cooldown = int(self._risk.cooldown_minutes * MINUTE_MS)
        since = max(min(self._today, self._started - cooldown), self._started - _LONGEST)
        references = self._references()
        given_up = self._owners.unfilled.values()
        late = [created for created in given_up if created > self._started - _LONGEST]
        first = min([since, *(mark.ts for mark in references.marks), *late]) - _BEFORE
        lines = await ledger(rest, first, opening.ledger)
        recalled = self._owners.recall(lines)
        closed = [
            item
            for item in await rest.account.closed_pnl(since, opening.ts)
            if self._owners.is_ours(item.symbol, "", item.updated_time)
        ]
        moved = [line for line in lines if not self._owners.books(line)]
        lost = self._lost_today(closed)
        self._restore_breaker(references, moved, breaker, lost, console)
        equity = float(opening.balance) + opening.unrealised
        tripped = [breaker.mark_token(self._started, symbol, 0.0, equity) for symbol in lost]
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
        return [*self._alarms(recalled), *chain.from_iterable(tripped)]

    def _alarms(self, recalled: Sequence[Transaction]) -> list[Alarm]:
        """Of what no earlier run has told."""
        changes: dict[str, Decimal] = {}
        for line in recalled:
            if line.transaction_time > self._told:
                changes[line.symbol] = changes.get(line.symbol, Decimal(0)) + (line.change or 0)
        return [
            Alarm(self._started, symbol, f"{_RECALLED}: {change:+.2f} {SETTLE}, which is ours")
            for symbol, change in changes.items()
        ]

    def _lost_today(self, closed: Sequence[ClosedPnl]) -> Mapping[str, float]:
        """By each token, in positions that have ended; a gain is negative."""
        lost: Counter[str] = Counter()
        for item in closed:
            if item.updated_time >= self._today:
                lost[item.symbol] -= float(item.closed_pnl)  # type: ignore[assignment]
        return lost

    def _references(self) -> "_References":
        database, runs, days = self._database, self._runs, self._risk.rolling_days
        return _References(
            database.opening_equity(runs, self._today),
            database.highs(runs, max(self._cleared, (self._started // DAY_MS - days) * DAY_MS)),
            database.peak(runs, self._cleared),
        )

    def _restore_breaker(
        self, references: "_References", moved: Sequence[Transaction], breaker: Breaker,
        lost: Mapping[str, float], console: Console,
    ) -> None:  # fmt: skip
        """No restart makes good a loss or ends a halt. What came or went since then, while a run was there or
        not, is neither gain nor loss.
        """

        def now_worth(mark: Mark) -> float:
            later = [line.change or 0 for line in moved if line.transaction_time > mark.ts]
            return mark.equity + float(sum(later))

        opening, highs, peak = references
        halts = self._database.halts(self._runs)
        breaker.restore(
            self._started,
            now_worth(opening) if opening else None,
            {day: now_worth(mark) for day, mark in highs.items()},
            now_worth(peak) if peak else None,
            halts,
            lost,
        )
        for halt in halts:
            if not halt.until or halt.until > self._started:
                end = "the next UTC day, or `bot resume`" if halt.until else "`bot resume`"
                warn(console, [f"an earlier run halted: {halt.reason}. No entries before {end}"])


class _References(NamedTuple):
    """What drawdown is counted from, as earlier runs saw it."""

    opening: Mark | None  # of the day
    highs: Mapping[int, Mark]  # by day since the epoch
    peak: Mark | None

    @property
    def marks(self) -> list[Mark]:
        found = (self.opening, *self.highs.values(), self.peak)
        return [mark for mark in found if mark is not None]
