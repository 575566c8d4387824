"""What a program takes and gives: tensor specs, which can be written as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import BundleError, UnsupportedQuantSchemeError, VerifyError
from qtorch_relay.qparams import PerChannel, PerTensor, QuantParams

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
ALIGNMENT_BYTES = 64
_MAX_DIMENSIONS = 16

# A size, the name of one that is known when the program runs ("n"), or a multiple of it and a rest ("4*n+1").
Dimension: TypeAlias = int | str
Shape: TypeAlias = tuple[Dimension, ...]
_DIMENSION = re.compile(r"(?:(?P<factor>\d+)\*)?(?P<name>[A-Za-z_]\w*)(?P<rest>[+-]\d+)?")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, shape and dtype; qparams if its integers are codes of a quantized tensor.

    channels_last: PyTorch gives this quantized tensor in channels-last memory; so do we.
    """

    name: str
    shape: Shape
    dtype: str
    qparams: QuantParams | None = None
    channels_last: bool = False

    def __post_init__(self) -> None:
        q = self.qparams
        if q is not None and q.dtype != self.dtype:
            raise VerifyError(f"tensor {self} has quantization parameters for {q.dtype}")
        if isinstance(q, PerChannel) and self.shape[q.axis : q.axis + 1] != (len(q.scales),):
            raise VerifyError(f"tensor {self} has {len(q.scales)} scales along axis {q.axis}")

    @property
    def fixed_shape(self) -> tuple[int, ...]:
        """The shape, of which no dimension has a name."""
        if not all(isinstance(dimension, int) for dimension in self.shape):
            raise VerifyError(f"tensor {self} has no fixed shape")
        return tuple(map(int, self.shape))

    @property
    def size_bytes(self) -> int:
        """The size of the tensor's data."""
        return math.prod(self.fixed_shape) * np.dtype(self.dtype).itemsize

    def at(self, sizes: Mapping[str, int]) -> TensorSpec:
        """Returns the spec with these sizes for the names of dimensions."""
        return replace(self, shape=tuple(size_of(dimension, sizes) for dimension in self.shape))

    def sizes_in(self, shape: Sequence[int]) -> dict[str, int] | None:
        """Returns what the names of an input's dimensions stand for in a shape, None if it is another shape."""
        sizes: dict[str, int] = {}
        if len(shape) != len(self.shape):
            return None
        for dimension, size in zip(self.shape, shape, strict=True):
            if isinstance(dimension, str):
                if size < 1 or sizes.setdefault(dimension, size) != size:
                    return None
            elif dimension != size:
                return None
        return sizes

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}]"

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
        if self.channels_last:
            data["channels_last"] = True
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
        if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(_is_dimension(n) for n in shape):
            raise BundleError(f"tensor '{name}' has shape {shape!r}")
        qparams = _qparams_from_json(data.get("qparams"), dtype)
        return TensorSpec(name, tuple(shape), dtype, qparams, data.get("channels_last") is True)


def _is_dimension(value: Any) -> bool:
    if isinstance(value, str):
        return _DIMENSION.fullmatch(value) is not None
    return type(value) is int and value >= 0


def size_of(dimension: Dimension, sizes: Mapping[str, int]) -> int:
    """Returns the size of a dimension, given those its name stands for.

    Raises:
        VerifyError: its name is not among them.
    """
    if isinstance(dimension, int):
        return dimension
    found = _DIMENSION.fullmatch(dimension)
    if found is None or found["name"] not in sizes:
        raise VerifyError(f"the dimension {dimension} is not one of the inputs'")
    return int(found["factor"] or 1) * sizes[found["name"]] + int(found["rest"] or 0)


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


def empty_aligned(shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """Returns an uninitialized array whose data starts at a multiple of 64 bytes, as TVM's own memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[start : start + size].view(dtype).reshape(shape)
