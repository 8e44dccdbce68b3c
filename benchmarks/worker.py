"""What adaptation costs: the live loop's lateness with and without it, and how many tokens one core serves.

python -m benchmarks.worker [--seconds N] [--rounds N]

A loop of 20 tokens decides one after the other, a token every 50 ms, each with its arms and a poll of the
worker, as a live run does at the close of a bar. Its lateness is how long after its moment a decision is
done. Rounds alternate: the adaptation process idle, and at work without a pause. The ratio is that of the
99th percentiles over all rounds; the run ends with an error when it is above 1.2, when an hour of one core
does not do for 600 tokens, or when the adaptation process is over its memory.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import torch

from bot.core.commands import AdaptModel, ExtendChain
from bot.core.events import AdaptationFailed, CandidateArrived
from bot.settings import Adaptation, Settings
from strategies.contest.arm import NetworkArm
from strategies.features.spec import COUNT, VERSION
from strategies.learning.architecture import Architecture
from strategies.learning.child import MEMORY_MB
from strategies.learning.dataset import LabelledSeries, SourceReplay
from strategies.learning.encoder import Encoder
from strategies.learning.registry import Model, ModelCard, Registry
from strategies.learning.worker import AdaptationWorker

FEATURES, BAR, HORIZON = 24, 900_000, 8
TOKENS, ARMS, EVERY = 20, 5, 0.05
MOST_RATIO, MOST_TOKENS = 1.2, 600


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=6, help="of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        try:
            bench.run(options.seconds, options.rounds)
        finally:
            bench.worker.close()


class Bench:
    """A registry with a source model and one of the chain, tokens with their arms, and the worker."""

    def __init__(self, directory: Path, adaptation: Adaptation | None = None) -> None:
        """adaptation: other settings of it than the shipped ones."""
        settings = Settings()
        shape = settings.model
        torch.manual_seed(0)
        architecture = Architecture(
            features=FEATURES, channels=shape.channels, blocks=shape.blocks, pool_bars=shape.pool_bars,
            embedding=shape.embedding,
        )  # fmt: skip
        card = ModelCard(
            kind="pretrained", architecture=architecture, features=VERSION,
            columns=tuple(map(str, range(FEATURES))), location=(0.0,) * COUNT, scale=(1.0,) * COUNT,
            symbols=("SOURCE",), since=0, until=1, temperature=1.0, metrics={},
        )  # fmt: skip
        registry = Registry(directory / "models")
        weights = Encoder(architecture).weights()
        self.base = registry.save(weights, card)
        self.chain = registry.save(weights, msgspec.structs.replace(card, kind="chain", seed=1))
        source = series("SOURCE", 40_000)
        last = (2_000 - settings.adaptation.every_bars) * BAR  # of a token of 2,000 rows, as scheduled
        self.scratch = registry.save(weights, msgspec.structs.replace(card, kind="scratch", until=last))
        replay = directory / "replay.npz"
        SourceReplay((source,), int(source.starts[36_000]), HORIZON).save(replay)
        self.worker = AdaptationWorker(
            registry.directory, self.base.model_id, replay, adaptation or settings.adaptation
        )
        self.tokens = [series(f"TOKEN{number}", 2_000) for number in range(TOKENS)]
        nothing = np.empty((0, FEATURES), np.float32)
        self.arms = [NetworkArm("frozen", self.base, HORIZON * BAR, 60, 24) for _ in range(TOKENS * ARMS)]
        for arm in self.arms:
            arm.use(self.base, nothing)
        self.job_seconds: list[float] = []
        self._asked: list[AdaptModel | ExtendChain] = []
        self._number = 0

    def run(self, seconds: float, rounds: int) -> None:
        print(f"load of this machine before: {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores")
        spent = {model.card.kind: self.cpu_of_a_job(model) for model in (self.base, self.chain)}
        for kind, cpu in spent.items():
            print(f"from a {kind} model: {cpu:.2f} s of CPU an adaptation, with its scratch rival: "
                  f"{3_600 / cpu:,.0f} tokens an hour")  # fmt: skip
        idle: list[float] = []
        busy: list[float] = []
        for _ in range(rounds):
            self.drain()
            idle += self.lateness(seconds, adapting=False)
            busy += self.lateness(seconds, adapting=True)
        low, high = (float(np.quantile(one, 0.99)) for one in (idle, busy))
        ratio = high / low
        print(f"lateness, idle: p50 {1e3 * statistics.median(idle):.2f}, p99 {1e3 * low:.2f} ms, "
              f"adapting: p50 {1e3 * statistics.median(busy):.2f}, p99 {1e3 * high:.2f} ms; ratio of p99 "
              f"{ratio:.2f} (limit {MOST_RATIO})")  # fmt: skip
        child = self.child_mb
        print(f"memory: adaptation process {child:.0f} MB (limit {MEMORY_MB})")
        if ratio > MOST_RATIO or max(spent.values()) * MOST_TOKENS > 3_600 or child > MEMORY_MB:
            sys.exit("over a limit")

    def cpu_of_a_job(self, base: Model, jobs: int = 5) -> float:
        """Median CPU seconds of the child from one answer to the next."""
        self.submit(base)
        self.drain()
        assert self.worker._child is not None
        child, seconds = psutil.Process(self.worker._child.process.pid), []
        for _ in range(jobs):
            before = sum(child.cpu_times()[:2])
            self.submit(base)
            self.drain()
            seconds.append(sum(child.cpu_times()[:2]) - before)
        return statistics.median(seconds)

    @property
    def child_mb(self) -> float:
        """Resident memory of the adaptation process."""
        assert self.worker._child is not None
        return float(psutil.Process(self.worker._child.process.pid).memory_info().rss / 1e6)

    def submit(self, base: Model, rows: int = 2_000) -> None:
        """An adaptation of the newest rows of the next token."""
        self._number += 1
        token = self.tokens[self._number % TOKENS].rows(slice(-rows, None))
        cut = int(token.starts[-1]) + BAR + self._number
        labels = np.where(token.t_known <= cut, token.y, -1).astype(np.int8)
        weights = np.where(labels >= 0, token.weight, 0).astype(np.float32)
        job = AdaptModel(
            cut, token.symbol, cut, base.model_id, self._number, token.x, token.starts, labels, weights,
            scratch=self.scratch.model_id,
        )  # fmt: skip
        self._asked.append(job)
        self.worker.submit(job)

    def extend(self, listings: int) -> None:
        """A step of the chain over so many listings of 5,760 rows."""
        self._number += 1
        one = series("LISTING", 5_760)
        cut = int(one.starts[-1]) + BAR + self._number
        labels = np.where(one.t_known <= cut, one.y, -1).astype(np.int8)
        arrays = (
            one.x,
            one.starts,
            labels,
            np.where(labels >= 0, one.weight, 0).astype(np.float32),
            one.log_vol,
        )
        job = ExtendChain(
            cut, cut, self.base.model_id, self.chain.model_id, self._number,
            tuple((f"LISTING{number}", len(one)) for number in range(listings)),
            *(np.concatenate([array] * listings) for array in arrays),
        )  # fmt: skip
        self._asked.append(job)
        self.worker.submit(job)

    def take(self) -> None:
        """What is done."""
        for job in list(self._asked):
            done = self.worker.take(job.symbol, job.cut, job.cut)
            if done is not None:
                assert isinstance(done, CandidateArrived | AdaptationFailed)
                if isinstance(done, AdaptationFailed):
                    sys.exit(f"an adaptation failed: {done.reason}")
                self._asked.remove(job)

    def drain(self) -> None:
        while self._asked:
            self.worker.poll()
            self.take()
            time.sleep(0.005)

    def lateness(self, seconds: float, *, adapting: bool) -> list[float]:
        """Seconds from the moment of a decision to its end, for each in the round."""
        found, number = [], 0
        began = time.monotonic()
        while (due := began + number * EVERY) < began + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            token = self.tokens[number % TOKENS]
            row = token.x[number % len(token.x)]
            first = ARMS * (number % TOKENS)
            for arm in self.arms[first : first + ARMS]:
                arm.predict(row)
            if adapting and len(self._asked) < 2:
                self.submit(self.chain)
            self.worker.poll()
            if self._asked:
                self.take()
            found.append(time.monotonic() - due)
            number += 1
        return found


def series(symbol: str, n: int) -> LabelledSeries:
    """Rows and labels that say nothing: the time does not depend on what is learnt."""
    rng = np.random.default_rng(len(symbol) + n)
    return LabelledSeries(
        symbol=symbol,
        step=BAR,
        starts=BAR * np.arange(n, dtype=np.int64),
        x=rng.standard_normal((n, FEATURES)).astype(np.float32),
        y=rng.integers(0, 2, n).astype(np.int8),
        weight=np.full(n, 1 / HORIZON, np.float32),
        log_vol=np.full(n, -6.0, np.float32),
        t_known=BAR * (np.arange(n, dtype=np.int64) + HORIZON + 1),
    )


if __name__ == "__main__":
    main()
