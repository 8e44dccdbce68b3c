"""Where the stop loss and the take profit of a position lie, at its entry and later."""

import math
from decimal import Decimal

from bot.core.money import exact, to_grid
from bot.core.types import Instrument, Position, Side
from bot.settings import Risk

_NARROWEST = 0.1  # of the widest: closer than this, the spread alone would trigger it
_STEP = 0.1  # of the first distance: a stop follows the price in steps of this, not tick by tick


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


def due_stop(
    position: Position, planned: Decimal | None, best: float, instrument: Instrument, risk: Risk
) -> Decimal | None:
    """The stop to set now, or None if the one in place is good. A stop is never moved away from the price.

    planned: what the entry was sent with, None if nobody knows; best: the most favourable price since then

    - A position without a stop gets the planned one, and none is wider than `risk.stop` from the true entry:
      the planned one was computed before the fill.
    - Break-even: after a gain of `break_even_stops` x the first distance, the stop lies at the entry.
    - Trailing: the stop follows `best` at `trailing_stops` x the first distance.
    """
    side, entry = position.side, position.entry
    widest = stop_price(entry, side, risk.stop, instrument)
    is_known = planned is not None and (entry - planned) * side.sign > 0  # else it was another position's
    first = _tighter(side, widest, planned) if planned is not None and is_known else widest
    distance = abs(float(entry - first)) / float(entry)
    gain = (best / float(entry) - 1) * side.sign
    wanted = first if position.stop is None else widest
    if risk.break_even_stops and gain >= risk.break_even_stops * distance:
        wanted = _tighter(side, wanted, to_grid(entry, instrument.tick_size, up=side is Side.SELL))
    if risk.trailing_stops:
        trailing = stop_price(best, side, risk.trailing_stops * distance, instrument)
        wanted = _tighter(side, wanted, trailing)
    now = position.stop
    if now is None:
        return wanted
    step = entry * exact(_STEP * distance)
    is_due = (widest - now) * side.sign > 0 or (wanted - now) * side.sign >= max(step, instrument.tick_size)
    return wanted if is_due else None


def _tighter(side: Side, one: Decimal, other: Decimal) -> Decimal:
    return max(one, other) if side is Side.BUY else min(one, other)
