"""Pretraining in a child process: the parent shows the progress, may stop it at any time and has no torch."""

import asyncio
import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import msgspec

from bot.core.errors import BotError, DataError, RuntimeFault
from bot.core.interrupt import interrupts_held_back
from bot.market.bars import COLUMNS, BarTable
from bot.settings import Settings
from strategies.features.spec import VERSION
from strategies.learning import sources
from strategies.learning.dataset import SourceReplay, cut_time
from strategies.learning.registry import Model, ModelCard, Registry

POLL_SECONDS: Final = 0.05
SEED: Final = 1
THREADS: Final = 2  # whatever the machine has: sums in another order would make another model

OnEpoch = Callable[[int, float, float], None]  # epochs done, training loss, validation loss


class _Epoch(msgspec.Struct, tag=True):
    done: int
    loss: float
    validation_loss: float


class _Done(msgspec.Struct, tag=True):
    model_id: str


class _Failed(msgspec.Struct, tag=True):
    reason: str
    is_data: bool


class Pretraining:
    """The source model of some bars and settings: found if it was made before, made otherwise.

    tables: decision bars of the sources, oldest first; the model learns from nothing else
    """

    def __init__(self, tables: Sequence[BarTable], settings: Settings, models: Path) -> None:
        self._tables = tables
        self._settings = settings
        self._registry = Registry(models)
        self.key = key_of(tables, settings)
        self.replay_path = _replay_path(models, self.key)

    def find(self) -> Model | None:
        """The model, if it and the source rows that adaptation rehearses are both there and whole.

        What is damaged is made again from the bars: the same bars and settings give the same bits.
        """
        try:
            SourceReplay.load(self.replay_path)
        except DataError:
            return None
        return self._registry.find_pretrained(self.key)

    def told(self, model: Model, now: int) -> str:
        """What a person must know of the model that `find` gave. now: ms UTC, which does not matter here."""
        return f"Source model {model.model_id} kept from an earlier run"

    async def run(self, stop: asyncio.Event, on_epoch: OnEpoch) -> Model | None:
        """Train, and keep the model; None when `stop` was set before the end.

        Raises DataError for data that teaches nothing, RuntimeFault when the child fails.
        """
        self._check_history()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        settings = self._settings.model_dump_json()
        arguments = (theirs, tuple(self._tables), settings, self.key, self._registry.directory)
        child = context.Process(target=_child, args=arguments, daemon=True)
        with interrupts_held_back():
            child.start()
        theirs.close()
        try:
            while not stop.is_set():
                if not ours.poll():
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                message = msgspec.msgpack.decode(ours.recv_bytes(), type=_Epoch | _Done | _Failed)
                if isinstance(message, _Epoch):
                    on_epoch(message.done, message.loss, message.validation_loss)
                elif isinstance(message, _Done):
                    return self._registry.load(message.model_id)
                else:
                    raise (DataError if message.is_data else RuntimeFault)(message.reason)
        except EOFError:
            child.join(1)
            raise RuntimeFault(f"the pretraining process died (exit code {child.exitcode})") from None
        finally:
            child.kill()
            child.join()
        return None

    def _check_history(self) -> None:
        for table in self._tables:
            if len(table) < self._settings.model.min_source_bars:
                raise DataError(
                    f"{table.symbol}: {len(table)} decision bars before the run, "
                    f"{self._settings.model.min_source_bars} are needed (model.min_source_bars): "
                    "start the run later or give the sources a longer history "
                    "(of a local exchange: [exchange] history_days)"
                )


def key_of(tables: Sequence[BarTable], settings: Settings) -> str:
    """Everything that the model depends on: features, settings and every bar."""
    digest = hashlib.sha256(VERSION.encode())
    digest.update(settings.model.model_dump_json().encode() + settings.label.model_dump_json().encode())
    for table in tables:
        digest.update(table.symbol.encode() + table.start.tobytes())
        for column in COLUMNS:
            digest.update(getattr(table, column).tobytes())
    return digest.hexdigest()[:16]


def _replay_path(models: Path, key: str) -> Path:
    return models / f"replay-{key}.npz"


def _child(pipe: Connection, tables: Sequence[BarTable], settings: str, key: str, models: Path) -> None:
    """Everything that is large happens here: features of years of bars, and torch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides

    def tell(message: _Epoch | _Done | _Failed) -> None:
        pipe.send_bytes(msgspec.msgpack.encode(message))

    try:
        model = _pretrain(tables, Settings.model_validate_json(settings), key, models, tell)
    except BotError as error:
        tell(_Failed(str(error), isinstance(error, DataError)))
    else:
        tell(_Done(model.model_id))


def _pretrain(
    tables: Sequence[BarTable], settings: Settings, key: str, models: Path, tell: Callable[[_Epoch], None]
) -> Model:
    import torch  # here, in the child only

    from strategies.learning.pretraining import pretrain

    torch.set_num_threads(THREADS)
    series, statistics, columns = sources.build(tables, settings.label)
    horizon = settings.label.horizon_bars
    cut = cut_time(series, settings.model.validation_share)
    SourceReplay(tuple(series), cut, horizon).save(_replay_path(models, key))
    trained = pretrain(
        series,
        settings.model,
        horizon,
        SEED,
        lambda at: tell(_Epoch(at.epoch, at.loss, at.validation_loss)),
        models / f"unfinished-{key}.pt",
    )
    card = ModelCard(
        kind="pretrained",
        architecture=trained.architecture,
        features=VERSION,
        columns=columns,
        location=tuple(statistics.location.tolist()),
        scale=tuple(statistics.scale.tolist()),
        symbols=tuple(table.symbol for table in tables),
        since=min(int(table.start[0]) for table in tables),
        until=max(int(table.start[-1]) + table.interval for table in tables),
        temperature=trained.temperature,
        metrics=trained.metrics,
        key=key,
        seed=SEED,
        step=tables[0].interval,
        horizon=horizon,
        barrier_sigmas=settings.label.barrier_sigmas,
        method=settings.model.method,
    )
    return Registry(models).save(trained.weights, card)
