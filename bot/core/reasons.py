"""Reasons carry the numbers that decided ("similarity 0.43 < 0.7"); counting them needs the kind without."""

import re
from typing import Final

_NUMBER: Final = re.compile(r"[-+]?\b\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?\b(?: ?%)?|\b(?:nan|inf)\b")


def kind(reason: str) -> str:
    """The reason with every number replaced by an ellipsis: equal for equal causes."""
    return _NUMBER.sub("…", reason)
