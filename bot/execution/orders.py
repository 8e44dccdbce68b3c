"""The life of our orders, from approved to finished, as the exchange's answers tell it."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from bot.core.commands import CancelOrder, PlaceOrder
from bot.core.events import OrderAccepted, OrderCancelled, OrderFilled, OrderRejected
from bot.core.types import OrderRequest, OrderStatus
from risk.manager import Approved

_ID: Final = re.compile(r"t[0-9a-z]{6}-[A-Z0-9]+-[0-9a-z]+-[0-9a-z]+")  # of a tag of `tag_of`


@dataclass(frozen=True, slots=True)
class LiveOrder:
    request: OrderRequest
    status: OrderStatus
    leaves: Decimal
    notional: float  # of an entry at the price it was approved at; 0 for exits


class Orders:
    """Open orders by `link_id`; finished ones are forgotten here and kept by the database.

    Ids are deterministic: tag, symbol, time in minutes and a counter of the run (base 36), so that a replay
    of the same events sends the same ids, and a resend can never become a second order.
    """

    def __init__(self, tag: str = "t") -> None:
        self._tag = tag
        self._open: dict[str, LiveOrder] = {}
        self._count = 0

    def next_id(self, symbol: str, ts: int) -> str:
        """At most 36 characters of letters, digits and '-', as Bybit's orderLinkId wants."""
        self._count += 1
        return f"{self._tag}-{symbol[:18]}-{_base36(ts // 60_000)}-{_base36(self._count)}"

    def place(self, approved: Approved, ts: int, price: float) -> PlaceOrder:
        """The command for an approved order; from here on it counts as sent."""
        order = approved.order
        notional = 0.0 if order.reduce_only else float(order.qty) * price
        self._open[order.link_id] = LiveOrder(order, OrderStatus.SENT, order.qty, notional)
        return PlaceOrder(ts, order)

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

    @property
    def pending_notional(self) -> float:
        """Notional of entries that are not filled yet."""
        return sum(live.notional for live in self._open.values())

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

    def cancel_entries(self, ts: int) -> list[CancelOrder]:
        return [CancelOrder(ts, order.symbol, order.link_id) for order in self.pending_entries]


def is_ours(link_id: str) -> bool:
    """Whether a run of this program made the order, by the form of its id."""
    return _ID.fullmatch(link_id) is not None


def tag_of(started: int) -> str:
    """The tag of a run that began at `started` (ms UTC): an id is never used twice, across runs either."""
    return f"t{_base36(started // 1_000)}"


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"
