"""softmax and log_softmax of float32 as PyTorch computes them: numerics.softmax in TIR.

torch.softmax(x, table, axis)
torch.log_softmax(x, table, axis)      table: tir.math.EXP_C_TABLE
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import T, TensorType, relax
from qtorch_relay.tir import math as tir_math
from qtorch_relay.tir.functions import LANES, call_function, flat, fold_lanes, loop_of, product, variable
from qtorch_relay.tir.math import Expr, emit_log_sleef, exp_c, exp_sleef, f32
from qtorch_relay.tir.ops import call_tir_op, define_tir_op

Buffer = Any


def softmax(x: Expr, axis: int) -> Expr:
    """Returns PyTorch's softmax of a float32 tensor along an axis, to the last bit."""
    return _call("torch.softmax", x, axis)


def log_softmax(x: Expr, axis: int) -> Expr:
    """Returns PyTorch's log_softmax of a float32 tensor along an axis, to the last bit but where numerics.softmax
    says."""
    return _call("torch.log_softmax", x, axis)


def _call(name: str, x: Expr, axis: int) -> Expr:
    return call_tir_op(name, [x, relax.const(tir_math.EXP_C_TABLE, "float64")], axis=axis)


def _infer(call: Any, _builder: Any) -> Any:
    return TensorType(list(call.args[0].ty.shape.values), "float32")


def _legalize(builder: Any, call: Any) -> Expr:
    axis, name = int(call.attrs["axis"]), str(call.op.name).partition(".")[2]
    logarithm = name == "log_softmax"

    def body(x: Buffer, table: Buffer, out: Buffer) -> None:
        # a tensor without dimensions is a row of one element
        before, count, after = list(x.shape[:axis]), product(x.shape[axis : axis + 1]), list(x.shape[axis + 1 :])
        if after:
            _emit_columns(flat(x), flat(out), table, (product(before), count, product(after)), logarithm)
        else:
            _emit_rows(flat(x), flat(out), product(before), count, logarithm)

    return call_function(builder, name, call.args, call.ty, body)


def _emit_rows(x: Buffer, out: Buffer, rows: Any, count: Any, logarithm: bool) -> None:
    """Emits the function along the last axis."""
    with loop_of(rows * count)(0, rows) as row:
        start = T.bind(row * count)
        lanes, greatest, total = variable(lanes=LANES), variable(), variable()

        with T.vectorized(0, LANES) as lane:
            T.buffer_store(lanes, f32(-np.inf), [lane])
        with T.serial(0, count // LANES) as block, T.vectorized(0, LANES) as lane:
            T.buffer_store(lanes, T.max(x[start + block * LANES + lane], lanes[lane]), [lane])
        fold_lanes(lanes, T.max)
        T.buffer_store(greatest, lanes[0], [0])
        with T.serial(count // LANES * LANES, count) as i:
            T.buffer_store(greatest, T.max(x[start + i], greatest[0]), [0])

        with T.serial(0, count) as i:
            T.buffer_store(out, exp_sleef(x[start + i] - greatest[0]), [start + i])

        with T.If(count < LANES):
            with T.Then():
                T.buffer_store(total, f32(0), [0])
                with T.serial(0, count) as i:
                    T.buffer_store(total, total[0] + out[start + i], [0])
            with T.Else():
                with T.vectorized(0, LANES) as lane:
                    T.buffer_store(lanes, f32(0), [lane])
                with T.serial(0, count // LANES) as block, T.vectorized(0, LANES) as lane:
                    T.buffer_store(lanes, lanes[lane] + out[start + block * LANES + lane], [lane])
                with T.serial(0, count % LANES) as lane:
                    T.buffer_store(lanes, lanes[lane] + out[start + count // LANES * LANES + lane], [lane])
                fold_lanes(lanes, lambda a, b: a + b)
                T.buffer_store(total, lanes[0], [0])

        if logarithm:
            T.buffer_store(total, emit_log_sleef(T.bind(total[0])), [0])
            with T.serial(0, count) as i:
                T.buffer_store(out, x[start + i] - greatest[0] - total[0], [start + i])
        else:
            T.buffer_store(total, f32(1) / total[0], [0])
            with T.serial(0, count) as i:
                T.buffer_store(out, out[start + i] * total[0], [start + i])


def _emit_columns(x: Buffer, out: Buffer, table: Buffer, extents: tuple[Any, Any, Any], logarithm: bool) -> None:
    """Emits the function along an axis of count elements, inner ones lying between one and the next."""
    outer, count, inner = extents
    vectors = inner // LANES

    def column(first: Expr, lanes: int, exp: Callable[[Expr], Expr], log: Callable[[Expr], Expr]) -> None:
        """Emits so many columns side by side."""
        greatest, total = variable(lanes=lanes), variable(lanes=lanes)
        each = T.vectorized if lanes > 1 else T.serial
        with each(0, lanes) as lane:
            T.buffer_store(greatest, f32(-np.inf), [lane])
            T.buffer_store(total, f32(0), [lane])
        with T.serial(0, count) as i, each(0, lanes) as lane:
            T.buffer_store(greatest, T.max(x[first + i * inner + lane], greatest[lane]), [lane])
        with T.serial(0, count) as i, each(0, lanes) as lane:
            place = first + i * inner + lane
            T.buffer_store(out, exp(x[place] - greatest[lane]), [place])
            T.buffer_store(total, total[lane] + out[place], [lane])
        if logarithm:
            # serial: TVM cannot make vectors of the statements of emit_log_sleef, LLVM can
            with T.serial(0, lanes) as lane:
                T.buffer_store(total, log(T.bind(total[lane])), [lane])
        with T.serial(0, count) as i, each(0, lanes) as lane:
            place = first + i * inner + lane
            result = x[place] - greatest[lane] - total[lane] if logarithm else out[place] / total[lane]
            T.buffer_store(out, result, [place])

    with loop_of(outer * count * inner)(0, outer) as row:
        start = T.bind(row * count * inner)
        with T.serial(0, vectors) as block:
            column(start + block * LANES, LANES, exp_sleef, emit_log_sleef)
        with T.serial(vectors * LANES, inner) as rest:
            column(start + rest, 1, lambda value: exp_c(value, table), _log_exact)


def _log_exact(x: Expr) -> Expr:
    """Returns float32 log(x), correctly rounded."""
    return T.Cast("float32", T.log(T.Cast("float64", x)))


define_tir_op("torch.softmax", "PyTorch's softmax", ("x", "table"), _infer, _legalize)
define_tir_op("torch.log_softmax", "PyTorch's log_softmax", ("x", "table"), _infer, _legalize)
