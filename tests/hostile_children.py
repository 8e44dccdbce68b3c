"""Adaptation processes that misbehave once, by a mark in the registry, and then are the real one."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from strategies.learning import child
from strategies.learning.wire import Result, decoded


def _is_first(registry: Path) -> bool:
    mark = registry / "misbehaved"
    if mark.exists():
        return False
    mark.touch()
    return True


def answers_garbage(pipe: Connection, registry: Path, *rest: Any) -> None:
    if _is_first(registry):
        pipe.send_bytes(b"\xc1 this is no message")
        time.sleep(600)
    child.main(pipe, registry, *rest)


def announces_more_than_it_sends(pipe: Connection, registry: Path, *rest: Any) -> None:
    if _is_first(registry):
        os.write(pipe.fileno(), b"\x7f\xff\xff\xff" + b"short")
        time.sleep(600)
    child.main(pipe, registry, *rest)


def answers_another_job(pipe: Connection, registry: Path, *rest: Any) -> None:
    """With what an older version had made of an older snapshot."""
    if _is_first(registry):
        pipe.send_bytes(msgspec.msgpack.encode(None))
        job = decoded(pipe.recv_bytes())
        pipe.send_bytes(msgspec.msgpack.encode(Result(job.symbol, job.cut - 1, "older")))
        time.sleep(600)
    child.main(pipe, registry, *rest)


def hangs_at_its_job(pipe: Connection, registry: Path, *rest: Any) -> None:
    if _is_first(registry):
        pipe.send_bytes(msgspec.msgpack.encode(None))
        pipe.recv_bytes()
        time.sleep(600)
    child.main(pipe, registry, *rest)


def stops_before_it_takes_its_job(pipe: Connection, registry: Path, *rest: Any) -> None:
    """The job is larger than the pipe's buffer: whoever writes it waits for ever."""
    if _is_first(registry):
        pipe.send_bytes(msgspec.msgpack.encode(None))
        os.kill(os.getpid(), signal.SIGSTOP)
    child.main(pipe, registry, *rest)


def never_gets_ready(pipe: Connection, registry: Path, *rest: Any) -> None:
    if _is_first(registry):
        time.sleep(600)
    child.main(pipe, registry, *rest)


def hungry(pipe: Connection, registry: Path, *rest: Any) -> None:
    """A job for which it wants far more memory than it has."""
    if _is_first(registry):
        child._limit_memory(child.MEMORY_MB)
        pipe.send_bytes(msgspec.msgpack.encode(None))
        job = decoded(pipe.recv_bytes())
        try:
            held = bytearray(8 << 30)
            reason = f"it has {len(held)} bytes"
        except MemoryError:
            reason = "refused"
        pipe.send_bytes(msgspec.msgpack.encode(Result(job.symbol, job.cut, reason=reason)))
    child.main(pipe, registry, *rest)
