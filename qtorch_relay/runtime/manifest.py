"""The manifest of a bundle: JSON that says what the other parts are. Read as if anybody could have written it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from qtorch_relay._version import __version__
from qtorch_relay.errors import BundleError, VerifyError
from qtorch_relay.runtime.interface import Interface
from qtorch_relay.runtime.specs import ALIGNMENT_BYTES, TensorSpec
from qtorch_relay.runtime.structure import Structure
from qtorch_relay.target import Target

FORMAT_VERSION = 2
# What named dimensions are in the golden run.
GOLDEN_SIZE = 2
_UNKNOWN = "unknown"
PART_NAMES = ("lib.so", "weights.bin", "golden.bin")


@dataclass(frozen=True)
class Part:
    """A part's size and the sha256 of its bytes."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    weights: in the order the program takes them.
    has_golden: whether golden.bin has the inputs and outputs of a run; it is empty where the program could not be run.
    """

    interface: Interface
    weights: tuple[TensorSpec, ...]
    has_golden: bool
    parts: dict[str, Part]

    @property
    def golden(self) -> tuple[TensorSpec, ...]:
        """The tensors of golden.bin."""
        return self.interface.tensors_at(GOLDEN_SIZE) if self.has_golden else ()


def offsets(specs: tuple[TensorSpec, ...]) -> tuple[list[int], int]:
    """Returns where each tensor starts in a part, each at a multiple of 64 bytes, and the part's size."""
    starts, end = [], 0
    for spec in specs:
        starts.append(end)
        end += -(-spec.size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return starts, end


def dump(manifest: Manifest) -> bytes:
    """Returns the manifest as JSON."""
    interface = manifest.interface
    data = {
        "format": "qtorch_relay bundle",
        "format_version": FORMAT_VERSION,
        "qtorch_relay_version": __version__,
        "tvm_version": _tvm_version(),
        "target": asdict(interface.target),
        "engine": interface.engine,
        "inputs": [spec.to_json() for spec in interface.inputs],
        "outputs": [spec.to_json() for spec in interface.outputs],
        "structure": interface.structure,
        "arguments": interface.arguments,
        "report": interface.report,
        "weights": _table(manifest.weights),
        "has_golden": manifest.has_golden,
        "parts": {name: asdict(part) for name, part in manifest.parts.items()},
    }
    return json.dumps(data, indent=1).encode()


def parse(text: bytes) -> Manifest:
    """Returns the manifest that JSON text holds.

    Raises:
        BundleError: not a manifest, of another format version, or for another TVM.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"its manifest is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != "qtorch_relay bundle":
        raise BundleError("its manifest is not one of qtorch_relay")
    _check_versions(data)
    try:
        return _from_json(data)
    except (KeyError, TypeError, ValueError, VerifyError, RecursionError) as error:
        raise BundleError(f"its manifest is not complete: {type(error).__name__}: {error}") from error


def _from_json(data: dict[str, Any]) -> Manifest:
    structure: Structure = data["structure"]
    interface = Interface(
        inputs=_specs(data["inputs"]),
        outputs=_specs(data["outputs"]),
        structure=structure,
        target=_target(data["target"]),
        engine=data["engine"],
        report=dict(data["report"]),
        arguments=_arguments(data["arguments"]),
    )
    parts = {
        name: Part(_count(data["parts"][name]["size_bytes"]), str(data["parts"][name]["sha256"])) for name in PART_NAMES
    }
    manifest = Manifest(interface, _specs(data["weights"]), data["has_golden"] is True, parts)
    for name, specs in (("weights.bin", manifest.weights), ("golden.bin", manifest.golden)):
        _, size = offsets(specs)
        if size != parts[name].size_bytes:
            raise BundleError(f"its table of {name} describes {size} bytes, the part has {parts[name].size_bytes}")
    return manifest


def _check_versions(data: dict[str, Any]) -> None:
    if data.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"it has format version {data.get('format_version')}, this qtorch_relay {__version__} reads version "
            f"{FORMAT_VERSION}; compile the model again"
        )
    made, here = str(data.get("tvm_version")), _tvm_version()
    if made.split(".")[:2] != here.split(".")[:2] and _UNKNOWN not in (made, here):
        raise BundleError(
            f"it was compiled with TVM {made}, TVM {here} is installed; install that line of TVM or compile again"
        )


def _tvm_version() -> str:
    try:
        return metadata.version("apache-tvm")
    except metadata.PackageNotFoundError:
        return _UNKNOWN


def _table(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [spec.to_json() | {"offset": start} for spec, start in zip(specs, offsets(specs)[0], strict=True)]


def _specs(data: Any) -> tuple[TensorSpec, ...]:
    if not isinstance(data, list):
        raise TypeError("a table of tensors is not a list")
    return tuple(TensorSpec.from_json(item) for item in data)


def _arguments(data: Any) -> tuple[tuple[str, Structure], ...] | None:
    if data is None:
        return None
    arguments = tuple((name, structure) for name, structure in data)
    if not all(isinstance(name, str) for name, _ in arguments):
        raise TypeError("an argument has no name")
    return arguments


def _target(data: dict[str, Any]) -> Target:
    lists = {name: tuple(str(item) for item in data[name]) for name in ("mattr", "cpu_flags")}
    if not isinstance(data["name"], str) or not isinstance(data["isa"], str):
        raise TypeError("its target has no name")
    return Target(**(data | lists))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a number of bytes")
    return value
