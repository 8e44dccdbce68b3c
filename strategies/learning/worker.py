"""The parent's end of the adaptation process: a queue with priorities. The parent never imports torch.

The process is started fresh (spawn) and runs at low priority on one thread, in its own memory budget
(`child.py`). Its pipe belongs to a thread of ours: a snapshot is larger than a pipe's buffer, and nobody may
wait for a process that is busy, stopped or out of its mind. One that dies, hangs or answers what nobody asked
is replaced, and the next one begins its job anew.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import msgspec

from bot.core.commands import AdaptModel, ExtendChain
from bot.core.errors import RuntimeFault
from bot.core.events import AdaptationFailed, CandidateArrived
from bot.core.interrupt import interrupts_held_back
from bot.core.types import HOUR_MS
from bot.settings import Adaptation
from strategies.learning import child
from strategies.learning.wire import Result, encoded

MOST_RESTARTS: Final = 3  # for one job; a job that ends its child that often has failed
FIRST_PAUSE: Final = 0.25  # seconds before a second restart for one job; doubled each time
CLOSE_SECONDS: Final = 1.0
_GONE_SECONDS: Final = 0.05  # a killed process takes less, as a rule
LONGEST_ANSWER: Final = 1 << 20  # bytes
_HOUR: Final = HOUR_MS / 1_000

Job = AdaptModel | ExtendChain


class AdaptationWorker:
    """Jobs in, results out; the most pressing job first. Nothing here waits for the child.

    What a result says depends on its job alone, so the order changes no replay: there a candidate is a fact
    at a fixed time after its cut, and the driver waits for it. `limit` is for runs that wait for nobody.
    """

    process_main: Callable[..., None] = staticmethod(child.main)

    def __init__(
        self,
        registry: Path,
        base_model: str,
        replay: Path,
        settings: Adaptation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arguments = (registry, base_model, replay, msgspec.json.encode(settings.model_dump()))
        self._longest = settings.job_seconds
        self._clock = clock
        self._waiting: dict[str, Job] = {}  # the newest of each symbol
        self._results: dict[tuple[str, int], Result] = {}
        self._child: _Child | None = None
        self._job: Job | None = None  # the child is at it
        self._since = 0.0  # when the child was started or got its job
        self._ready = False  # the child waits for a job
        self._restarts = 0  # for the job that is first
        self._pause_until = 0.0
        self._allowance: _Allowance | None = None

    def limit(self, cpu_seconds: float) -> None:
        """From now on the child gets so many CPU seconds an hour, which the tokens share by their urgency.

        Never in a replay, whose results would then depend on the machine.
        """
        self._allowance = _Allowance(cpu_seconds, self._clock())

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once. One of the same symbol that still waits is out of date: it fails."""
        older = self._waiting.pop(job.symbol, None)
        if older is not None:
            self._finish(Result(older.symbol, older.cut, reason="a newer snapshot took its place"))
        self._waiting[job.symbol] = job
        self.poll()

    def poll(self) -> None:
        """Take what the child has answered, end it where it hangs, and give it the next job."""
        if self._child is not None:
            self._hear(self._child)
        if self._child is None and (self._waiting or self._job) and self._clock() >= self._pause_until:
            with interrupts_held_back():
                self._child = _Child(self.process_main, self._arguments)
            self._since = self._clock()
        if self._child is not None and self._ready:
            self._give(self._child)

    def take(self, symbol: str, cut: int, due: int) -> CandidateArrived | AdaptationFailed | None:
        """The result of a job as an event at `due` (ms); None while there is none. `poll` brings them.

        Raises RuntimeFault when this machine, not the job, is at fault: such a failure is no fact of the
        market, and a run in which no model can adapt must not pass for one in which none was good enough.
        """
        result = self._results.pop((symbol, cut), None)
        if result is None:
            return None
        if result.is_fault:
            raise RuntimeFault(f"adaptation of {symbol} is impossible here: {result.reason}")
        if result.report is None:
            return AdaptationFailed(due, due, symbol, cut, result.reason)
        return CandidateArrived(due, due, symbol, result.model_id, cut, result.report)

    def close(self) -> None:
        """End the child, whatever it is doing, within a second."""
        ended, self._child = self._child, None
        self._waiting.clear()
        self._job = None
        if ended is not None:
            ended.end(CLOSE_SECONDS)

    # --- one child -----------------------------------------------------------------------------------------

    def _hear(self, living: "_Child") -> None:
        while (said := living.heard()) is not _NOTHING:
            if isinstance(said, str):
                return self._replace(living, said)
            if said is not None and (self._job is None or _key(self._job) != (said.symbol, said.cut)):
                return self._replace(living, "it answered what nobody had asked")
            self._ready = True
            if said is not None:
                self._job, self._restarts = None, 0
                self._finish(said)
        if not self._ready and self._clock() - self._since > self._longest:
            self._replace(living, f"it has not answered for {self._longest:g} s")
        return None

    def _give(self, living: "_Child") -> None:
        if self._job is None:
            if not self._waiting or (self._allowance and not self._allowance.is_left(self._clock())):
                return
            self._job = self._waiting.pop(min(self._waiting.values(), key=_urgency).symbol)
        self._ready, self._since = False, self._clock()
        living.give(self._job)

    def _replace(self, lost: "_Child", why: str) -> None:
        """The child is of no use any more. The job that it was at is begun again, but not for ever."""
        code = lost.end(_GONE_SECONDS)
        if self._allowance:
            self._allowance.spend(self._clock() - self._since)  # at most; it cannot be asked any more
        self._child, self._ready = None, False
        self._restarts += 1
        self._pause_until = self._clock() + FIRST_PAUSE * (2**self._restarts - 2)
        first = self._job or min(self._waiting.values(), key=_urgency, default=None)
        if self._restarts > MOST_RESTARTS and first is not None:
            self._job = None
            if self._waiting.get(first.symbol) is first:
                del self._waiting[first.symbol]
            reason = (
                f"{self._restarts} adaptation processes failed at it, the last one: {why} (exit code {code})"
            )
            self._finish(Result(first.symbol, first.cut, reason=reason, is_fault=True))
            self._restarts = 0

    def _finish(self, result: Result) -> None:
        if self._allowance:
            self._allowance.spend(result.seconds)
        self._results[result.symbol, result.cut] = result


