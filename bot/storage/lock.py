"""One writer per database, enforced by who lets go even when the holder is killed: the operating system for a
file, the server for a database on one.
"""

import fcntl
import os
from pathlib import Path
from typing import Final, Self

import sqlalchemy as sa

from bot.core.errors import RuntimeFault

_KEY: Final = (
    0x7472_616E_7366_6572  # of PostgreSQL's advisory lock; they are numbers, one name space a database
)


class FileLock:
    """An exclusive lock on a file that holds the number of the process that has it."""

    def __init__(self, path: Path, *, name: str = "", what: str = "directory") -> None:
        """Takes the lock at once or raises RuntimeFault that names the holder.

        name, what: of the thing that is locked, for people; default: the file's directory.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+")
        except OSError as error:
            raise RuntimeFault(
                f"{path}: cannot be written ({error.strerror}); make the directory writable or choose another"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise RuntimeFault(
                f"{name or path.parent}: another bot (process {holder}) is using this {what}; "
                f"stop it or choose another {what}"
            ) from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        # The file stays: removing it would let two processes lock two files of the same name.
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class ServerLock:
    """An advisory lock of a PostgreSQL database, held by a connection of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        """Takes the lock at once or raises RuntimeFault that names the holder."""
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if not self._connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_KEY))):
            holder = self._connection.exec_driver_sql(
                "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) + objid::bigint = %s",
                (_KEY,),
            ).scalar()
            self.release()
            raise RuntimeFault(
                f"another bot ({holder or 'unknown'}) is using this database; stop it or choose another one"
            )

    def release(self) -> None:
        self._connection.invalidate()  # back in the pool the connection would keep the lock
        self._connection.close()
