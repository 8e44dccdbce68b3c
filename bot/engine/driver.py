"""The asyncio loop of a run: moments of the market in, until the market ends or somebody asks to stop."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from bot.core.events import Event
from bot.core.interrupt import end_at_once
from bot.engine.runner import Runner, moments

_COMMIT_EVERY: Final = 256  # moments between commits when no command leaves
_BREATHE_EVERY: Final = 32  # moments between looks at signals and the screen
_LISTEN_SECONDS: Final = 0.25  # between looks for what a person wants, while a moment is waited for
_POLL_SECONDS: Final = 0.01  # while a candidate that is due is still being made
STOP_SECONDS: Final = 1.2  # from Ctrl-C; the interpreter itself takes another half to be gone


async def drive(
    runner: Runner,
    events: Iterable[Event],
    stop: asyncio.Event,
    commit: Callable[[], None],
    tick: Callable[[int], None],
    pace: Callable[[int], float] = lambda _: 0.0,
    told: Callable[[int], Sequence[Event]] = lambda _: (),
) -> bool:
    """Run to the end of `events`; False when stopped before.

    tick is told the market's time; pace says how many seconds to wait before a moment (0: none). told: what a
    person wants after the moment at ts (ms); it is heard there and before the next one.
    """

    def listen(ts: int) -> None:
        if wishes := told(ts):
            for wish in wishes:
                runner.hear(wish)
            commit()

    last = 0  # the moment that was, ms
    for count, moment in enumerate(moments(events)):
        ts = moment[0].ts
        while runner.is_waiting(ts) and not stop.is_set():
            tick(ts)
            if count:
                listen(last)
            await asyncio.sleep(_POLL_SECONDS)
        due = time.monotonic() + pace(ts)
        while (wait := due - time.monotonic()) > 0 and not stop.is_set():
            await _sleep_or_stop(min(wait, _LISTEN_SECONDS), stop)
            if count:
                listen(last)
        if count % _BREATHE_EVERY == 0:
            tick(ts)
            await asyncio.sleep(0)
        if stop.is_set():
            return False
        runner.advance(moment)
        listen(last := ts)
        if count % _COMMIT_EVERY == 0:
            commit()
    runner.finish()
    return True


def at_speed(
    speed: float, replaying: Callable[[], bool], clock: Callable[[], float] = time.monotonic
) -> Callable[[int], float]:
    """A `pace` by which market time runs at `speed` times wall time; 0 = without waiting.

    What is replayed is not waited for: the clock begins with the first moment that is new.
    """
    began: tuple[int, float] | None = None

    def wait(ts: int) -> float:
        nonlocal began
        if not speed or replaying():
            return 0.0
        began = began or (ts, clock())
        return (ts - began[0]) / 1000 / speed - (clock() - began[1])

    return wait


async def _sleep_or_stop(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


@contextmanager
def stopped_by_signals(stop: asyncio.Event, seconds: float = STOP_SECONDS) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `stop`; what they meant before comes back afterwards.

    When the loop does not come to it in `seconds` (it may be compiling a kernel), the process ends at once.
    """
    loop = asyncio.get_running_loop()

    def ask(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        loop.call_soon_threadsafe(stop.set)

    meanings = {signal.SIGINT: ask, signal.SIGTERM: ask, signal.SIGALRM: end_at_once}
    before = {number: signal.signal(number, handler) for number, handler in meanings.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
