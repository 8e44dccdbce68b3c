"""Ctrl-C and SIGTERM at moments when nobody can be asked to stop."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Final

STOPPED: Final = 130  # the exit code, as a shell has it for Ctrl-C
_code = STOPPED
_SHOW_CURSOR: Final = "\x1b[?25h"


def end_with(code: int) -> None:
    """From now on `end_at_once` ends with another exit code than that of Ctrl-C."""
    global _code
    _code = code


def end_at_once(_number: int, _frame: FrameType | None) -> None:
    """A signal handler: the process ends where it stands, without a traceback, and so do its children.

    Nothing is lost that was committed, and nothing was sent that was not: for that it is like a kill.
    """
    cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
    for child in multiprocessing.active_children():
        child.kill()  # else it would notice by a broken pipe, and say so with a traceback
    os.write(sys.stderr.fileno(), f"{cursor}Stopped.\n".encode())
    os._exit(_code)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """For the start of a child process, which inherits it: a Ctrl-C, which goes to the whole group, must not
    kill it with a traceback while it is still importing. Ours arrives afterwards."""
    resource_tracker.ensure_running()  # the first child would start it, and it takes the mask away
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
