"""Results of adaptation as the runner sees them: stored ones are not made again, old models are let go."""

import msgspec
import numpy as np
import pytest

from bot.core.commands import AdaptModel
from bot.core.errors import DataError
from bot.core.events import AdaptationFailed, CandidateArrived
from bot.engine.candidates import Candidates, Result
from strategies.learning.registry import Model, Registry
from tests.test_registry import card, weights
from tests.test_token import GOOD


class Worker:
    """Stands for the child process: answers every job at once, with a model that it was given."""

    def __init__(self, answers: dict[int, str]) -> None:
        self.answers = answers
        self.rivals: dict[int, str] = {}
        self.jobs: list[AdaptModel] = []

    def submit(self, job: AdaptModel) -> None:
        self.jobs.append(job)

    def poll(self) -> None: ...

    def take(self, symbol: str, cut: int, due: int) -> Result | None:
        if not any((job.symbol, job.cut) == (symbol, cut) for job in self.jobs):
            return None
        return arrived(symbol, cut, self.answers[cut], self.rivals.get(cut, ""))


def arrived(symbol: str, cut: int, model_id: str, scratch: str = "") -> CandidateArrived:
    report = msgspec.structs.replace(GOOD, scratch=scratch)
    return CandidateArrived(cut + 2, cut + 2, symbol, model_id, cut, report)


def job(cut: int, base: Model, symbol: str = "AAA") -> AdaptModel:
    return AdaptModel(
        cut, symbol, cut, base.model_id, 1, np.zeros((3, 2), np.float32), np.arange(3), np.zeros(3, np.int8),
        np.zeros(3, np.float32),
    )  # fmt: skip


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def saved(registry) -> list[Model]:
    """The pretrained model and three adapted ones."""
    base = registry.save(weights(0), card())
    return [base, *(adapted(registry, base, i, cut) for i, cut in ((1, 1), (2, 2), (3, 4)))]


def adapted(registry: Registry, parent: Model, seed: int, cut: int) -> Model:
    return registry.save(weights(seed), card(kind="adapted", parent=parent.model_id, until=cut))


def test_a_model_lies_ready_when_its_candidate_is_announced_and_the_last_one_is_let_go(registry, saved):
    base, first, second, third = saved
    models = {base.model_id: base}
    worker = Worker({1: first.model_id, 2: second.model_id, 3: base.model_id, 4: third.model_id})
    candidates = Candidates(worker, registry, models, [])  # type: ignore[arg-type]
    for cut in (1, 2, 3, 4):
        candidates.submit(job(cut, saved[0]))
        result = candidates.take("AAA", cut, cut + 2)
        assert isinstance(result, CandidateArrived)
        assert models.keys() == {base.model_id, result.model_id}


def test_a_model_that_several_tokens_have_is_kept_until_the_last_one_lets_it_go(registry, saved):
    base, chain, *_ = saved
    second, third = adapted(registry, chain, 2, 3), adapted(registry, chain, 3, 4)
    models = {base.model_id: base}
    worker = Worker({1: chain.model_id, 2: chain.model_id, 3: second.model_id, 4: third.model_id})
    candidates = Candidates(worker, registry, models, [])  # type: ignore[arg-type]
    kept = []
    for cut, symbol in ((1, "AAA"), (2, "BBB"), (3, "AAA"), (4, "BBB")):
        candidates.submit(job(cut, chain, symbol))
        candidates.take(symbol, cut, cut + 2)
        kept.append(chain.model_id in models)
    assert kept == [True, True, True, False]


def test_a_stored_result_is_not_adapted_again(registry, saved):
    worker = Worker({})
    stored = [arrived("AAA", 1, saved[1].model_id), AdaptationFailed(4, 4, "AAA", 2, "collapsed")]
    candidates = Candidates(worker, registry, {saved[0].model_id: saved[0]}, stored)  # type: ignore[arg-type]
    for cut, expected in zip((1, 2), stored, strict=True):
        candidates.submit(job(cut, saved[0]))
        assert candidates.take("AAA", cut, cut + 2) == expected
    assert worker.jobs == []


def test_a_stored_result_that_began_with_another_model_is_made_again(registry, saved):
    """The chain may have gone another way since."""
    worker = Worker({1: saved[2].model_id})
    stored = [arrived("AAA", 1, saved[1].model_id)]
    candidates = Candidates(worker, registry, {saved[0].model_id: saved[0]}, stored)  # type: ignore[arg-type]
    candidates.submit(job(1, saved[3]))
    assert [made.cut for made in worker.jobs] == [1]


def test_a_stored_model_whose_file_was_lost_is_made_again(registry, saved):
    (registry.directory / f"{saved[1].model_id}.safetensors").unlink()
    worker = Worker({1: saved[1].model_id})
    candidates = Candidates(
        worker,  # type: ignore[arg-type]
        registry,
        {saved[0].model_id: saved[0]},
        [arrived("AAA", 1, saved[1].model_id)],
    )
    candidates.submit(job(1, saved[0]))
    assert [made.cut for made in worker.jobs] == [1]
    with pytest.raises(DataError, match="cannot be read"):  # this worker did not really make it
        candidates.take("AAA", 1, 3)


def test_a_model_that_the_job_did_not_make_never_predicts(registry, saved):
    """An older answer, one of another base, and one made for other features."""
    base, first, second, _ = saved
    old = registry.save(weights(5), card(kind="adapted", parent=base.model_id, until=4, features="older"))
    models = {base.model_id: base}
    worker = Worker({2: first.model_id, 3: second.model_id, 4: old.model_id})
    candidates = Candidates(worker, registry, models, [], faults_are_facts=True)  # type: ignore[arg-type]
    for cut, reason in ((2, "not what the job of AAA was to make"), (3, "not what"), (4, "features older")):
        candidates.submit(job(cut, base))
        told = candidates.take("AAA", cut, cut + 2)
        assert isinstance(told, AdaptationFailed)
        assert reason in told.reason
    assert models.keys() == {base.model_id}


def test_the_scratch_rival_comes_and_goes_with_its_candidate(registry, saved):
    base, first, second, _ = saved
    rivals = [
        registry.save(weights(6 + cut), card(kind="scratch", parent="", until=cut)).model_id for cut in (1, 2)
    ]
    models, worker = {base.model_id: base}, Worker({1: first.model_id, 2: second.model_id})
    worker.rivals = {1: rivals[0], 2: rivals[1]}
    candidates = Candidates(worker, registry, models, [])  # type: ignore[arg-type]
    for cut, kept in ((1, {first.model_id, rivals[0]}), (2, {second.model_id, rivals[1]})):
        candidates.submit(job(cut, base))
        candidates.take("AAA", cut, cut + 2)
        assert models.keys() == {base.model_id, *kept}


def test_what_is_not_there_yet_is_none(registry, saved):
    candidates = Candidates(Worker({}), registry, {}, [])  # type: ignore[arg-type]
    assert candidates.take("AAA", 1, 3) is None


def test_where_money_is_at_stake_a_fault_of_the_machine_is_told_and_does_not_end_the_run(registry, saved):
    (registry.directory / f"{saved[1].model_id}.safetensors").write_bytes(b"")
    models, worker = {saved[0].model_id: saved[0]}, Worker({1: saved[1].model_id})
    candidates = Candidates(worker, registry, models, [], faults_are_facts=True)  # type: ignore[arg-type]
    candidates.submit(job(1, saved[0]))
    told = candidates.take("AAA", 1, 3)
    assert isinstance(told, AdaptationFailed)
    assert "checksum is wrong" in told.reason
    assert models.keys() == {saved[0].model_id}
