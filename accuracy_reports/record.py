"""What an accuracy run found, as data: written as record.json, read again as if anybody could have written it.

The dataclasses are checked when they are built, by the rules that reading checks: types, ranges, bounded sizes, no
unknown field. A number that would be infinite or undefined is None, and its docstring says which.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from qtorch_relay.errors import QTorchRelayError
from qtorch_relay.output_files import atomic_write

FORMAT: Final = "qtorch_relay accuracy record"
FORMAT_VERSION: Final = 1
MAX_SIZE_BYTES = 64 << 20
CODES = 256  # of 8 bits
# How far a normal variable lies from its mean in 95 % of all cases.
Z_95 = 1.959964

# Names of the programs that every run has; others (boards, peers) are named by who runs them.
FLOAT, INT8, OURS, ONNX_RUNTIME = "PyTorch float", "PyTorch int8", "qtorch_relay", "ONNX Runtime QDQ"

_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_MAX_SHOWN_ERRORS = 3

Text: TypeAlias = Annotated[str, Field(max_length=20_000)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=1_000)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**62)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Histogram: TypeAlias = Annotated[tuple[Count, ...], Field(min_length=CODES, max_length=CODES)]


class RecordError(QTorchRelayError):
    """A record is missing, too large, damaged, of another version, or contradicts itself."""


@dataclass(frozen=True, config=_CONFIG)
class Share:
    """count of a total, with the 95 % interval [low, high] of the true share."""

    count: Count
    of: Count
    low: Fraction
    high: Fraction

    def __post_init__(self) -> None:
        if self.count > self.of:
            raise ValueError(f"{self.count} of {self.of}")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"the interval [{self.low}, {self.high}] does not hold {self.count} of {self.of}")

    @property
    def value(self) -> float:
        """The share itself; 0 of nothing."""
        return self.count / self.of if self.of else 0.0

    @staticmethod
    def of_count(count: int, of: int) -> Share:
        """Returns the share with Wilson's interval, which holds near 0 and 1 and for few images too.

        Formula: (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).
        Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
        """
        if of == 0:
            return Share(count, of, 0.0, 1.0)
        p, z = count / of, Z_95
        middle = p + z * z / (2 * of)
        reach = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
        scale = 1 + z * z / of
        low, high = (middle - reach) / scale, (middle + reach) / scale
        return Share(count, of, max(0.0, min(low, p)), min(1.0, max(high, p)))


@dataclass(frozen=True, config=_CONFIG)
class Environment:
    """Where, when and how the run was made. date: ISO 8601; commit: of the current folder's repository, None if none.

    versions: of the packages that compute, by name. num_threads: of every program.
    """

    date: Name
    cpu: Name
    cpus: Annotated[int, Field(ge=1)]
    system: Name
    python: Name
    versions: Annotated[dict[Name, Name], Field(max_length=100)]
    command: Text
    commit: Name | None
    num_threads: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True, config=_CONFIG)
class Model:
    """What was run. path: "kernels" or "portable"; inputs: as TensorSpec prints them; messages: of the compiler."""

    name: Name
    engine: Name
    target: Name
    path: Name
    inputs: Annotated[tuple[Name, ...], Field(max_length=1_000)] = ()
    messages: Annotated[tuple[Text, ...], Field(max_length=1_000)] = ()


@dataclass(frozen=True, config=_CONFIG)
class Dataset:
    """What it was run on. images: how many were asked for, broken ones included; classes: their names, () if unlabeled.

    preprocessing: in words. sha256: of the ids and labels in order, for telling whether two runs saw the same images.
    """

    name: Name
    images: Count
    classes: Annotated[tuple[Text, ...], Field(max_length=200_000)] = ()
    preprocessing: Text = ""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


@dataclass(frozen=True, config=_CONFIG)
class Program:
    """What one program achieved on the images.

    images: how many it ran on. top1, top5: of the labels; None without labels, or where there are not 5 classes.
    agreement: images whose first answer is PyTorch int8's. differing_codes: of all output codes, those that are not
    PyTorch int8's, and differing_images: images that have such a code; None where a program gives no codes.
    differing_floats: of the logits of a model that gives no codes, those whose float is not PyTorch int8's.
    latency_ms: median of a call on batch images. images_per_s: over the calls alone, decoding left out.
    problem: why there are no numbers; then all of them are None and images is 0.
    """

    name: Name
    images: Count
    top1: Share | None = None
    top5: Share | None = None
    agreement: Share | None = None
    differing_codes: Share | None = None
    differing_images: Share | None = None
    differing_floats: Share | None = None
    latency_ms: NonNegative | None = None
    batch: Annotated[int, Field(ge=1)] = 1
    images_per_s: NonNegative | None = None
    problem: Text | None = None

    def __post_init__(self) -> None:
        per_image = (self.top1, self.top5, self.agreement, self.differing_images)
        for share in per_image:
            if share is not None and share.of != self.images:
                raise ValueError(f"{self.name} ran on {self.images} images, a share is of {share.of}")
        if self.problem is not None and (self.images or any(share is not None for share in per_image)):
            raise ValueError(f"{self.name} has a problem and numbers")

    @property
    def differing(self) -> Share | None:
        """The output codes, else the floats, that are not PyTorch int8's."""
        return self.differing_floats if self.differing_codes is None else self.differing_codes

    @property
    def outputs_are(self) -> str:
        """What is compared: "codes" or "floats"."""
        return "codes" if self.differing_floats is None else "floats"


