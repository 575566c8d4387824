"""qnn.conv2d: the exact int32 sum of (data - input_zero_point) * (kernel - kernel_zero_point)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import Expr, Operands, check_choice, tensor_type
from qtorch_relay.qnn.product import call_product, check_product, define_product

_DATA_LAYOUTS = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}
_KERNEL_LAYOUTS = {"OIHW": (0, 1, 2, 3), "OHWI": (0, 3, 1, 2), "HWIO": (3, 2, 0, 1)}


def four_paddings(padding: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns (top, left, bottom, right) from Relay's padding of one, two or four numbers."""
    if len(padding) == 1:
        return (padding[0],) * 4
    if len(padding) == 2:
        return (padding[0], padding[1], padding[0], padding[1])
    top, left, bottom, right = padding
    return (top, left, bottom, right)


def canonical_dims(shape: Sequence[int], layout: str) -> tuple[int, int, int, int]:
    """Returns a shape reordered to NCHW or OIHW."""
    order = (_DATA_LAYOUTS | _KERNEL_LAYOUTS).get(layout)
    if order is None:
        raise VerifyError(f"layout {layout!r} is unknown; accepted are {', '.join(_DATA_LAYOUTS | _KERNEL_LAYOUTS)}")
    a, b, c, d = (int(shape[axis]) for axis in order)
    return (a, b, c, d)


def conv_output_extent(extent: int, kernel: int, stride: int, pad_sum: int, dilation: int) -> int:
    """Returns floor((extent + pad_sum - dilation * (kernel - 1) - 1) / stride) + 1."""
    return (extent + pad_sum - dilation * (kernel - 1) - 1) // stride + 1


def _conv2d_type(operands: Operands) -> Any:
    attrs = operands.attrs
    batch, _, height, width = canonical_dims(operands.shape("data"), attrs["data_layout"])
    out_channels, _, kernel_h, kernel_w = canonical_dims(operands.shape("kernel"), attrs["kernel_layout"])
    top, left, bottom, right = attrs["padding"]
    (stride_h, stride_w), (dilation_h, dilation_w) = attrs["strides"], attrs["dilation"]
    out_h = conv_output_extent(height, kernel_h, stride_h, top + bottom, dilation_h)
    out_w = conv_output_extent(width, kernel_w, stride_w, left + right, dilation_w)
    nchw = (batch, out_channels, out_h, out_w)
    shape = nchw if attrs["data_layout"] == "NCHW" else (batch, out_h, out_w, out_channels)
    return tensor_type(shape, attrs["out_dtype"])


def _check_conv2d(operands: Operands) -> None:
    attrs = operands.attrs
    check_choice(operands, "data_layout", tuple(_DATA_LAYOUTS))
    check_choice(operands, "kernel_layout", tuple(_KERNEL_LAYOUTS))
    _, in_channels, _, _ = canonical_dims(operands.shape("data"), attrs["data_layout"])
    out_channels, group_channels, *_ = canonical_dims(operands.shape("kernel"), attrs["kernel_layout"])
    groups = attrs["groups"]
    if groups < 1 or out_channels % groups or group_channels * groups != in_channels:
        raise VerifyError(
            f"qnn.conv2d: {in_channels} input channels, a kernel for {group_channels}, {out_channels} output channels "
            f"do not go together with {groups} groups"
        )
    check_choice(operands, "accumulation", ("s32", "s16_pairs"))
    if attrs["accumulation"] == "s16_pairs" and (operands.dtype("data"), operands.dtype("kernel")) != ("uint8", "int8"):
        raise VerifyError("qnn.conv2d: accumulation s16_pairs takes uint8 data and an int8 kernel")
    if min(_conv2d_type(operands).shape.values) < 1:
        raise VerifyError(f"qnn.conv2d: the output of {operands.shape('data')} would be empty")
    check_product(operands, out_channels)


_CONV2D = define_product(
    "qnn.conv2d",
    "kernel",
    (
        "kernel_size",
        "channels",
        "strides",
        "padding",
        "dilation",
        "groups",
        "data_layout",
        "kernel_layout",
        "out_layout",
        "out_dtype",
        "accumulation",
    ),
    _conv2d_type,
    _check_conv2d,
    "the int32 convolution of codes less their zero points",
)


def conv2d(
    data: Expr,
    kernel: Expr,
    input_zero_point: Any,
    kernel_zero_point: Any,
    input_scale: Any,
    kernel_scale: Any,
    kernel_size: tuple[int, int],
    channels: int,
    strides: tuple[int, int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    data_layout: str = "NCHW",
    kernel_layout: str = "OIHW",
    out_layout: str = "",
    out_dtype: str = "int32",
    *,
    accumulation: str = "s32",
) -> Expr:
    """qnn.conv2d: sum of (data - input_zero_point) * (kernel - kernel_zero_point) in int32, of scale input * kernel.

    Padding holds input_zero_point, the code of 0.0. kernel_scale and kernel_zero_point: one number or one per output
    channel. The input's scale and zero point may be run-time values, as a dynamically quantized layer has them.
    accumulation: "s32" is exact. "s16_pairs" (ours) is what FBGEMM's depthwise kernel computes: of the raw codes'
    products, each two consecutive taps of a window (in row-major order of the kernel's I, H and W) are added with
    saturation to int16, then everything in int32; the zero points' shares are exact. In stock Relay it becomes the
    exact sum.
    """
    return call_product(
        _CONV2D,
        data,
        kernel,
        input_zero_point,
        kernel_zero_point,
        input_scale,
        kernel_scale,
        {
            "kernel_size": tuple(kernel_size),
            "channels": channels,
            "strides": tuple(strides),
            "padding": four_paddings(padding),
            "dilation": tuple(dilation),
            "groups": groups,
            "data_layout": data_layout,
            "kernel_layout": kernel_layout,
            "out_layout": out_layout,
            "out_dtype": out_dtype,
            "accumulation": accumulation,
        },
    )
