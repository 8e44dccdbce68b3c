"""`bot models`: what the registry holds, where it comes from, and which was made champion last."""

from datetime import UTC, datetime

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from bot.commands.plain_table import print_table
from bot.core.errors import DataError, UsageError
from bot.settings import Storage
from strategies.learning import shipped
from strategies.learning.champions import Champions
from strategies.learning.registry import Model, ModelCard, Registry


def list_models(storage: Storage) -> None:
    """Every model, the shipped one too; the champions ranked: 1 is the newest, 2 the one before, ..."""
    real, invented = storage.models(simulated=False), storage.models(simulated=True)
    places, ranks = _places(storage), Champions(Registry(real)).ids()
    cards = {model_id: place.cards()[model_id] for model_id, place in places.items()}
    rows = []
    for model_id in sorted(
        places, key=lambda one: (places[one].directory == invented, cards[one].until, one)
    ):
        place, card = places[model_id], cards[model_id]
        kind = "shipped" if place.directory == shipped.FOLDER else card.kind
        rows.append(
            (
                model_id,
                str(ranks.index(model_id) + 1) if model_id in ranks else "",
                " ".join((kind, *_faults(place, model_id))),
                "simulated" if place.directory == invented else "real",
                _names(card),
                _date(card.until),
            )
        )
    console = Console()
    print_table(console, ("model", "rank", "kind", "prices", "made from", "learnt until"), rows)
    if not any(place.directory in (real, invented) for place in places.values()):
        console.print(
            f"It comes along with the program; `bot pretrain` makes one of your own, in {real}.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def show_model(storage: Storage, model_id: str) -> None:
    """The card, and the models that it descends from. Raises DataError for a damaged model."""
    place, model = _found(storage, model_id)
    console = Console()
    console.print(msgspec.json.format(msgspec.json.encode(model.card)).decode(), highlight=False)
    if place.directory == storage.models(simulated=True):
        console.print("made from simulated prices, and for them alone", highlight=False)
    console.print(" <- ".join(_lineage(place, model)), highlight=False, soft_wrap=True)
    console.print("checksum right", highlight=False)


def diff_models(storage: Storage, first: str, second: str) -> None:
    """What differs between two cards, and how far their weights are apart."""
    a, b = (_found(storage, one)[1] for one in (first, second))
    table = Table("", a.model_id, b.model_id)
    old, new = msgspec.to_builtins(a.card), msgspec.to_builtins(b.card)
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            table.add_row(key, _short(old.get(key, "")), _short(new.get(key, "")))
    console = Console()
    console.print(table)
    if a.card.architecture != b.card.architecture:
        console.print("Another architecture: the weights cannot be compared.")
        return
    for name, weights in sorted(a.weights.items()):
        apart = float(np.linalg.norm(weights - b.weights[name]) / (np.linalg.norm(weights) + 1e-12))
        if apart:
            console.print(f"  {name:<24} moved by {apart:.2%} of its norm", highlight=False)


def roll_back(storage: Storage) -> None:
    """Make the champion before the current one current again."""
    model = Champions(Registry(storage.models(simulated=False))).rollback()
    Console().print(f"{model.model_id} is the champion again.", highlight=False)


def _places(storage: Storage) -> dict[str, Registry]:
    """Where each model lies, by its id: kept, else shipped, else of the simulated market."""
    kept, invented = (Registry(storage.models(simulated=simulated)) for simulated in (False, True))
    return {
        model_id: place for place in (invented, Registry(shipped.FOLDER), kept) for model_id in place.cards()
    }


def _found(storage: Storage, start: str) -> tuple[Registry, Model]:
    """The only model whose id begins with `start`, and where it lies. Raises UsageError, DataError."""
    places = _places(storage)
    found = [model_id for model_id in places if model_id.startswith(start)]
    if len(found) != 1:
        known = ", ".join(found or sorted(places)[:8]) or "none"
        raise UsageError(f"{len(found)} models begin with {start!r}; there are {known}")
    place = places[found[0]]
    return place, place.load(found[0])


def _lineage(registry: Registry, model: Model) -> list[str]:
    """The model and its ancestors, as far as their cards are here."""
    cards, line = registry.cards(), [model.model_id]
    parent = model.card.parent
    while parent and parent not in line:
        line.append(parent if parent in cards else f"{parent} (not here)")
        parent = cards[parent].parent if parent in cards else ""
    return line


def _faults(registry: Registry, model_id: str) -> tuple[str, ...]:
    """Why it cannot be used, in a word or two; empty for a whole one."""
    try:
        registry.load(model_id)
    except DataError as error:
        return ("(other features)" if "features" in str(error) else "(damaged)",)
    return ()


def _names(card: ModelCard) -> str:
    more = len(card.symbols) - 3
    return ", ".join(card.symbols[:3]) + (f" and {more} more" if more > 0 else "")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
