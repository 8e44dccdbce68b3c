"""Models on disk: weights as safetensors, everything else as a JSON card. No pickle is ever loaded.

A model's id is the hash of its card and its weights: the same content has the same name on every machine, and
a file that was changed, by one byte of either, is noticed.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from bot.core.errors import DataError
from strategies.features.normaliser import SourceStatistics
from strategies.features.spec import VERSION
from strategies.learning.architecture import Architecture, Weights
from strategies.learning.files import write_atomically
from strategies.learning.skill import Estimate

ID_LENGTH = 16


class ModelCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model is and where it comes from.

    columns: the features that it sees; location, scale: statistics of the source's raw features (all of
    them); until: ms, nothing later was learnt from; parent: the model that it was adapted from, "" for none;
    key: what it was made from, for finding it again; step: ms between decision bars; horizon (bars) and
    barrier_sigmas: of its label; method: of the source's pretraining, "supervised" or the pretext task before
    it. 0, "" or unset: not told
    """

    kind: str  # "pretrained", "chain", "adapted" or "scratch"
    architecture: Architecture
    features: str  # version of the feature specification
    columns: tuple[str, ...]
    location: tuple[float, ...]
    scale: tuple[float, ...]
    symbols: tuple[str, ...]
    since: int
    until: int
    temperature: float
    metrics: dict[str, Estimate]
    parent: str = ""
    key: str = ""
    seed: int = 0
    step: int = 0
    horizon: int = 0
    barrier_sigmas: float = 0.0
    method: str | msgspec.UnsetType = msgspec.UNSET  # unset, it is not written: older cards keep their ids

    @property
    def statistics(self) -> SourceStatistics:
        return SourceStatistics(np.array(self.location), np.array(self.scale), self.until)

    @property
    def source_accuracy(self) -> float:
        """On the most confident tenth of the purged tail; NaN for a model that was never measured there."""
        measured = self.metrics.get("accuracy_confident")
        return measured.value if measured else float("nan")


class Model(msgspec.Struct, frozen=True):
    model_id: str
    weights: Weights
    card: ModelCard


class Registry:
    """A directory of models: <id>.safetensors beside <id>.json."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def save(self, weights: Weights, card: ModelCard) -> Model:
        """Write a model whole or not at all. Raises DataError when the weights don't fit the card."""
        card.architecture.check(weights)
        content = save_tensors(dict(sorted(weights.items())))
        text = msgspec.json.format(msgspec.json.encode(card))
        model_id = _identity(text, content)
        write_atomically(self._weights_path(model_id), content)
        write_atomically(self._card_path(model_id), text)
        return Model(model_id, weights, card)

    def load(self, model_id: str) -> Model:
        """Raises DataError for a model that is missing, damaged, foreign or of another feature version."""
        path = self._card_path(model_id)
        text, card = self._card(path)
        if card.features != VERSION:
            raise DataError(
                f"{path}: made for features {card.features}, this version has {VERSION}; pretrain again"
            )
        weights_path = self._weights_path(model_id)
        try:
            content = weights_path.read_bytes()
        except OSError as error:
            raise DataError(f"{weights_path}: cannot be read ({error.strerror}); pretrain again") from None
        if _identity(text, content) != model_id:
            raise DataError(
                f"{weights_path}: its checksum is wrong, it or its card was damaged or replaced; "
                "delete both and pretrain again"
            )
        try:
            weights = load_tensors(content)
        except SafetensorError as error:
            raise DataError(f"{weights_path}: not a safetensors file ({error}); delete it") from None
        card.architecture.check(weights)
        return Model(model_id, weights, card)

    def origin(self, model_id: str) -> str:
        """The source model that a stored model descends from; "" where a model on the way is not readable."""
        try:
            parent = self._card(self._card_path(model_id))[1].parent
        except DataError:
            return ""
        return self.origin(parent) if parent else model_id

    def cards(self) -> dict[str, ModelCard]:
        """Every readable card by model id; the weights are not looked at."""
        found = {}
        for path in sorted(self.directory.glob("*.json")):
            with suppress(DataError):
                found[path.stem] = self._card(path)[1]
        return found

    def find_pretrained(self, key: str) -> Model | None:
        """The pretrained model that was made from `key`; one that cannot be loaded does not count."""
        for path in sorted(self.directory.glob("*.json")):
            try:
                _, card = self._card(path)
                if card.kind == "pretrained" and card.key == key:
                    return self.load(path.stem)
            except DataError:
                continue
        return None

    def _card(self, path: Path) -> tuple[bytes, ModelCard]:
        try:
            text = path.read_bytes()
            return text, msgspec.json.decode(text, type=ModelCard)
        except OSError as error:
            raise DataError(f"{path}: no such model ({error.strerror})") from None
        except msgspec.DecodeError as error:
            raise DataError(f"{path}: not a model card ({error}); delete it and pretrain again") from None

    def _weights_path(self, model_id: str) -> Path:
        return self.directory / f"{model_id}.safetensors"

    def _card_path(self, model_id: str) -> Path:
        return self.directory / f"{model_id}.json"


def _identity(card: bytes, content: bytes) -> str:
    digests = hashlib.sha256(card).digest() + hashlib.sha256(content).digest()
    return hashlib.sha256(digests).hexdigest()[:ID_LENGTH]
