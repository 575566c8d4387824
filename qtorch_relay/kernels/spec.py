"""Descriptions of kernels. Equal specs share one PrimFunc, so scales, zero points and clamps are not in them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

CodeDtype: TypeAlias = Literal["uint8", "int8"]
Requantization: TypeAlias = Literal["accumulator", "fused", "real"]
PairSums: TypeAlias = Literal["s32", "s16"]
"""What is known to hold the sum of two products next to each other, for every code the input can have."""

Kind = TypeVar("Kind", bound="Conv2dSpec")
Shape: TypeAlias = tuple[int, ...]
Vector: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Conv2dSpec:
    """A quantized 2-D convolution on NHWC codes, requantized to NHWC codes.

    padding is (top, left, bottom, right). Weights are symmetric int8 codes; padding holds the input's zero point.
    """

    batch: int
    in_h: int
    in_w: int
    in_channels: int
    out_channels: int
    kernel_h: int
    kernel_w: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    in_dtype: CodeDtype = "uint8"
    out_dtype: CodeDtype = "uint8"
    requantize: Requantization = "accumulator"
    pair_sums: PairSums = "s32"

    def __post_init__(self) -> None:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"groups {self.groups} must divide {self.in_channels} and {self.out_channels} channels")
        if min(self.out_h, self.out_w) < 1:
            raise ValueError(f"{self} has an empty output")

    @property
    def span_h(self) -> int:
        """Input rows from the first to the last row a kernel window touches."""
        return (self.kernel_h - 1) * self.dilation[0] + 1

    @property
    def span_w(self) -> int:
        """Input columns from the first to the last column a kernel window touches."""
        return (self.kernel_w - 1) * self.dilation[1] + 1

    @property
    def out_h(self) -> int:
        """Rows of the output."""
        return (self.in_h + self.padding[0] + self.padding[2] - self.span_h) // self.stride[0] + 1

    @property
    def out_w(self) -> int:
        """Columns of the output."""
        return (self.in_w + self.padding[1] + self.padding[3] - self.span_w) // self.stride[1] + 1

    @property
    def in_shape(self) -> Shape:
        """NHWC shape of the input."""
        return (self.batch, self.in_h, self.in_w, self.in_channels)

    @property
    def out_shape(self) -> Shape:
        """NHWC shape of the output."""
        return (self.batch, self.out_h, self.out_w, self.out_channels)

    @property
    def weight_shape(self) -> Shape:
        """OIHW shape of the unpacked weight."""
        return (
            self.out_channels,
            self.in_channels // self.groups,
            self.kernel_h,
            self.kernel_w,
        )

    @property
    def reduction(self) -> int:
        """Products summed into one output."""
        return self.in_channels // self.groups * self.kernel_h * self.kernel_w

    @property
    def is_depthwise(self) -> bool:
        """Says whether every output channel reads exactly the input channel of the same index."""
        return self.groups == self.in_channels == self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution, padding included."""
        return self.batch * self.out_h * self.out_w * self.out_channels * self.reduction

    def to(self, kind: type[Kind]) -> Kind:
        """Returns the same convolution as a spec of another kind."""
        return kind(*(getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class PairSaturatedDepthwiseSpec(Conv2dSpec):
    """A depthwise convolution whose products are summed as FBGEMM does: numerics.conv.depthwise_sums_fbgemm."""


@dataclass(frozen=True)
class Conv2dAddSpec(Conv2dSpec):
    """A convolution to whose codes those of a second input, of out_shape and out_dtype, are added as AddSpec does."""


@dataclass(frozen=True)
class DenseSpec:
    """x [rows, in_features] times w [out_features, in_features] transposed, requantized to codes."""

    rows: int
    in_features: int
    out_features: int
    in_dtype: CodeDtype = "uint8"
    out_dtype: CodeDtype = "uint8"
    requantize: Requantization = "accumulator"
    pair_sums: PairSums = "s32"

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return (self.rows, self.in_features)

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return (self.rows, self.out_features)

    @property
    def weight_shape(self) -> Shape:
        """Shape of the unpacked weight."""
        return (self.out_features, self.in_features)

    @property
    def reduction(self) -> int:
        """Products summed into one output."""
        return self.in_features

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.rows * self.in_features * self.out_features

    def as_conv2d(self) -> Conv2dSpec:
        """Returns the 1x1 convolution over one row of pixels that computes the same."""
        return Conv2dSpec(
            1,
            1,
            self.rows,
            self.in_features,
            self.out_features,
            1,
            1,
            in_dtype=self.in_dtype,
            out_dtype=self.out_dtype,
            requantize=self.requantize,
            pair_sums=self.pair_sums,
        )


@dataclass(frozen=True, eq=False)
class AccumulatorRequantize:
    """fbgemm's and qnnpack's form: clamp(rne((f32(acc) + addend[c]) * multiplier[c]) + zero_point, low, high).

    With addend_factor the sum is fma(addend[c], addend_factor[c], f32(acc)), rounded once (fbgemm, per-tensor weights).
    """

    addend: Vector
    multiplier: Vector
    zero_point: int
    low: int
    high: int
    addend_factor: Vector | None = None

    @property
    def kind(self) -> Requantization:
        """The specs' name of this form; fma(addend, 1, acc) is the plain sum."""
        return "accumulator" if self.addend_factor is None or np.all(self.addend_factor == 1) else "fused"


@dataclass(frozen=True, eq=False)
class RealRequantize:
    """onednn's form, every operation rounded: clamp(rne(t * output_factor + f32(zero_point)), low, high) with
    t = f32(acc) * input_factor * kernel_factor[c] + addend[c].
    """

    input_factor: float
    kernel_factor: Vector
    addend: Vector
    output_factor: float
    zero_point: int
    low: int
    high: int

    @property
    def kind(self) -> Requantization:
        """The specs' name of this form."""
        return "real"


def outputs_of(spec: Any) -> tuple[tuple[Shape, str], ...]:
    """Returns the shapes and dtypes of what a spec's kernel writes: spec.outputs where there are several."""
    return spec.outputs if hasattr(spec, "outputs") else ((spec.out_shape, spec.out_dtype),)


RequantizeParams: TypeAlias = AccumulatorRequantize | RealRequantize
