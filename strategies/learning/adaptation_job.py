"""The child's side of the worker: loads the source once, does one job after the other."""

from pathlib import Path

import msgspec
import torch

from bot.core.commands import AdaptModel, ExtendChain
from bot.core.events import AdaptationReport
from bot.settings import Adaptation
from strategies.learning import scratch
from strategies.learning.adaptation import adapt
from strategies.learning.chaining import extend
from strategies.learning.dataset import SourceReplay
from strategies.learning.encoder import Encoder
from strategies.learning.registry import Model, ModelCard, Registry


class Adapting:
    """One job at a time; a job's result depends on the job alone, not on those before it."""

    def __init__(self, registry: Path, base_model: str, replay: Path, settings: Adaptation) -> None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(mode=True)
        self._registry = Registry(registry)
        self._source = self._base = self._registry.load(base_model)
        self._replay = SourceReplay.load(replay)
        self._settings = settings

    def run(self, job: AdaptModel | ExtendChain) -> tuple[str, AdaptationReport]:
        """(id of the new model, now in the registry; its report, which names the scratch rival's). Raises
        what `adapt` and `extend` raise.

        Where no step was better than none, that is the id of the model that the job began with.
        """
        return self._extend(job) if isinstance(job, ExtendChain) else self._adapt(job)

    def _adapt(self, job: AdaptModel) -> tuple[str, AdaptationReport]:
        base = self._model(job.base_model)
        weights, report = adapt(
            base.weights, base.card.architecture, self._replay, job, self._settings, job.seed,
            gently=base.card.kind == "chain",
        )  # fmt: skip
        card = _card(base, "adapted", (job.symbol,), int(job.starts[0]), job)
        report = msgspec.structs.replace(report, scratch=self._scratch(base, card, job))
        if report.steps == 0:
            return base.model_id, report
        return self._registry.save(weights, card).model_id, report

    def _scratch(self, base: Model, card: ModelCard, job: AdaptModel) -> str:
        """The id of the rival that has the token's labels alone; "" where too few are new to it."""
        like = Encoder.from_weights(base.weights, card.architecture)
        before = self._registry.load(job.scratch) if job.scratch else None
        weights = scratch.train(like, self._replay, job, self._settings, before)
        if weights is None:
            return ""
        card = msgspec.structs.replace(card, kind="scratch", temperature=1.0, parent="", method=msgspec.UNSET)
        return self._registry.save(weights, card).model_id

    def _extend(self, job: ExtendChain) -> tuple[str, AdaptationReport]:
        base = self._model(job.base_model)
        weights, temperature, report = extend(
            base, self._model(job.rival_model), self._replay, job, self._settings
        )
        names = tuple(symbol for symbol, _ in job.listings)
        card = _card(base, "chain", names, int(job.starts.min()), job)
        card = msgspec.structs.replace(card, temperature=temperature)
        return self._registry.save(weights, card).model_id, report

    def _model(self, model_id: str) -> Model:
        """The source, or the model of the chain that most jobs begin with."""
        if model_id == self._source.model_id:
            return self._source
        if model_id != self._base.model_id:
            self._base = self._registry.load(model_id)
        return self._base


def _card(
    base: Model, kind: str, symbols: tuple[str, ...], since: int, job: AdaptModel | ExtendChain
) -> ModelCard:
    return msgspec.structs.replace(
        base.card, kind=kind, symbols=symbols, since=since, until=job.cut, metrics={}, parent=base.model_id,
        key="", seed=job.seed,
    )  # fmt: skip
