"""Which source model a live run begins with: one that is there already, rather than hours of training.

In this order: the champion (a person made it one, by `bot pretrain` or `bot models rollback`); the newest of
the kept ones and the shipped one; none, and then one is trained. A model fits only if it was made for these
features, sources, decision bars, labels and network, and has seen nothing of what the run is going to replay.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from bot.core.errors import DataError
from bot.market.bars import BarTable
from bot.settings import Settings
from strategies.features.spec import VERSION
from strategies.learning import shipped, sources
from strategies.learning.champions import Champions
from strategies.learning.dataset import SourceReplay, cut_time
from strategies.learning.pretraining_job import OnEpoch, Pretraining, key_of
from strategies.learning.registry import Model, ModelCard, Registry

LEAST_ROWS: Final = 500  # of the sources, ready: what an adaptation rehearses


class SourceJob(Protocol):
    """What gives a run its source model, and the source rows that adaptations rehearse at `replay_path`."""

    @property
    def replay_path(self) -> Path: ...

    def find(self) -> Model | None:
        """The model if nothing has to be trained."""

    async def run(self, stop: asyncio.Event, on_epoch: OnEpoch) -> Model | None:
        """Train it; None when `stop` was set before the end."""

    def told(self, model: Model, now: int) -> str:
        """What a person must know at `now` (ms UTC, the present) of the model that `find` gave."""


def source_for(tables: Sequence[BarTable], settings: Settings, models: Path) -> SourceJob:
    """tables: decision bars of the sources until the run begins, oldest first."""
    registry = Registry(models)
    if not all(len(table) for table in tables):
        return Pretraining(tables, settings, models)  # which says how many bars are needed
    end = max(int(table.start[-1]) + table.interval for table in tables)
    for model in _candidates(registry):
        if not misfit(model.card, tables, settings, end):
            return KeptSource(model, tables, settings, registry)
    return Pretraining(tables, settings, models)


def misfit(card: ModelCard, tables: Sequence[BarTable], settings: Settings, end: int) -> str:
    """Why a model is not for these bars and settings, the run beginning at `end`; empty if it is."""
    net, model = card.architecture, settings.model
    checks = (
        (card.kind == "pretrained", "it is no source model"),
        (card.features == VERSION, "other features"),
        (card.symbols == tuple(table.symbol for table in tables), "other sources"),
        (card.step == tables[0].interval, "other decision bars"),
        (
            (card.horizon, card.barrier_sigmas)
            == (settings.label.horizon_bars, settings.label.barrier_sigmas),
            "other labels",
        ),
        (
            (net.channels, net.blocks, net.pool_bars, net.embedding)
            == (model.channels, model.blocks, model.pool_bars, model.embedding),
            "another network",
        ),
        (card.until <= end, "it has seen what the run replays"),
    )
    return next((reason for fits, reason in checks if not fits), "")


def _candidates(registry: Registry) -> Iterator[Model]:
    """Whole models, the preferred first."""
    with suppress(DataError):
        if (champion := Champions(registry).current()) is not None:
            yield champion
    found = [(card.until, registry, model_id) for model_id, card in registry.cards().items()]
    comes_along = Registry(shipped.FOLDER)
    found += [(card.until, comes_along, model_id) for model_id, card in comes_along.cards().items()]
    for _, where, model_id in sorted(found, key=lambda one: one[0], reverse=True):
        with suppress(DataError):
            yield where.load(model_id)


class KeptSource:
    """A model that is there. Only the source rows are made: with its own statistics and columns."""

    def __init__(
        self, model: Model, tables: Sequence[BarTable], settings: Settings, registry: Registry
    ) -> None:
        self._model = model
        self._tables = tables
        self._settings = settings
        self._registry = registry
        key = key_of(tables, settings)
        self.replay_path = registry.directory / f"replay-{model.model_id}-{key}.npz"

    def find(self) -> Model | None:
        """The model, its source rows made if they are not there. Raises DataError when the bars give none."""
        try:
            SourceReplay.load(self.replay_path)
        except DataError:
            self._replay().save(self.replay_path)
        if not (self._registry.directory / f"{self._model.model_id}.json").exists():
            self._registry.save(self._model.weights, self._model.card)
        return self._model

    async def run(self, stop: asyncio.Event, on_epoch: OnEpoch) -> Model | None:
        """Nothing is left to train."""
        return self.find()

    def told(self, model: Model, now: int) -> str:
        text = shipped.age_warning(model, now)
        measured, needed = model.card.metrics["accuracy_confident"], self._settings.gate.source_accuracy
        if not measured.value >= needed:
            text += (
                f" On its most confident bars it was right in {measured.value:.1%} [{measured.low:.1%}, "
                f"{measured.high:.1%}], the gate asks for {needed:.0%} (gate.source_accuracy): with it the "
                "bot watches and adapts, and opens nothing."
            )
        return text

    def _replay(self) -> SourceReplay:
        card = self._model.card
        built = sources.build(self._tables, self._settings.label, card.statistics, card.columns)
        rows = min(len(one) for one in built.series)
        if rows < LEAST_ROWS:
            raise DataError(
                f"{rows} ready bars of a source, {LEAST_ROWS} are needed: give them a longer history_days"
            )
        share = self._settings.model.validation_share
        own = int(card.until - share * (card.until - card.since))  # later rows taught it nothing
        cut = max(own, cut_time(built.series, share))
        return SourceReplay(tuple(built.series), cut, self._settings.label.horizon_bars)
