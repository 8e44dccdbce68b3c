"""The checkpoint that comes with the program, so that a first run need not train.

It was made from BTC and ETH 15-minute bars by `bot pretrain --data DIR --until DAY --export FOLDER`; its card
says until when it has seen data. The older it is, the less it is worth, and the user is told.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bot.core.errors import DataError
from bot.core.types import DAY_MS
from strategies.learning.registry import Model, Registry

FOLDER: Final = Path(__file__).parent / "checkpoint"
OLD_DAYS: Final = 90  # from here on the warning says to pretrain again


def load(folder: Path = FOLDER) -> Model:
    """The shipped model, its checksum verified.

    Raises DataError when it is missing, damaged, or was made for other features or another network.
    """
    registry = Registry(folder)
    found = sorted(registry.cards())
    if len(found) != 1:
        raise DataError(f"{folder}: {len(found)} models where one is shipped; install again, or bot pretrain")
    return registry.load(found[0])


def age_warning(model: Model, now: int) -> str:
    """What the user must know before relying on it. now: ms UTC."""
    until = datetime.fromtimestamp(model.card.until / 1000, UTC)
    days = (now - model.card.until) // DAY_MS
    names = " and ".join(model.card.symbols)
    told = f"Source model {model.model_id} has seen {names} until {until:%Y-%m-%d}, {days} days ago."
    if days < 0:
        return f"{told} The run begins before that: whatever it says of those days, it has seen them."
    if days > OLD_DAYS:
        return f"{told} That is old: pretrain again on newer bars before trusting it (bot pretrain)."
    return told
