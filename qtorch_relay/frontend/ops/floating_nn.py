"""Convolutions, pools and means of tensors that are not quantized.

They equal PyTorch up to the order of float additions, and run as TVM's generic code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import along, constant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.floating_elementwise import FLOAT_DTYPES, float_tensor
from qtorch_relay.frontend.registry import UP_TO_ORDER, converter
from qtorch_relay.frontend.values import TensorValue

FLOAT32_TYPE, FLOAT64_TYPE = 6, 7  # torch.dtype as TorchScript stores it (c10/core/ScalarType.h)


# ---- layers


@converter(
    "aten::_convolution",
    "aten::_convolution_mode",
    "aten::conv2d",
    lowering="conv2d of float tensors",
    exact=UP_TO_ORDER,
)
def convolution(context: ImportContext, node: Node) -> TensorValue:
    """aten::conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, SymInt[2] padding=0, SymInt[2]
    dilation=1, SymInt groups=1) -> Tensor

    Shapes: input [N, C, H, W]; weight [O, C/groups, KH, KW]; bias [O].
    """
    value, weight = float_tensor(context, node, "input"), float_tensor(context, node, "weight")
    if node.args.get("transposed", False):
        raise context.unsupported(node, "a transposed convolution; accepted are plain ones")
    if len(value.shape) != 4 or len(weight.shape) != 4:
        raise context.unsupported(node, f"input {value.shape}, weight {weight.shape}; accepted are 4 dimensions each")
    strides, dilation = (_two(context.integers(node, name)) for name in ("stride", "dilation"))
    conv = relax.op.nn.conv2d(
        value.expr,
        weight.expr,
        strides=strides,
        padding=_conv_padding(context, node, weight.shape[2:], dilation),
        dilation=dilation,
        groups=context.integer(node, "groups"),
    )
    return _with_bias(context, node, "bias", conv, rank=4, axis=1)


def _conv_padding(
    context: ImportContext, node: Node, kernel: Sequence[int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Returns (top, left, bottom, right). Of an odd sum, "same" puts the larger part at the bottom and right."""
    padding = context.argument(node, "padding")
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        totals = [step * (extent - 1) for step, extent in zip(dilation, kernel, strict=True)]
        return (totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2)
    return 2 * _two(context.integers(node, "padding"))


def _with_bias(context: ImportContext, node: Node, name: str, expr: Any, *, rank: int, axis: int) -> TensorValue:
    if node.args[name] is not None:
        expr = relax.op.add(expr, along(float_tensor(context, node, name).expr, rank, axis))
    return TensorValue(context.emit(expr, node.scope or node.function))


# ---- pools and means: the float forms of the converters in pooling.py


def average_pool2d(context: ImportContext, node: Node, value: TensorValue) -> TensorValue:
    """Returns aten::avg_pool2d(Tensor self, ...) of a float tensor, with all its options.

    The sum over a window is divided by its number of elements; positions where that is not the kernel's size are
    corrected by a factor.
    """
    _check_map(context, node, value)
    kernel = _two(context.integers(node, "kernel_size"))
    strides = _two(context.integers(node, "stride") or list(kernel))
    padding = _two(context.integers(node, "padding"))
    ceil_mode = bool(context.argument(node, "ceil_mode"))
    sizes = [
        window_counts(value.shape[2 + axis], kernel[axis], strides[axis], padding[axis], ceil_mode=ceil_mode)
        for axis in (0, 1)
    ]
    after = [
        max((len(counts) - 1) * strides[axis] + kernel[axis] - padding[axis] - value.shape[2 + axis], 0)
        for axis, (counts, _) in enumerate(sizes)
    ]
    mean = relax.op.nn.avg_pool2d(
        value.expr, kernel, strides, padding=(*padding, *after), ceil_mode=False, count_include_pad=True
    )
    override = context.argument(node, "divisor_override")
    if override is not None:
        divisors = np.asarray([[override]])
    else:
        kind = 0 if context.argument(node, "count_include_pad") else 1
        divisors = np.multiply.outer(sizes[0][kind], sizes[1][kind])
    factors = kernel[0] * kernel[1] / divisors
    if (factors != 1).any():
        mean = relax.op.multiply(mean, constant(factors[np.newaxis, np.newaxis], value.dtype))
    return value.with_expr(context.emit(mean, node.scope or "avg_pool2d"))


def window_counts(
    extent: int, kernel: int, stride: int, padding: int, *, ceil_mode: bool, dilation: int = 1
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns for each window along a dimension how many elements it has: with the padding, and without.

    With ceil_mode a last window may reach past the padding, but must not start there.
    Source: aten/src/ATen/native/Pool.h, pooling_output_shape_pad_lr.
    """
    room = extent + 2 * padding - dilation * (kernel - 1) - 1
    outputs = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (outputs - 1) * stride >= extent + padding:
        outputs -= 1
    starts = np.arange(outputs) * stride - padding
    padded_ends = np.minimum(starts + kernel, extent + padding)
    return padded_ends - starts, np.minimum(padded_ends, extent) - np.maximum(starts, 0)


def adaptive_average_pool2d(context: ImportContext, node: Node, value: TensorValue) -> TensorValue:
    """Returns aten::adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) of a float tensor."""
    _check_map(context, node, value)
    asked = context.argument(node, "output_size")
    sizes = [extent if size is None else int(size) for size, extent in zip(asked, value.shape[2:], strict=True)]
    pool = relax.op.nn.adaptive_avg_pool2d(value.expr, tuple(sizes))
    return value.with_expr(context.emit(pool, node.scope or "adaptive_avg_pool2d"))


def mean_over(context: ImportContext, node: Node, value: TensorValue) -> TensorValue:
    """Returns aten::mean.dim(Tensor self, int[1]? dim, bool keepdim=False) of a float tensor."""
    same = {"float32": FLOAT32_TYPE, "float64": FLOAT64_TYPE}.get(value.dtype)
    if same is None or node.args["dtype"] not in (None, same):
        raise context.unsupported(node, f"{describe(value)} to dtype {node.args['dtype']}; accepted is one float dtype")
    dims = context.argument(node, "dim")
    axes = None if not dims else [int(dim) % len(value.shape) for dim in dims]
    mean = relax.op.mean(value.expr, axes, bool(context.argument(node, "keepdim")))
    return value.with_expr(context.emit(mean, node.scope or "mean"))


def _check_map(context: ImportContext, node: Node, value: TensorValue) -> None:
    if len(value.shape) != 4 or value.dtype not in FLOAT_DTYPES:
        raise context.unsupported(node, f"{describe(value)} of shape {value.shape}; accepted are floats [N, C, H, W]")


def _two(values: Sequence[int]) -> tuple[int, int]:
    """Returns height and width from a list of one or two numbers."""
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])
