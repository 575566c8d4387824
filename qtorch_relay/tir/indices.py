"""torch.checked_indices(index, data): indices known only at run time, each checked before anything is read with it.

TVM's own gathering ops clamp an index out of range or read what lies there; PyTorch raises.
"""

from __future__ import annotations

import math
from typing import Any

from qtorch_relay._tvm import IRBuilder, PrimFunc, T, TensorType, relax, tvm
from qtorch_relay.dimensions import is_fixed
from qtorch_relay.errors import INDEX_ERROR_FUNCTION
from qtorch_relay.tir.ops import call_tir_op, define_tir_op

Expr = Any


def checked_indices(index: Expr, data: Expr, *, axis: int, wraps: bool, op: str) -> Expr:
    """Returns indices into an axis of data as int64, counted from 0.

    index: of any integer dtype. wraps: whether -1 is the last; else it is out of range.
    op: who asks, for the error: the op's name and place. Of data only the extent is read.
    """
    return call_tir_op("torch.checked_indices", [index, data], axis=axis, wraps=wraps, op=op)


def require_index(index: Expr, first: Expr, last: Expr, op: str) -> None:
    """Emits code that raises IndexError at run time unless first <= index <= last; all are int64."""
    with T.If(T.Or(index < first, index > last)), T.Then():
        T.evaluate(T.call_packed(INDEX_ERROR_FUNCTION, op, index, first, last))


def _build(shape: list[Any], dtype: str, extent: int | None, wraps: bool, op: str) -> PrimFunc:
    """Returns checked_indices(index[, extent], out); extents that are not fixed are variables of the function's own."""
    sizes = [int(size) if is_fixed(size) else tvm.tirx.Var(f"size{i}", "int64") for i, size in enumerate(shape)]
    with IRBuilder() as builder, T.prim_func():
        T.func_name("checked_indices")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8})
        given = T.arg("index", T.handle())
        limit = T.int64(extent) if extent is not None else T.arg("extent", tvm.tirx.Var("extent", "int64"))
        made = T.arg("out", T.handle())
        given, out = T.match_buffer(given, sizes, dtype), T.match_buffer(made, sizes, "int64")
        count = math.prod(sizes)
        flat, flat_out = (
            T.decl_buffer((count,), kind, data=buffer.data) for buffer, kind in ((given, dtype), (out, "int64"))
        )
        with T.serial(0, count) as place:
            index = T.bind(T.Cast("int64", flat[place]))
            require_index(index, -limit if wraps else T.int64(0), limit - T.int64(1), op)
            T.buffer_store(flat_out, T.Select(index < 0, index + limit, index) if wraps else index, [place])
    return builder.get()


def _infer(call: Any, _builder: Any) -> Any:
    return TensorType(call.args[0].ty.shape, "int64")


def _legalize(builder: Any, call: Any) -> Expr:
    index, data = call.args
    extent = data.ty.shape.values[int(call.attrs["axis"])]
    function = _build(
        list(index.ty.shape.values),
        str(index.ty.dtype),
        int(extent) if is_fixed(extent) else None,
        bool(call.attrs["wraps"]),
        str(call.attrs["op"]),
    )
    kernel = builder.add_func(function.without_attr("global_symbol"), "checked_indices")
    operands = [index] if is_fixed(extent) else [index, extent]
    return relax.call_tir(kernel, operands, TensorType(index.ty.shape, "int64"))


define_tir_op("torch.checked_indices", "indices, each checked", ("index", "data"), _infer, _legalize)