def _key(job: Job) -> tuple[str, int]:
    return job.symbol, job.cut


def _urgency(job: Job) -> tuple[bool, int, int, str]:
    """Alarms first, then the step of the chain, from which all tokens start, then the oldest model."""
    if isinstance(job, ExtendChain):
        return True, 0, job.cut, job.symbol
    return not job.urgent, job.until, job.cut, job.symbol


class _Allowance:
    """Seconds that may be spent: they come evenly, and those of one hour at most are kept."""

    def __init__(self, per_hour: float, now: float) -> None:
        self._per_hour = self._left = per_hour
        self._now = now

    def is_left(self, now: float) -> bool:
        self._left = min(self._per_hour, self._left + (now - self._now) * self._per_hour / _HOUR)
        self._now = now
        return self._left > 0

    def spend(self, seconds: float) -> None:
        self._left -= seconds


_NOTHING: Final = object()


class _Child:
    """A process, and the thread that alone touches its pipe."""

    def __init__(self, process_main: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=process_main, args=(theirs, *arguments), daemon=True
        )
        self.process.start()
        theirs.close()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._said: SimpleQueue[Result | str | None] = SimpleQueue()
        self._thread = threading.Thread(target=_talk, args=(ours, self._jobs, self._said), daemon=True)
        self._thread.start()

    def give(self, job: Job) -> None:
        self._jobs.put(job)

    def heard(self) -> Any:
        """A Result, None for "I am ready", a text for how it ended; _NOTHING when nothing was said."""
        try:
            return self._said.get_nowait()
        except Empty:
            return _NOTHING

    def end(self, seconds: float) -> int | None:
        """Kill it; its exit code where it is gone within `seconds`. The thread ends by the broken pipe and
        closes our end of it; what is left of the process, the start of the next one clears away."""
        self.process.kill()
        self._jobs.put(None)
        self.process.join(seconds)
        return self.process.exitcode


def _talk(
    pipe: Connection, jobs: "SimpleQueue[Job | None]", said: "SimpleQueue[Result | str | None]"
) -> None:
    with pipe:
        try:
            while True:
                said.put(msgspec.msgpack.decode(pipe.recv_bytes(LONGEST_ANSWER), type=Result | None))
                job = jobs.get()
                if job is None:
                    return
                pipe.send_bytes(encoded(job))
        except (EOFError, OSError):
            said.put("it died")
        except msgspec.MsgspecError as error:
            said.put(f"it answered what cannot be read ({error})")
