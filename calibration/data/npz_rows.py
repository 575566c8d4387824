"""The rows of an array in a .npz file, read one by one where the file is not compressed.

A mapped file would do it in one line, but its pages count as this process's memory once they were read.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_LOCAL_HEADER_BYTES = 30
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzRows:
    """An array of a .npz file, without its data in memory if numpy.savez wrote it; several threads may read at once.

    checksum: of the data, as the archive's directory has it.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Opens a member of the archive.

        Raises:
            KeyError: there is no array of that name.
            OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile: it is not such a file.
        """
        with zipfile.ZipFile(path) as archive:
            try:
                member = archive.getinfo(f"{name}.npy")
            except KeyError:
                raise KeyError(name) from None
            self.checksum = f"crc32:{member.CRC:08x}:{member.file_size}"
            packed = member.compress_type != zipfile.ZIP_STORED
            self._data = _read_all(archive.read(member)) if packed else None
        if self._data is not None:
            self.shape, self.dtype = self._data.shape, self._data.dtype
            return
        self._path = path
        with path.open("rb") as file:
            start = _start_of(file, member.header_offset)
            file.seek(start)
            self.shape, is_fortran, self.dtype = _read_header(file)
            self._offset = file.tell()
            if self._offset - start + self.dtype.itemsize * math.prod(self.shape) != member.file_size:
                raise ValueError(f"{name} is truncated")
            if is_fortran:  # rows are not together
                file.seek(start)
                self._data = _read_all(file.read(member.file_size))

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        """Returns a row, [*shape[1:]].

        Raises:
            OSError: the file ends before it.
        """
        if self._data is not None:
            row: npt.NDArray[Any] = self._data[index]
            return row
        size = self.dtype.itemsize * math.prod(self.shape[1:])
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._offset + index * size)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"the file ends before row {index}")
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])

    def all(self) -> npt.NDArray[Any]:
        """Returns the whole array."""
        return np.stack([self[i] for i in range(self.shape[0])]) if self.shape[0] else np.empty(self.shape, self.dtype)


def _start_of(file: BinaryIO, header_offset: int) -> int:
    """Returns where a member's data starts: its local header repeats the name, and has extra fields of its own."""
    file.seek(header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    if len(header) < _LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise ValueError("a local header is damaged")
    sizes = [int.from_bytes(header[i : i + 2], "little") for i in (26, 28)]
    return header_offset + _LOCAL_HEADER_BYTES + sum(sizes)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"version {version} of numpy's format is unknown")
    shape, is_fortran, dtype = _READ_HEADER[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, is_fortran, dtype


def _read_all(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array
