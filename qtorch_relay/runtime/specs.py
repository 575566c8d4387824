"""What a program takes and gives: tensor specs, and how its flat outputs nest. All of it can be written as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import BundleError, UnsupportedQuantSchemeError, VerifyError
from qtorch_relay.qparams import PerChannel, PerTensor, QuantParams

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
ALIGNMENT_BYTES = 64
_MAX_DIMENSIONS = 16

# An index into the flat outputs, None, or {"tuple": [...]}, {"list": [...]}, {"dict": [[key, structure], ...]}.
Structure: TypeAlias = int | None | dict[str, Any]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, shape and dtype; qparams if its integers are codes of a quantized tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    qparams: QuantParams | None = None

    def __post_init__(self) -> None:
        q = self.qparams
        if q is not None and q.dtype != self.dtype:
            raise VerifyError(f"tensor {self} has quantization parameters for {q.dtype}")
        if isinstance(q, PerChannel) and self.shape[q.axis : q.axis + 1] != (len(q.scales),):
            raise VerifyError(f"tensor {self} has {len(q.scales)} scales along axis {q.axis}")

    @property
    def size_bytes(self) -> int:
        """The size of the tensor's data."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {list(self.shape)}"

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as JSON data; `from_json` reads it."""
        data: dict[str, Any] = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}
        if isinstance(self.qparams, PerTensor):
            data["qparams"] = {"scale": self.qparams.scale, "zero_point": self.qparams.zero_point}
        elif isinstance(self.qparams, PerChannel):
            data["qparams"] = {
                "scales": self.qparams.scales.tolist(),
                "zero_points": self.qparams.zero_points.tolist(),
                "axis": self.qparams.axis,
            }
        return data

    @staticmethod
    def from_json(data: Any) -> TensorSpec:
        """Returns the spec of JSON data that may be anything.

        Raises:
            BundleError: the data is not a tensor spec.
        """
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise BundleError("a tensor has no name")
        name, shape, dtype = data["name"], data.get("shape"), data.get("dtype")
        if dtype not in DTYPES:
            raise BundleError(f"tensor '{name}' has dtype {dtype!r}; known are {', '.join(DTYPES)}")
        if (
            not isinstance(shape, list)
            or len(shape) > _MAX_DIMENSIONS
            or not all(type(n) is int and n >= 0 for n in shape)
        ):
            raise BundleError(f"tensor '{name}' has shape {shape!r}")
        return TensorSpec(name, tuple(shape), dtype, _qparams_from_json(data.get("qparams"), dtype))


def _qparams_from_json(data: Any, dtype: str) -> QuantParams | None:
    if data is None:
        return None
    try:
        if "axis" in data:
            scales, zero_points = np.asarray(data["scales"], np.float64), np.asarray(data["zero_points"], np.int64)
            return PerChannel(scales, zero_points, int(data["axis"]), dtype)
        return PerTensor(float(data["scale"]), int(data["zero_point"]), dtype)
    except (KeyError, TypeError, ValueError, OverflowError, UnsupportedQuantSchemeError) as error:
        raise BundleError(f"quantization parameters are not understood: {error}") from error


def indices(structure: Structure) -> list[int]:
    """Returns the output indices a structure names, in order.

    Raises:
        BundleError: it is not a structure.
    """
    if structure is None:
        return []
    if type(structure) is int:
        return [structure]
    return [index for _, child in _children(structure) for index in indices(child)]


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """Returns the leaves nested as the structure says: tensors, tuples, lists, dicts and None."""
    if structure is None:
        return None
    if isinstance(structure, int):
        return leaves[structure]
    children = [(key, unflatten(child, leaves)) for key, child in _children(structure)]
    if "dict" in structure:
        return dict(children)
    values = [value for _, value in children]
    return tuple(values) if "tuple" in structure else values


def _children(structure: Any) -> list[tuple[Any, Structure]]:
    if isinstance(structure, dict) and len(structure) == 1:
        [(kind, items)] = structure.items()
        if kind in ("tuple", "list") and isinstance(items, list):
            return list(enumerate(items))
        if kind == "dict" and isinstance(items, list) and all(_is_entry(item) for item in items):
            return [(key, child) for key, child in items]
    raise BundleError(f"output structure {structure!r} is not an index, None, tuple, list or dict")


def _is_entry(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str | int | float)


def empty_aligned(shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """Returns an uninitialized array whose data starts at a multiple of 64 bytes, as TVM's code assumes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[start : start + size].view(dtype).reshape(shape)
