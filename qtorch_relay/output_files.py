"""Output files are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from qtorch_relay.errors import OutputPathError


def check_output_path(path: Path) -> None:
    """Raises OutputPathError if no file can be written at path: said before the work that makes its contents."""
    if path.is_dir():
        raise OutputPathError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise OutputPathError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputPathError(f"cannot write {path}: the folder {path.parent} is not writable")


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file to write; it takes path's place when the block ends, and vanishes if the block raises.

    Raises:
        OutputPathError: the folder is missing or not writable, or the disk is full.
    """
    check_output_path(path)
    # Beside its goal, since a rename is atomic within one file system only. Not by tempfile: its files have mode 0600.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputPathError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
