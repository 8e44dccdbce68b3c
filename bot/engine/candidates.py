"""Adaptation as the runner sees it: results that were stored, or those of the child process."""

from collections.abc import Iterable

from bot.core.commands import AdaptModel, ExtendChain
from bot.core.errors import BotError, DataError
from bot.core.events import AdaptationFailed, CandidateArrived
from strategies.learning.registry import Model, Registry
from strategies.learning.worker import AdaptationWorker

Result = CandidateArrived | AdaptationFailed


class Candidates:
    """Hands jobs to the worker and puts the models that come back where the strategy finds them.

    models: of each token only the newest is kept there, beside those that were in it at the start
    stored: results of the run that is being resumed; what they say need not be adapted again
    faults_are_facts: a fault of this machine is told to the strategy as a failure instead of ending the run.
    Where money is at stake positions must be looked after, with or without new models.
    """

    def __init__(
        self,
        worker: AdaptationWorker,
        registry: Registry,
        models: dict[str, Model],
        stored: Iterable[Result],
        *,
        faults_are_facts: bool = False,
    ) -> None:
        self._worker = worker
        self._registry = registry
        self._models = models
        self._faults_are_facts = faults_are_facts
        self._pretrained = frozenset(models)
        self._newest: dict[str, tuple[str, ...]] = {}  # models of each token
        self._stored = {(result.symbol, result.cut): result for result in stored}

    def submit(self, job: AdaptModel | ExtendChain) -> None:
        stored = self._stored.get((job.symbol, job.cut))
        if stored is None or not self._answers(stored, job):
            self._stored.pop((job.symbol, job.cut), None)
            self._worker.submit(job)

    def poll(self) -> None:
        self._worker.poll()

    def take(self, symbol: str, cut: int, due: int) -> Result | None:
        try:
            return self._take(symbol, cut, due)
        except BotError as error:
            if not self._faults_are_facts:
                raise
            return AdaptationFailed(due, due, symbol, cut, str(error))

    def _take(self, symbol: str, cut: int, due: int) -> Result | None:
        result = self._stored.pop((symbol, cut), None) or self._worker.take(symbol, cut, due)
        if isinstance(result, CandidateArrived):
            self._keep(symbol, _models_of(result))
        return result

    def _keep(self, symbol: str, model_ids: tuple[str, ...]) -> None:
        """The strategy has taken the last models over by now; one is let go unless another token has it too.

        Several have the same one where no step of their adaptation was better than none.
        """
        for model_id in model_ids:
            if model_id not in self._models:
                self._models[model_id] = self._registry.load(model_id)
        self._newest[symbol] = model_ids
        kept = self._pretrained.union(*self._newest.values())
        for last in self._models.keys() - kept:
            del self._models[last]

    def _answers(self, result: Result, job: AdaptModel | ExtendChain) -> bool:
        """Whether a stored result is this job's, its model whole; if not, it is made again, bit for bit."""
        if isinstance(result, AdaptationFailed):
            return True
        try:
            card, *_ = [self._registry.load(model_id).card for model_id in _models_of(result)]
        except DataError:
            return False
        return job.base_model in (result.model_id, card.parent)


def _models_of(result: CandidateArrived) -> tuple[str, ...]:
    """The candidate, and the scratch rival that was trained beside it."""
    scratch = result.report.scratch
    return (result.model_id, scratch) if scratch else (result.model_id,)
