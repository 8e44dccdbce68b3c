"""The adaptation child: answers what the job says and nothing else, and is gone when it should be."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import torch

from bot.core.commands import CHAIN, AdaptModel, ExtendChain
from bot.core.errors import RuntimeFault
from bot.core.events import AdaptationFailed, AdaptationReport, CandidateArrived
from bot.settings import Adaptation
from strategies.features.spec import VERSION
from strategies.learning.architecture import Architecture
from strategies.learning.child import MEMORY_MB, NICENESS
from strategies.learning.encoder import Encoder
from strategies.learning.registry import ModelCard, Registry
from strategies.learning.worker import MOST_RESTARTS, AdaptationWorker, _Allowance, _urgency
from tests.controls import World, replay, snapshot

ROOT = Path(__file__).parents[1]
SHAPE = Architecture(features=10, channels=4, blocks=2, pool_bars=4, embedding=4)
QUICK = Adaptation(steps=3)
PATIENCE = 240.0  # seconds, on a busy machine
WORLD = World(0)

Result = CandidateArrived | AdaptationFailed


def until(happens: Callable[[], object]) -> object:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := happens()):
        assert time.monotonic() < deadline, "nothing happened in time"
        threading.Event().wait(0.01)
    return answer


def result(worker: AdaptationWorker, job: AdaptModel | ExtendChain) -> Result:
    def answer() -> Result | None:
        worker.poll()
        return worker.take(job.symbol, job.cut, due=job.cut + 1)

    return until(answer)  # type: ignore[return-value]


def same(one: Result, other: Result) -> bool:
    """Equal but for the seconds that it took."""
    assert isinstance(one, CandidateArrived)
    assert isinstance(other, CandidateArrived)
    timeless = [
        msgspec.structs.replace(r, report=msgspec.structs.replace(r.report, seconds=0.0))
        for r in (one, other)
    ]
    return timeless[0] == timeless[1]


def model_of(registry: Registry, result: Result) -> tuple[bytes, ...]:
    """Its weights and those of the scratch rival, read back with their checksums."""
    assert isinstance(result, CandidateArrived)
    names = [result.model_id, *([result.report.scratch] if result.report.scratch else [])]
    models = [registry.load(name).weights for name in names]
    return tuple(weights[part].tobytes() for weights in models for part in sorted(weights))


class Workshop:
    """Files of a pretrained model, jobs for it, and workers."""

    def __init__(self, directory: Path) -> None:
        torch.manual_seed(0)
        self.registry = Registry(directory / "models")
        card = ModelCard(
            kind="pretrained", architecture=SHAPE, features=VERSION, columns=tuple("abcdefghij"),
            location=(0.0,), scale=(1.0,), symbols=("SOURCE",), since=0, until=1, temperature=1.3, metrics={},
            method="masked",
        )  # fmt: skip
        self.base = self.registry.save(Encoder(SHAPE).weights(), card)
        source = WORLD.series("SOURCE", 1500, "source", 0)
        self.replay = directory / "replay.npz"
        replay(source, int(source.starts[1200])).save(self.replay)

    def worker(self, settings: Adaptation = QUICK) -> AdaptationWorker:
        return AdaptationWorker(self.registry.directory, self.base.model_id, self.replay, settings)

    def job(self, symbol: str, n: int = 400, seed: int = 1) -> AdaptModel:
        rows = replace(WORLD.series(symbol, 400, "covariate", 3), symbol=symbol).rows(slice(n))
        return snapshot(rows, seed, self.base.model_id)

    def step(self) -> ExtendChain:
        """A step over two tokens that live at the same time."""
        made, half = self.job("AAA", 400), self.job("BBB", 400, seed=2)
        rows, starts = np.concatenate([made.rows, half.rows[::-1]]), np.tile(made.starts, 2)
        labels = np.where(np.tile(np.arange(400) < 390, 2), np.arange(800) // 3 % 2, -1).astype(np.int8)
        weights = np.where(labels >= 0, 0.125, 0).astype(np.float32)
        return ExtendChain(
            made.cut, made.cut, self.base.model_id, self.base.model_id, 1, (("AAA", 400), ("BBB", 400)), rows,
            starts, labels, weights, np.full(800, -6, np.float32),
        )  # fmt: skip


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def worker(workshop):
    worker = workshop.worker()
    yield worker
    worker.close()


def child(worker: AdaptationWorker) -> psutil.Process:
    """The living one; one that was killed is replaced when that is noticed."""
    until(lambda: worker.poll() or (worker._child is not None and worker._child.process.is_alive()))
    assert worker._child is not None
    return psutil.Process(worker._child.process.pid)


def test_a_job_becomes_a_candidate_whose_model_is_in_the_registry(workshop, worker):
    job = workshop.job("AAA")
    worker.submit(job)
    child(worker).send_signal(signal.SIGINT)  # Ctrl-C while the child is still importing

    candidate = result(worker, job)

    assert isinstance(candidate, CandidateArrived)
    assert (candidate.symbol, candidate.cut, candidate.ts) == ("AAA", job.cut, job.cut + 1)
    assert isinstance(candidate.report, AdaptationReport)
    model = workshop.registry.load(candidate.model_id)
    assert (model.card.kind, model.card.parent, model.card.until) == (
        "adapted",
        workshop.base.model_id,
        job.cut,
    )
    assert (model.card.temperature, model.card.method) == (1.3, "masked")
    assert not np.array_equal(model.weights["input.weight"], workshop.base.weights["input.weight"])


def test_the_scratch_rival_goes_on_from_the_weights_that_the_job_names(workshop, worker):
    first = workshop.job("AAA", n=300)
    worker.submit(first)
    made = result(worker, first)
    assert isinstance(made, CandidateArrived)
    scratch = workshop.registry.load(made.report.scratch)
    assert (scratch.card.kind, scratch.card.until, scratch.card.symbols) == ("scratch", first.cut, ("AAA",))
    assert scratch.card.method is msgspec.UNSET, "it had no pretraining"

    rivals = []
    for last in ("", made.report.scratch):
        job = msgspec.structs.replace(workshop.job("AAA", seed=2), scratch=last)
        worker.submit(job)
        candidate = result(worker, job)
        assert isinstance(candidate, CandidateArrived)
        rivals.append(workshop.registry.load(candidate.report.scratch).weights["input.weight"])
    moved = [np.abs(one - scratch.weights["input.weight"]).max() for one in rivals]
    assert 0 < moved[1] < 0.01 < moved[0]

    missing = msgspec.structs.replace(workshop.job("AAA"), scratch="nowhere")
    worker.submit(missing)
    failed = result(worker, missing)
    assert isinstance(failed, AdaptationFailed)
    assert "no such model" in failed.reason


def test_a_step_of_the_chain_becomes_a_model_that_tokens_can_start_from(workshop):
    worker = workshop.worker(Adaptation(steps=3, gentle_steps=3, chain_steps=3, chain_tail_days=1))
    step = workshop.step()
    worker.submit(step)

    candidate = result(worker, step)

    assert isinstance(candidate, CandidateArrived)
    assert (candidate.symbol, candidate.cut) == (CHAIN, step.cut)
    assert np.isfinite(candidate.report.gain)
    card = workshop.registry.load(candidate.model_id).card
    assert (card.kind, card.parent, card.symbols, card.until) == (
        "chain", workshop.base.model_id, ("AAA", "BBB"), step.cut,
    )  # fmt: skip

    job = msgspec.structs.replace(workshop.job("CCC"), base_model=candidate.model_id)
    worker.submit(job)
    adapted = result(worker, job)
    assert isinstance(adapted, CandidateArrived)
    assert workshop.registry.load(adapted.model_id).card.parent == candidate.model_id

    worker.submit(step)
    child(worker).kill()
    assert same(result(worker, step), candidate)
    worker.close()


def test_the_child_is_polite_single_threaded_and_within_its_memory(workshop, worker):
    job = workshop.job("AAA")
    worker.submit(job)
    result(worker, job)
    process = child(worker)
    assert process.nice() == min(19, os.nice(0) + NICENESS)
    assert process.memory_info().rss < MEMORY_MB * 2**20
    assert process.rlimit(psutil.RLIMIT_AS)[1] < 2**62
    assert not any("/pandas/" in mapped.path for mapped in process.memory_maps()), "130 MB for nothing"
    busy = [thread for thread in process.threads() if thread.user_time + thread.system_time > 0.5]
    assert len(busy) == 1


def test_the_parent_has_no_torch_because_of_it():
    script = "import sys, strategies.learning.worker; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_the_order_of_jobs_does_not_change_their_results(workshop, worker):
    jobs = [workshop.job("AAA"), workshop.job("BBB", seed=5), workshop.job("CCC", n=300)]

    for job in jobs:
        worker.submit(job)
    forwards = [result(worker, job) for job in jobs]
    for job in reversed(jobs):
        worker.submit(job)
    backwards = [result(worker, job) for job in jobs]

    assert all(same(one, other) for one, other in zip(forwards, backwards, strict=True))


def test_a_result_is_handed_out_once(workshop, worker):
    job = workshop.job("AAA")
    worker.submit(job)
    result(worker, job)

    assert worker.take(job.symbol, job.cut, due=0) is None


def test_a_job_that_cannot_be_done_fails_with_its_reason_and_stops_no_other(workshop, worker):
    hopeless, fine = workshop.job("AAA", n=30), workshop.job("BBB")
    worker.submit(hopeless)
    worker.submit(fine)

    failed = result(worker, hopeless)

    assert isinstance(failed, AdaptationFailed)
    assert "unbroken rows before each" in failed.reason
    assert isinstance(result(worker, fine), CandidateArrived)


def test_no_step_means_the_pretrained_model_and_leaves_its_card_alone(workshop):
    from strategies.learning.adaptation_job import Adapting

    class Undecided(Adaptation):
        steps: int = 0

    adapting = Adapting(workshop.registry.directory, workshop.base.model_id, workshop.replay, Undecided())
    torch.use_deterministic_algorithms(mode=False)

    model_id, report = adapting.run(workshop.job("AAA"))

    assert (model_id, report.steps) == (workshop.base.model_id, 0)
    assert workshop.registry.load(model_id).card.kind == "pretrained"


def test_a_child_that_was_killed_is_started_again_with_what_it_had_not_answered(workshop, worker):
    job = workshop.job("AAA")
    worker.submit(job)
    undisturbed = result(worker, job)
    killed = child(worker)

    worker.submit(job)
    killed.kill()

    assert same(result(worker, job), undisturbed)
    assert child(worker).pid != killed.pid


def test_ctrl_c_does_not_stop_a_job(workshop, worker):
    pid, job = child(worker).pid, workshop.job("AAA")
    worker.submit(job)
    os.kill(pid, signal.SIGINT)

    assert isinstance(result(worker, job), CandidateArrived)
    assert child(worker).pid == pid


def test_closing_ends_the_child_in_the_middle_of_a_job(workshop):
    slow = workshop.worker(Adaptation(steps=100_000))
    slow.submit(workshop.job("AAA"))
    process = child(slow)

    def is_busy() -> bool:
        slow.poll()
        return slow._job is not None and not slow._ready and process.cpu_times().user > 2.5

    until(is_busy)
    began = time.monotonic()
    slow.close()

    assert time.monotonic() - began < 1.0
    until(lambda: not process.is_running())


def test_closing_twice_or_without_a_job_is_harmless(workshop):
    unused = workshop.worker()

    unused.close()
    unused.close()


def test_the_child_does_not_outlive_a_parent_that_was_killed(workshop, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from bot.core.commands import AdaptModel\n"
        "from bot.settings import Adaptation\n"
        "from strategies.learning.worker import AdaptationWorker\n"
        "if __name__ == '__main__':\n"
        "    worker = AdaptationWorker(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Adaptation())\n"
        "    rows, one = np.zeros((1, 2), 'f4'), np.zeros(1, 'f4')\n"
        "    job = AdaptModel(1, 'A', 1, 'b', 1, rows, np.zeros(1, 'i8'), np.zeros(1, 'i1'), one)\n"
        "    worker.submit(job)\n"
        "    print(worker._child.process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    files = [str(workshop.registry.directory), workshop.base.model_id, str(workshop.replay)]

    done = subprocess.run(
        [sys.executable, str(script), *files], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip

    assert done.returncode == -signal.SIGKILL
    orphan = int(done.stdout)
    until(lambda: not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE)


def test_a_missing_source_ends_the_run_and_is_no_fact_of_the_market(workshop, tmp_path):
    lost = AdaptationWorker(workshop.registry.directory, workshop.base.model_id, tmp_path / "gone.npz", QUICK)
    job = workshop.job("AAA")
    lost.submit(job)

    with pytest.raises(RuntimeFault, match=r"adaptation of AAA is impossible here: .*gone\.npz: no replay"):
        result(lost, job)
    lost.close()


@pytest.mark.slow
def test_a_job_that_keeps_killing_its_child_fails_and_the_next_one_is_done(workshop):
    worker = workshop.worker()
    murderous, fine = workshop.job("AAA"), workshop.job("BBB")
    worker.submit(murderous)
    worker.submit(fine)

    for _ in range(MOST_RESTARTS + 1):
        victim = child(worker)
        victim.kill()
        until(lambda victim=victim: worker.poll() or not victim.is_running())

    with pytest.raises(RuntimeFault, match=r"impossible here: .*died"):
        result(worker, murderous)
    assert isinstance(result(worker, fine), CandidateArrived)
    worker.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def idle(workshop: Workshop) -> tuple[AdaptationWorker, Clock]:
    """A worker whose child never comes up, to look at its queue."""

    class Unborn(AdaptationWorker):
        process_main = staticmethod(print)

    clock = Clock()
    worker = Unborn(workshop.registry.directory, workshop.base.model_id, workshop.replay, QUICK, clock)
    worker._pause_until = 1e9
    return worker, clock


def test_alarms_come_first_then_the_chain_then_the_oldest_model(workshop):
    worker, _ = idle(workshop)
    old, new, alarm = (
        msgspec.structs.replace(workshop.job(symbol), until=until, urgent=urgent)
        for symbol, until, urgent in (("OLD", 5, False), ("NEW", 9, False), ("ALARM", 9, True))
    )
    for job in (new, old, workshop.step(), alarm):
        worker.submit(job)
    ranked = sorted(worker._waiting.values(), key=_urgency)
    assert [job.symbol for job in ranked] == ["ALARM", CHAIN, "OLD", "NEW"]


def test_a_newer_snapshot_takes_the_place_of_one_that_still_waits(workshop):
    worker, _ = idle(workshop)
    older, newer = workshop.job("AAA", n=300), workshop.job("AAA")
    worker.submit(older)
    worker.submit(newer)
    told = worker.take("AAA", older.cut, due=1)
    assert isinstance(told, AdaptationFailed)
    assert "newer snapshot" in told.reason
    assert worker._waiting == {"AAA": newer}


def test_the_allowance_of_an_hour_comes_evenly_and_is_not_hoarded():
    allowance = _Allowance(3_600.0, now=0.0)
    assert allowance.is_left(0.0)
    allowance.spend(3_700.0)
    assert not allowance.is_left(99.0)
    assert allowance.is_left(101.0)
    assert allowance.is_left(1e6)
    allowance.spend(3_601.0)
    assert not allowance.is_left(1e6)


def test_a_worker_without_allowance_left_waits_with_the_next_job(workshop):
    clock = Clock()
    worker = AdaptationWorker(
        workshop.registry.directory, workshop.base.model_id, workshop.replay, QUICK, clock
    )
    worker.limit(0.001)
    jobs = [workshop.job("AAA"), workshop.job("BBB")]
    for job in jobs:
        worker.submit(job)
    assert isinstance(result(worker, jobs[0]), CandidateArrived)
    for _ in range(20):
        worker.poll()
        time.sleep(0.01)
    assert worker._job is None
    assert list(worker._waiting) == ["BBB"]
    clock.now = 3_600.0 * 1e6
    assert isinstance(result(worker, jobs[1]), CandidateArrived)
    worker.close()
