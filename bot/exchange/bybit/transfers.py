"""Money that came or went without trading, by the exchange's own ledger."""

from typing import Final

from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.wire.account import Transaction

SETTLE: Final = "USDT"
BOOKED: Final = frozenset(
    {"TRADE", "SETTLEMENT", "LIQUIDATION", "ADL", "DELIVERY"}
)  # they come as executions


async def ledger(rest: Rest, start: int, end: int) -> list[Transaction]:
    """Every line of the settle coin within [start, end] (ms, at most 7 days), oldest first.

    Raises ExchangeError.
    """
    lines = await rest.account.transactions(start, end)
    return [line for line in reversed(lines) if line.currency == SETTLE]


async def transfers(rest: Rest, start: int, end: int) -> list[Transaction]:
    """What of `ledger` was no trade: deposits, withdrawals, bonuses, interest."""
    return [line for line in await ledger(rest, start, end) if line.type not in BOOKED]
