"""Converters of pooling."""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue


@converter("aten::max_pool2d", "quantized::max_pool2d", lowering="max_pool2d of codes")
def max_pool2d(context: ImportContext, node: Node) -> QuantizedValue | TensorValue:
    """aten::max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool ceil_mode=False) -> Tensor

    The largest code is the code of the largest value; padding never wins.
    """
    value = context.any_tensor(node, next(iter(node.args)))
    kernel = two(context.integers(node, "kernel_size"))
    pool = relax.op.nn.max_pool2d(
        value.expr,
        pool_size=kernel,
        strides=two(context.integers(node, "stride")) if context.integers(node, "stride") else kernel,
        padding=two(context.integers(node, "padding")),
        dilation=two(context.integers(node, "dilation")),
        ceil_mode=bool(context.argument(node, "ceil_mode")),
    )
    return value.with_expr(context.emit(pool, node.scope or "max_pool2d"))


def two(values: list[int]) -> tuple[int, int]:
    """Returns height and width from a list of one or two numbers."""
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])
