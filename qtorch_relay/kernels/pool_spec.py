"""Descriptions of pooling kernels on NHWC codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from qtorch_relay.kernels.spec import CodeDtype, Shape

PoolArithmetic: TypeAlias = Literal["codes", "quotient", "scaled", "scaled_shifted", "fused"]


def pooled_length(size: int, kernel: int, stride: int, before: int, after: int, dilation: int, ceil_mode: bool) -> int:
    """Returns the length of a pooled axis, as torch computes it (aten/src/ATen/native/Pool.h)."""
    span = size + before + after - dilation * (kernel - 1) - 1
    length = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    # the last window must start inside the image or the padding before it
    return length - 1 if ceil_mode and (length - 1) * stride >= size + before else length


@dataclass(frozen=True)
class _Pool2dSpec:
    """A window over NHWC codes; padding is (top, left, bottom, right)."""

    batch: int
    in_h: int
    in_w: int
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dtype: CodeDtype = "uint8"
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    @property
    def out_h(self) -> int:
        """Rows of the output."""
        top, _, bottom, _ = self.padding
        return pooled_length(self.in_h, self.kernel[0], self.stride[0], top, bottom, self.dilation[0], self.ceil_mode)

    @property
    def out_w(self) -> int:
        """Columns of the output."""
        _, left, _, right = self.padding
        return pooled_length(self.in_w, self.kernel[1], self.stride[1], left, right, self.dilation[1], self.ceil_mode)

    @property
    def in_shape(self) -> Shape:
        """NHWC shape of the input."""
        return (self.batch, self.in_h, self.in_w, self.channels)

    @property
    def out_shape(self) -> Shape:
        """NHWC shape of the output."""
        return (self.batch, self.out_h, self.out_w, self.channels)

    @property
    def out_dtype(self) -> CodeDtype:
        """Dtype of the result."""
        return self.dtype


@dataclass(frozen=True)
class MaxPool2dSpec(_Pool2dSpec):
    """The greatest code of each window; padding never wins."""


@dataclass(frozen=True)
class AvgPool2dSpec(_Pool2dSpec):
    """The mean of each window, codes of the input's parameters; arithmetic as in qnn.avg_pool2d. No dilation.

    S is the sum of a window's codes, acc = S - zero point * pixels inside the image, factor one number for each output
    position: "codes" rne(S * factor); "quotient" rne(S / factor); "scaled" rne(acc * factor) + z;
    "scaled_shifted" rne(acc * factor + z), the product rounded first; "fused" rne(fma(acc, factor, z)).
    """

    arithmetic: PoolArithmetic = "scaled"
