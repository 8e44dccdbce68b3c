"""The child's side of the worker: loads the source once, adapts one token after the other."""

from pathlib import Path

import msgspec
import torch

from bot.core.commands import AdaptModel
from bot.core.events import AdaptationReport
from bot.settings import Adaptation
from strategies.learning.adaptation import adapt
from strategies.learning.dataset import SourceReplay
from strategies.learning.registry import Registry


class Adapting:
    """One job at a time; a job's result depends on the job alone, not on those before it."""

    def __init__(self, registry: Path, base_model: str, replay: Path, settings: Adaptation) -> None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(mode=True)
        self._registry = Registry(registry)
        self._base = self._registry.load(base_model)
        self._replay = SourceReplay.load(replay)
        self._settings = settings

    def run(self, job: AdaptModel) -> tuple[str, AdaptationReport]:
        """(id of the adapted model, now in the registry; its report). Raises what `adapt` raises.

        Where no step was better than none, that is the id of the pretrained model itself.
        """
        base = self._base
        weights, report = adapt(
            base.weights, base.card.architecture, self._replay, job, self._settings, job.seed
        )
        if report.steps == 0:
            return base.model_id, report
        card = msgspec.structs.replace(
            base.card,
            kind="adapted",
            symbols=(job.symbol,),
            since=int(job.starts[0]),
            until=job.cut,
            metrics={},
            parent=base.model_id,
            key="",
            seed=job.seed,
        )
        return self._registry.save(weights, card).model_id, report
