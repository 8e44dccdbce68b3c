"""What holds for every test, and the databases that storage tests run on."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import postgres

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("untimed")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread: small networks are faster so, and the tests share the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A server of our own, for the whole session."""
    give_up = pytest.fail if os.environ.get("TESTS_NEED_POSTGRES") else pytest.skip
    where = postgres.binaries()
    if where is None:
        give_up("needs PostgreSQL's server programs (Debian: apt-get install postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        give_up("needs psycopg: pip install '.[postgres]'")
    with postgres.server(where) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | Path]:
    """Where a database is to be: the path of a SQLite file, or the URL of an empty PostgreSQL database."""
    if request.param == "sqlite":
        yield tmp_path / "var" / "bot.sqlite"
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    with server.database() as url:
        yield url
