"""The manifest of a bundle: JSON that says what the other parts are. Read as if anybody could have written it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

from qtorch_relay._version import __version__
from qtorch_relay.errors import BundleError, VerifyError
from qtorch_relay.runtime.golden import GOLDEN_SIZE
from qtorch_relay.runtime.interface import SOURCES, Interface
from qtorch_relay.runtime.specs import ALIGNMENT_BYTES, TensorSpec
from qtorch_relay.runtime.structure import Structure
from qtorch_relay.target import Target

FORMAT_VERSION = 4
GOLDEN = "golden.bin"
_UNKNOWN = "unknown"
_LIBRARY, _WEIGHTS = re.compile(r"lib\d{1,3}\.so"), re.compile(r"weights\d{1,3}\.bin")
_PART = re.compile(rf"{_LIBRARY.pattern}|{_WEIGHTS.pattern}|{re.escape(GOLDEN)}")


@dataclass(frozen=True)
class Part:
    """A part's size and the sha256 of its bytes."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Weight:
    """Where a weight is: in which part, and where it begins there. Variants share weights of equal bytes."""

    spec: TensorSpec
    part: str
    offset: int


@dataclass(frozen=True)
class VariantEntry:
    """What a bundle says of its program for one target; weights are in the order the program takes them."""

    interface: Interface
    library: str
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class GoldenEntry:
    """Where the golden outputs are from, and for each input whether it is kept as int8 numbers of steps."""

    source: str
    in_steps: tuple[bool, ...]

    def specs(self, interface: Interface) -> tuple[TensorSpec, ...]:
        """Returns the tensors of golden.bin: the inputs as they are kept, then the outputs."""
        specs = interface.tensors_at(GOLDEN_SIZE)
        inputs, outputs = specs[: len(self.in_steps)], specs[len(self.in_steps) :]
        flags = zip(inputs, self.in_steps, strict=True)
        return (*(replace(spec, dtype="int8") if steps else spec for spec, steps in flags), *outputs)


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    variants: programs for different targets that take and give the same.
    golden: what golden.bin has; None if it is empty.
    """

    variants: tuple[VariantEntry, ...]
    golden: GoldenEntry | None
    parts: dict[str, Part]

    @property
    def golden_specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of golden.bin."""
        return () if self.golden is None else self.golden.specs(self.variants[0].interface)


def offsets(specs: tuple[TensorSpec, ...]) -> tuple[list[int], int]:
    """Returns where each tensor starts in a part, each at a multiple of 64 bytes, and the part's size."""
    starts, end = [], 0
    for spec in specs:
        starts.append(end)
        end += aligned_size(spec.size_bytes)
    return starts, end


def aligned_size(size_bytes: int) -> int:
    """Returns how far the next tensor is from one of this size."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def dump(manifest: Manifest) -> bytes:
    """Returns the manifest as JSON."""
    interface = manifest.variants[0].interface
    data = {
        "format": "qtorch_relay bundle",
        "format_version": FORMAT_VERSION,
        "qtorch_relay_version": __version__,
        "tvm_version": _tvm_version(),
        "engine": interface.engine,
        "inputs": [spec.to_json() for spec in interface.inputs],
        "outputs": [spec.to_json() for spec in interface.outputs],
        "structure": interface.structure,
        "arguments": interface.arguments,
        "golden": None if manifest.golden is None else asdict(manifest.golden),
        "variants": [_dump_variant(variant) for variant in manifest.variants],
        "parts": {name: asdict(part) for name, part in manifest.parts.items()},
    }
    return json.dumps(data, indent=1).encode()


def _dump_variant(variant: VariantEntry) -> dict[str, Any]:
    weights = [weight.spec.to_json() | {"part": weight.part, "offset": weight.offset} for weight in variant.weights]
    return {
        "target": asdict(variant.interface.target),
        "library": variant.library,
        "weights": weights,
        "report": variant.interface.report,
    }


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
    parts = {
        _named(name, _PART): Part(_count(part["size_bytes"]), str(part["sha256"]))
        for name, part in dict(data["parts"]).items()
    }
    variants = tuple(_variant(data, variant, parts) for variant in list(data["variants"]))
    if not variants:
        raise ValueError("it has no program")
    golden = None if data["golden"] is None else _golden(data["golden"], variants[0].interface)
    manifest = Manifest(variants, golden, parts)
    _, size = offsets(manifest.golden_specs)
    if size != parts[GOLDEN].size_bytes:
        raise BundleError(f"its table of {GOLDEN} describes {size} bytes, the part has {parts[GOLDEN].size_bytes}")
    return manifest


def _golden(data: dict[str, Any], interface: Interface) -> GoldenEntry:
    if data["source"] not in SOURCES:
        raise ValueError(f"the golden output is from {data['source']!r}; known are {', '.join(SOURCES)}")
    in_steps = tuple(steps is True for steps in data["in_steps"])
    if len(in_steps) != len(interface.inputs):
        raise ValueError(f"it says how {len(in_steps)} golden inputs are kept; there are {len(interface.inputs)}")
    return GoldenEntry(data["source"], in_steps)


def _variant(data: dict[str, Any], variant: dict[str, Any], parts: dict[str, Part]) -> VariantEntry:
    structure: Structure = data["structure"]
    interface = Interface(
        inputs=_specs(data["inputs"]),
        outputs=_specs(data["outputs"]),
        structure=structure,
        target=_target(variant["target"]),
        engine=data["engine"],
        report=dict(variant["report"]),
        arguments=_arguments(data["arguments"]),
    )
    library = _named(variant["library"], _LIBRARY)
    if library not in parts:
        raise KeyError(library)
    if not isinstance(variant["weights"], list):
        raise TypeError("a table of tensors is not a list")
    weights = tuple(_weight(item, parts) for item in variant["weights"])
    if len({weight.spec.name for weight in weights}) != len(weights):
        raise BundleError("two weights have the same name")
    return VariantEntry(interface, library, weights)


def _weight(data: Any, parts: dict[str, Part]) -> Weight:
    spec = TensorSpec.from_json(data)
    part, offset = _named(data["part"], _WEIGHTS), _count(data["offset"])
    end, size = offset + spec.size_bytes, parts[part].size_bytes
    if offset % ALIGNMENT_BYTES or end > size:
        raise BundleError(f"its weight {spec} lies at bytes {offset} to {end} of {part}, which has {size}")
    return Weight(spec, part, offset)


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


def _named(value: Any, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not the name of a part")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a number of bytes")
    return value
