"""The account of a day or of a run: what we believe, beside what the exchange says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from bot.core.commands import Command, PlaceOrder
from bot.core.events import Event, OrderAccepted, OrderCancelled, OrderFilled, OrderRejected
from bot.core.records import Record
from bot.core.types import MINUTE_MS, Position
from bot.exchange.bybit.ownership import Ownership
from bot.exchange.bybit.rest import Rest
from bot.exchange.bybit.transfers import CENT, SETTLE, ledger, newest, total

_LATE: Final = 10 * MINUTE_MS  # by which our books follow what others move


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that must be equal. Texts, for people."""

    what: str
    ours: str
    theirs: str
    equal: bool


def frames_line(stream: str, counts: tuple[int, int]) -> Line:
    """Whether every frame of a stream came to an end that we know (`Stream.counts`)."""
    came, known = counts
    return Line(f"frames of the {stream} stream", f"{known:,}", f"{came:,}", known == came)


@dataclass(slots=True)
class RunLog:
    """An observer of a run: ids of what it sent and booked, with their times (ms) where one has to choose."""

    sent: dict[str, int] = field(default_factory=dict)
    existed: set[str] = field(default_factory=set)  # accepted or filled
    refused: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    executions: list[tuple[str, int]] = field(default_factory=list)

    def apply(self, message: Event | Command | Record) -> None:
        if isinstance(message, PlaceOrder):
            self.sent[message.order.link_id] = message.ts
        elif isinstance(message, OrderAccepted):
            self.existed.add(message.link_id)
            self.refused.discard(message.link_id)  # given up too early
        elif isinstance(message, OrderRejected):
            self.refused.add(message.link_id)
        elif isinstance(message, OrderCancelled):
            self.finished.add(message.link_id)
        elif isinstance(message, OrderFilled):
            self.executions.append((message.exec_id, message.ts))
            self.existed.add(message.link_id)
            self.refused.discard(message.link_id)
            if not message.leaves_qty:
                self.finished.add(message.link_id)

    def forget(self, before: int) -> None:
        """What is older, but for orders that have not ended: a day that was found right need not be kept."""
        gone = {link for link, ts in self.sent.items() if ts < before} & (self.finished | self.refused)
        for link in gone:
            del self.sent[link]
        for kept in (self.existed, self.refused, self.finished):
            kept -= gone
        self.executions = [item for item in self.executions if item[1] >= before]


async def audit(
    rest: Rest, owners: Ownership, log: RunLog, positions: Sequence[Position], balance: Decimal, since: int
) -> list[Line]:
    """Compare with the exchange what is ours. `since`: of orders and executions, ms, at most 7 days ago.

    Raises ExchangeError.
    """
    now = rest.clock.now_ms() + MINUTE_MS
    orders = [
        *await rest.orders.open_orders(settle_coin=SETTLE),
        *await rest.orders.history(start=since, end=now),
    ]
    sent = {link for link, ts in log.sent.items() if ts >= since}
    booked = [exec_id for exec_id, ts in log.executions if ts >= since]
    there = {order.order_link_id for order in orders} & sent
    refused_there = {order.order_link_id for order in orders if order.order_status == "Rejected"} & sent
    executions = [
        item
        for item in await rest.orders.executions(start=since, end=now)
        if item.exec_type != "Funding" and owners.is_ours(item.symbol, item.order_link_id, item.exec_time)
    ]
    held = {
        item.symbol: item
        for item in await rest.account.positions()
        if item.size and owners.holds(item.symbol)
    }
    wallet = await rest.account.wallet(SETTLE)
    cash = next((coin.wallet_balance for coin in wallet.coin if coin.coin == SETTLE), None) or Decimal(0)
    if abs(balance - cash) >= CENT:
        cash = await _without_news(rest, owners, balance, cash, since)
    existed = (log.existed & sent) - log.refused
    quantities = {item.symbol: item.qty for item in positions}
    stops = {item.symbol: item.stop for item in positions}
    return [
        _sets("orders that came to be", existed, there - refused_there),
        Line(
            "orders without an outcome", str(len(sent - log.finished - log.refused)), "0",
            not sent - log.finished - log.refused,
        ),
        _sets("executions", set(booked), {item.exec_id for item in executions}),
        Line("executions booked twice", str(len(booked) - len(set(booked))), "0",
             len(booked) == len(set(booked))),
        _values("positions", quantities, {name: item.signed_size for name, item in held.items()}),
        _values("stops", stops, {name: item.stop_loss or None for name, item in held.items()}),
        Line("balance", f"{balance:.4f}", f"{cash:.4f}", abs(balance - cash) < CENT),
    ]  # fmt: skip


async def change_of(rest: Rest, owners: Ownership, ours: Decimal, start: int, end: int) -> Line:
    """What our trading brought within (start, end] (ms, at most 7 days) beside the exchange's own ledger.

    Raises ExchangeError.
    """
    theirs = total(line for line in await ledger(rest, start + 1, end) if owners.books(line))
    return Line("change of the balance", f"{ours:+.4f}", f"{theirs:+.4f}", abs(ours - theirs) < CENT)


async def _without_news(
    rest: Rest, owners: Ownership, balance: Decimal, cash: Decimal, since: int
) -> Decimal:
    """The exchange's balance without the newest of what others moved, where our books lack just that.

    By the newest line of the ledger: while others trade there is no other moment to compare. Raises
    ExchangeError.
    """
    lines = await ledger(rest, since - _LATE, rest.clock.now_ms())
    moved = [line for line in lines if not owners.books(line)]
    if not moved or (there := lines[-1].cash_balance) is None:
        return cash
    return there - total(newest(moved, there - balance))


def _sets(what: str, ours: set[str], theirs: set[str]) -> Line:
    odd = sorted(ours ^ theirs)
    detail = f" ({', '.join(odd[:3])}{', …' if len(odd) > 3 else ''})" if odd else ""
    return Line(what, f"{len(ours)}{detail}", str(len(theirs)), ours == theirs)


def _values(what: str, ours: Mapping[str, Decimal | None], theirs: Mapping[str, Decimal | None]) -> Line:
    odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return Line(
        what,
        ", ".join(f"{name} {ours.get(name)}" for name in odd) or str(len(ours)),
        ", ".join(f"{name} {theirs.get(name)}" for name in odd) or str(len(theirs)),
        not odd,
    )
