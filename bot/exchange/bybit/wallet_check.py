"""Our money against the exchange's: a lasting difference is explained by the exchange's own ledger, or told.

The ledger is the authority. What came or went without our trading explains a difference at once. Our trades,
fees and funding come to us as executions, so for them we wait first; a line that our books had otherwise, or
not at all, is then taken as the ledger has it. What it does not explain either keeps entries waiting, and
after some time wants a person.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from bot.core.events import BalanceChanged, Event, FundingPaid, OrderFilled, PositionAdopted
from bot.core.types import DAY_MS, MINUTE_MS
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.transfers import SETTLE, ledger
from bot.exchange.bybit.wire.account import Transaction

LOOKS: Final = (0.0, 0.5, 1.0)  # seconds before each look at a difference
_LONGEST: Final = 7 * DAY_MS - MINUTE_MS  # of one question for the ledger
_CENT: Final = Decimal("0.01")
_ROUNDING: Final = Decimal("1e-6")  # of the balance: the exchange rounds average prices
_LAG: Final = 10_000  # ms by which a line may show late
_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class WalletSettings:
    """Seconds: before each look of one comparison, and since a difference was first seen."""

    pauses: tuple[float, ...] = LOOKS

    settle: float = 60.0  # until an execution that was to come has come
    latch: float = 600.0  # until a person must look, after `looks` reconciliations at least
    looks: int = 5


class Verdict(NamedTuple):
    """trouble: "" when the money is right. lasts: from now on only a person can tell (once)."""

    trouble: str = ""
    lasts: bool = False


class WalletCheck:
    """Every event that is told passes `keep`; `compare` looks."""

    def __init__(
        self, rest: Rest, owners: Ownership, emit: Callable[[Event], None], settings: WalletSettings,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._rest = rest
        self._owners = owners
        self._emit = emit
        self._settings = settings
        self._sleep = sleep
        self._books = Portfolio(_ZERO)  # the money as our books have it
        self._agreed = 0  # ms, when it was last the exchange's
        self._balance = _ZERO  # the exchange's, at that time
        self._known: set[str] = set()  # transfers that are in our books already
        self._strange = 0  # of `Ownership.strange`, those whose money is in our books
        self._verdict = Verdict()
        self._since = 0  # ms, when the difference was first seen
        self._looks = 0

    def begin(self, balance: Decimal, ts: int, known: Iterable[str]) -> None:
        """known: ids of transfers that `balance` contains."""
        self._books.balance = balance
        self._known.update(known)
        self._agree(balance, ts)

    def keep(self, event: Event) -> None:
        """What of it moves money is booked."""
        if isinstance(event, OrderFilled):
            self._books.apply_fill(event)
        elif isinstance(event, FundingPaid):
            self._books.apply_funding(event)
        elif isinstance(event, BalanceChanged):
            self._books.apply_transfer(event)
        elif isinstance(event, PositionAdopted):
            self._books.adopt(event)

    async def balance(self) -> Decimal:
        """The exchange's, without unrealised P&L. Raises ExchangeError."""
        wallet = await self._rest.account.wallet(SETTLE)
        coin = next((coin for coin in wallet.coin if coin.coin == SETTLE), None)
        return coin.wallet_balance if coin is not None else _ZERO

    async def compare(self, catch_up: Callable[[], Awaitable[int]]) -> Verdict:
        """Look until it agrees or lasts. catch_up books executions that we lack and counts them.

        While money moves nothing is learnt, and the last verdict stands. Raises ExchangeError.
        """
        seen: set[Decimal] = set()
        strange = self._owners.strange
        for pause in self._settings.pauses:
            await self._sleep(pause)
            now, before = self._rest.clock.now_ms(), self._books.balance
            balance = await self.balance()
            await catch_up()
            if self._books.balance != before:
                return self._undecided()
            difference = balance - self._books.balance
            if strange == self._strange and _is_rounding(difference, balance):
                return self._agree(balance, now)
            seen.add(difference)
        return await self._explain(difference, balance, strange) if len(seen) == 1 else self._undecided()

    async def _explain(self, difference: Decimal, balance: Decimal, strange: int) -> Verdict:
        """By the ledger. strange: executions of others so far, looked for however little they moved."""
        now = self._rest.clock.now_ms()
        self._since = self._since or now
        self._looks += 1
        lines = await ledger(self._rest, max(self._agreed - _LAG, now - _LONGEST), now)
        moved = [line for line in lines if line.id not in self._known and not self._owners.books(line)]
        for first in range(len(moved)):  # what moved less than a cent may have been taken for rounding
            if abs(_sum(moved[first:]) - difference) <= _CENT:
                self._strange = strange
                return self._adopt(difference, balance, moved[first:], "without our trading")
        waited = (now - self._since) / 1_000
        if _is_rounding(difference, balance):
            if waited < self._settings.settle:  # the ledger is late: it is asked again
                return self._undecided()
            self._strange = strange  # they were of another coin
            return self._agree(balance, now)
        if waited >= self._settings.settle and (found := self._explaining(lines, balance)):
            return self._adopt(difference, balance, found, "that our books had otherwise")
        text = f"the wallet differs from our books by {difference:+.2f} {SETTLE}, unexplained"
        lasts = waited >= self._settings.latch and self._looks >= self._settings.looks
        newly = lasts and not self._verdict.lasts
        self._verdict = Verdict(text, lasts)
        return Verdict(text, newly)

    def _explaining(self, lines: Sequence[Transaction], balance: Decimal) -> Sequence[Transaction]:
        """The newest lines that lead from the balance that we last agreed on to this one; none if none do."""
        for first in range(len(lines)):
            if abs(self._balance + _sum(lines[first:]) - balance) <= _CENT:
                return lines[first:]
        return ()

    def _adopt(
        self, difference: Decimal, balance: Decimal, lines: Sequence[Transaction], how: str
    ) -> Verdict:
        now = self._rest.clock.now_ms()
        self._known.update(line.id for line in lines)
        kinds = ", ".join(sorted({line.type for line in lines}))
        if difference:
            self._emit(BalanceChanged(now, now, difference, f"{difference:+.2f} {SETTLE} {how} ({kinds})"))
        return self._agree(balance, now)

    def _agree(self, balance: Decimal, now: int) -> Verdict:
        self._books.balance = balance
        self._balance, self._agreed = balance, now
        self._since = self._looks = 0
        self._verdict = Verdict()
        return self._verdict

    def _undecided(self) -> Verdict:
        return Verdict(self._verdict.trouble)


def _is_rounding(difference: Decimal, balance: Decimal) -> bool:
    return abs(difference) <= _CENT + abs(balance) * _ROUNDING


def _sum(lines: Sequence[Transaction]) -> Decimal:
    return sum((line.change or _ZERO for line in lines), _ZERO)
