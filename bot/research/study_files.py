"""Where a study keeps what its jobs leave: models that tokens share, and the scores of every arm."""

import io
import zlib
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.research.study_data import Study
from strategies.learning.files import write_atomically
from strategies.learning.registry import Registry

Floats = NDArray[np.float64]


def registry(study: Study) -> Registry:
    return Registry(study.output / "models")


def source_key(*, twin: bool) -> str:
    return f"source{'~shuffled' if twin else ''}"


def chain_key(cut: int, *, twin: bool) -> str:
    return f"chain-{cut}{'~shuffled' if twin else ''}"


def trees_path(study: Study, cut: int, *, twin: bool) -> Path:
    return study.output / "models" / f"trees-{cut}{'~shuffled' if twin else ''}.trees"


def scores_path(study: Study, arm: str, symbol: str, *, twin: bool) -> Path:
    return study.output / "scores" / f"{arm}{'~shuffled' if twin else ''}" / f"{symbol}.npz"


class Scores(NamedTuple):
    """What an arm says of a token's rows.

    raw: float64 (n,) log odds of "up" before the prior, divided by the temperature; share: (n,) of "up" where
    it was trained; similarity: (n,), NaN where it has none; until: int64 (n,) ms, nothing that closed later
    was used (the row's own bar included)
    """

    raw: Floats
    share: Floats
    similarity: Floats
    until: NDArray[np.int64]

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **self._asdict())
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Scores":
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(*(file[name] for name in cls._fields))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: not readable ({error}); delete it and start the study again") from None
