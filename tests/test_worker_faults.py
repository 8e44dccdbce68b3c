"""The adaptation process dies, hangs or talks nonsense: the parent neither waits nor believes it."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot.core.events import AdaptationFailed, CandidateArrived
from bot.settings import Adaptation
from strategies.learning.registry import Registry
from strategies.learning.worker import AdaptationWorker
from tests import hostile_children
from tests.test_worker import QUICK, Workshop, child, model_of, result, until

HASTY = Adaptation(steps=3, job_seconds=75.0)
Main = Callable[..., None]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def undisturbed(workshop) -> tuple[bytes, ...]:
    """The weights that come of the job when nothing goes wrong."""
    worker = workshop.worker()
    job = workshop.job("AAA")
    worker.submit(job)
    made = model_of(workshop.registry, result(worker, job))
    worker.close()
    return made


def hostile(workshop: Workshop, tmp_path: Path, main: Main, settings: Adaptation) -> AdaptationWorker:
    class Hostile(AdaptationWorker):
        process_main: Callable[..., Any] = staticmethod(main)

    registry = Registry(tmp_path / "models")
    shutil.copytree(workshop.registry.directory, registry.directory)
    return Hostile(registry.directory, workshop.base.model_id, workshop.replay, settings)


def longest_poll(worker: AdaptationWorker, seconds: float) -> float:
    """The longest time (s) that the parent spent in the worker."""
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        worker.poll()
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.002)
    return longest


@pytest.mark.parametrize(
    "main",
    [
        hostile_children.answers_garbage,
        hostile_children.announces_more_than_it_sends,
        hostile_children.answers_another_job,
    ],
)
def test_a_child_that_talks_nonsense_is_replaced_and_its_job_done(workshop, tmp_path, undisturbed, main):
    worker, job = hostile(workshop, tmp_path, main, QUICK), workshop.job("AAA")
    worker.submit(job)
    first = child(worker)
    done = result(worker, job)
    assert model_of(Registry(tmp_path / "models"), done) == undisturbed
    assert child(worker).pid != first.pid
    worker.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "main",
    [
        hostile_children.hangs_at_its_job,
        hostile_children.stops_before_it_takes_its_job,
        hostile_children.never_gets_ready,
    ],
)
def test_a_child_that_hangs_is_replaced_and_nobody_waits_for_it(workshop, tmp_path, undisturbed, main):
    worker, job = hostile(workshop, tmp_path, main, HASTY), workshop.job("AAA", n=400)
    worker.submit(job)
    first = child(worker)
    assert longest_poll(worker, 10.0) < 1.0
    done = result(worker, job)
    assert model_of(Registry(tmp_path / "models"), done) == undisturbed
    until(lambda: not first.is_running())
    worker.close()


def test_a_job_that_wants_more_memory_than_there_is_for_it_is_refused(workshop, tmp_path):
    worker, job = hostile(workshop, tmp_path, hostile_children.hungry, QUICK), workshop.job("AAA")
    worker.submit(job)
    done = result(worker, job)
    assert isinstance(done, AdaptationFailed)
    assert done.reason == "refused"
    worker.close()


def kill_at_random_moments(workshop: Workshop, undisturbed: tuple[bytes, ...], times: int) -> None:
    """From the start of the process to the end of its job, a kill -9 anywhere; then the job must be whole."""
    worker, chance = workshop.worker(), random.Random(times)
    job, longest = workshop.job("AAA"), 0.0
    for _ in range(times):
        began = time.monotonic()
        worker.submit(job)
        until(lambda: worker.poll() or (worker._child and worker._child.process.is_alive()))
        assert worker._child is not None
        victim = worker._child.process
        until_then = time.monotonic() + chance.uniform(0.0, max(0.2, longest))
        while time.monotonic() < until_then and (worker._job or worker._waiting):
            worker.poll()
            time.sleep(0.001)
        victim.kill()
        until(lambda victim=victim: not victim.is_alive())
        done = result(worker, job)
        assert isinstance(done, CandidateArrived)
        assert model_of(workshop.registry, done) == undisturbed
        longest = min(5.0, time.monotonic() - began)
    for model_id in workshop.registry.cards():
        workshop.registry.load(model_id)  # raises for a half-written one
    worker.close()


@pytest.mark.slow
def test_kill_9_at_random_moments_leaves_no_half_of_a_model(workshop, undisturbed):
    kill_at_random_moments(workshop, undisturbed, 10)


@pytest.mark.campaign
def test_kill_9_two_hundred_times(workshop, undisturbed):
    kill_at_random_moments(workshop, undisturbed, 200)
