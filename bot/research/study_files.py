"""Where a study keeps what its jobs leave: models that tokens share, and the scores of every arm.

`twin` is 0 for the arm itself and 1, 2, ... for its twins, each with labels shuffled another way.
"""

import io
import zlib
from collections.abc import Iterable
from itertools import count, takewhile
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bot.core.errors import DataError
from bot.research.study_data import Study
from strategies.learning.files import write_atomically
from strategies.learning.registry import Registry

Floats = NDArray[np.float64]

TWIN: Final = "~shuffled"


def registry(study: Study) -> Registry:
    return Registry(study.output / "models")


def suffix(twin: int) -> str:
    """What the name of an arm or a model ends with."""
    return "" if not twin else TWIN if twin == 1 else f"{TWIN}{twin}"


def twins_of(arm: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that are twins of `arm`."""
    return [name for name in names if name.startswith(f"{arm}{TWIN}")]


def source_key(twin: int) -> str:
    return f"source{suffix(twin)}"


def chain_key(cut: int, twin: int) -> str:
    return f"chain-{cut}{suffix(twin)}"


def trees_path(study: Study, cut: int, twin: int) -> Path:
    return study.output / "models" / f"trees-{cut}{suffix(twin)}.trees"


def scores_path(study: Study, arm: str, symbol: str, twin: int) -> Path:
    return study.output / "scores" / f"{arm}{suffix(twin)}" / f"{symbol}.npz"


def twins_done(study: Study, arm: str, symbol: str) -> list[int]:
    """0 and the numbers of the twins whose scores are there."""
    return list(takewhile(lambda twin: scores_path(study, arm, symbol, twin).exists(), count()))


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
