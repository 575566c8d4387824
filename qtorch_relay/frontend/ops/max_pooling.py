"""Converters of maximum pools: the largest code is the code of the largest value, and padding never wins."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.moves import Tensor, reshaped
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.numerics.windows import pooled_length

_DILATED = (
    "PyTorch's qnnpack kernel returns other than the largest codes for quint8 with dilation above 1 and padding; ours "
    "are the largest"
)


@converter("aten::max_pool2d", "quantized::max_pool2d", "aten::quantized_max_pool2d",
           lowering="max_pool2d of codes or floats", note=_DILATED)  # fmt: skip
def max_pool2d(context: ImportContext, node: Node) -> Tensor:
    """aten::max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool
    ceil_mode=False) -> Tensor

    Shapes: self [N, C, H, W], or [C, H, W], which the engine qnnpack refuses for quint8.
    """
    return _max_pool(context, node, 2)


@converter("aten::max_pool1d", "quantized::max_pool1d", "aten::quantized_max_pool1d",
           lowering="max_pool1d of codes or floats", note=_DILATED)  # fmt: skip
def max_pool1d(context: ImportContext, node: Node) -> Tensor:
    """aten::max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, int[1] dilation=1, bool
    ceil_mode=False) -> Tensor

    Shapes: self [N, C, L], or [C, L], which the engine qnnpack refuses for quint8.
    """
    return _max_pool(context, node, 1)


@converter("aten::max_pool3d", "aten::quantized_max_pool3d", lowering="max_pool3d of codes or floats")
def max_pool3d(context: ImportContext, node: Node) -> Tensor:
    """aten::max_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, int[3] dilation=1, bool
    ceil_mode=False) -> Tensor

    Shapes: self [N, C, D, H, W]. The engine qnnpack refuses quantized tensors.
    """
    value = context.any_tensor(node, next(iter(node.args)))
    if isinstance(value, QuantizedValue) and context.engine == "qnnpack":
        raise context.unsupported(node, "the engine qnnpack has no max_pool3d of quantized tensors")
    return _max_pool(context, node, 3)


_POOLS = {1: relax.op.nn.max_pool1d, 2: relax.op.nn.max_pool2d, 3: relax.op.nn.max_pool3d}


def _max_pool(context: ImportContext, node: Node, rank: int) -> Tensor:
    value = context.any_tensor(node, next(iter(node.args)))
    kernel, padding, dilation = (_each(context, node, name, rank) for name in ("kernel_size", "padding", "dilation"))
    strides = _each(context, node, "stride", rank) or kernel
    ceil_mode = bool(context.argument(node, "ceil_mode"))
    batched = reshaped(context, value, (-1, *value.shape[-rank - 1 :]))
    sizes = zip(value.shape[-rank:], kernel, strides, padding, dilation, strict=True)
    outputs = [pooled_length(e, k, s, p, dilation=d, ceil_mode=ceil_mode) for e, k, s, p, d in sizes]
    # ceil_mode and windows past the padding are made of padding: the least code, or minus infinity
    after = [
        max((count - 1) * s + d * (k - 1) + 1 - p - extent, 0)
        for count, extent, k, s, p, d in zip(
            outputs, value.shape[-rank:], kernel, strides, padding, dilation, strict=True
        )
    ]
    pool = _POOLS[rank](
        batched.expr,
        pool_size=kernel,
        strides=strides,
        padding=[*padding, *after],
        dilation=dilation,
    )
    pooled = batched.with_expr(context.emit(pool, node.scope or node.function))
    return reshaped(context, pooled, (*value.shape[:-rank], *outputs))


def _each(context: ImportContext, node: Node, name: str, rank: int) -> list[int]:
    """Returns one number for each dimension; an empty list stays empty."""
    return (context.integers(node, name) * rank)[:rank]
