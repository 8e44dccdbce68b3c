"""Jobs and results between the process that trades and the one that adapts: msgpack with raw arrays."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from bot.core.commands import AdaptModel, ExtendChain
from bot.core.events import AdaptationReport


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
    scratch: str

    @classmethod
    def of(cls, job: AdaptModel) -> "Order":
        return cls(job.symbol, job.cut, job.base_model, job.seed, Arrays.of(job), job.scratch)

    def command(self) -> AdaptModel:
        return AdaptModel(
            self.cut, self.symbol, self.cut, self.base_model, self.seed, *self.arrays.restored(),
            scratch=self.scratch,
        )  # fmt: skip


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
    seconds: float = 0.0  # CPU time that it took


def encoded(job: AdaptModel | ExtendChain) -> bytes:
    order = Order.of(job) if isinstance(job, AdaptModel) else ChainOrder.of(job)
    return msgspec.msgpack.encode(order)


def decoded(content: bytes) -> AdaptModel | ExtendChain:
    return msgspec.msgpack.decode(content, type=Order | ChainOrder).command()
