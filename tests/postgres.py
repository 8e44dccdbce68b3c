"""A PostgreSQL server of our own, from the system's programs: in a temporary directory, on a socket."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_READY_SECONDS = 30.0
_INSTALLED = "/usr/lib/postgresql/*/bin"  # where Debian keeps them, off the path


def binaries() -> Path | None:
    """The directory of `initdb` and `postgres`; None where PostgreSQL is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    kept = sorted(Path("/").glob(f"{_INSTALLED[1:]}/initdb"))
    return kept[-1].parent if kept else None


@contextlib.contextmanager
def server(where: Path) -> Iterator["Server"]:
    """A running server; `where` is what `binaries` found. It refuses to be root, as every PostgreSQL does."""
    home = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres" if _exists("postgres") else "nobody")
        os.chown(home, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = home / "data"
    subprocess.run(
        [where / "initdb", "--pgdata", data, "--username", "bot", "--auth", "trust", "--no-sync",
         "--encoding", "UTF8", "--locale", "C"],
        check=True, capture_output=True, cwd=home, **who,
    )  # fmt: skip
    process = subprocess.Popen(
        [where / "postgres", "-D", data, "-k", home, "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home, **who,
    )  # fmt: skip
    try:
        running = Server(home)
        running.wait()
        yield running
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(home, ignore_errors=True)


class Server:
    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._count = 0

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://bot@/{name}?host={self._socket}"

    def wait(self) -> None:
        import psycopg

        end = time.monotonic() + _READY_SECONDS
        while True:
            try:
                self.do("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
            else:
                return

    def do(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(host=str(self._socket), user="bot", dbname="postgres", autocommit=True) as link:
            link.execute(statement.encode())

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database."""
        self._count += 1
        name = f"test_{self._count}"
        self.do(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.do(f"DROP DATABASE {name} WITH (FORCE)")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
