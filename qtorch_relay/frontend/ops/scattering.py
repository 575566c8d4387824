"""Converters of ops that write to places given by index tensors; every index is checked when the program runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.expressions import cast, constant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.filling import into_shape, scalar_codes
from qtorch_relay.frontend.ops.indexing import index_tensors, linear_index
from qtorch_relay.frontend.ops.moves import Tensor, broadcast, checked, permuted, reshaped
from qtorch_relay.frontend.registry import UP_TO_ORDER, converter, refuse
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.qnn.op_def import static_shape


@converter("aten::index_put", "aten::index_put_", "aten::_index_put_impl_", lowering="scatter_nd, or where of a mask")
def index_put(context: ImportContext, node: Node) -> Tensor:
    """aten::index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor

    A quantized tensor takes floats, as codes of its own. A mask that is known only at run time chooses how many
    elements are written, so it takes one value for all.
    Source: aten/src/ATen/native/TensorAdvancedIndexing.cpp; quantized/cpu/kernels/QuantizedOpKernels.cpp
    index_put_kernel_quantized_cpu.
    """
    value, given = context.any_tensor(node, "self"), context.argument(node, "values")
    accumulate = bool(context.argument(node, "accumulate"))
    updates = _written(context, node, value, given)
    indices = context.argument(node, "indices")
    mask = _run_time_mask(context, indices)
    if mask is not None:
        if math.prod(static_shape(updates)) != 1 or accumulate:
            raise context.unsupported(
                node, "a mask known only at run time chooses how many values are written; accepted is one for all"
            )
        return _where(context, value, mask, updates)
    axes, places = index_tensors(context, node, value, indices)
    others = [axis for axis in range(len(value.shape)) if axis not in axes]
    order = [*axes, *others]
    linear = linear_index(context, node, value, axes, places)
    spread = static_shape(linear)
    chosen = (*spread, *(value.shape[axis] for axis in others))
    if axes != list(range(axes[0], axes[0] + len(axes))):
        updates = into_shape(context, updates, chosen)
    else:  # the shape of aten::index's result: what is indexed is where the indexed dimensions were
        before = axes[0]
        shape = (*chosen[len(spread) : len(spread) + before], *spread, *chosen[len(spread) + before :])
        updates = into_shape(context, updates, shape)
        back = [*range(before, before + len(spread)), *range(before), *range(before + len(spread), len(shape))]
        updates = updates if back == sorted(back) else context.emit(relax.op.permute_dims(updates, back))
    rest = chosen[len(spread) :]
    count = math.prod(spread)
    flat = reshaped(context, permuted(context, value, order), [math.prod(value.shape[axis] for axis in axes), *rest])
    made = relax.op.scatter_nd(
        flat.expr,
        context.emit(relax.op.reshape(linear, [count, 1])),
        context.emit(relax.op.reshape(updates, [count, *rest])),
        "add" if accumulate else "update",
    )
    result = value.with_expr(context.emit(made, "index_put"))
    shaped = reshaped(context, result, [value.shape[axis] for axis in order])
    return permuted(context, shaped, [order.index(axis) for axis in range(len(order))])


def _written(context: ImportContext, node: Node, value: Tensor, given: Any) -> Any:
    """Returns what is written as an expression of value's element type."""
    if isinstance(given, np.ndarray):
        given = TensorValue(constant(given, str(given.dtype)))
    if not isinstance(given, TensorValue):
        raise context.unsupported(node, f"writes {describe(given)}; accepted is a tensor that is not quantized")
    if isinstance(value, QuantizedValue):
        return context.emit(scalar_codes(context, cast(given.expr, "float32"), value.qparams))
    return context.emit(cast(given.expr, value.dtype)) if given.dtype != value.dtype else given.expr


def _run_time_mask(context: ImportContext, indices: Any) -> Any | None:
    """Returns the mask, if it is the only index and its values are not known."""
    found = [index for index in indices if index is not None]
    if len(found) != 1 or indices[0] is None or not isinstance(found[0], TensorValue) or found[0].dtype != "bool":
        return None
    return None if getattr(found[0].expr, "name", "") in context.params else found[0].expr


def _where(context: ImportContext, value: Tensor, mask: Any, updates: Any) -> Tensor:
    rank, own = len(value.shape), static_shape(mask)
    wide = relax.op.reshape(mask, [*own, *([1] * (rank - len(own)))])
    one = relax.op.reshape(updates, [1] * rank)
    return value.with_expr(context.emit(relax.op.where(context.emit(wide), context.emit(one), value.expr), "index_put"))


