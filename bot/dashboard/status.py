"""`bot status`: how a bot stands, from what it last said of itself and what it was told."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bot.core.events import PAUSED
from bot.core.types import Verb
from bot.dashboard.wording import clock, grouped, money
from bot.engine.standing import Standing
from bot.storage.mailbox import ENDED, FINISHED, Heartbeat, Request

FREE: Final = 0
HELD: Final = 1
DEAD: Final = 3


def verdict(beat: Heartbeat, requests: Sequence[Request], now: int) -> int:
    """The exit code. A run that came to its end is well, unless something holds the next start."""
    if beat.phase == FINISHED:
        return HELD if _held(requests) else FREE
    if not beat.is_alive(now):
        return DEAD
    stand = _standing(beat)
    free = stand is not None and beat.phase == "trading" and not stand.blocks
    return FREE if free and not _held(requests) else HELD


def lines(beat: Heartbeat, requests: Sequence[Request], now: int) -> Iterator[str]:
    """`now`: wall time, ms UTC."""
    where = f"process {beat.pid} on {beat.host}"
    if beat.is_alive(now):
        yield f"{beat.mode}: alive, {beat.phase} since {clock(beat.since)} UTC ({where})"
    else:
        how = beat.phase if beat.phase in ENDED else "dead: it last said that it lives"
        yield f"{beat.mode}: {how} {clock(beat.beat)} UTC, {_ago(now - beat.beat)} ago ({where})"
    if beat.phase == FINISHED:
        yield "the run came to its end: `bot report` shows what it brought"
    held = _held(requests)
    for request in held:
        state = "" if request.taken else ", not taken up yet"
        came = f"; {request.answer}" if request.answer and not request.done else ""
        yield f"held by {request.verb}, {clock(request.asked)}, {request.by}{_because(request)}{state}{came}"
    stand = _standing(beat)
    if stand is None:
        yield "it has not told how it stands yet"
        return
    is_alive = beat.is_alive(now)
    if not is_alive:
        yield "as it last stood:"
    yield from _account(stand, wish_is_told=bool(held) or not is_alive)


def _account(stand: Standing, *, wish_is_told: bool) -> Iterator[str]:
    """Ages by the run's clock: a simulated market has days of its own.

    wish_is_told: what a person asked for is told by the requests in force, or was ended by one after a death.
    """
    equity = "unknown" if stand.equity is None else money(stand.equity)
    yield f"equity {equity} USDT, balance {money(stand.balance)}"
    for cause, reason in stand.blocks.items():
        if cause == PAUSED and wish_is_told:
            continue
        yield f"no entries ({cause}): {reason}"
    faults = ((symbol, "; ".join(found)) for symbol, found in sorted(stand.faults.items()))
    for names, fault in grouped(faults):
        yield f"market data of {names}: {fault}"
    for rung in stand.rungs:
        yield str(rung)
        if judged := stand.verdicts.get(rung.symbol):
            yield f"  transfer to {judged}"
    for names, reason in grouped(sorted(stand.left_out.items())):
        yield f"not followed: {names} ({reason})"
    if stand.decided:
        yield f"last decision bar closed {clock(stand.decided)}, {_ago(stand.heard - stand.decided)} ago"
    else:
        yield "no decision bar yet"
    for held in stand.positions:
        stop = f"stop {held.stop:f}" if held.stop is not None else "WITHOUT A STOP"
        yield f"position {held.symbol} {held.qty:+f} at {held.entry:f}, {stop}"
    for symbol, found in sorted(stand.others.items()):
        yield f"left alone: {symbol}, {found} of somebody else"
    for order in stand.orders:
        kind = ", reduce only" if order.reduce_only else ""
        what = f"{order.side.lower()} {order.leaves:f} {order.symbol}{kind}"
        yield f"order {order.link_id} {what}: {order.status}"
    yield f"{len(stand.positions)} positions, {len(stand.orders)} open orders"


def _held(requests: Sequence[Request]) -> list[Request]:
    """What holds the bot, or its next start."""
    held: list[Request] = []
    for request in requests:
        held = [] if request.verb is Verb.RESUME else [*held, request]
    return held


def _standing(beat: Heartbeat) -> Standing | None:
    return None if beat.standing is None else msgspec.json.decode(beat.standing, type=Standing)


def _because(request: Request) -> str:
    return f": {request.reason}" if request.reason else ""


def _ago(ms: int) -> str:
    seconds = max(ms, 0) // 1_000
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7_200 else f"{seconds // 3_600} h"
