"""The loop of a live run: events in the order in which they became known, one queue, one writer.

History runs through `bot.engine.driver.drive`, as a backtest does; what follows comes from here.
"""

import asyncio
from collections.abc import Callable

from bot.core.events import Event, TimePassed
from bot.engine.runner import Runner

_TELL_MS = 1_000
_LOOK_SECONDS = 0.25  # at the stop, the screen and the adaptation, when nothing happens


async def follow(
    runner: Runner,
    inbox: asyncio.Queue[Event],
    stop: asyncio.Event,
    commit: Callable[[], None],
    tick: Callable[[], None],
    now: Callable[[], int],
) -> None:
    """Feed the runner until `stop`. A candidate takes part when it is there; nobody waits for one.

    now: the exchange's time, ms UTC, which the engine is told once a second
    """
    told = 0
    while not stop.is_set():
        events = await _next(inbox)
        if abs(now() - told) >= _TELL_MS:  # also after a jump backwards
            told = now()
            events.append(TimePassed(told, told))
        for event in events:
            runner.is_waiting(event.ts)  # takes a candidate that is due and ready
            runner.advance([event])
        if events:
            commit()
        tick()


async def _next(inbox: asyncio.Queue[Event]) -> list[Event]:
    """Everything that is there, waiting a moment for the first."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            events = [await inbox.get()]
    except TimeoutError:
        return []
    while not inbox.empty():
        events.append(inbox.get_nowait())
    return events
