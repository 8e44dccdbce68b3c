"""Signals: asked to stop, the loop comes to an end; one that cannot be asked is ended."""

import asyncio
import signal
import subprocess
import sys
import time

from bot.engine.driver import stopped_by_signals


async def test_ctrl_c_sets_the_event_and_has_its_old_meaning_again_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    stop = asyncio.Event()
    with stopped_by_signals(stop):
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait_for(stop.wait(), 5)
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    assert after == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


BUSY = """
import asyncio, multiprocessing, time
from bot.engine.driver import stopped_by_signals

async def main():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    with stopped_by_signals(asyncio.Event()):
        print("busy", flush=True)
        while True:  # the loop never comes to its turn
            pass

asyncio.run(main())
"""


def test_a_loop_that_does_not_listen_is_ended_with_its_children_and_without_a_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)  # the child, too, has let go of the pipes
    assert process.returncode == 130
    assert 1.0 < time.monotonic() - asked < 6.0
    assert errors == "Stopped.\n"
