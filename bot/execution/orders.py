"""The life of our orders, from approved to finished, as the exchange's answers tell it."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from bot.core.commands import CancelOrder, PlaceOrder
from bot.core.events import OrderAccepted, OrderCancelled, OrderFilled, OrderRejected
from bot.core.types import DAY_MS, OrderRequest, OrderStatus
from risk.manager import Approved

SALTS: Final = 36**3  # of tags
_ID: Final = re.compile(r"t[0-9a-z]{11}-[A-Z0-9]+-[0-9a-z]+")  # with a tag of `tag_of`


@dataclass(frozen=True, slots=True)
class LiveOrder:
    request: OrderRequest
    status: OrderStatus
    leaves: Decimal
    notional: float  # of an entry at the price it was approved at; 0 for exits
    risk: float  # of an entry: what is lost if it fills there and its stop is hit, quote coin


class Orders:
    """Open orders by `link_id`; finished ones are forgotten here and kept by the database.

    Ids are deterministic: tag, symbol and a counter of the run (base 36), so that a replay of the same events
    sends the same ids, and a resend can never become a second order.
    """

    def __init__(self, tag: str = "t") -> None:
        self._tag = tag
        self._open: dict[str, LiveOrder] = {}
        self._count = 0
        self._entries: deque[int] = deque()  # when entries were sent, of one day, ms

    def restore(self, entered: Iterable[int]) -> None:
        """Count what earlier runs entered too. entered: when, within the last day, oldest first, ms"""
        self._entries.extend(entered)

    def next_id(self, symbol: str) -> str:
        """At most 36 characters of letters, digits and '-', as Bybit's orderLinkId wants."""
        self._count += 1
        return f"{self._tag}-{symbol[:18]}-{_base36(self._count)}"

    def place(self, approved: Approved, ts: int, price: float, valid_until: int = 0) -> PlaceOrder:
        """The command for an approved order; from here on it counts as sent."""
        order = approved.order
        notional = risk = 0.0
        if not order.reduce_only:
            notional = float(order.qty) * price
            stop = price if order.stop_loss is None else float(order.stop_loss)
            risk = float(order.qty) * abs(price - stop)
            self._entries.append(ts)
            while self._entries[0] < ts - DAY_MS:
                self._entries.popleft()
        self._open[order.link_id] = LiveOrder(order, OrderStatus.SENT, order.qty, notional, risk)
        return PlaceOrder(ts, order, valid_until)

    def on_accepted(self, event: OrderAccepted) -> None:
        live = self._open.get(event.link_id)
        if live is not None and live.status is OrderStatus.SENT:
            self._open[event.link_id] = replace(live, status=OrderStatus.NEW)

    def on_filled(self, event: OrderFilled) -> OrderRequest | None:
        """The request that the fill belongs to; None when the exchange made the order."""
        live = self._open.get(event.link_id)
        if live is None:
            return None
        if event.leaves_qty > 0:
            share = float(event.leaves_qty / live.leaves) if live.leaves else 0.0
            self._open[event.link_id] = replace(
                live,
                status=OrderStatus.PARTIALLY_FILLED,
                leaves=event.leaves_qty,
                notional=live.notional * share,
                risk=live.risk * share,
            )
        else:
            del self._open[event.link_id]
        return live.request

    def on_finished(self, event: OrderCancelled | OrderRejected) -> OrderRequest | None:
        live = self._open.pop(event.link_id, None)
        return live.request if live else None

    @property
    def open(self) -> list[LiveOrder]:
        """Not ended yet, oldest first."""
        return list(self._open.values())

    def pending_notionals(self) -> Iterator[tuple[str, float]]:
        """Of each entry that is not filled yet, with its symbol, positive for a buy."""
        return ((live.request.symbol, live.notional * live.request.side.sign) for live in self._open.values())

    @property
    def pending_risk(self) -> float:
        """What entries that are not filled yet can lose."""
        return sum(live.risk for live in self._open.values())

    def entries_since(self, ts: int) -> int:
        """Entries that were sent after `ts`, which lies within the last day."""
        return sum(1 for sent in self._entries if sent > ts)

    @property
    def pending_entries(self) -> list[OrderRequest]:
        return [live.request for live in self._open.values() if not live.request.reduce_only]

    def is_entering(self, symbol: str) -> bool:
        return any(order.symbol == symbol for order in self.pending_entries)

    def leaving(self, symbol: str) -> Decimal:
        """Quantity of reduce-only orders under way."""
        return sum(
            (
                live.leaves
                for live in self._open.values()
                if live.request.reduce_only and live.request.symbol == symbol
            ),
            Decimal(0),
        )

    def cancel_entries(self, ts: int, symbol: str = "") -> list[CancelOrder]:
        """Of one token, or all ("")."""
        return [
            CancelOrder(ts, order.symbol, order.link_id)
            for order in self.pending_entries
            if symbol in ("", order.symbol)
        ]


def run_tag(link_id: str) -> str:
    """The tag of the run that made the order; "" for an order that no run of this program made."""
    return link_id.partition("-")[0] if _ID.fullmatch(link_id) else ""


def tag_of(started: int, salt: int) -> str:
    """The tag of a run that began at `started` (ms UTC): an id is never used twice, across runs either.

    salt: in range(SALTS), drawn by each run, for another bot on the account that begins in the same moment
    """
    return f"t{_base36(started):0>8}{_base36(salt):0>3}"


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"
