"""The zip of a bundle: stored members of known names, used only when their sizes and checksums are right."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import BundleError
from qtorch_relay.runtime.manifest import GOLDEN, Manifest, Part, dump, parse
from qtorch_relay.runtime.specs import empty_aligned

_MANIFEST = "manifest.json"
# lib.so and weights.bin are what older formats called them, so that these are told by their version.
_MEMBER = re.compile(r"lib\d{0,3}\.so|weights\d{0,3}\.bin|golden\.bin|manifest\.json")
_COMMENT = b"qtorch_relay sha256:"
_MAX_MANIFEST_BYTES = 64 << 20
_READ_BYTES = 4 << 20
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def write(file: IO[bytes], manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Writes a bundle whose parts are these."""
    text = dump(manifest)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {_MANIFEST: text, **contents}.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), data)
        archive.comment = _COMMENT + hashlib.sha256(text).hexdigest().encode()


class Archive:
    """An open bundle: its manifest, checked, and its parts, which are checked when they are read."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self._members = _check_members(archive, path.stat().st_size)
        text = _read(archive, self._members[_MANIFEST]).tobytes()
        if archive.comment != _COMMENT + hashlib.sha256(text).hexdigest().encode():
            raise BundleError("it is truncated, or its manifest was altered (sha256 differs)")
        self.manifest = parse(text)
        expected = {_MANIFEST, *self.manifest.parts}
        if set(self._members) != expected:
            raise BundleError(f"it has the members {sorted(self._members)}; its manifest names {sorted(expected)}")
        self._read: dict[str, npt.NDArray[np.uint8]] = {}

    def part(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns a part's bytes in aligned memory, where weights can stay; the same memory each time.

        Raises:
            BundleError: its size or its sha256 is not what the manifest says.
        """
        if name not in self._read:
            self._read[name] = self._read_part(self._members[name], self.manifest.parts[name])
        return self._read[name]

    def _read_part(self, info: zipfile.ZipInfo, part: Part) -> npt.NDArray[np.uint8]:
        if info.file_size != part.size_bytes:
            raise BundleError(
                f"its part {info.filename} has {info.file_size} bytes, the manifest says {part.size_bytes}"
            )
        data = _read(self._archive, info)
        if hashlib.sha256(data.data).hexdigest() != part.sha256:
            raise BundleError(f"its part {info.filename} was altered (sha256 differs)")
        return data


def _check_members(archive: zipfile.ZipFile, file_size: int) -> Mapping[str, zipfile.ZipInfo]:
    members = {info.filename: info for info in archive.infolist()}
    if any(name.endswith("/constants.pkl") for name in members):
        raise BundleError("it is a TorchScript file, not a bundle; compile it first")
    known = all(_MEMBER.fullmatch(name) for name in members)
    if len(archive.infolist()) != len(members) or not known or not {_MANIFEST, GOLDEN} <= set(members):
        raise BundleError(
            f"it has the members {sorted(info.filename for info in archive.infolist())[:10]}; a bundle has "
            f"{_MANIFEST}, {GOLDEN}, and libraries and weights as lib0.so and weights0.bin, each once"
        )
    for info in members.values():
        # A stored member is not larger than the file, so no size it states makes us allocate more than the file has.
        if (
            info.compress_type != zipfile.ZIP_STORED
            or info.flag_bits & 1
            or not info.file_size == info.compress_size <= file_size
        ):
            raise BundleError(f"its member {info.filename} is compressed, encrypted or larger than the file")
    if members[_MANIFEST].file_size > _MAX_MANIFEST_BYTES:
        raise BundleError(f"its manifest is larger than {_MAX_MANIFEST_BYTES} bytes")
    return members


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[np.uint8]:
    buffer = empty_aligned((info.file_size,), "uint8")
    done = 0
    with archive.open(info) as member:
        while done < info.file_size:
            chunk = member.read(min(info.file_size - done, _READ_BYTES))
            if not chunk:
                raise BundleError(f"its member {info.filename} is truncated")
            buffer[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
            done += len(chunk)
    return buffer
