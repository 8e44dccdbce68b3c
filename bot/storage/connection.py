"""Connections to a database, and its failures in words that say what to do."""

import contextlib
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from bot.core.errors import DataError, RuntimeFault, UsageError

RESTORE = "restore a copy, move the file away or choose another name"
_SQLITE_MAGIC = b"SQLite format 3\0"
_DISK_FULL = "53100"  # PostgreSQL's
_CONNECT_SECONDS = 10
_EXAMPLE = "postgresql+psycopg://user@host/name"


@contextlib.contextmanager
def faults(engine: sa.Engine, consequence: str = "") -> Iterator[None]:
    """Turns what a database can do to us into errors that say what to do; mistakes of ours pass through."""
    name = display_name(engine.url)
    try:
        yield
    except (exc.DBAPIError, sqlite3.Error) as error:  # sqlite3's own come from connecting
        fault = error.orig if isinstance(error, exc.DBAPIError) else error
        code = getattr(fault, "sqlite_errorname", "")
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise DataError(f"{name}: the database is damaged ({fault}); {RESTORE}") from error
        if not _is_operational(fault) or code == "SQLITE_ERROR":
            raise
        raise RuntimeFault(f"{name}: {_advice(code, fault)}{consequence}") from error


def _is_operational(fault: BaseException | None) -> bool:
    """By name: each driver has a class of its own, and PostgreSQL's has one below it for each fault."""
    return any(kind.__name__ == "OperationalError" for kind in type(fault).__mro__)


def _advice(code: str, fault: BaseException | None) -> str:
    if code == "SQLITE_FULL" or getattr(fault, "sqlstate", "") == _DISK_FULL:
        return "the disk is full; free some space and start again"
    if code.startswith("SQLITE_IOERR"):
        return f"the disk fails ({fault}); check it and start again"
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another process holds the database; stop it and start again"
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"cannot be written ({fault}); make the directory writable or choose another"
    return f"the database does not answer ({fault})"


def parse_url(target: str | Path) -> sa.URL:
    if isinstance(target, Path) or "://" not in target:
        return sa.URL.create("sqlite", database=str(target))
    try:
        url = sa.make_url(target)
    except exc.ArgumentError:
        raise UsageError(f"storage.database: not a database URL such as {_EXAMPLE}") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        other = url.get_backend_name()
        raise UsageError(f"storage.database: {other} is not supported; SQLite and PostgreSQL are: {_EXAMPLE}")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def is_file(url: sa.URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")


def display_name(url: sa.URL) -> str:
    return url.database or "memory" if url.get_backend_name() == "sqlite" else url.render_as_string()


def check_file(path: Path, *, readonly: bool) -> None:
    """Look at a file before SQLite does: it must not touch what is not ours."""
    try:
        if not path.exists():
            if readonly:
                raise DataError(f"{path}: no such database; `bot paper` makes one")
            path.parent.mkdir(parents=True, exist_ok=True)
            return
        with path.open("rb" if readonly else "r+b") as file:
            head = file.read(len(_SQLITE_MAGIC))
    except OSError as error:
        raise RuntimeFault(
            f"{path}: cannot be opened ({error.strerror}); make the directory writable or choose another"
        ) from None
    if head and head != _SQLITE_MAGIC:
        raise DataError(f"{path}: not a database, or damaged; {RESTORE}")


def make_engine(url: sa.URL) -> sa.Engine:
    on_server = url.get_backend_name() == "postgresql"
    try:
        engine = sa.create_engine(url, **(_server_options() if on_server else {}))
    except ImportError as error:
        name = display_name(url)
        raise UsageError(
            f"storage.database: {name}: {error}; pip install 'transfer-trader[postgres]' installs the driver"
        ) from None
    if not on_server:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _server_options() -> dict[str, Any]:
    """The name is how the holder of the lock is told; a pooled connection may be dead after a restart."""
    name = f"process {os.getpid()} on {socket.gethostname()}"
    arguments = {"application_name": name, "connect_timeout": _CONNECT_SECONDS}
    return {"connect_args": arguments, "pool_pre_ping": True}


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    # We begin transactions ourselves: the driver would leave DDL, and so half a migration, outside of them.
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA synchronous = NORMAL")
