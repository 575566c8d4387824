"""One-file bundles (.qtr): a zip of stored members, every one of them checked before it is used. Nothing is pickled.

manifest.json  versions, targets, specs, tables and the sha256 of the parts; its own sha256 is the zip's comment
lib0.so        the compiled code for the first target; lib1.so that for the second, ...
weights0.bin   weights, raw, each at a multiple of 64 bytes; those that the same targets use are together in a part
golden.bin     an input and the right output for it, raw
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

from qtorch_relay.errors import BundleError, QTorchRelayError, TargetError
from qtorch_relay.output_files import atomic_write, check_output_path
from qtorch_relay.runtime import archive, ffi
from qtorch_relay.runtime.archive import Archive
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.golden import from_steps, golden_inputs, to_steps
from qtorch_relay.runtime.interface import HOST_PROGRAM, PROGRAM, Golden, Interface
from qtorch_relay.runtime.manifest import (
    GOLDEN,
    GoldenEntry,
    Manifest,
    Part,
    VariantEntry,
    Weight,
    aligned_size,
    offsets,
)
from qtorch_relay.runtime.specs import TensorSpec
from qtorch_relay.runtime.variants import choose
from qtorch_relay.target import missing_on_host


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
    """Writes a model as a bundle, with all its variants; whole or not at all."""
    check_output_path(path)
    if model.not_loaded:
        raise TargetError(
            f"cannot write {path}: the bundle this model is from also has programs for {', '.join(model.not_loaded)}, "
            "which were not loaded; copy that file"
        )
    golden = model.golden or _make_golden(model)
    golden_entry, golden_part = (None, b"") if golden is None else _pack_golden(golden, model.interface)
    variants = model.variants
    contents = {f"lib{i}.so": variant.program.library() for i, variant in enumerate(variants)}
    packed, places = _pack_weights([list(variant.weights.values()) for variant in variants])
    contents |= packed | {GOLDEN: golden_part}
    entries = tuple(
        VariantEntry(variant.interface, f"lib{i}.so", _weight_table(variant, places[i]))
        for i, variant in enumerate(variants)
    )
    parts = {name: Part(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    manifest = Manifest(entries, golden_entry, parts)
    with atomic_write(path) as file:
        archive.write(file, manifest, contents)


def load(path: str | Path, target: str | None = None) -> CompiledModel:
    """Returns the model of a bundle, after checking what is read of it.

    target: the name of that of its programs which is to be loaded; None takes the most able that this CPU runs. The
        others are not read.

    Raises:
        BundleError: missing, truncated, altered, not a bundle, or for another target, TVM or format version.
    """
    with _open(Path(path)) as opened:
        entries = opened.manifest.variants
        place = choose([entry.interface.target for entry in entries], target)
        variant = _read(opened, entries[place])
        others = [entry.interface.target.name for entry in entries if entry is not entries[place]]
        program = _LoadedProgram(variant.library)
        return CompiledModel(program, variant.weights, variant.interface, variant.golden, not_loaded=others)


def read_variants(path: str | Path) -> tuple[Variant, ...]:
    """Returns what a bundle holds, whatever it is compiled for, after checking every part; none of its code is loaded.

    Raises:
        BundleError: missing, truncated, altered, not a bundle, or for another TVM or format version.
    """
    with _open(Path(path)) as opened:
        return tuple(_read(opened, entry) for entry in opened.manifest.variants)


def read_manifest(path: str | Path) -> Manifest:
    """Returns what a bundle says of itself; of its parts only the names are checked.

    Raises:
        BundleError: missing, truncated, altered, not a bundle, or for another TVM or format version.
    """
    with _open(Path(path)) as opened:
        return opened.manifest


@contextmanager
def _open(path: Path) -> Iterator[Archive]:
    """Opens a bundle and names it in whatever is wrong with it."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as zipped:
            yield Archive(zipped, path)
    except QTorchRelayError as error:
        raise BundleError(f"cannot load {path}: {error}") from error
    except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError, EOFError) as error:
        raise BundleError(f"cannot load {path}: it is not a bundle, or truncated or altered ({error})") from error
    except FileNotFoundError as error:
        raise BundleError(f"cannot load {path}: there is no such file") from error
    except OSError as error:
        raise BundleError(f"cannot load {path}: {error.strerror or error}") from error


