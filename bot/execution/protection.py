"""No position without a live stop on the exchange, and none wider than the limit from its true entry."""

from decimal import Decimal

from bot.core.types import Instrument, Position
from bot.settings import Risk
from risk.stops import stop_price


def due_stop(position: Position, instrument: Instrument, risk: Risk) -> Decimal | None:
    """The stop to set now, or None if the one in place is good.

    The stop travels inside the entry order, computed from the price of the decision; the fill may be worse,
    and then the stop is tightened to `risk.stop` from the true entry.
    """
    widest = stop_price(position.entry, position.side, risk.stop, instrument)
    if position.stop is None:
        return widest
    too_wide = position.stop < widest if position.qty > 0 else position.stop > widest
    return widest if too_wide else None
