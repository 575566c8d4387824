"""Descriptions of kernels that compute each code from the codes in the same place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qtorch_relay.kernels.spec import CodeDtype, Shape


@dataclass(frozen=True)
class QuantizeSpec:
    """float32 of any shape to codes of the same shape; with channels_last NCHW floats to NHWC codes."""

    shape: Shape
    out_dtype: CodeDtype = "uint8"
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.channels_last and len(self.shape) != 4:
            raise ValueError(f"channels_last needs an NCHW shape, found {self.shape}")

    @property
    def out_shape(self) -> Shape:
        """Shape of the codes."""
        if not self.channels_last:
            return self.shape
        batch, channels, height, width = self.shape
        return (batch, height, width, channels)


@dataclass(frozen=True)
class DequantizeSpec:
    """Codes of any shape to float32 of the same shape."""

    shape: Shape
    in_dtype: CodeDtype = "uint8"

    @property
    def out_shape(self) -> Shape:
        """Shape of the floats."""
        return self.shape

    @property
    def out_dtype(self) -> str:
        """Dtype of the result."""
        return "float32"


@dataclass(frozen=True)
class _Binary:
    """Two tensors of codes of one dtype and shape to codes of that dtype and shape."""

    shape: Shape
    dtype: CodeDtype = "uint8"

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.shape

    @property
    def out_dtype(self) -> CodeDtype:
        """Dtype of the result."""
        return self.dtype


@dataclass(frozen=True)
class AddSpec(_Binary):
    """quantized::add of fbgemm, onednn and x86: numerics.add_f32_fma.

    vectorized: how many of the codes, in memory order, are computed so; the rest by numerics.add_f32_scalar. None: all.
    """

    vectorized: int | None = None

    @property
    def vector_size(self) -> int:
        """Codes computed by numerics.add_f32_fma."""
        return math.prod(self.shape) if self.vectorized is None else self.vectorized


@dataclass(frozen=True)
class FixedAddSpec(_Binary):
    """quantized::add of qnnpack: numerics.add_fixed_point."""


@dataclass(frozen=True)
class MulSpec(_Binary):
    """quantized::mul: numerics.mul_f32. per_channel: the right operand is [N, 1, 1, C] for a shape [N, H, W, C]."""

    per_channel: bool = False

    def __post_init__(self) -> None:
        if self.per_channel and len(self.shape) != 4:
            raise ValueError(f"per_channel needs an NHWC shape, found {self.shape}")

    @property
    def rhs_shape(self) -> Shape:
        """Shape of the right operand."""
        return (self.shape[0], 1, 1, self.shape[3]) if self.per_channel else self.shape


@dataclass(frozen=True)
class LookupSpec:
    """Codes replaced by the entries of a table of 256."""

    shape: Shape
    in_dtype: CodeDtype = "uint8"
    out_dtype: CodeDtype = "uint8"

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        return self.shape


@dataclass(frozen=True)
class Piece:
    """The part of an input from begin to end along the axis; table: number of the table its codes go through."""

    source: int
    begin: int
    end: int
    table: int | None = None

    @property
    def size(self) -> int:
        """Extent along the axis."""
        return self.end - self.begin


@dataclass(frozen=True)
class ConcatenateSpec:
    """Pieces of tensors of codes one behind the other along an axis; the tensors differ in no other axis.

    tables: how many tables of 256 codes there are.
    """

    shapes: tuple[Shape, ...]
    axis: int
    pieces: tuple[Piece, ...]
    dtype: CodeDtype = "uint8"
    tables: int = 0

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        first = self.shapes[0]
        return (*first[: self.axis], sum(piece.size for piece in self.pieces), *first[self.axis + 1 :])

    @property
    def out_dtype(self) -> CodeDtype:
        """Dtype of the result."""
        return self.dtype