def _read(opened: Archive, entry: VariantEntry) -> Variant:
    weights = {item.spec.name: _view(opened.part(item.part), item.spec, item.offset) for item in entry.weights}
    return Variant(entry.interface, weights, opened.part(entry.library).tobytes(), _read_golden(opened))


def _read_golden(opened: Archive) -> Golden | None:
    data, entry, specs = opened.part(GOLDEN), opened.manifest.golden, opened.manifest.golden_specs
    if entry is None:
        return None
    arrays = tuple(_view(data, spec, start) for spec, start in zip(specs, offsets(specs)[0], strict=True))
    interface = opened.manifest.variants[0].interface
    kept = zip(arrays, interface.inputs, entry.in_steps, strict=False)
    inputs = tuple(from_steps(array, spec.dtype) if steps else array for array, spec, steps in kept)
    return Golden(inputs, arrays[len(inputs) :], entry.source)


def _view(data: npt.NDArray[np.uint8], spec: TensorSpec, start: int) -> npt.NDArray[Any]:
    """Returns a tensor of a part, as a view of its memory."""
    return data[start : start + spec.size_bytes].view(spec.dtype).reshape(spec.fixed_shape)


def _pack_golden(golden: Golden, interface: Interface) -> tuple[GoldenEntry, bytes]:
    in_steps = [to_steps(array) for array in golden.inputs]
    entry = GoldenEntry(golden.source, tuple(steps is not None for steps in in_steps))
    inputs = [array if steps is None else steps for array, steps in zip(golden.inputs, in_steps, strict=True)]
    return entry, _pack(entry.specs(interface), [*inputs, *golden.outputs])


def _pack(specs: tuple[TensorSpec, ...], arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    starts, size = offsets(specs)
    packed = bytearray(size)
    for spec, start, array in zip(specs, starts, arrays, strict=True):
        packed[start : start + spec.size_bytes] = np.ascontiguousarray(array).tobytes()
    return bytes(packed)


def _pack_weights(
    variants: Sequence[Sequence[npt.NDArray[Any]]],
) -> tuple[dict[str, bytes], list[list[tuple[str, int]]]]:
    """Returns parts that hold each content once, and for each variant's weights the part and the place in it.

    A part holds what the same variants use, so a program reads no bytes that are only another's.
    """
    users: dict[bytes, list[int]] = {}
    keys = [[hashlib.sha256(np.ascontiguousarray(array).data).digest() for array in arrays] for arrays in variants]
    for i, found in enumerate(keys):
        for key in dict.fromkeys(found):
            users.setdefault(key, []).append(i)
    names = {group: f"weights{i}.bin" for i, group in enumerate(dict.fromkeys(map(tuple, users.values())))}
    parts = {name: bytearray() for name in names.values()}
    places: dict[bytes, tuple[str, int]] = {}
    for arrays, found in zip(variants, keys, strict=True):
        for array, key in zip(arrays, found, strict=True):
            if key in places:
                continue
            name = names[tuple(users[key])]
            places[key] = (name, len(parts[name]))
            data = np.ascontiguousarray(array).tobytes()
            parts[name] += data + bytes(aligned_size(len(data)) - len(data))
    return {name: bytes(part) for name, part in parts.items()}, [[places[key] for key in found] for found in keys]


def _weight_table(variant: CompiledModel, places: Sequence[tuple[str, int]]) -> tuple[Weight, ...]:
    return tuple(
        Weight(TensorSpec(name, array.shape, str(array.dtype)), *place)
        for (name, array), place in zip(variant.weights.items(), places, strict=True)
    )


def _make_golden(model: CompiledModel) -> Golden | None:
    """Returns seeded inputs with the outputs for them, or None if this host cannot run the target."""
    if missing_on_host(model.target) is not None:
        return None
    inputs = golden_inputs(model.interface)
    return Golden(inputs, model.run_flat(inputs), PROGRAM if len(model.variants) == 1 else HOST_PROGRAM)
