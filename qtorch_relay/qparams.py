"""Quantization parameters and quantized constants: real = (code - zero_point) * scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import UnsupportedQuantSchemeError

CODE_DTYPES = ("uint8", "int8", "int32")


def code_range(dtype: str) -> tuple[int, int]:
    """Returns the least and the greatest code of a dtype, for example (0, 255) for "uint8"."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def is_identity(table: npt.NDArray[np.integer]) -> bool:
    """Says whether a table of 256 codes, least code first, leaves every code as it is."""
    low, high = code_range(str(table.dtype))
    return bool((table == np.arange(low, high + 1)).all())


def _check(dtype: str, scale: npt.ArrayLike, zero_point: npt.ArrayLike) -> None:
    if dtype not in CODE_DTYPES:
        raise UnsupportedQuantSchemeError(f"codes of dtype {dtype}; accepted are {', '.join(CODE_DTYPES)}")
    scales = np.asarray(scale, dtype=np.float64)
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise UnsupportedQuantSchemeError(f"scale must be finite and greater than 0, found {np.asarray(scale)}")
    low, high = code_range(dtype)
    points = np.asarray(zero_point)
    if not ((points >= low).all() and (points <= high).all()):
        raise UnsupportedQuantSchemeError(
            f"zero point must lie in [{low}, {high}] for {dtype}, found {np.asarray(zero_point)}"
        )


@dataclass(frozen=True)
class PerTensor:
    """One scale and one zero point for a whole tensor.

    scale is kept as PyTorch keeps it (float64) and rounded to float32 where PyTorch's kernels round it.
    """

    scale: float
    zero_point: int
    dtype: str

    def __post_init__(self) -> None:
        _check(self.dtype, self.scale, self.zero_point)


@dataclass(frozen=True, eq=False)
class PerChannel:
    """A scale (float64) and a zero point (int64) for each index along axis."""

    scales: npt.NDArray[np.float64]
    zero_points: npt.NDArray[np.int64]
    axis: int
    dtype: str

    def __post_init__(self) -> None:
        _check(self.dtype, self.scales, self.zero_points)
        if self.scales.ndim != 1 or self.scales.shape != self.zero_points.shape:
            raise UnsupportedQuantSchemeError(
                f"scales {self.scales.shape} and zero points {self.zero_points.shape} must be vectors of one length"
            )


@dataclass(frozen=True, eq=False)
class PerChannelFloat:
    """A scale and a zero point, both float32, for each index along axis: PyTorch's per_channel_affine_float_qparams.

    bits: 8, or 4 or 2 for the codes of quint4x2 and quint2x4, which are uint8 here, one a byte.
    """

    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.float32]
    axis: int
    dtype: str
    bits: int = 8

    def __post_init__(self) -> None:
        if self.dtype not in ("uint8", "int8") or self.bits not in (8, 4, 2):
            raise UnsupportedQuantSchemeError(f"{self.dtype} codes of {self.bits} bits with float zero points")
        if self.scales.ndim != 1 or self.scales.shape != self.zero_points.shape:
            raise UnsupportedQuantSchemeError(
                f"scales {self.scales.shape} and zero points {self.zero_points.shape} must be vectors of one length"
            )

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code."""
        return code_range(self.dtype) if self.bits == 8 else (0, 2**self.bits - 1)


QuantParams: TypeAlias = PerTensor | PerChannel


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A constant of integer codes with its quantization parameters (PyTorch's int_repr, never a rounded copy)."""

    codes: npt.NDArray[np.integer]
    qparams: QuantParams

    def __post_init__(self) -> None:
        if str(self.codes.dtype) != self.qparams.dtype:
            raise UnsupportedQuantSchemeError(
                f"codes are {self.codes.dtype}, their parameters say {self.qparams.dtype}"
            )
        if isinstance(self.qparams, PerChannel):
            length = self.codes.shape[self.qparams.axis]
            if length != len(self.qparams.scales):
                raise UnsupportedQuantSchemeError(
                    f"axis {self.qparams.axis} has {length} entries, but there are {len(self.qparams.scales)} scales"
                )


@dataclass(frozen=True, eq=False)
class FloatQuantizedTensor:
    """A constant of integer codes with float zero points, as embeddings have it: codes one a byte."""

    codes: npt.NDArray[np.integer]
    qparams: PerChannelFloat
