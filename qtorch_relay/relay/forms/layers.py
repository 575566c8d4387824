"""Convolutions, pools and matrix products of plain tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay.relay.forms.common import attributes, dtype_of, static_shape
from qtorch_relay.relay.forms.floating import ANOTHER_ORDER
from qtorch_relay.relay.registry import relax_form
from qtorch_relay.relay.writer import Writer

_INT16_LEAST, _INT16_GREATEST = -(2.0**15), 2.0**15 - 1


@relax_form(
    *(f"relax.nn.max_pool{dims}d" for dims in (1, 2, 3)),
    becomes="`nn.max_pool1d`, `nn.max_pool2d`, `nn.max_pool3d`",
)
def max_pool(writer: Writer, call: Any) -> str:
    """A window that hangs over the end gets padding there, so that no release's ceil_mode matters."""
    attrs, data = attributes(call), call.args[0]
    dims = len(attrs["pool_size"])
    first = attrs["layout"].index("W") - dims + 1
    extents, outputs = (static_shape(expr)[first : first + dims] for expr in (data, call))
    padding = list(attrs["padding"])
    for axis in range(dims):
        reach = (attrs["pool_size"][axis] - 1) * attrs["dilation"][axis] + 1
        needed = (outputs[axis] - 1) * attrs["strides"][axis] + reach
        padding[dims + axis] = max(padding[dims + axis], needed - extents[axis] - padding[axis])
    return writer.op(
        str(call.op.name).removeprefix("relax."),
        writer.operand(data),
        pool_size=list(attrs["pool_size"]),
        strides=list(attrs["strides"]),
        dilation=list(attrs["dilation"]),
        padding=padding,
        layout=attrs["layout"],
        out_layout="",
        ceil_mode=False,
    )


@relax_form("relax.nn.avg_pool2d", becomes="`nn.avg_pool2d`", cost=ANOTHER_ORDER)
def avg_pool2d(writer: Writer, call: Any) -> str:
    """nn.avg_pool2d of floats"""
    attrs = attributes(call)
    lists = {name: list(attrs[name]) for name in ("pool_size", "strides", "dilation", "padding")}
    plain = {name: bool(attrs[name]) for name in ("ceil_mode", "count_include_pad")}
    return writer.op(
        "nn.avg_pool2d", writer.operand(call.args[0]), **lists, layout=attrs["layout"], out_layout="", **plain
    )


@relax_form("relax.nn.adaptive_avg_pool2d", becomes="`nn.adaptive_avg_pool2d`", cost=ANOTHER_ORDER)
def adaptive_avg_pool2d(writer: Writer, call: Any) -> str:
    """nn.adaptive_avg_pool2d of floats"""
    attrs = attributes(call)
    size = list(attrs["output_size"])
    return writer.op(
        "nn.adaptive_avg_pool2d", writer.operand(call.args[0]), output_size=size, layout=attrs["layout"], out_layout=""
    )


def convolution(writer: Writer, call: Any, **more: Any) -> str:
    """Returns a call of Relay's convolution of the same name, transposed or not.

    more: attributes that it has besides, or with other values, and "kernel", the text of the kernel if it is another.
    """
    attrs = attributes(call)
    extents = dict(zip(attrs["kernel_layout"], static_shape(call.args[1]), strict=True))
    return writer.op(
        str(call.op.name).removeprefix("relax."),
        writer.operand(call.args[0]),
        more.pop("kernel", None) or writer.operand(call.args[1]),
        **{
            **{name: list(attrs[name]) for name in ("strides", "padding", "dilation")},
            "groups": int(attrs["groups"]),
            "channels": static_shape(call)[attrs["data_layout"].index("C")],
            "kernel_size": [extents["H"], extents["W"]],
            **{name: attrs[name] for name in ("data_layout", "kernel_layout")},
            "out_layout": "",
            "out_dtype": dtype_of(call),
            **more,
        },
    )


@relax_form("relax.nn.conv2d", becomes="`nn.conv2d`", cost=ANOTHER_ORDER)
def conv2d(writer: Writer, call: Any) -> str:
    """nn.conv2d; of integers it is exact."""
    return convolution(writer, call)


@relax_form(
    "relax.nn.conv2d_transpose",
    becomes="`nn.conv2d_transpose`; of a kernel with gaps (`nn.pad`) where it is dilated",
    cost=ANOTHER_ORDER,
)
def conv2d_transpose(writer: Writer, call: Any) -> str:
    """nn.conv2d_transpose; of integers it is exact. Relay's has no dilation."""
    attrs = attributes(call)
    more: dict[str, Any] = {"output_padding": list(attrs["output_padding"])}
    if max(attrs["dilation"]) > 1:
        more |= with_gaps(writer, call.args[1], attrs["dilation"], 0)
    return convolution(writer, call, **more)


def with_gaps(writer: Writer, kernel: Any, dilation: Sequence[int], zero_point: int) -> dict[str, Any]:
    """Returns what makes a dilated transposed convolution one without dilation: "kernel" with gaps between its taps,
    "kernel_size", "dilation"."""
    *channels, height, width = static_shape(kernel)
    down, right = dilation
    size = [down * (height - 1) + 1, right * (width - 1) + 1]
    taps = _reshaped(writer, writer.operand(kernel), (), (*channels, height, 1, width, 1))
    gap = writer.constant(np.asarray(zero_point, dtype_of(kernel)))
    widths = [[0, 0]] * 3 + [[0, down - 1], [0, 0], [0, right - 1]]
    spread = writer.op("nn.pad", writer.emit(taps), gap, pad_width=widths, pad_mode="constant")
    whole = writer.emit(_reshaped(writer, spread, (), (*channels, down * height, right * width)))
    trimmed = writer.op("strided_slice", whole, begin=[0, 0], end=size, strides=[1, 1], slice_mode="end", axes=[2, 3])
    return {"kernel": writer.emit(trimmed), "kernel_size": size, "dilation": [1, 1]}


