"""Adaptation as the runner sees it: results that were stored, or those of the child process."""

from collections.abc import Iterable, Mapping

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
        self._begun_with: dict[tuple[str, int], str] = {}  # models of the jobs that are not answered yet
        self._stored = {(result.symbol, result.cut): result for result in stored}

    def submit(self, job: AdaptModel | ExtendChain) -> None:
        key = job.symbol, job.cut
        self._begun_with[key] = job.base_model
        stored = self._stored.get(key)
        if stored is None or not self._is_whole(stored):
            self._stored.pop(key, None)
            self._worker.submit(job)

    def poll(self) -> None:
        self._worker.poll()

    def take(self, symbol: str, cut: int, due: int) -> Result | None:
        try:
            return self._take(symbol, cut, due)
        except BotError as error:
            if not self._faults_are_facts:
                raise
            self._begun_with.pop((symbol, cut), None)
            return AdaptationFailed(due, due, symbol, cut, str(error))

    def _take(self, symbol: str, cut: int, due: int) -> Result | None:
        result = self._stored.pop((symbol, cut), None) or self._worker.take(symbol, cut, due)
        if isinstance(result, CandidateArrived):
            self._keep(symbol, self._checked(result))
        if result is not None:
            del self._begun_with[symbol, cut]
        return result

    def _keep(self, symbol: str, models: Mapping[str, Model]) -> None:
        """The strategy has taken the last models over by now; one is let go unless another token has it too.

        Several have the same one where no step of their adaptation was better than none.
        """
        for model_id, model in models.items():
            self._models.setdefault(model_id, model)
        self._newest[symbol] = tuple(models)
        kept = self._pretrained.union(*self._newest.values())
        for last in self._models.keys() - kept:
            del self._models[last]

    def _is_whole(self, result: Result) -> bool:
        """Whether a stored result can be taken; if not, it is made again, bit for bit."""
        if isinstance(result, CandidateArrived):
            try:
                self._checked(result)
            except DataError:
                return False
        return True

    def _checked(self, result: CandidateArrived) -> dict[str, Model]:
        """Its models, by id. Raises DataError unless they are whole and the job's: no other ever predicts."""
        begun_with = self._begun_with[result.symbol, result.cut]
        models = {model_id: self._registry.load(model_id) for model_id in _models_of(result)}
        for model_id, model in models.items():
            card = model.card
            made = card.until == result.cut and card.parent in (begun_with, "")
            if not made and model_id != begun_with:
                raise DataError(f"model {model_id} is not what the job of {result.symbol} was to make")
        return models


def _models_of(result: CandidateArrived) -> tuple[str, ...]:
    """The candidate, and the scratch rival that was trained beside it."""
    scratch = result.report.scratch
    return (result.model_id, scratch) if scratch else (result.model_id,)
