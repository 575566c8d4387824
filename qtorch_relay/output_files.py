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
    try:
        goal = path.resolve()  # a link stays, what it points to is written
        exists = goal.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, a NUL
        raise OutputPathError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    if goal.is_dir():
        raise OutputPathError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if exists and not goal.is_file():
        # A rename would put the file in the place of the device itself: of /dev/null, for every program.
        raise OutputPathError(f"cannot write {path}: it is a device or a pipe; give the name of a file")
    folder = goal.parent if path.is_symlink() else path.parent
    if folder.exists() and not folder.is_dir():
        raise OutputPathError(f"cannot write {path}: {folder} is a file, not a folder")
    if not folder.is_dir():
        raise OutputPathError(f"cannot write {path}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise OutputPathError(f"cannot write {path}: the folder {folder} is not writable")


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file to write; it takes path's place when the block ends, and vanishes if the block raises.

    Raises:
        OutputPathError: the path is no file's, the folder is missing or not writable, or the disk is full.
    """
    check_output_path(path)
    goal = path.resolve()
    # Beside its goal, since a rename is atomic within one file system only. Not by tempfile: its files have mode 0600.
    temporary = goal.with_name(f".{goal.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, goal)
    except OSError as error:
        raise OutputPathError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
