"""Real Bybit messages beside the repository, read in place."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

DIRECTORY = Path(__file__).parents[2] / "shared" / "bybit" / "fixtures"
ABSENT = "no Bybit messages at ../shared/bybit/fixtures"

needs_fixtures = pytest.mark.skipif(not DIRECTORY.is_dir(), reason=ABSENT)


class Sample(NamedTuple):
    """One message: `path` is the endpoint of a REST answer, "" for a frame of a stream."""

    name: str
    path: str
    payload: bytes

    def __str__(self) -> str:
        return self.name


def samples() -> list[Sample]:
    """Every message of every file, both directions; empty when the files are absent."""
    paths = _endpoints()
    found = []
    for file in sorted(DIRECTORY.glob("*-*/*.json*")):
        if file.parent.name == "ccxt-requests":
            continue
        name = f"{file.parent.name}/{file.name}"
        if file.suffix == ".json":
            found.append(Sample(name, paths.get(name, ""), file.read_bytes()))
        else:
            found += [Sample(f"{name}:{n}", "", frame) for n, frame in enumerate(_frames(file), 1)]
    return found


def sample(name: str) -> bytes:
    """One file by its name, or the test is skipped."""
    if not DIRECTORY.is_dir():
        pytest.skip(ABSENT)
    return (DIRECTORY / name).read_bytes()


def ccxt_requests() -> list[dict[str, Any]]:
    file = DIRECTORY / "ccxt-requests" / "ccxt__requests.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _frames(file: Path) -> list[bytes]:
    return [json.dumps(json.loads(line)["frame"]).encode() for line in file.read_text().splitlines()]


def _endpoints() -> dict[str, str]:
    """File name to endpoint path, from the table in the README beside the messages."""
    readme = DIRECTORY / "README.md"
    if not readme.exists():
        return {}
    rows = re.findall(r"^\| rest-[A-Z]+-(/v5/\S+) \| (\S+) \|", readme.read_text(), re.MULTILINE)
    return {file: path for path, file in rows}
