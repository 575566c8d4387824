"""qnn.avg_pool2d: the mean of each window of codes, again as codes of the same parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.conv import canonical_dims, conv_output_extent, four_paddings
from qtorch_relay.qnn.op_def import (
    CODES_8BIT,
    Expr,
    Operands,
    as_scale,
    as_zero_point,
    check_choice,
    check_dtype,
    check_scale,
    check_zero_point,
    define_op,
    tensor_type,
)

_EXTENSIONS = dict.fromkeys(("codes", "quotient", "scaled", "scaled_shifted", "fused"), ("factor",))
POOL_ARITHMETICS = ("relay", *_EXTENSIONS)


def pooled_extents(operands: Operands) -> tuple[int, int]:
    """Returns the output's height and width."""
    attrs = operands.attrs
    _, _, height, width = canonical_dims(operands.shape("data"), attrs["layout"])
    top, left, bottom, right = attrs["padding"]
    extents = []
    for axis, (extent, pad) in enumerate(((height, top + bottom), (width, left + right))):
        stride = attrs["strides"][axis]
        # rounded up, a last window may hang over the end by less than a stride
        overhang = stride - 1 if attrs["ceil_mode"] else 0
        size, dilation = attrs["pool_size"][axis], attrs["dilation"][axis]
        extents.append(conv_output_extent(extent, size, stride, pad + overhang, dilation))
    return extents[0], extents[1]


def _avg_pool2d_type(operands: Operands) -> Any:
    batch, channels, _, _ = canonical_dims(operands.shape("data"), operands.attrs["layout"])
    out_h, out_w = pooled_extents(operands)
    planar = operands.attrs["layout"] == "NCHW"
    return tensor_type(
        (batch, channels, out_h, out_w) if planar else (batch, out_h, out_w, channels), operands.dtype("data")
    )


def _check_avg_pool2d(operands: Operands) -> None:
    check_dtype(operands, "data", CODES_8BIT)
    check_choice(operands, "layout", ("NCHW", "NHWC"))
    check_choice(operands, "arithmetic", POOL_ARITHMETICS)
    for side in ("input", "output"):
        check_scale(operands, f"{side}_scale")
        check_zero_point(operands, f"{side}_zero_point", operands.dtype("data"))
    if min(pooled_extents(operands)) < 1:
        raise VerifyError(f"qnn.avg_pool2d: the output of {operands.shape('data')} would be empty")
    if operands.attrs["arithmetic"] == "relay":
        return
    check_choice(operands, "ceil_mode", (False,))
    check_choice(operands, "dilation", ((1, 1),))
    if operands.scalar("input_zero_point") != operands.scalar("output_zero_point"):
        raise VerifyError("qnn.avg_pool2d: input and output must share one zero point")
    if operands.shape("factor") not in ((), (1,), pooled_extents(operands)):
        raise VerifyError(f"qnn.avg_pool2d: factor must be one number or {pooled_extents(operands)}")


_AVG_POOL2D = define_op(
    "qnn.avg_pool2d",
    ("data", "input_scale", "input_zero_point", "output_scale", "output_zero_point"),
    (
        "pool_size",
        "strides",
        "padding",
        "dilation",
        "ceil_mode",
        "count_include_pad",
        "layout",
        "out_layout",
        "arithmetic",
    ),
    _avg_pool2d_type,
    _check_avg_pool2d,
    "codes of the mean of each window",
    extensions=_EXTENSIONS,
)


def avg_pool2d(
    data: Expr,
    input_scale: Any,
    input_zero_point: Any,
    output_scale: Any,
    output_zero_point: Any,
    pool_size: tuple[int, int],
    strides: tuple[int, int],
    padding: Sequence[int],
    dilation: tuple[int, int] = (1, 1),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NHWC",
    out_layout: str = "",
    *,
    arithmetic: str = "relay",
    factor: Any = None,
) -> Expr:
    """qnn.avg_pool2d, with PyTorch's arithmetics as extensions.

    arithmetic "relay": codes requantized to the output's parameters in int32, then an integer average that truncates;
    padding adds code 0, whatever the zero point. No factor.
    The others are PyTorch's; input and output share scale and zero point z. With S the sum of a window's codes,
    acc = S - z * count (padding adds nothing), and factor float32, one number or one for each output position, all in
    float32:
      "codes":          rne(S * factor)
      "quotient":       rne(S / factor)
      "scaled":         rne(acc * factor) + z
      "scaled_shifted": rne(acc * factor + z), the product rounded first
      "fused":          rne(fma(acc, factor, z))
    PyTorch takes one or another by engine, memory layout and op. In stock Relay all become its avg_pool2d, which
    truncates.
    """
    return _AVG_POOL2D(
        {
            "data": data,
            "input_scale": as_scale(input_scale),
            "input_zero_point": as_zero_point(input_zero_point),
            "output_scale": as_scale(output_scale),
            "output_zero_point": as_zero_point(output_zero_point),
            **({} if factor is None else {"factor": as_scale(factor)}),
        },
        {
            "pool_size": tuple(pool_size),
            "strides": tuple(strides),
            "padding": four_paddings(padding),
            "dilation": tuple(dilation),
            "ceil_mode": ceil_mode,
            "count_include_pad": count_include_pad,
            "layout": layout,
            "out_layout": out_layout,
            "arithmetic": arithmetic,
        },
    )
