"""The asyncio loop of a run: moments of the market in, until the market ends or somebody asks to stop."""

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from bot.core.events import Event
from bot.engine.runner import Runner, moments

_COMMIT_EVERY = 256  # moments between commits when no command leaves
_BREATHE_EVERY = 32  # moments between looks at signals and the screen
_POLL_SECONDS = 0.01  # while a candidate that is due is still being made


async def drive(
    runner: Runner,
    events: Iterable[Event],
    stop: asyncio.Event,
    commit: Callable[[], None],
    tick: Callable[[int], None],
    pace: Callable[[int], float] = lambda _: 0.0,
) -> bool:
    """Run to the end of `events`; False when stopped before.

    tick is told the market's time; pace says how many seconds to wait before a moment (0: none).
    """
    for count, moment in enumerate(moments(events)):
        ts = moment[0].ts
        while runner.is_waiting(ts) and not stop.is_set():
            tick(ts)
            await asyncio.sleep(_POLL_SECONDS)
        if (wait := pace(ts)) > 0:
            await _sleep_or_stop(wait, stop)
        if count % _BREATHE_EVERY == 0:
            tick(ts)
            await asyncio.sleep(0)
        if stop.is_set():
            return False
        runner.advance(moment)
        if count % _COMMIT_EVERY == 0:
            commit()
    runner.finish()
    return True


async def _sleep_or_stop(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


@contextmanager
def stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the running loop to stop; what they meant before comes back afterwards."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
