"""Canonicalization of conv2d_transpose: zero points subtracted in int16, then a plain transposed convolution, as in
Relay."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.expressions import cast, constant, per_axis
from qtorch_relay.qnn.op_def import Expr, Operands, is_run_time
from qtorch_relay.qnn.transform.rules.common import canonicalization


@canonicalization("qnn.conv2d_transpose")
def conv2d_transpose(operands: Operands) -> Expr:
    """One transposed convolution of shifted codes.

    Codes and zero points are at most 8 bits: their differences fit int16, and in it padding is 0.
    """
    attrs = operands.attrs
    if is_run_time(operands, "input_zero_point"):
        input_zero_point = cast(operands["input_zero_point"], "int16")
    else:
        input_zero_point = constant(operands.scalar("input_zero_point"), "int16")
    weight = cast(operands["weight"], "int16")
    kernel_zero_point = operands.constant("kernel_zero_point")
    if kernel_zero_point.any():
        weight = relax.op.subtract(weight, per_axis(kernel_zero_point, 4, 1, "int16"))
    # TVM pads the input by dilation * (kernel - 1) - padding: what would be negative is cut off the output
    spans = [gap * (size - 1) for gap, size in zip(attrs["dilation"], attrs["kernel_size"], strict=True)]
    top, left, bottom, right = attrs["padding"]
    begin = (max(top - spans[0], 0), max(left - spans[1], 0))
    end = (max(bottom - spans[0], 0), max(right - spans[1], 0))
    total = relax.op.nn.conv2d_transpose(
        relax.op.subtract(cast(operands["data"], "int16"), input_zero_point),
        weight,
        strides=list(attrs["strides"]),
        padding=[top - begin[0], left - begin[1], bottom - end[0], right - end[1]],
        output_padding=list(attrs["output_padding"]),
        dilation=list(attrs["dilation"]),
        groups=attrs["groups"],
        data_layout="NCHW",
        kernel_layout="IOHW",
        out_dtype="int32",
    )
    if not any(begin + end):
        return total
    height, width = (int(extent) for extent in operands.call.ty.shape.values[2:])
    return relax.op.strided_slice(total, [2, 3], begin, [begin[0] + height, begin[1] + width])
