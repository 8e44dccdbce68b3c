"""From the JSON of a request to values on the contract's grid. What cannot be read is refused with 10001."""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from bot.core.types import Side
from bot.exchange.local.contract import Contract
from bot.exchange.local.orders import INDEX_PRICE, LAST_PRICE, MARK_PRICE, Protection, Refused

Body = Mapping[str, Any]
PARAMS: Final = 10001
_LINK_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")
_TRIGGERS: Final = (LAST_PRICE, MARK_PRICE, INDEX_PRICE)


def wrong(text: str) -> Refused:
    return Refused(PARAMS, f"params error: {text}")


def text(body: Body, name: str, default: str = "") -> str:
    value = body.get(name)
    return default if value is None or value == "" else str(value)


def choice(body: Body, name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
    value = text(body, name, default or "")
    if value not in allowed:
        raise wrong(f"{name} invalid")
    return value


def flag(body: Body, name: str) -> bool:
    value = body.get(name)
    return value is True or str(value).lower() == "true"


def whole(body: Body, name: str, default: int = 0) -> int:
    value = body.get(name)
    if value is None or value == "":
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise wrong(f"{name} invalid") from None


def number(body: Body, name: str) -> Decimal | None:
    """None when absent or empty."""
    value = body.get(name)
    if value is None or value == "":
        return None
    try:
        parsed = Decimal(str(value))
    except InvalidOperation:
        raise wrong(f"{name} invalid") from None
    if not parsed.is_finite() or parsed < 0 or parsed > Decimal("1e18"):
        raise wrong(f"{name} invalid")
    return parsed


def ticks(body: Body, name: str, contract: Contract) -> int | None:
    """A price on the grid; 0 is a value of its own ("remove"), None means absent."""
    value = number(body, name)
    return None if value is None else ticks_of(value, name, contract)


def ticks_of(price: Decimal, name: str, contract: Contract) -> int:
    found = contract.ticks(price)
    if found is None:
        raise wrong(f"{name} {price} is not a multiple of the tick {contract.tick}")
    return found


def lots(body: Body, name: str, contract: Contract) -> int | None:
    value = number(body, name)
    return None if value is None else lots_of(value, contract)


def lots_of(qty: Decimal, contract: Contract) -> int:
    found = contract.lots(qty)
    if found is None:
        raise Refused(PARAMS, f"Qty invalid: {qty} is not a multiple of the step {contract.step}")
    return found


def side(body: Body) -> Side:
    return Side(choice(body, "side", ("Buy", "Sell")))


def link_id(value: str) -> str:
    if value and not _LINK_ID.fullmatch(value):
        raise wrong("orderLinkId must be 1 to 36 letters, digits, - or _")
    return value


def trigger_by(body: Body, name: str) -> str:
    return choice(body, name, _TRIGGERS, LAST_PRICE)


def protection(body: Body, contract: Contract) -> Protection:
    """The take profit and stop loss of a new order."""
    mode = choice(body, "tpslMode", ("Full", "Partial"), "Full")
    found = Protection(
        take_profit=ticks(body, "takeProfit", contract) or 0,
        stop_loss=ticks(body, "stopLoss", contract) or 0,
        tp_by=trigger_by(body, "tpTriggerBy"),
        sl_by=trigger_by(body, "slTriggerBy"),
        mode=mode,
        tp_limit=limit_leg(body, "tp", contract),
        sl_limit=limit_leg(body, "sl", contract),
    )
    if mode == "Full" and (found.tp_limit or found.sl_limit):
        raise wrong("a limit take profit or stop loss needs tpslMode Partial")
    return found


def limit_leg(body: Body, leg: str, contract: Contract) -> int:
    """Limit price of a take profit ("tp") or stop loss ("sl"); 0 for a market one."""
    if choice(body, f"{leg}OrderType", ("Market", "Limit"), "Market") == "Market":
        return 0
    price = ticks(body, f"{leg}LimitPrice", contract)
    if not price:
        raise wrong(f"{leg}LimitPrice is required")
    return price
