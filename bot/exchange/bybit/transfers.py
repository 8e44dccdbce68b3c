"""Money that came or went without our trading, by the exchange's own ledger."""

from typing import Final

from bot.core.types import DAY_MS
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.wire.account import Transaction

SETTLE: Final = "USDT"
_SPAN: Final = 7 * DAY_MS  # that one request may cover


async def ledger(rest: Rest, start: int, end: int) -> list[Transaction]:
    """Every line of the settle coin within [start, end] (ms), oldest first. Raises ExchangeError."""
    lines: list[Transaction] = []
    for first in range(start, end + 1, _SPAN):
        newest_first = await rest.account.transactions(first, min(end, first + _SPAN - 1))
        lines += [line for line in reversed(newest_first) if line.currency == SETTLE]
    return lines


async def transfers(rest: Rest, owners: Ownership, start: int, end: int) -> list[Transaction]:
    """What of `ledger` was no trade of ours: deposits, withdrawals, bonuses, interest, what others did."""
    return [line for line in await ledger(rest, start, end) if not owners.books(line)]
