"""Our money against the exchange's: a lasting difference is explained by the exchange's own ledger, or told.

The ledger is the authority. What came or went without our trading explains a difference at once. Our trades,
fees and funding come to us as executions, so for them we wait first; a line that our books had otherwise, or
not at all, is then taken as the ledger has it: a gain or a loss like any other. What it does not explain
either keeps entries waiting, and after some time wants a person. While others trade all the time, the newest
line of the ledger is the moment at which the two are compared.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from bot.core.events import BalanceChanged, Event, FundingPaid, OrderFilled, PositionAdopted
from bot.core.types import DAY_MS, MINUTE_MS
from bot.engine.portfolio import Portfolio
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.transfers import CENT, SETTLE, ledger, newest, total
from bot.exchange.bybit.wire.account import Transaction

LOOKS: Final = (0.0, 0.5, 1.0)  # seconds before each look at a difference
_LONGEST: Final = 7 * DAY_MS - MINUTE_MS  # of one question for the ledger
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
        self._realised: Mapping[str, Decimal] = {}  # by our books, at that time
        self._known: set[str] = set()  # transfers that are in our books already
        self._strange = 0  # of `Ownership.strange`, those whose money is in our books
        self._verdict = Verdict()
        self._since = 0  # ms, when the difference was first seen
        self._looks = 0
        self._waiting = 0  # ms, since when it is undecided

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
            self._books.apply_balance(event)
        elif isinstance(event, PositionAdopted):
            self._books.adopt(event)

    async def balance(self) -> Decimal:
        """The exchange's, without unrealised P&L. Raises ExchangeError."""
        wallet = await self._rest.account.wallet(SETTLE)
        coin = next((coin for coin in wallet.coin if coin.coin == SETTLE), None)
        return coin.wallet_balance if coin is not None else _ZERO

    async def compare(self, catch_up: Callable[[], Awaitable[int]]) -> Verdict:
        """Look until it agrees or lasts. catch_up books executions that we lack and counts them.

        While our trading moves money nothing is learnt, and the last verdict stands. Raises ExchangeError.
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
        now = self._rest.clock.now_ms()
        lines = await ledger(self._rest, max(self._agreed - _LAG, now - _LONGEST), now)
        self._known &= {line.id for line in lines}  # older ones do not come again
        await catch_up()
        if self._books.balance != before:
            return self._undecided()
        if len(seen) == 1:
            return self._explain(balance, lines, now, strange)
        if not lines or (balance_there := lines[-1].cash_balance) is None:
            return self._undecided()
        return self._explain(balance_there, lines, lines[-1].transaction_time, strange, moving=True)

    def _explain(
        self, balance: Decimal, lines: Sequence[Transaction], at: int, strange: int, *, moving: bool = False
    ) -> Verdict:
        """By the ledger. balance: the exchange's at `at` (ms). strange: executions of others so far, looked
        for however little they moved. moving: what it says was not seen to last."""
        now, difference = self._rest.clock.now_ms(), balance - self._books.balance
        self._since = self._since or now
        self._looks += 1
        moved = [line for line in lines if line.id not in self._known and not self._owners.books(line)]
        if found := newest(moved, difference):  # what moved less than a cent may have been taken for rounding
            self._strange = strange
            self._adopt(difference, found)
            return self._agree(balance, at)
        waited = (now - self._since) / 1_000
        if _is_rounding(difference, balance):
            if moving or waited < self._settings.settle:  # the ledger is late: it is asked again
                return self._undecided()
            self._strange = strange  # they were of another coin
            return self._agree(balance, at)
        if moving and waited < self._settings.settle:
            return self._undecided()
        if waited >= self._settings.settle and (found := newest(lines, balance - self._balance)):
            without_us = {line.id for line in moved}
            theirs = [line for line in found if line.id in without_us]
            self._adopt(total(theirs), theirs)
            own = [line for line in found if line.id not in without_us]
            self._correct(difference - total(theirs), own)
            return self._agree(balance, at)
        text = f"the wallet differs from our books by {difference:+.2f} {SETTLE}, unexplained"
        lasts = waited >= self._settings.latch and self._looks >= self._settings.looks
        newly = lasts and not self._verdict.lasts
        self._verdict = Verdict(text, lasts)
        return Verdict(text, newly)

    def _adopt(self, amount: Decimal, lines: Sequence[Transaction]) -> None:
        """What came or went without our trading."""
        self._known.update(line.id for line in lines)
        if amount:
            now = self._rest.clock.now_ms()
            reason = f"{amount:+.2f} {SETTLE} without our trading ({_kinds(lines)})"
            self._emit(BalanceChanged(now, now, amount, reason, until=lines[-1].transaction_time))

    def _correct(self, amount: Decimal, lines: Sequence[Transaction]) -> None:
        """What our books had otherwise since they last agreed, of each token."""
        self._known.update(line.id for line in lines)
        wrong: defaultdict[str, Decimal] = defaultdict(Decimal)
        for line in lines:
            wrong[line.symbol] += line.change or _ZERO
        for symbol, realised in self._books.realised.items():
            wrong[symbol] -= realised - self._realised.get(symbol, _ZERO)
        largest = max(wrong, key=lambda symbol: abs(wrong[symbol]), default="")
        changes = {
            symbol: change for symbol, change in wrong.items() if symbol != largest and abs(change) >= CENT
        }
        changes[largest] = amount - sum(changes.values(), _ZERO)  # and what was rounded elsewhere
        if parts := tuple((symbol, change) for symbol, change in sorted(changes.items()) if change):
            now = self._rest.clock.now_ms()
            reason = f"{amount:+.2f} {SETTLE} that our books had otherwise ({_kinds(lines)})"
            if len(parts) > 1:
                reason += ": " + ", ".join(f"{symbol or 'others'} {change:+.2f}" for symbol, change in parts)
            self._emit(BalanceChanged(now, now, amount, reason, parts))

    def _agree(self, balance: Decimal, at: int) -> Verdict:
        self._books.balance = balance
        self._balance, self._agreed, self._realised = balance, at, self._books.realised
        self._since = self._looks = self._waiting = 0
        self._verdict = Verdict()
        return self._verdict

    def _undecided(self) -> Verdict:
        """The last verdict stands; where there is none, it may not be so for ever."""
        now = self._rest.clock.now_ms()
        self._waiting = self._waiting or now
        settle = self._settings.settle
        if not self._verdict.trouble and now - self._waiting >= settle * 1_000:
            text = f"for more than {settle:g} s the wallet could not be compared with our books: both move"
            self._verdict = Verdict(text)
        return Verdict(self._verdict.trouble)


def _kinds(lines: Iterable[Transaction]) -> str:
    return ", ".join(sorted({line.type for line in lines}))


def _is_rounding(difference: Decimal, balance: Decimal) -> bool:
    return abs(difference) <= CENT + abs(balance) * _ROUNDING
