"""The latest state of orders and positions, folded from commands and account events, as database rows."""

from decimal import Decimal
from typing import Any, Final

import msgspec

from bot.core.commands import AmendOrder, Command, PlaceOrder
from bot.core.events import (
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    PositionAdopted,
    StopMoved,
)
from bot.core.folding import average, fold
from bot.core.records import Record
from bot.core.types import OrderStatus

_ZERO: Final = Decimal(0)
_REMEMBERED: Final = 1_000  # ended orders that a late message may still be about


class OrderRow(msgspec.Struct):
    """The fields are the columns of `orders`."""

    link_id: str
    order_id: str
    symbol: str
    side: str
    type: str
    qty: Decimal
    price: Decimal | None
    stop_loss: Decimal | None
    take_profit: Decimal | None
    reduce_only: bool
    status: str
    created: int
    updated: int
    reason: str = ""
    filled_qty: Decimal = _ZERO
    avg_price: Decimal | None = None


class PositionRow(msgspec.Struct):
    """The fields are the columns of `positions`. `avg_price` is the entry price, None when flat."""

    symbol: str
    qty: Decimal = _ZERO
    avg_price: Decimal | None = None
    stop_loss: Decimal | None = None
    updated: int = 0


class Ledger:
    """Folds messages; remembers which orders and positions changed since `changes_saved`.

    Positions are one per symbol. Orders that ended are forgotten some time after they were saved.
    """

    def __init__(self) -> None:
        self._orders: dict[str, OrderRow] = {}
        self._ended: dict[str, None] = {}  # of these orders, in that order
        self._positions: dict[str, PositionRow] = {}
        self._changed_orders: set[str] = set()
        self._changed_positions: set[str] = set()

    def apply(self, message: Event | Command | Record) -> None:
        """Messages that concern no order and no position are ignored."""
        match message:
            case PlaceOrder():
                self._place(message)
            case AmendOrder():
                if order := self._touch(message.link_id, message.ts):
                    order.price = message.price
            case OrderAccepted():
                if order := self._touch(message.link_id, message.ts):
                    order.order_id = message.order_id
                    if order.status == OrderStatus.SENT:
                        order.status = OrderStatus.NEW.value
            case OrderRejected():
                self._end(message, OrderStatus.REJECTED)
            case OrderCancelled():
                self._end(message, OrderStatus.CANCELLED)
            case OrderFilled():
                self._fill_order(message)
                self._fill_position(message)
            case StopMoved():
                self._position(message.symbol, message.ts).stop_loss = message.stop_loss
            case PositionAdopted():
                position = self._position(message.symbol, message.ts)
                position.qty, position.stop_loss = message.qty, message.stop_loss
                position.avg_price = message.entry if message.qty else None
            case _:
                pass

    def changes(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of the changed orders and positions."""
        orders = [msgspec.structs.asdict(self._orders[link_id]) for link_id in sorted(self._changed_orders)]
        positions = [
            msgspec.structs.asdict(self._positions[name]) for name in sorted(self._changed_positions)
        ]
        return orders, positions

    def changes_saved(self) -> None:
        self._changed_orders.clear()
        self._changed_positions.clear()
        while len(self._ended) > _REMEMBERED:
            oldest = next(iter(self._ended))
            del self._ended[oldest], self._orders[oldest]

    def _place(self, command: PlaceOrder) -> None:
        order = command.order
        self._orders[order.link_id] = OrderRow(
            link_id=order.link_id,
            order_id="",
            symbol=order.symbol,
            side=order.side.value,
            type=order.type.value,
            qty=order.qty,
            price=order.price,
            stop_loss=order.stop_loss,
            take_profit=order.take_profit,
            reduce_only=order.reduce_only,
            status=OrderStatus.SENT.value,
            created=command.ts,
            updated=command.ts,
        )
        self._changed_orders.add(order.link_id)

    def _end(self, event: OrderRejected | OrderCancelled, status: OrderStatus) -> None:
        if order := self._touch(event.link_id, event.ts):
            order.reason = event.reason
            self._ended[event.link_id] = None
            if order.status != OrderStatus.FILLED:
                order.status = status.value

    def _fill_order(self, fill: OrderFilled) -> None:
        if order := self._touch(fill.link_id, fill.ts):
            before = order.avg_price or _ZERO
            order.avg_price = average(before, order.filled_qty, fill.price, fill.qty)
            order.filled_qty += fill.qty
            if fill.leaves_qty == 0:
                order.status = OrderStatus.FILLED.value
                self._ended[fill.link_id] = None
            elif OrderStatus(order.status).is_open:
                order.status = OrderStatus.PARTIALLY_FILLED.value

    def _fill_position(self, fill: OrderFilled) -> None:
        position = self._position(fill.symbol, fill.ts)
        entry = position.avg_price or _ZERO
        position.qty, position.avg_price, _ = fold(position.qty, entry, fill.side.sign * fill.qty, fill.price)
        if not position.qty:
            position.avg_price = position.stop_loss = None

    def _touch(self, link_id: str, ts: int) -> OrderRow | None:
        """The order, marked as changed; None for orders that the exchange made itself."""
        order = self._orders.get(link_id)
        if order is not None:
            order.updated = ts
            self._changed_orders.add(link_id)
        return order

    def _position(self, symbol: str, ts: int) -> PositionRow:
        position = self._positions.setdefault(symbol, PositionRow(symbol))
        position.updated = ts
        self._changed_positions.add(symbol)
        return position
