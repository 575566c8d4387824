"""qnn.conv2d_transpose: the exact int32 sums of a transposed convolution of codes less their zero points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.conv import four_paddings
from qtorch_relay.qnn.op_def import Expr, Operands, check_choice, static_shape, tensor_type
from qtorch_relay.qnn.product import call_product, check_product, define_product


def transposed_extent(extent: int, kernel: int, stride: int, pad_sum: int, dilation: int, output_padding: int) -> int:
    """Returns (extent - 1) * stride - pad_sum + dilation * (kernel - 1) + output_padding + 1."""
    return (extent - 1) * stride - pad_sum + dilation * (kernel - 1) + output_padding + 1


def _conv2d_transpose_type(operands: Operands) -> Any:
    attrs = operands.attrs
    batch, _, *spatial = operands.shape("data")
    _, group_outputs, *kernel = operands.shape("weight")
    top, left, bottom, right = attrs["padding"]
    pads = (top + bottom, left + right)
    geometry = zip(spatial, kernel, attrs["strides"], pads, attrs["dilation"], attrs["output_padding"], strict=True)
    extents = [transposed_extent(*dimension) for dimension in geometry]
    return tensor_type((batch, group_outputs * attrs["groups"], *extents), attrs["out_dtype"])


def _check_conv2d_transpose(operands: Operands) -> None:
    attrs = operands.attrs
    check_choice(operands, "data_layout", ("NCHW",))
    check_choice(operands, "kernel_layout", ("IOHW",))
    channels, (in_channels, group_outputs, *kernel) = operands.shape("data")[1], operands.shape("weight")
    groups = attrs["groups"]
    if groups < 1 or channels != in_channels or in_channels % groups:
        raise VerifyError(
            f"qnn.conv2d_transpose: {channels} input channels and a weight for {in_channels} do not go together with "
            f"{groups} groups"
        )
    if attrs["channels"] != group_outputs * groups:
        raise VerifyError(
            f"qnn.conv2d_transpose: channels is {attrs['channels']}, the weight has {group_outputs * groups}"
        )
    if tuple(attrs["kernel_size"]) != tuple(kernel):
        raise VerifyError(f"qnn.conv2d_transpose: kernel_size is {attrs['kernel_size']}, the weight's {tuple(kernel)}")
    if min(_conv2d_transpose_type(operands).shape.values) < 1:
        raise VerifyError(f"qnn.conv2d_transpose: the output of {operands.shape('data')} would be empty")
    check_product(operands, group_outputs)


_CONV2D_TRANSPOSE = define_product(
    "qnn.conv2d_transpose",
    "weight",
    (
        "strides",
        "padding",
        "dilation",
        "groups",
        "channels",
        "kernel_size",
        "data_layout",
        "kernel_layout",
        "out_layout",
        "output_padding",
        "out_dtype",
    ),
    _conv2d_transpose_type,
    _check_conv2d_transpose,
    "the int32 transposed convolution of codes less their zero points",
)


def conv2d_transpose(
    data: Expr,
    weight: Expr,
    input_zero_point: Any,
    kernel_zero_point: Any,
    input_scale: Any,
    kernel_scale: Any,
    strides: tuple[int, int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    channels: int | None = None,
    kernel_size: tuple[int, int] | None = None,
    data_layout: str = "NCHW",
    kernel_layout: str = "IOHW",
    out_layout: str = "",
    output_padding: tuple[int, int] = (0, 0),
    out_dtype: str = "int32",
) -> Expr:
    """qnn.conv2d_transpose: each input, less its zero point, times the kernel, added up in int32 where they overlap.

    kernel_scale and kernel_zero_point: one number, or one per output channel of a group. The input's scale and zero
    point may be run-time values. channels and kernel_size: None takes the weight's.

    Shapes: data [N, C, H, W]; weight [C, O / groups, KH, KW]; out [N, O, OH, OW] with
    OH = (H - 1) * stride - top - bottom + dilation * (KH - 1) + output_padding + 1.
    """
    _, group_outputs, *kernel = static_shape(weight)
    return call_product(
        _CONV2D_TRANSPOSE,
        data,
        weight,
        input_zero_point,
        kernel_zero_point,
        input_scale,
        kernel_scale,
        {
            "strides": tuple(strides),
            "padding": four_paddings(padding),
            "dilation": tuple(dilation),
            "groups": groups,
            "channels": group_outputs * groups if channels is None else channels,
            "kernel_size": tuple(kernel) if kernel_size is None else tuple(kernel_size),
            "data_layout": data_layout,
            "kernel_layout": kernel_layout,
            "out_layout": out_layout,
            "output_padding": tuple(output_padding),
            "out_dtype": out_dtype,
        },
    )
