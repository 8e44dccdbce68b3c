"""Which source model is in use: the newest of at most five champions, kept in one small file.

    <models>/champions.json    ids, the current one first

The file is replaced as a whole, so a reader sees the old or the new list. A champion's checksum is its id
(`Registry.load`): a damaged one is refused, never used.
"""

from typing import Final

import msgspec

from bot.core.errors import DataError, UsageError
from strategies.learning.files import write_atomically
from strategies.learning.registry import Model, Registry

KEPT: Final = 5


class Champions:
    """The pointer of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._path = registry.directory / "champions.json"

    def ids(self) -> list[str]:
        """Newest first; empty before the first promotion. Raises DataError when the file is damaged."""
        if not self._path.exists():
            return []
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[str])
        except (OSError, msgspec.DecodeError) as error:
            raise DataError(f"{self._path}: not readable ({error}); delete it and pretrain again") from None

    def current(self) -> Model | None:
        """The champion, checked; None before the first promotion."""
        ids = self.ids()
        return self._registry.load(ids[0]) if ids else None

    def promote(self, model_id: str) -> None:
        """Make a stored, undamaged model the current one."""
        self._registry.load(model_id)
        self._write([model_id, *(other for other in self.ids() if other != model_id)])

    def rollback(self) -> Model:
        """Back to the champion before; the current one leaves the list, its files stay.

        Raises UsageError when there is none before.
        """
        ids = self.ids()
        if len(ids) < 2:
            raise UsageError("there is no earlier champion to go back to")
        model = self._registry.load(ids[1])
        self._write(ids[1:])
        return model

    def _write(self, ids: list[str]) -> None:
        write_atomically(self._path, msgspec.json.encode(ids[:KEPT]))