@relax_form("relax.matmul", becomes="`nn.dense` or `nn.batch_matmul`, `reshape`", cost=ANOTHER_ORDER)
def matmul(writer: Writer, call: Any) -> str:
    """nn.dense if the right side is a matrix, else nn.batch_matmul of both sides as stacks of matrices."""
    lhs, rhs = call.args
    left, right, dtype = static_shape(lhs), static_shape(rhs), dtype_of(call)
    if len(right) == 2 and len(left) >= 2:
        rows = _reshaped(writer, writer.operand(lhs), left, (math.prod(left[:-1]), left[-1]))
        weight = writer.emit(writer.op("transpose", writer.operand(rhs), axes=[1, 0]))
        product = writer.op("nn.dense", rows, weight, units=right[1], out_dtype=dtype)
        return _reshaped(writer, product, (math.prod(left[:-1]), right[1]), static_shape(call))
    left = left if len(left) > 1 else (1, *left)
    right = right if len(right) > 1 else (*right, 1)
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    sides = []
    for expr, shape in ((lhs, left), (rhs, right)):
        text, full = _reshaped(writer, writer.operand(expr), static_shape(expr), shape), (*batch, *shape[-2:])
        if shape != full:
            text = writer.emit(writer.op("broadcast_to", text, shape=list(full), dtype=""))
        sides.append(_reshaped(writer, text, full, (math.prod(batch), *shape[-2:])))
    product = writer.op("nn.batch_matmul", *sides, out_dtype=dtype, transpose_a=False, transpose_b=False)
    return _reshaped(writer, product, (math.prod(batch), left[-2], right[-1]), static_shape(call))


@relax_form("torch.linear", becomes="`nn.dense`, `reshape`, `add`", cost=ANOTHER_ORDER)
def linear(writer: Writer, call: Any) -> str:
    """nn.dense of the rows, plus the bias."""
    x, rhs, bias = call.args
    left, right = static_shape(x), static_shape(rhs)
    rows = _reshaped(writer, writer.operand(x), left, (math.prod(left[:-1]), left[-1]))
    weight = writer.emit(writer.op("transpose", writer.operand(rhs), axes=[1, 0]))
    product = writer.op("nn.dense", rows, weight, units=right[1], out_dtype=dtype_of(call))
    total = writer.emit(writer.op("add", writer.emit(product), writer.operand(bias)))
    return _reshaped(writer, total, (math.prod(left[:-1]), right[1]), static_shape(call))


def _reshaped(writer: Writer, text: str, shape: tuple[int, ...], goal: tuple[int, ...]) -> str:
    if tuple(shape) == tuple(goal):
        return text
    return writer.op("reshape", writer.emit(text), newshape=list(goal), allowzero=False)


@relax_form(
    "torch.pair_saturated_sums", becomes="a `strided_slice` for every tap of the kernel, `multiply`, `add`, `clip`"
)
def pair_saturated_sums(writer: Writer, call: Any) -> str:
    """FBGEMM's depthwise sums: the products of each two consecutive taps saturate to int16.

    Data is NCHW. Taps are in row-major order of the kernel's I, H and W; an output o reads the channels of its group.
    """
    attrs = attributes(call)
    data, kernel = call.args
    outputs, depth, height, width = static_shape(kernel)
    codes = writer.emit(writer.op("cast", writer.operand(data), dtype="int32"))
    weights = writer.emit(writer.op("cast", writer.operand(kernel), dtype="int32"))
    products = []
    for tap in range(depth * height * width):
        channel, row, column = tap // (height * width), tap // width % height, tap % width
        taken = _window(writer, codes, call, channel, (row, column))
        if outputs > attrs["groups"]:
            taken = writer.emit(writer.op("repeat", taken, repeats=outputs // attrs["groups"], axis=1))
        at = {"begin": [channel, row, column], "end": [channel + 1, row + 1, column + 1], "strides": [1, 1, 1]}
        weight = writer.emit(writer.op("strided_slice", weights, **at, slice_mode="end", axes=[1, 2, 3]))
        factor = writer.emit(writer.op("reshape", weight, newshape=[outputs, 1, 1], allowzero=False))
        products.append(writer.emit(writer.op("multiply", taken, factor)))
    pairs = [products[i : i + 2] for i in range(0, len(products), 2)]
    # one product alone fits int16: 255 * 128 = 32640
    terms = [_saturated(writer, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    total = terms[0]
    for term in terms[1:]:
        total = writer.emit(writer.op("add", total, term))
    return total


def _window(writer: Writer, codes: str, call: Any, channel: int, place: tuple[int, int]) -> str:
    """Returns the codes that a tap of the kernel meets, of one channel of each group, for every place of the output."""
    attrs = attributes(call)
    depth, channels = static_shape(call.args[1])[1], static_shape(call.args[0])[1]
    steps = [depth, *attrs["strides"]]
    begin = [channel, *(at * gap for at, gap in zip(place, attrs["dilation"], strict=True))]
    counts = [channels // depth, *static_shape(call)[2:]]
    end = [first + (count - 1) * step + 1 for first, count, step in zip(begin, counts, steps, strict=True)]
    slice_ = {"begin": begin, "end": end, "strides": steps, "slice_mode": "end", "axes": [1, 2, 3]}
    return writer.emit(writer.op("strided_slice", codes, **slice_))


def _saturated(writer: Writer, first: str, second: str) -> str:
    both = writer.emit(writer.op("add", first, second))
    return writer.emit(writer.op("clip", both, a_min=_INT16_LEAST, a_max=_INT16_GREATEST))
