"""softmax and log_softmax of tensors that are not quantized. numerics/softmax.py has the arithmetic."""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.floating_elementwise import float_tensor
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.tir import softmax as tir_softmax


@converter("aten::softmax.int", "aten::_softmax", lowering="exp, sum in PyTorch's order, product or quotient")
def softmax(context: ImportContext, node: Node) -> TensorValue:
    """aten::softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor

    float64 within rounding.
    """
    value, axis = _operands(context, node)
    return value.with_expr(context.emit(softmax_of(value.expr, axis), node.scope or "softmax"))


def softmax_of(expr: Any, axis: int) -> Any:
    """Returns the softmax of a float tensor; of float32 PyTorch's to the last bit."""
    return tir_softmax.softmax(expr, axis) if str(expr.ty.dtype) == "float32" else relax.op.nn.softmax(expr, axis)


@converter(
    "aten::log_softmax.int",
    "aten::_log_softmax",
    lowering="exp, sum in PyTorch's order, log",
    exact="all engines; along other axes than the last, the last n % 16 of the n elements behind: within 1 ulp",
)
def log_softmax(context: ImportContext, node: Node) -> TensorValue:
    """aten::log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor

    float64 within rounding.
    """
    value, axis = _operands(context, node)
    form = tir_softmax.log_softmax if value.dtype == "float32" else relax.op.nn.log_softmax
    return value.with_expr(context.emit(form(value.expr, axis), node.scope or "log_softmax"))


def _operands(context: ImportContext, node: Node) -> tuple[TensorValue, int]:
    value = float_tensor(context, node, "self")
    if node.args.get("dtype") is not None or node.args.get("half_to_float"):
        raise context.unsupported(node, "a dtype argument; accepted are floats, without a dtype argument")
    return value, context.axis(node, "dim", len(value.shape))
