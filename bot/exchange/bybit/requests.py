"""What we ask the exchange to do, as values; `params` gives the parameters as Bybit wants them.

Numbers leave as plain strings: a float would become "1e-05" on the way. Fields that are None do not leave.
"""

from decimal import Decimal
from functools import cache
from typing import Any, Final

import msgspec

from bot.core.commands import MoveStop
from bot.core.types import OrderRequest, OrderType, Side, TimeInForce, Trigger

Params = dict[str, Any]
TRIGGERS: Final = {Trigger.LAST: "LastPrice", Trigger.MARK: "MarkPrice"}


def params(request: msgspec.Struct) -> Params:
    """The parameters of a request struct."""
    return plain({sent: getattr(request, name) for name, sent in _names(type(request))})


@cache
def _names(kind: type[msgspec.Struct]) -> list[tuple[str, str]]:
    """Of each field: ours and the exchange's."""
    return [(field.name, field.encode_name) for field in msgspec.structs.fields(kind)]


def plain(values: Params) -> Params:
    """Drop None and write numbers of money without an exponent. Raises TypeError for a float."""
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        raise TypeError(f"{value!r}: prices and quantities are Decimal")
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value  # an enum becomes its text


class Intent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    symbol: str
    category: str = "linear"


class NewOrder(Intent, frozen=True, kw_only=True):
    """POST /v5/order/create.

    `position_idx` is 0 in one-way mode and always sent. `trigger_direction` is 1 for "rises to", 2 for
    "falls to". With `reduce_only` no take profit or stop loss may be attached.
    """

    side: Side
    order_type: OrderType
    qty: Decimal
    price: Decimal | None = None
    order_link_id: str | None = None
    time_in_force: TimeInForce | None = None
    position_idx: int | None = 0
    reduce_only: bool | None = None
    close_on_trigger: bool | None = None
    trigger_price: Decimal | None = None
    trigger_direction: int | None = None
    trigger_by: str | None = None
    order_filter: str | None = None
    market_unit: str | None = None
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    tp_trigger_by: str | None = None
    sl_trigger_by: str | None = None
    tpsl_mode: str | None = None
    tp_order_type: OrderType | None = None
    sl_order_type: OrderType | None = None
    tp_limit_price: Decimal | None = None
    sl_limit_price: Decimal | None = None


class Amendment(Intent, frozen=True, kw_only=True):
    """POST /v5/order/amend: what is None stays; a take profit or stop loss of 0 is removed."""

    order_id: str | None = None
    order_link_id: str | None = None
    qty: Decimal | None = None  # the new total
    price: Decimal | None = None
    trigger_price: Decimal | None = None
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None


class Cancellation(Intent, frozen=True, kw_only=True):
    """POST /v5/order/cancel, by either id."""

    order_id: str | None = None
    order_link_id: str | None = None
    order_filter: str | None = None  # spot only


class TradingStop(Intent, frozen=True, kw_only=True):
    """POST /v5/position/trading-stop: the stops of an open position; 0 removes one.

    Full mode moves the stop of the whole position; Partial adds one for `sl_size`.
    """

    position_idx: int | None = 0
    tpsl_mode: str | None = "Full"
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    trailing_stop: Decimal | None = None
    tp_trigger_by: str | None = None
    sl_trigger_by: str | None = None
    tp_size: Decimal | None = None
    sl_size: Decimal | None = None
    tp_order_type: OrderType | None = None
    sl_order_type: OrderType | None = None
    tp_limit_price: Decimal | None = None
    sl_limit_price: Decimal | None = None


def new_order(order: OrderRequest, last_price: Decimal | None = None) -> NewOrder:
    """The exchange's form of an approved order.

    `last_price` gives a conditional order its direction, and triggers it; without it such an order raises
    ValueError.
    """
    direction = None
    if order.trigger_price is not None:
        if last_price is None:
            raise ValueError(f"{order.link_id}: a conditional order needs the last price")
        direction = 1 if order.trigger_price > last_price else 2
    limit = order.type is OrderType.LIMIT
    return NewOrder(
        symbol=order.symbol,
        side=order.side,
        order_type=order.type,
        qty=order.qty,
        price=order.price if limit else None,
        order_link_id=order.link_id,
        time_in_force=order.time_in_force if limit else None,
        reduce_only=True if order.reduce_only else None,
        trigger_price=order.trigger_price,
        trigger_direction=direction,
        trigger_by=None if direction is None else TRIGGERS[Trigger.LAST],
        take_profit=order.take_profit,
        stop_loss=order.stop_loss,
        tp_trigger_by=None if order.take_profit is None else TRIGGERS[order.trigger_by],
        sl_trigger_by=None if order.stop_loss is None else TRIGGERS[order.trigger_by],
    )


def trading_stop(command: MoveStop) -> TradingStop:
    """The exchange's form of a moved stop; the take profit stays."""
    return TradingStop(
        symbol=command.symbol, stop_loss=command.stop_loss, sl_trigger_by=TRIGGERS[command.trigger_by]
    )