@dataclass(frozen=True, config=_CONFIG)
class BrokenImage:
    """An image that could not be read, by its id (its path, for files)."""

    id: Text
    reason: Text


@dataclass(frozen=True, config=_CONFIG)
class ChangedClass:
    """How often a program answers otherwise than PyTorch int8 does, by label and both answers.

    label: index of the class, None without labels; expected: PyTorch int8's answer; found: the program's.
    """

    program: Name
    label: Count | None
    expected: Count
    found: Count
    images: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=_CONFIG)
class Gap:
    """How far a layer's values b are from a's, over all images.

    sqnr_db: 10 log10(sum a^2 / sum (a - b)^2); None where they are equal (infinite) or a is all 0.
    cosine: of the angle between them; None where one is all 0.
    largest_error_steps, mean_error_steps: |a - b| / scale of the layer; None where it has no scale.
    differing: elements whose codes (floats are quantized as the layer quantizes) or, without a scale, values differ.
    """

    sqnr_db: float | None
    cosine: Annotated[float, Field(ge=-1, le=1)] | None
    largest_error_steps: NonNegative | None
    mean_error_steps: NonNegative | None
    differing: Count
    of: Count

    def __post_init__(self) -> None:
        if self.differing > self.of:
            raise ValueError(f"{self.differing} of {self.of} elements differ")

    @property
    def share(self) -> float:
        """The share of differing elements."""
        return self.differing / self.of if self.of else 0.0


@dataclass(frozen=True, config=_CONFIG)
class CodeCounts:
    """How often each code occurs, the least code first, over all images.

    saturated: how many codes are the least or the greatest, the zero point left out (a ReLU's zeros are no loss).
    """

    histogram: Histogram
    saturated: Count

    @property
    def saturated_share(self) -> float:
        """The share of saturated codes."""
        total = sum(self.histogram)
        return self.saturated / total if total else 0.0


