"""One writer per database, enforced by the operating system, which lets go even when the holder is killed."""

import fcntl
import os
from pathlib import Path
from typing import Self

from bot.core.errors import RuntimeFault


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
