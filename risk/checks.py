"""Every check that an entry passes, in this order. Each gives the reason why not, or None.

Exits pass none of them. What is unknown of the market (NaN) does not veto where the market is simulated or
recorded, which know no book; live, an entry waits until it is known.
"""

import math
from collections.abc import Callable
from typing import Final

from bot.core.types import DAY_MS, MINUTE_MS, Stage, TradingStatus
from risk.context import Context

Check = Callable[[Context], str | None]
_ROUNDING: Final = 1 + 1e-9  # of sums of floats


# --- may we trade at all, and this -------------------------------------------------------------------------


def mode_and_latches(context: Context) -> str | None:
    reason = context.breaker.reason or context.breaker.token_reason(context.signal.symbol)
    return f"halted: {reason}" if reason else context.account.blocked or None


def ownership(context: Context) -> str | None:
    """The exchange would make one position of ours and theirs."""
    found = context.account.somebody_else(context.signal.symbol)
    return f"somebody else has {found} there, which is left alone" if found else None


def equity(context: Context) -> str | None:
    value = context.account.equity
    return None if math.isfinite(value) and value > 0 else f"equity is {value}"


def market_data(context: Context) -> str | None:
    faults = context.market.faults
    return f"the market data cannot be trusted: {'; '.join(faults)}" if faults else None


def signal_numbers(context: Context) -> str | None:
    signal = context.signal
    numbers = {
        "price": signal.price, "confidence": signal.confidence, "similarity": signal.similarity,
        "volatility": signal.sigma, "expected move": signal.expected_move,
    }  # fmt: skip
    unknown = [name for name, value in numbers.items() if not math.isfinite(value)]
    if unknown:
        return f"not known yet: {', '.join(unknown)}"
    return None if signal.price > 0 else f"the price is {signal.price:g}"


def model_arm(context: Context) -> str | None:
    arms, arm = context.risk.arms, context.signal.arm
    return f"models of the arm {arm!r} may not trade" if arms and arm not in arms else None


def model_age(context: Context) -> str | None:
    days, most = context.signal.model_age / DAY_MS, context.risk.max_model_days
    return f"the model's newest data are {days:.1f} days old, the limit is {most:g}" if days > most else None


def model_confidence(context: Context) -> str | None:
    least = context.gate.confidence
    said = context.signal.confidence
    return f"confidence {said:.3f} < {least:g}" if said < least else None


def model_similarity(context: Context) -> str | None:
    least, found = context.gate.similarity, context.signal.similarity
    return f"similarity {found:.2f} < {least:g}" if found < least else None


def ladder(context: Context) -> str | None:
    signal = context.signal
    if signal.stage in (Stage.SMALL, Stage.FULL):
        return None
    return f"stage {signal.stage}: {signal.waits_for or 'not yet trusted'}"


def instrument_status(context: Context) -> str | None:
    status = context.market.status
    return None if status is TradingStatus.TRADING else f"the exchange's status is {status}"


# --- how much ----------------------------------------------------------------------------------------------


def _leaves(context: Context, limit: str, room: float) -> str | None:
    if room >= context.least:
        return None
    return f"{limit} leaves {max(room, 0.0):.2f}, the smallest order is {context.least:g}"


def position(context: Context) -> str | None:
    if context.account.is_exposed(context.signal.symbol, context.side):
        return "already in the market"
    return _leaves(context, "the limit of one position", context.rooms.position)


def gross_exposure(context: Context) -> str | None:
    return _leaves(context, "gross exposure", context.rooms.gross)


def net_exposure(context: Context) -> str | None:
    return _leaves(context, "net exposure", context.rooms.net)


def cluster_exposure(context: Context) -> str | None:
    return _leaves(context, "exposure to tokens that move together", context.rooms.cluster)


def leverage(context: Context) -> str | None:
    return _leaves(context, "leverage", context.rooms.leverage)


def liquidity(context: Context) -> str | None:
    if context.live and math.isnan(context.market.turnover):
        return "the turnover is not known yet"
    return (
        _leaves(context, "the share of the market's turnover", context.rooms.turnover)
        or _leaves(context, "the share of the open interest", context.rooms.interest)
        or _leaves(context, "the share of the book's depth", context.rooms.depth)
    )


def order_notional(context: Context) -> str | None:
    if context.qty >= context.instrument.min_qty and context.notional >= context.least:
        return None
    return f"sizing gives {context.notional:.2f}, the smallest order is {context.least:g}"


# --- at which price ----------------------------------------------------------------------------------------


def collar(context: Context) -> str | None:
    """Against fat fingers and old prices: the price of the decision must be that of the market."""
    price, most = context.signal.price, context.risk.collar
    for name, reference in (("mid", context.market.mid), ("mark", context.market.mark)):
        if context.live and math.isnan(reference):
            return f"the {name} is not known yet"
        off = abs(price / reference - 1) if reference > 0 else 0.0
        if off > most:
            return f"the price {price:g} is {off:.2%} off the {name} {reference:g}, the limit is {most:.2%}"
    return None


