"""One child process that adapts models, and its parent's end. The parent never imports torch.

The child is started fresh (spawn), runs at low priority on one thread, and ends when the parent's end of the
pipe closes, however the parent ended. Messages are bytes: msgpack headers with raw arrays.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.commands import AdaptModel, ExtendChain
from bot.core.errors import BotError, RuntimeFault
from bot.core.events import AdaptationFailed, AdaptationReport, CandidateArrived
from bot.core.interrupt import interrupts_held_back
from bot.settings import Adaptation

if TYPE_CHECKING:
    from strategies.learning.adaptation_job import Adapting

NICENESS: Final = 10
MOST_RESTARTS: Final = 3  # for one job; a job that kills its child that often has failed
CLOSE_SECONDS: Final = 1.0

Job = tuple[str, int]  # symbol, cut


class Arrays(msgspec.Struct):
    """What a snapshot holds, row-major."""

    features: int
    rows: bytes
    starts: bytes
    labels: bytes
    weights: bytes

    @classmethod
    def of(cls, job: AdaptModel | ExtendChain) -> "Arrays":
        arrays = (job.rows, job.starts, job.labels, job.weights)
        return cls(job.rows.shape[1], *(array.tobytes() for array in arrays))

    def restored(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int8], NDArray[np.float32]]:
        return (
            np.frombuffer(self.rows, np.float32).reshape(-1, self.features),
            np.frombuffer(self.starts, np.int64),
            np.frombuffer(self.labels, np.int8),
            np.frombuffer(self.weights, np.float32),
        )


class Order(msgspec.Struct, tag=True):
    """An AdaptModel on the wire."""

    symbol: str
    cut: int
    base_model: str
    seed: int
    arrays: Arrays

    @classmethod
    def of(cls, job: AdaptModel) -> "Order":
        return cls(job.symbol, job.cut, job.base_model, job.seed, Arrays.of(job))

    def command(self) -> AdaptModel:
        return AdaptModel(
            self.cut, self.symbol, self.cut, self.base_model, self.seed, *self.arrays.restored()
        )


class ChainOrder(msgspec.Struct, tag=True):
    """An ExtendChain on the wire."""

    cut: int
    base_model: str
    rival_model: str
    seed: int
    listings: tuple[tuple[str, int], ...]
    arrays: Arrays
    log_vol: bytes

    @classmethod
    def of(cls, job: ExtendChain) -> "ChainOrder":
        return cls(
            job.cut, job.base_model, job.rival_model, job.seed, job.listings, Arrays.of(job),
            job.log_vol.tobytes(),
        )  # fmt: skip

    def command(self) -> ExtendChain:
        return ExtendChain(
            self.cut, self.cut, self.base_model, self.rival_model, self.seed, self.listings,
            *self.arrays.restored(), np.frombuffer(self.log_vol, np.float32),
        )  # fmt: skip


class Result(msgspec.Struct):
    """What became of a job: a model in the registry with its report, or the reason why there is none.

    is_fault: the reason lies in this machine (files, memory, disk), not in the job, and another job would
    fail the same way
    """

    symbol: str
    cut: int
    model_id: str = ""
    report: AdaptationReport | None = None
    reason: str = ""
    is_fault: bool = False


class AdaptationWorker:
    """Jobs in, results out, in order. A child that dies is started again with what it had not answered."""

    def __init__(self, registry: Path, base_model: str, replay: Path, settings: Adaptation) -> None:
        self._arguments = (registry, base_model, replay, msgspec.json.encode(settings.model_dump()))
        self._unanswered: deque[AdaptModel | ExtendChain] = deque()
        self._results: dict[Job, Result] = {}
        self._restarts = 0
        self._idle = False  # the child has said that it waits for a job
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def submit(self, job: AdaptModel | ExtendChain) -> None:
        """Queue a job; returns at once. `poll` hands it over when the child is free."""
        self._unanswered.append(job)
        if self._process is None:
            self._start()
        self.poll()

    def poll(self) -> None:
        """Take what the child has answered and give it the next job; never waits for it.

        A snapshot is larger than a pipe's buffer: it is sent only to a child that waits for one.
        """
        self._collect()
        if self._idle and self._unanswered:
            self._idle = False
            self._send(self._unanswered[0])

    def take(self, symbol: str, cut: int, due: int) -> CandidateArrived | AdaptationFailed | None:
        """The result of a job as an event at `due` (ms); None while there is none.

        Raises RuntimeFault when this machine, not the job, is at fault: such a failure is no fact of the
        market, and a run in which no model can adapt must not pass for one in which none was good enough.
        """
        self.poll()
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
        process, self._process = self._process, None
        if self._pipe is not None:
            self._pipe.close()
        if process is not None:
            process.terminate()
            process.join(CLOSE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    # --- the child's life ----------------------------------------------------------------------------------

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_child, args=(theirs, *self._arguments), daemon=True)
        with interrupts_held_back():
            self._process.start()
        theirs.close()
        self._pipe, self._idle = ours, False

    def _send(self, job: AdaptModel | ExtendChain) -> None:
        assert self._pipe is not None
        order = Order.of(job) if isinstance(job, AdaptModel) else ChainOrder.of(job)
        try:
            self._pipe.send_bytes(msgspec.msgpack.encode(order))
        except OSError:  # the child is gone; `_collect` notices and starts another
            return

    def _collect(self) -> None:
        try:
            while self._pipe is not None and self._pipe.poll():
                result = msgspec.msgpack.decode(self._pipe.recv_bytes(), type=Result | None)
                self._idle = True
                if result is not None:
                    self._results[result.symbol, result.cut] = result
                    self._unanswered.popleft()
                    self._restarts = 0
        except (EOFError, OSError):
            self._recover()
            return
        if self._process is not None and not self._process.is_alive():
            self._recover()

    def _recover(self) -> None:
        """The child died. Its first unanswered job is the one it was at."""
        process, self._process = self._process, None
        if self._pipe is not None:
            self._pipe.close()
        self._pipe, self._idle = None, False
        code = None
        if process is not None:
            process.join(CLOSE_SECONDS)
            code = process.exitcode
        self._restarts += 1
        if self._restarts > MOST_RESTARTS and self._unanswered:
            job = self._unanswered.popleft()
            reason = f"the adaptation process died {self._restarts} times at this job (exit code {code})"
            self._results[job.symbol, job.cut] = Result(job.symbol, job.cut, reason=reason, is_fault=True)
            self._restarts = 0
        if self._unanswered:
            self._start()


def _child(pipe: Connection, registry: Path, base_model: str, replay: Path, settings: bytes) -> None:
    """The child: one job after the other until the parent's end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS)
    from strategies.learning.adaptation_job import Adapting  # torch is loaded here, in the child only

    adapting: Adapting | BotError
    try:
        adapting = Adapting(registry, base_model, replay, Adaptation(**msgspec.json.decode(settings)))
    except BotError as error:
        adapting = error  # each job then says what is wrong with the files
    answer: Result | None = None
    try:
        while True:
            pipe.send_bytes(msgspec.msgpack.encode(answer))
            answer = _answer(adapting, msgspec.msgpack.decode(pipe.recv_bytes(), type=Order | ChainOrder))
    except (EOFError, OSError):
        return


def _answer(adapting: "Adapting | BotError", order: Order | ChainOrder) -> Result:
    job = order.command()
    if isinstance(adapting, BotError):
        return Result(job.symbol, job.cut, reason=str(adapting), is_fault=True)
    try:
        model_id, report = adapting.run(job)
    except (RuntimeFault, OSError, MemoryError) as error:
        return Result(job.symbol, job.cut, reason=_text(error), is_fault=True)
    except Exception as error:  # one bad token must not stop the others
        return Result(job.symbol, job.cut, reason=_text(error))
    return Result(job.symbol, job.cut, model_id, report)


def _text(error: Exception) -> str:
    """What a person reads; the kind too where the text was not written for one."""
    return str(error) if isinstance(error, BotError) else f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    """Even in the middle of a job: nobody would take its result."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(0)