@converter(
    "aten::scatter.src",
    "aten::scatter.value",
    "aten::scatter_.src",
    "aten::scatter_.value",
    lowering="scatter_elements",
)
def scatter(context: ImportContext, node: Node) -> TensorValue:
    """aten::scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    value, index = context.tensor(node, "self"), context.tensor(node, "index")
    return _scattered(context, node, value, index, _source(context, node, value, index), "update")


@converter("aten::scatter_add", "aten::scatter_add_", lowering="scatter_elements", exact=UP_TO_ORDER)
def scatter_add(context: ImportContext, node: Node) -> TensorValue:
    """aten::scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor"""
    value, index = context.tensor(node, "self"), context.tensor(node, "index")
    return _scattered(context, node, value, index, _source(context, node, value, index), "add")


def _source(context: ImportContext, node: Node, value: TensorValue, index: TensorValue) -> Any:
    """Returns what is written, cut to the shape of the index."""
    if "src" not in node.args:
        number = constant(context.number(node, "value"), value.dtype)
        return context.emit(relax.op.full(index.shape, number, value.dtype))
    source = context.tensor(node, "src")
    for axis, extent in enumerate(index.shape):
        if source.shape[axis] != extent:
            source = TensorValue(context.emit(relax.op.strided_slice(source.expr, [axis], [0], [extent])))
    return source.expr


def _scattered(
    context: ImportContext, node: Node, value: TensorValue, index: TensorValue, source: Any, reduction: str
) -> TensorValue:
    axis = context.axis(node, "dim", len(value.shape))
    if not value.shape:
        raise context.unsupported(node, "a tensor without dimensions")
    places = checked(context, node, index.expr, value.expr, axis)
    made = relax.op.scatter_elements(value.expr, places, source, axis=axis, reduction=reduction)
    return TensorValue(context.emit(made, "scatter"))


@converter(
    "aten::index_fill.int_Scalar", "aten::index_fill_.int_Scalar", "aten::index_fill.int_Tensor",
    "aten::index_fill_.int_Tensor", lowering="scatter_elements",
)  # fmt: skip
def index_fill(context: ImportContext, node: Node) -> TensorValue:
    """aten::index_fill.int_Scalar(Tensor self, int dim, Tensor index, Scalar value) -> Tensor"""
    value, index = context.tensor(node, "self"), context.tensor(node, "index")
    axis = context.axis(node, "dim", len(value.shape))
    shape = [*value.shape[:axis], index.shape[0] if index.shape else 1, *value.shape[axis + 1 :]]
    number = context.argument(node, "value")
    if isinstance(number, TensorValue):
        source = into_shape(context, cast(number.expr, value.dtype), tuple(shape))
    else:
        source = context.emit(relax.op.full(shape, constant(context.number(node, "value"), value.dtype), value.dtype))
    return _along_axis(context, node, value, index, axis, source, "update", wraps=True)


@converter("aten::index_copy", "aten::index_copy_", lowering="scatter_elements")
def index_copy(context: ImportContext, node: Node) -> TensorValue:
    """aten::index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor"""
    value, index, source = (context.tensor(node, name) for name in ("self", "index", "source"))
    axis = context.axis(node, "dim", len(value.shape))
    return _along_axis(context, node, value, index, axis, source.expr, "update", wraps=False)


@converter("aten::index_add", "aten::index_add_", lowering="scatter_elements", exact=UP_TO_ORDER)
def index_add(context: ImportContext, node: Node) -> TensorValue:
    """aten::index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor"""
    value, index, source = (context.tensor(node, name) for name in ("self", "index", "source"))
    axis = context.axis(node, "dim", len(value.shape))
    alpha = context.number(node, "alpha")
    scaled = source.expr if alpha == 1 else relax.op.multiply(source.expr, constant(alpha, value.dtype))
    return _along_axis(context, node, value, index, axis, scaled, "add", wraps=False)


def _along_axis(
    context: ImportContext,
    node: Node,
    value: TensorValue,
    index: TensorValue,
    axis: int,
    source: Any,
    reduction: str,
    *,
    wraps: bool,
) -> TensorValue:
    """Returns value with whole slices of source at positions of an axis."""
    if not value.shape:
        raise context.unsupported(node, "a tensor without dimensions")
    places = checked(context, node, index.expr, value.expr, axis, wraps=wraps)
    shape = [*value.shape[:axis], index.shape[0] if index.shape else 1, *value.shape[axis + 1 :]]
    column = [1] * len(shape)
    column[axis] = shape[axis]
    spread: Tensor = reshaped(context, TensorValue(places), column)
    made = relax.op.scatter_elements(
        value.expr, broadcast(context, spread, shape).expr, source, axis=axis, reduction=reduction
    )
    return TensorValue(context.emit(made, "scatter"))


refuse(
    "aten::masked_scatter",
    "aten::masked_scatter_",
    reason="where each value goes depends on the mask, which is known only at run time",
    nearest="aten::where.self",
)
