"""How fast we may ask: one throttle per endpoint group, fed back by what the exchange says is left.

A group that is told to wait keeps its own callers waiting, never the event loop and never another group;
cancels have their own groups, so that they never queue behind new orders.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from asyncio_throttle.throttler import Throttler

from bot.exchange.bybit.errors import IP_BAN_S, ExchangeError, Kind, Ruling

# Requests per second and account, without VIP level (linear).
RATES: Final[Mapping[str, int]] = {
    "market": 100,  # no limit of its own: only that of the address
    "create": 10,
    "amend": 10,
    "cancel": 10,
    "cancel-all": 10,
    "create-batch": 10,
    "amend-batch": 10,
    "cancel-batch": 10,
    "orders": 50,
    "history": 50,
    "executions": 50,
    "positions": 50,
    "closed-pnl": 50,
    "leverage": 10,
    "mode": 10,
    "stop": 10,
    "wallet": 50,
    "account": 50,
    "fees": 5,
    "ledger": 25,
    "key": 10,
}
ADDRESS_RATE: Final = 100  # 600 requests in 5 s over all hosts
_SHARE: Final = 0.8  # our clock and the exchange's cut the second in different places
_LONGEST_RESET_S: Final = 5.0
_SUSPECTED_S: Final = 60.0
_AT_ZERO_S: Final = 0.2  # the reset time is not meaningful before the limit is exceeded
_BANNED: Final = Ruling(Kind.RETRY, "waiting out the limit of the exchange")


@dataclass(slots=True)
class Group:
    """One endpoint group. Times are of the monotonic clock, in seconds."""

    throttle: Throttler
    blocked_until: float = 0.0
    remaining: int | None = None  # as the exchange last said
    backed_off: int = 0  # times


class Limits:
    """Shared by everything that sends with one account from one address."""

    def __init__(
        self,
        rates: Mapping[str, int] = RATES,
        *,
        patience: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`patience`: the longest wait, in seconds, that `enter` takes on itself."""
        self.groups = {name: Group(_throttler(rate)) for name, rate in rates.items()}
        self._address = Group(_throttler(ADDRESS_RATE))
        self._is_suspected = False  # the address, and nobody has asked again since
        self._patience = patience
        self._monotonic = monotonic
        self._sleep = sleep

    async def enter(self, group: str, cost: int = 1, *, by_address: bool = True) -> None:
        """Return when `cost` requests of this group may leave. A batch costs as many as it holds orders.

        by_address: False for what is sent on an open connection, which no limit of the address concerns.
        Raises ExchangeError (RETRY, with `retry_after`) at once if that would take longer than `patience`.
        """
        member = self.groups[group]
        members = (member, self._address) if by_address else (member,)
        await self._wait(group, members)
        for _ in range(cost):
            await _acquire(member.throttle)
        if by_address:
            await _acquire(self._address.throttle)
        await self._wait(group, members)  # the group may have been told to stop while we queued

    async def _wait(self, name: str, members: Sequence[Group]) -> None:
        while (delay := max(member.blocked_until for member in members) - self._monotonic()) > 0:
            if delay > self._patience:
                raise ExchangeError(_BANNED, path=name, retry_after=delay)
            await self._sleep(delay)

    def note(self, group: str, headers: Mapping[str, object], exchange_ms: int) -> None:
        """Learn from the headers of an answer that came at `exchange_ms` of the exchange's clock."""
        limit = _number(headers, "X-Bapi-Limit")
        remaining = _number(headers, "X-Bapi-Limit-Status")
        member = self.groups[group]
        if limit:
            member.throttle.rate_limit = _cautious(limit)
        if remaining is not None:
            member.remaining = remaining
            if remaining <= 0:
                self._block(member, max(_until_reset(headers, exchange_ms), _AT_ZERO_S))

    def exceeded(self, group: str, headers: Mapping[str, object], exchange_ms: int) -> float:
        """The exchange refused for speed (10006): the group waits. The wait in seconds."""
        wait = max(_until_reset(headers, exchange_ms), 1.0)
        self._block(self.groups[group], wait)
        return wait

    def suspected(self) -> float:
        """HTTP 403: a ban, or a region, or something on the way. All requests wait, and then one read decides
        for the others. The wait in seconds."""
        self._is_suspected = self._is_suspected or not self.banned_for
        self._block(self._address, _SUSPECTED_S)
        return self.banned_for

    @property
    def is_doubtful(self) -> bool:
        """The time after a 403 is over, and nobody knows yet whether the address is served."""
        return self._is_suspected and not self.banned_for

    def served(self) -> None:
        """It is: the exchange has answered."""
        self._is_suspected = False

    def banned(self) -> float:
        """The exchange says so, or refuses again: everything by REST waits. The wait in seconds."""
        self._is_suspected = False
        self._block(self._address, IP_BAN_S)
        return IP_BAN_S

    @property
    def banned_for(self) -> float:
        """Seconds until this address may ask again; 0 when it may."""
        return max(0.0, self._address.blocked_until - self._monotonic())

    def _block(self, member: Group, seconds: float) -> None:
        member.blocked_until = max(member.blocked_until, self._monotonic() + seconds)
        member.backed_off += 1


async def _acquire(throttle: Throttler) -> None:
    async with throttle:
        pass


def _throttler(rate: int) -> Throttler:
    return Throttler(rate_limit=_cautious(rate), period=1.0)


def _cautious(rate: int) -> int:
    return max(1, int(rate * _SHARE))


def _until_reset(headers: Mapping[str, object], exchange_ms: int) -> float:
    """Seconds; never negative and never long, whatever the header says."""
    reset = _number(headers, "X-Bapi-Limit-Reset-Timestamp")
    return 0.0 if reset is None else min(max((reset - exchange_ms) / 1_000, 0.0), _LONGEST_RESET_S)


def _number(headers: Mapping[str, object], name: str) -> int | None:
    text = str(headers.get(name, ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else None
