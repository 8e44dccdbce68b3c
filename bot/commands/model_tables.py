"""`bot models`: what the registry holds, where it comes from, and which was made champion last."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from bot.core.errors import DataError, UsageError
from strategies.learning import shipped
from strategies.learning.champions import Champions
from strategies.learning.registry import Model, ModelCard, Registry


def list_models(directory: Path) -> None:
    """Every model, the shipped one too; the champions marked: 1 is the newest, 2 the one before, ..."""
    registry, comes_along = Registry(directory), Registry(shipped.FOLDER)
    cards, ranks = registry.cards(), Champions(registry).ids()
    console = Console()
    if not cards:
        console.print(f"No models in {directory}; `bot pretrain` makes one.", highlight=False)
    table = Table("model", "champion", "kind", "made from", "learnt until", "parent", "whole")
    for model_id, card in sorted(cards.items(), key=lambda item: (item[1].until, item[0])):
        rank = str(ranks.index(model_id) + 1) if model_id in ranks else ""
        table.add_row(
            model_id,
            rank,
            card.kind,
            _names(card),
            _date(card.until),
            card.parent,
            _state(registry, model_id),
        )
    for model_id, card in comes_along.cards().items():
        if model_id not in cards:
            state = _state(comes_along, model_id)
            table.add_row(model_id, "", "shipped", _names(card), _date(card.until), "", state)
    console.print(table)


def show_model(directory: Path, model_id: str) -> None:
    """The card, and the models that it descends from. Raises DataError for a damaged model."""
    registry = Registry(directory)
    model = _found(registry, model_id)
    console = Console()
    console.print(msgspec.json.format(msgspec.json.encode(model.card)).decode(), highlight=False)
    console.print(" <- ".join(_lineage(registry, model)), highlight=False, soft_wrap=True)
    console.print("checksum right", highlight=False)


def diff_models(directory: Path, first: str, second: str) -> None:
    """What differs between two cards, and how far their weights are apart."""
    registry = Registry(directory)
    a, b = (_found(registry, one) for one in (first, second))
    table = Table("", a.model_id, b.model_id)
    old, new = msgspec.to_builtins(a.card), msgspec.to_builtins(b.card)
    for key in old:
        if old[key] != new[key]:
            table.add_row(key, _short(old[key]), _short(new[key]))
    console = Console()
    console.print(table)
    if a.card.architecture != b.card.architecture:
        console.print("Another architecture: the weights cannot be compared.")
        return
    for name, weights in sorted(a.weights.items()):
        apart = float(np.linalg.norm(weights - b.weights[name]) / (np.linalg.norm(weights) + 1e-12))
        if apart:
            console.print(f"  {name:<24} moved by {apart:.2%} of its norm", highlight=False)


def roll_back(directory: Path) -> None:
    """Make the champion before the current one current again."""
    model = Champions(Registry(directory)).rollback()
    Console().print(f"{model.model_id} is the champion again.", highlight=False)


def _found(registry: Registry, start: str) -> Model:
    """The only model whose id begins with `start`, here or shipped."""
    where = {model_id: one for one in (Registry(shipped.FOLDER), registry) for model_id in one.cards()}
    found = [model_id for model_id in where if model_id.startswith(start)]
    if len(found) != 1:
        known = ", ".join(found or sorted(where)[:8]) or "none"
        raise UsageError(f"{len(found)} models begin with {start!r}; there are {known}")
    return where[found[0]].load(found[0])


def _lineage(registry: Registry, model: Model) -> list[str]:
    """The model and its ancestors, as far as their cards are here."""
    cards, line = registry.cards(), [model.model_id]
    parent = model.card.parent
    while parent and parent not in line:
        line.append(parent if parent in cards else f"{parent} (not here)")
        parent = cards[parent].parent if parent in cards else ""
    return line


def _state(registry: Registry, model_id: str) -> str:
    try:
        registry.load(model_id)
    except DataError as error:
        return "other features" if "features" in str(error) else "damaged"
    return "yes"


def _names(card: ModelCard) -> str:
    more = len(card.symbols) - 3
    return ", ".join(card.symbols[:3]) + (f" and {more} more" if more > 0 else "")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