def stop_distance(context: Context) -> str | None:
    if (context.signal.price - float(context.stop)) * context.side.sign > 0:
        return None
    distance, tick = context.stop_distance, context.instrument.tick_size
    return f"a stop of {distance:.2%} is less than one tick ({tick}) away"


def spread(context: Context) -> str | None:
    found, most = context.market.spread, context.risk.max_spread
    if math.isnan(found):
        return "the spread is not known yet" if context.live else None
    return f"the spread is {found:.3%}, the limit is {most:.3%}" if found > most else None


def expected_move(context: Context) -> str | None:
    """Against what it costs to enter and leave, at the spread as it is where that is known."""
    costs, times = context.costs, context.risk.min_move_costs
    known = context.market.spread
    half_spread = costs.half_spread if math.isnan(known) else max(costs.half_spread, known / 2)
    least = times * 2 * (costs.taker_fee + half_spread)
    move = context.signal.expected_move
    return f"expected move {move:.2%} < {least:.2%}, {times:g} x costs" if move < least else None


# --- how often ---------------------------------------------------------------------------------------------


def order_rate(context: Context) -> str | None:
    now, risk = context.signal.ts, context.risk
    limits = ((1_000, "second", risk.entries_per_second), (DAY_MS, "day", risk.entries_per_day))
    for span, name, most in limits:
        if context.account.entries_since(now - span) >= most:
            return f"{most} entries within a {name}"
    return None


def cooldown(context: Context) -> str | None:
    lost, pause = context.account.last_loss(context.signal.symbol), context.risk.cooldown_minutes
    if not lost or context.signal.ts - lost >= pause * MINUTE_MS:
        return None
    return f"the token lost money less than {pause:g} minutes ago"


def position_count(context: Context) -> str | None:
    most = context.risk.max_positions
    return f"{most} positions are open" if context.account.open_positions >= most else None


# --- what may be lost --------------------------------------------------------------------------------------


def drawdown_room(context: Context) -> str | None:
    """An entry that is stopped out, with all the others, must not reach the limit of a drawdown."""
    room = context.breaker.room(context.account.equity)
    lost = context.account.open_risk + context.notional * context.stop_distance
    return f"stops would lose {lost:.2f}, the drawdown limits leave {room:.2f}" if lost >= room else None


def funding(context: Context) -> str | None:
    """Just before a settlement it costs more than the spread, where it costs."""
    market, risk = context.market, context.risk
    minutes = (market.next_funding - context.signal.ts) / MINUTE_MS
    if not market.next_funding or not 0 <= minutes <= risk.funding_minutes:
        return None
    cost = market.funding_rate * context.side.sign
    return f"funding of {cost:.3%} is due in {minutes:.0f} minutes" if cost > risk.max_funding else None


def price_band(context: Context) -> str | None:
    """The exchange takes no order beyond its band around the mark price, a closing one neither."""
    band, mark = context.instrument.price_band, context.market.mark
    if not band or not mark > 0:
        return None
    off, most = abs(context.signal.price / mark - 1), context.risk.band_share * float(band)
    return f"{off:.2%} from the mark, {most:.2%} of the exchange's band may be used" if off > most else None


CHECKS: Final[tuple[Check, ...]] = (
    mode_and_latches,
    ownership,
    equity,
    market_data,
    signal_numbers,
    model_arm,
    model_age,
    model_confidence,
    model_similarity,
    ladder,
    instrument_status,
    position,
    gross_exposure,
    net_exposure,
    cluster_exposure,
    leverage,
    liquidity,
    order_notional,
    collar,
    stop_distance,
    spread,
    expected_move,
    order_rate,
    cooldown,
    position_count,
    drawdown_room,
    funding,
    price_band,
)


def still_within(context: Context) -> str | None:
    """Of an entry whose parts count already, all of them."""
    account, risk = context.account, context.risk
    gross, most = account.gross_notional, risk.max_exposure * account.equity
    if gross > most * _ROUNDING:
        return f"gross exposure is {gross:.2f} of {most:.2f}"
    if account.open_positions > risk.max_positions:
        return f"{account.open_positions} positions are open"
    return None


LASTING: Final[tuple[Check, ...]] = (
    mode_and_latches,
    ownership,
    equity,
    market_data,
    instrument_status,
    spread,
    still_within,
)
"""Asked again before each later part of an entry: the others judge the decision, which stands."""


def objection(context: Context, checks: tuple[Check, ...] = CHECKS) -> str | None:
    """The first reason against the entry."""
    for check in checks:
        reason = check(context)
        if reason is not None:
            return reason
    return None