@dataclass(frozen=True, config=_CONFIG)
class Layer:
    """One value of the model, three ways: float, PyTorch int8, compiled int8.

    scale, zero_point: None where the value is no per-tensor quantized one. scope, source: where it came from.
    counterpart: the float model's layer that it is compared with; None, and why in missing, where there is none.
    total: float to ours. quantization: float to PyTorch int8. compiler: PyTorch int8 to ours.
    own_quantization: the same of this layer alone: the float layer on PyTorch int8's inputs, to PyTorch int8.
    own_compiler: elements that differ in images where none of its inputs does, so that the difference was made here.
    theirs, ours: PyTorch int8's codes and the compiled program's; ours is None where they are the same.
    """

    name: Name
    op: Name
    scope: Text
    source: Text
    dtype: Name
    shape: Annotated[tuple[Count, ...], Field(max_length=32)]
    scale: Positive | None
    zero_point: int | None
    counterpart: Text | None
    missing: Text | None
    total: Gap | None
    quantization: Gap | None
    own_quantization: Gap | None
    compiler: Gap
    own_compiler: Count
    theirs: CodeCounts | None
    ours: CodeCounts | None

    @property
    def label(self) -> str:
        """What to call it: where it stands in the model, else the value's name if somebody gave it, else the op."""
        name = self.name if self.name.isidentifier() else self.op.partition("::")[2].partition(".")[0]
        return self.scope or name or self.op


@dataclass(frozen=True, config=_CONFIG)
class Layers:
    """Every layer in the order of execution, over images. float_model: None where there was none to compare with."""

    images: Annotated[int, Field(ge=1)]
    float_model: Name | None
    layers: Annotated[tuple[Layer, ...], Field(max_length=20_000)]


@dataclass(frozen=True, config=_CONFIG)
class Record:
    """A whole run. changed: the classes that changed, most images first; programs: in the order they are shown."""

    environment: Environment
    model: Model
    dataset: Dataset
    programs: Annotated[tuple[Program, ...], Field(max_length=100)] = ()
    broken: Annotated[tuple[BrokenImage, ...], Field(max_length=2_000_000)] = ()
    changed: Annotated[tuple[ChangedClass, ...], Field(max_length=200_000)] = ()
    layers: Layers | None = None
    format: Literal["qtorch_relay accuracy record"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION

    def __post_init__(self) -> None:
        names = [program.name for program in self.programs]
        if len(set(names)) != len(names):
            raise ValueError(f"programs of one name: {', '.join(names)}")

    def program(self, name: str) -> Program | None:
        """Returns the program of a name that has numbers; None if there is none."""
        return next((row for row in self.programs if row.name == name and row.problem is None), None)


_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def to_json(record: Record) -> bytes:
    """Returns the record as JSON; one record always gives the same bytes."""
    return _RECORD.dump_json(record, indent=1) + b"\n"


def write_record(record: Record, path: Path) -> None:
    """Writes record.json whole or not at all. Raises: OutputPathError."""
    with atomic_write(path) as file:
        file.write(to_json(record))


def read_record(path: Path) -> Record:
    """Returns the record that a file holds.

    Raises:
        RecordError: it is missing, too large, no record, of another version, or contradicts itself.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_SIZE_BYTES:
            raise RecordError(f"{path} has {size_bytes >> 20} MiB; a record has at most {MAX_SIZE_BYTES >> 20} MiB")
        text = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}; give the record.json of a run") from error
    return parse_record(text, str(path))


def parse_record(text: bytes, where: str = "the record") -> Record:
    """Returns the record that JSON text holds; where: what to call it in messages. Raises: RecordError."""
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        raise RecordError(f"{where} {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """Returns what is wrong with a record, the version first, since all else may follow from it."""
    found: list[Any] = error.errors(include_url=False, include_input=True)
    by_place = {item["loc"]: item for item in found}
    if ("format_version",) in by_place and ("format",) not in by_place:
        version = str(by_place["format_version",]["input"])[:20]
        return f"has format version {version}, this qtorch_relay reads version {FORMAT_VERSION}; make the run again"
    if any(item["type"] == "json_invalid" for item in found):
        return f"is not JSON: {found[0]['msg']}"
    shown = [f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in found[:_MAX_SHOWN_ERRORS]]
    more = f" (and {len(found) - len(shown)} more)" if len(found) > len(shown) else ""
    return f"is not an accuracy record: {'; '.join(shown)}{more}"
