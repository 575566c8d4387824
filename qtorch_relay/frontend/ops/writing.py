"""Converters of ops that put a tensor into a part of another; codes are put as they are, whatever their parameters.

capture.written_views makes them of writes into views; PyTorch copies codes there as they are, too.
"""

from __future__ import annotations

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.moves import Tensor, reshaped, sliced
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn.op_def import static_shape


@converter("aten::slice_scatter", lowering="concat of what lies around, or slice_scatter")
def slice_scatter(context: ImportContext, node: Node) -> Tensor:
    """aten::slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1)
    -> Tensor
    """
    value = context.any_tensor(node, "self")
    axis = context.axis(node, "dim", len(value.shape))
    extent, step = value.shape[axis], context.integer(node, "step")
    start, end = (context.argument(node, name) for name in ("start", "end"))
    bounds = slice(start, end, step).indices(extent)
    if end is not None and end > extent:
        context.cut_short(node, extent)
    return put(context, node, value, context.any_tensor(node, "src"), axis, bounds)


@converter("aten::select_scatter", lowering="concat of what lies around")
def select_scatter(context: ImportContext, node: Node) -> Tensor:
    """aten::select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor"""
    value, source = context.any_tensor(node, "self"), context.any_tensor(node, "src")
    axis = context.axis(node, "dim", len(value.shape))
    index = context.integer(node, "index") % value.shape[axis]
    part = reshaped(context, source, [*source.shape[:axis], 1, *source.shape[axis:]])
    return put(context, node, value, part, axis, (index, index + 1, 1))


def put(
    context: ImportContext, node: Node, value: Tensor, source: Tensor, axis: int, bounds: tuple[int, int, int]
) -> Tensor:
    """Returns a tensor with another in place of what lies at (start, end, step) of an axis."""
    start, end, step = bounds
    if isinstance(value, QuantizedValue) != isinstance(source, QuantizedValue):
        raise context.unsupported(node, f"{describe(source)} into {describe(value)}")
    dtype = static_dtype(value)
    expr = source.expr if static_dtype(source) == dtype else relax.op.astype(source.expr, dtype)
    if step != 1:
        made = relax.op.slice_scatter(value.expr, expr, start, end, step, axis=axis)
        return value.with_expr(context.emit(made, "slice_scatter"))
    around = [sliced(context, value, axis, begin, stop).expr for begin, stop in ((0, start), (end, value.shape[axis]))]
    parts = [part for part in (around[0], expr, around[1]) if static_shape(part)[axis] > 0]
    made = parts[0] if len(parts) == 1 else relax.op.concat(parts, axis=axis)
    return value.with_expr(context.emit(made, "slice_scatter"))


def static_dtype(value: Tensor) -> str:
    """Returns the dtype of a tensor's elements, codes included."""
    return value.qparams.dtype if isinstance(value, QuantizedValue) else value.dtype
