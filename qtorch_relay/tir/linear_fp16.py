"""torch.linear_fp16(x, weight): a float product with float16 weights in FBGEMM's order of summation."""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import IRBuilder, PrimFunc, T, TensorType, relax
from qtorch_relay.tir.ops import call_tir_op, define_tir_op
from qtorch_relay.tir.recurrent import emit_linear_fp16


def linear_fp16(x: Any, weight: Any) -> Any:
    """Returns x @ weight for float32 x [M, K] and float16 numbers in float32 weight [K, N], see emit_linear_fp16."""
    return call_tir_op("torch.linear_fp16", [x, weight])


def _extents(call: Any) -> tuple[int, int, int]:
    (rows, depth), (_, columns) = ([int(extent) for extent in argument.ty.shape.values] for argument in call.args)
    return rows, depth, columns


def _build(rows: int, depth: int, columns: int) -> PrimFunc:
    with IRBuilder() as builder, T.prim_func():
        T.func_name("linear_fp16")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8})
        handles = [T.arg(name, T.handle()) for name in ("x", "weight", "y")]
        shapes = ((rows, depth), (depth, columns), (rows, columns))
        buffers = [T.match_buffer(handle, shape, "float32") for handle, shape in zip(handles, shapes, strict=True)]
        x, weight, y = buffers
        emit_linear_fp16(x, weight, y, rows, T.parallel)
    return builder.get()


def _legalize(builder: Any, call: Any) -> Any:
    rows, depth, columns = _extents(call)
    function = builder.add_func(_build(rows, depth, columns), "linear_fp16")
    return relax.call_tir(function, list(call.args), TensorType((rows, columns), "float32"))


define_tir_op(
    "torch.linear_fp16",
    "a float product in FBGEMM's order",
    ("x", "weight"),
    lambda call, _builder: TensorType((_extents(call)[0], _extents(call)[2]), "float32"),
    _legalize,
)
