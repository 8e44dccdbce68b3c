"""The adaptation process: one job after the other, politely, until the parent's end of the pipe closes."""

import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from threadpoolctl import threadpool_limits

from bot.core.errors import BotError, RuntimeFault
from bot.settings import Adaptation
from strategies.learning.wire import Result, decoded

if TYPE_CHECKING:
    from strategies.learning.adaptation_job import Adapting

NICENESS: Final = 10
MEMORY_MB: Final = 900  # resident, at most
_MB: Final = 1 << 20


def main(pipe: Connection, registry: Path, base_model: str, replay: Path, settings: bytes) -> None:
    """Says None when it waits for its first job, then a Result for each, which asks for the next one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    from strategies.learning.adaptation_job import Adapting  # torch is loaded here, in the child only

    threadpool_limits(1)
    adapting: Adapting | BotError
    try:
        adapting = Adapting(registry, base_model, replay, Adaptation(**msgspec.json.decode(settings)))
    except BotError as error:
        adapting = error  # each job then says what is wrong with the files
    _limit_memory(MEMORY_MB)
    answer: Result | None = None
    give_back = _giving_back()
    try:
        while True:
            pipe.send_bytes(msgspec.msgpack.encode(answer))
            answer = _answer(adapting, pipe.recv_bytes())
            give_back()
    except (EOFError, OSError):
        return


def _answer(adapting: "Adapting | BotError", order: bytes) -> Result:
    began, job = time.process_time(), decoded(order)
    done = Result(job.symbol, job.cut)
    if isinstance(adapting, BotError):
        done.reason, done.is_fault = str(adapting), True
        return done
    try:
        done.model_id, done.report = adapting.run(job)
    except (RuntimeFault, OSError, MemoryError) as error:
        done.reason, done.is_fault = _text(error), True
    except Exception as error:  # one bad token must not stop the others
        done.reason, done.is_fault = _text(error), "allocate memory" in str(error)  # torch's own MemoryError
    done.seconds = time.process_time() - began
    return done


def _text(error: Exception) -> str:
    """What a person reads; the kind too where the text was not written for one."""
    return str(error) if isinstance(error, BotError) else f"{type(error).__name__}: {error}"


def _limit_memory(most: int) -> None:
    """What is asked for beyond `most` MB resident is refused: a job fails, the machine does not swap."""
    with Path("/proc/self/statm").open() as file:
        size, resident = (int(pages) * resource.getpagesize() for pages in file.read().split()[:2])
    limit = size + max(0, most * _MB - resident)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _giving_back() -> Callable[[], object]:
    """Gives what a job has freed back to the system: jobs grow, and none fits in the holes of those before.

    Only glibc has it; elsewhere the allocator does as it likes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return partial(trim, 0) if trim else lambda: None


def _end_with_parent() -> None:
    """Even in the middle of a job: nobody would take its result."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(0)
