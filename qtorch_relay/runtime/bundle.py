"""One-file bundles (.qtr): a zip of stored members, every one of them checked before it is used. Nothing is pickled.

manifest.json  versions, target, specs, tables and the sha256 of the parts; its own sha256 is the zip's comment
lib.so         the compiled code
weights.bin    the weights, raw, each at a multiple of 64 bytes
golden.bin     an input and the output the program gave for it, raw
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import BundleError, QTorchRelayError
from qtorch_relay.output_files import atomic_write, check_output_path
from qtorch_relay.runtime import ffi
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.interface import Golden, Interface
from qtorch_relay.runtime.manifest import GOLDEN_SIZE, PART_NAMES, Manifest, Part, dump, offsets, parse
from qtorch_relay.runtime.random_inputs import random_inputs
from qtorch_relay.runtime.specs import TensorSpec, empty_aligned
from qtorch_relay.target import check_runnable, missing_on_host

_MANIFEST = "manifest.json"
_COMMENT = b"qtorch_relay sha256:"
_MAX_MANIFEST_BYTES = 64 << 20
_READ_BYTES = 4 << 20
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Variant:
    """A program for one target as a bundle holds it, read and checked, not loaded."""

    interface: Interface
    weights: Mapping[str, npt.NDArray[Any]]
    library: bytes
    golden: Golden | None


class _LoadedProgram:
    """Code loaded from a bundle's library."""

    def __init__(self, library: bytes) -> None:
        self._library = library
        self._module = ffi.load_library(library)

    def module(self) -> Any:
        """Returns the Relax executable's module."""
        return self._module

    def library(self) -> bytes:
        """Returns the shared library."""
        return self._library


def save(model: CompiledModel, path: Path) -> None:
    """Writes a model as a bundle, whole or not at all."""
    check_output_path(path)
    golden = model.golden or _make_golden(model)
    weights = list(model.weights.items())
    weight_specs = tuple(TensorSpec(name, array.shape, str(array.dtype)) for name, array in weights)
    golden_arrays = [] if golden is None else [*golden.inputs, *golden.outputs]
    golden_specs = () if golden is None else model.interface.tensors_at(GOLDEN_SIZE)
    contents = {
        "lib.so": model.program.library(),
        "weights.bin": _pack(weight_specs, [array for _, array in weights]),
        "golden.bin": _pack(golden_specs, golden_arrays),
    }
    parts = {name: Part(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    manifest = dump(Manifest(model.interface, weight_specs, golden is not None, parts))
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {_MANIFEST: manifest, **contents}.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), data)
        archive.comment = _COMMENT + hashlib.sha256(manifest).hexdigest().encode()


def load(path: str | Path) -> CompiledModel:
    """Returns the model of a bundle, after checking every part of it.

    Raises:
        BundleError: missing, truncated, altered, not a bundle, or for another target, TVM or format version.
    """
    path = Path(path)
    with _naming(path):
        [variant] = _variants(path)
        check_runnable(variant.interface.target)
        return CompiledModel(_LoadedProgram(variant.library), variant.weights, variant.interface, variant.golden)


def read_variants(path: str | Path) -> tuple[Variant, ...]:
    """Returns what a bundle holds, whatever it is compiled for, after checking every part; none of its code is loaded.

    Raises:
        BundleError: missing, truncated, altered, not a bundle, or for another TVM or format version.
    """
    path = Path(path)
    with _naming(path):
        return _variants(path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names a bundle in whatever is wrong with it."""
    try:
        yield
    except QTorchRelayError as error:
        raise BundleError(f"cannot load {path}: {error}") from error
    except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError, EOFError) as error:
        raise BundleError(f"cannot load {path}: it is not a bundle, or truncated or altered ({error})") from error
    except FileNotFoundError as error:
        raise BundleError(f"cannot load {path}: there is no such file") from error
    except OSError as error:
        raise BundleError(f"cannot load {path}: {error.strerror or error}") from error


def _variants(path: Path) -> tuple[Variant, ...]:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return (_read(archive, path.stat().st_size),)


def _read(archive: zipfile.ZipFile, file_size: int) -> Variant:
    members = _check_members(archive, file_size)
    text = _read_member(archive, members[_MANIFEST]).tobytes()
    if archive.comment != _COMMENT + hashlib.sha256(text).hexdigest().encode():
        raise BundleError("it is truncated, or its manifest was altered (sha256 differs)")
    manifest = parse(text)
    contents = {name: _read_part(archive, members[name], manifest.parts[name]) for name in PART_NAMES}
    weights = dict(_unpack(manifest.weights, contents["weights.bin"]))
    if len(weights) != len(manifest.weights):
        raise BundleError("two weights have the same name")
    golden = _read_golden(manifest, contents["golden.bin"])
    return Variant(manifest.interface, weights, contents["lib.so"].tobytes(), golden)


def _check_members(archive: zipfile.ZipFile, file_size: int) -> Mapping[str, zipfile.ZipInfo]:
    members = {info.filename: info for info in archive.infolist()}
    expected = {_MANIFEST, *PART_NAMES}
    if any(name.endswith("/constants.pkl") for name in members):
        raise BundleError("it is a TorchScript file, not a bundle; compile it first")
    if len(archive.infolist()) != len(expected) or set(members) != expected:
        raise BundleError(f"it has the members {sorted(members)}; a bundle has {sorted(expected)}")
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


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[np.uint8]:
    """Returns a member's bytes in aligned memory, where the weights can stay."""
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


def _read_part(archive: zipfile.ZipFile, info: zipfile.ZipInfo, part: Part) -> npt.NDArray[np.uint8]:
    if info.file_size != part.size_bytes:
        raise BundleError(f"its part {info.filename} has {info.file_size} bytes, the manifest says {part.size_bytes}")
    data = _read_member(archive, info)
    if hashlib.sha256(data.data).hexdigest() != part.sha256:
        raise BundleError(f"its part {info.filename} was altered (sha256 differs)")
    return data


def _read_golden(manifest: Manifest, data: npt.NDArray[np.uint8]) -> Golden | None:
    if not manifest.has_golden:
        return None
    arrays = tuple(array for _, array in _unpack(manifest.golden, data))
    count = len(manifest.interface.inputs)
    return Golden(arrays[:count], arrays[count:])


def _pack(specs: tuple[TensorSpec, ...], arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    starts, size = offsets(specs)
    packed = bytearray(size)
    for spec, start, array in zip(specs, starts, arrays, strict=True):
        packed[start : start + spec.size_bytes] = np.ascontiguousarray(array).tobytes()
    return bytes(packed)


def _unpack(specs: tuple[TensorSpec, ...], data: npt.NDArray[np.uint8]) -> list[tuple[str, npt.NDArray[Any]]]:
    """Returns the tensors of a part, as views of its memory."""
    starts, _ = offsets(specs)
    return [
        (spec.name, data[start : start + spec.size_bytes].view(spec.dtype).reshape(spec.fixed_shape))
        for spec, start in zip(specs, starts, strict=True)
    ]


def _make_golden(model: CompiledModel) -> Golden | None:
    """Returns seeded inputs with the outputs for them, or None if this host cannot run the target."""
    if missing_on_host(model.target) is not None:
        return None
    specs = model.interface.tensors_at(GOLDEN_SIZE)[: len(model.inputs)]
    inputs = tuple(random_inputs((spec.fixed_shape, spec.dtype) for spec in specs))
    return Golden(inputs, model.run_flat(inputs))
