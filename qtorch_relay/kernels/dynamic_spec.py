"""Descriptions of the kernels of dynamically quantized layers: scale and zero point are inputs, not constants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from qtorch_relay.kernels.spec import CodeDtype, Conv2dSpec, PairSums, Shape

SumArithmetic: TypeAlias = Literal["fused", "rounded", "real"]
"""How int32 sums become floats, see numerics.dynamic.scale_sums."""


@dataclass(frozen=True)
class ChooseQparamsSpec:
    """float32 of any shape to the scale and zero point (int32) of its range; arithmetic as in qnn.choose_qparams."""

    shape: Shape
    quant_min: int
    quant_max: int
    arithmetic: Literal["float32", "reciprocal", "float64"] = "float32"

    @property
    def outputs(self) -> tuple[tuple[Shape, str], ...]:
        """Shapes and dtypes of the scale and of the zero point."""
        return ((), "float64" if self.arithmetic == "float64" else "float32"), ((), "int32")


@dataclass(frozen=True)
class DynamicQuantizeSpec:
    """float32 of any shape, a scale and a zero point (int32) to codes; arithmetic as in qnn.quantize."""

    shape: Shape
    out_dtype: CodeDtype = "uint8"
    arithmetic: Literal["fused", "rounded"] = "fused"

    @property
    def out_shape(self) -> Shape:
        """Shape of the codes."""
        return self.shape


@dataclass(frozen=True)
class DynamicDenseSpec:
    """uint8 codes [..., in_features], their zero point and scale, times w [out_features, in_features] to float32."""

    shape: Shape
    out_features: int
    arithmetic: SumArithmetic = "fused"
    relu: bool = False
    pair_sums: PairSums = "s32"

    @property
    def in_shape(self) -> Shape:
        """Shape of the codes."""
        return self.shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the floats."""
        return (*self.shape[:-1], self.out_features)

    @property
    def out_dtype(self) -> str:
        """Dtype of the result."""
        return "float32"

    @property
    def rows(self) -> int:
        """Rows of the codes."""
        return math.prod(self.shape[:-1])

    @property
    def weight_shape(self) -> Shape:
        """Shape of the unpacked weight."""
        return (self.out_features, self.shape[-1])

    @property
    def reduction(self) -> int:
        """Products summed into one output."""
        return self.shape[-1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.rows * self.shape[-1] * self.out_features

    def as_conv2d(self) -> Conv2dSpec:
        """Returns the 1x1 convolution over one row of pixels that computes the same sums."""
        return Conv2dSpec(1, 1, self.rows, self.shape[-1], self.out_features, 1, 1, pair_sums=self.pair_sums)
