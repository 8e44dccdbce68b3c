"""Files that are either whole or absent."""

import os
import tempfile
from pathlib import Path

from bot.core.errors import RuntimeFault


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to disk, rename. Raises RuntimeFault when the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise RuntimeFault(
            f"{path}: cannot be written ({error.strerror or error}); free space, check rights"
        ) from None
