"""Where the stop loss and the take profit of a position lie."""

import math
from decimal import Decimal

from bot.core.money import exact, to_grid
from bot.core.types import Instrument, Side
from bot.settings import Risk

_NARROWEST = 0.1  # of the widest: closer than this, the spread alone would trigger it


def stop_distance(sigma: float, horizon_bars: int, risk: Risk) -> float:
    """Fraction of the price: `stop_sigmas` x sigma x sqrt(horizon), between a tenth of `risk.stop` and it."""
    if not sigma > 0:
        return risk.stop
    return min(risk.stop, max(_NARROWEST * risk.stop, risk.stop_sigmas * sigma * math.sqrt(horizon_bars)))


def stop_price(entry: float | Decimal, side: Side, distance: float, instrument: Instrument) -> Decimal:
    """The stop of a position of `side`, rounded towards `entry`: never wider than asked."""
    true = entry if isinstance(entry, Decimal) else exact(entry)
    return to_grid(true * (1 - side.sign * exact(distance)), instrument.tick_size, up=side is Side.BUY)


def take_profit_price(entry: float, side: Side, distance: float, instrument: Instrument) -> Decimal:
    """The take profit at `distance` beyond `entry`, rounded away from it."""
    return to_grid(
        exact(entry) * (1 + side.sign * exact(distance)), instrument.tick_size, up=side is Side.BUY
    )
