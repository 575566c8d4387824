"""The recurrent part of quantized LSTM, GRU and RNN layers as one TIR function that loops over time.

A layer's input goes through one linear layer for all steps before; what is left for each step is a linear layer of the
state, quantized anew every time (or float16 weights), and the cell's float arithmetic:

    torch.lstm_int8(gates, hidden, cell, weight, factor, bias) -> (outputs, hidden, cell)
    torch.rnn_int8(gates, hidden, weight, factor, bias)        -> (outputs, hidden)        GRU, tanh and relu
    torch.lstm_fp16, torch.rnn_fp16: the same with weight [H, G * H] and bias, without factor

Shapes: gates [T, B, G * H] with G gates; hidden and cell [B, H]; weight [G * H, H], int8, or int16 less its zero
points; factor (the weight's scales) and bias [G * H]; outputs [T, B, H].
As one loop, hundreds of steps are as quick to compile as one.
Source: PyTorch aten/src/ATen/native/RNN.cpp LSTMCell, GRUCell, SimpleCell, FullLayer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from qtorch_relay._tvm import IRBuilder, PrimFunc, T, TensorType, relax
from qtorch_relay.tir import math as tir_math
from qtorch_relay.tir.math import Expr, f32, fma, rounded_product
from qtorch_relay.tir.ops import call_tir_op, define_tir_op
from qtorch_relay.tir.qparams import scale_as, scale_of, zero_point_of

Buffer = Any
GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}
# FBGEMM sums float16 products of the columns that fill no pair of registers in blocks of this many rows.
FP16_BLOCK = 512


@dataclass(frozen=True)
class Recurrence:
    """One layer in one direction.

    kind: "lstm", "gru", "tanh" or "relu". arithmetic: how int32 sums become floats ("fused", "rounded" or "real", as in
    qnn.dequantize), or "fp16". quant_max: the greatest dynamic code, 0 for fp16. weight_dtype: "int8", "int16" or
    "float32". reverse: from the last step to the first.
    """

    kind: str
    arithmetic: str
    quant_max: int
    weight_dtype: str
    reverse: bool
    steps: int
    batch: int
    hidden: int

    @property
    def units(self) -> int:
        """The number of gates times the size of the state."""
        return GATES[self.kind] * self.hidden


def apply(kind: str, operands: Sequence[Expr], *, arithmetic: str, quant_max: int, reverse: bool) -> Expr:
    """Returns the call of the op for these operands, in the order of the module's text; fp16 without factor."""
    cell = "lstm" if kind == "lstm" else "rnn"
    weights = "fp16" if arithmetic == "fp16" else "int8"
    return call_tir_op(
        f"torch.{cell}_{weights}",
        list(operands),
        kind=kind,
        arithmetic=arithmetic,
        quant_max=quant_max,
        reverse=reverse,
    )


def _recurrence(call: Any) -> Recurrence:
    steps, batch, _ = (int(extent) for extent in call.args[0].ty.shape.values)
    weight = call.args[3 if str(call.attrs["kind"]) == "lstm" else 2]
    return Recurrence(
        str(call.attrs["kind"]),
        str(call.attrs["arithmetic"]),
        int(call.attrs["quant_max"]),
        str(weight.ty.dtype),
        bool(call.attrs["reverse"]),
        steps,
        batch,
        int(call.args[1].ty.shape.values[1]),
    )


def _out_types(spec: Recurrence) -> list[Any]:
    state = TensorType((spec.batch, spec.hidden), "float32")
    states = [state, state] if spec.kind == "lstm" else [state]
    return [TensorType((spec.steps, spec.batch, spec.hidden), "float32"), *states]


def _infer(call: Any, _builder: Any) -> Any:
    return relax.TupleType(_out_types(_recurrence(call)))


def _legalize(builder: Any, call: Any) -> Any:
    spec = _recurrence(call)
    function = builder.add_func(build(spec), f"{spec.kind}_layer")
    table = relax.const(tir_math.EXP_C_TABLE, "float64")
    return relax.call_tir(function, [*call.args, table], _out_types(spec))


def build(spec: Recurrence) -> PrimFunc:
    """Returns the TIR function: the op's operands, the table of exp_c, then the outputs."""
    gates = ("gates", (spec.steps, spec.batch, spec.units), "float32")
    states = [(name, (spec.batch, spec.hidden), "float32") for name in ("hidden", "cell")[: 1 + (spec.kind == "lstm")]]
    fp16 = spec.arithmetic == "fp16"
    shape = (spec.hidden, spec.units) if fp16 else (spec.units, spec.hidden)
    vectors = [(name, (spec.units,), "float32") for name in (("bias",) if fp16 else ("factor", "bias"))]
    table = ("table", (tir_math.EXP_C_STEPS,), "float64")
    outputs: list[tuple[str, tuple[int, ...], str]] = [("outputs", (spec.steps, spec.batch, spec.hidden), "float32")]
    outputs += [(f"last_{name}", extents, dtype) for name, extents, dtype in states]
    arguments = [gates, *states, ("weight", shape, spec.weight_dtype), *vectors, table, *outputs]
    with IRBuilder() as builder, T.prim_func():
        T.func_name(f"{spec.kind}_layer")
        # 8: opaque to the passes that fuse
        T.func_attr({"tirx.noalias": True, "op_pattern": 8})
        handles = [T.arg(name, T.handle()) for name, _, _ in arguments]
        buffers = {
            name: T.match_buffer(handle, extents, dtype)
            for handle, (name, extents, dtype) in zip(handles, arguments, strict=True)
        }
        _Layer(spec, buffers).emit([name for name, _, _ in states])
    return builder.get()


class _Layer:
    """Emits the code of one layer; b is the sample, n the gate's row, i the state's element."""

    def __init__(self, spec: Recurrence, buffers: dict[str, Buffer]) -> None:
        self.spec = spec
        self.buffers = buffers
        # the linear layer of the state
        self.sums = T.alloc_buffer((spec.batch, spec.units), "float32", scope="global")

    def emit(self, states: Sequence[str]) -> None:
        spec = self.spec
        for name in states:
            with self._elements(spec.hidden) as (b, i):
                self._store(f"last_{name}", self.buffers[name][b, i], b, i)
        product = self._product_fp16 if spec.arithmetic == "fp16" else self._quantized_product()
        with T.serial(0, spec.steps) as step:
            time = spec.steps - 1 - step if spec.reverse else step
            product()
            vector = spec.hidden // tir_math.VECTOR_RUN * tir_math.VECTOR_RUN
            if vector:
                self._cells(time, 0, vector, tir_math.sigmoid)
            if vector < spec.hidden:
                self._cells(time, vector, spec.hidden, self._sigmoid_of_rest)

    def _sigmoid_of_rest(self, x: Expr) -> Expr:
        return tir_math.sigmoid(x, lambda exponent: tir_math.exp_c(exponent, self.buffers["table"]))

    @contextmanager
    def _elements(self, columns: int, start: int = 0) -> Iterator[tuple[Expr, Expr]]:
        with T.serial(0, self.spec.batch) as b, T.serial(start, columns) as i:
            yield b, i

    def _store(self, name: str, value: Expr, *index: Expr) -> None:
        T.buffer_store(self.buffers[name], value, list(index))

    # ---- the linear layer of the state

    def _quantized_product(self) -> Callable[[], None]:
        spec = self.spec
        low, high, scale = (T.alloc_buffer((1,), "float32", scope="global") for _ in range(3))
        point, total = (T.alloc_buffer((1,), "int32", scope="global") for _ in range(2))
        # codes less their zero point: a state is between -1 and 1, so the zero point is one of 0 to 255
        codes = T.alloc_buffer((spec.batch, spec.hidden), "int16", scope="global")
        state, weight = self.buffers["last_hidden"], self.buffers["weight"]

        def emit() -> None:
            for bound in (low, high):
                T.buffer_store(bound, f32(0), [0])
            with self._elements(spec.hidden) as (b, i):
                T.buffer_store(low, T.min(low[0], state[b, i]), [0])
                T.buffer_store(high, T.max(high[0], state[b, i]), [0])
            exact = scale_of(low[0], high[0], spec.quant_max)
            T.buffer_store(scale, scale_as(exact, "reciprocal" if spec.arithmetic == "real" else "float32"), [0])
            T.buffer_store(point, zero_point_of(low[0], high[0], 0, spec.quant_max), [0])
            with self._elements(spec.hidden) as (b, i):
                code = self._code(state[b, i], f32(1) / scale[0], T.Cast("float32", point[0]))
                T.buffer_store(codes, T.Cast("int16", T.Cast("int32", code) - point[0]), [b, i])
            with self._elements(spec.units) as (b, n):
                T.buffer_store(total, T.int32(0), [0])
                with T.serial(0, spec.hidden) as k:
                    product = T.Cast("int32", codes[b, k]) * T.Cast("int32", weight[n, k])
                    T.buffer_store(total, total[0] + product, [0])
                T.buffer_store(self.sums, self._real(T.Cast("float32", total[0]), scale[0], n), [b, n])

        return emit

    def _code(self, x: Expr, inverse_scale: Expr, zero_point: Expr) -> Expr:
        if self.spec.arithmetic == "real":
            value = rounded_product(x, inverse_scale) + zero_point
        else:
            value = fma(x, inverse_scale, zero_point)
        return T.max(T.min(T.nearbyint(value), f32(255)), f32(0))

    def _real(self, total: Expr, scale: Expr, n: Expr) -> Expr:
        factor, bias = self.buffers["factor"][n], self.buffers["bias"][n]
        if self.spec.arithmetic == "fused":
            return fma(total, scale * factor, bias)
        if self.spec.arithmetic == "rounded":
            return rounded_product(total, scale * factor) + bias
        return rounded_product(total * scale, factor) + bias

    def _product_fp16(self) -> None:
        spec = self.spec
        emit_linear_fp16(self.buffers["last_hidden"], self.buffers["weight"], self.sums, spec.batch)
        with self._elements(spec.units) as (b, n):
            T.buffer_store(self.sums, self.sums[b, n] + self.buffers["bias"][n], [b, n])

    # ---- the cell

    def _cells(self, time: Expr, start: int, stop: int, sigmoid: Callable[[Expr], Expr]) -> None:
        with self._elements(stop, start) as (b, i):
            output = {"lstm": self._lstm, "gru": self._gru}.get(self.spec.kind, self._simple)(time, b, i, sigmoid)
            self._store("last_hidden", output, b, i)
            self._store("outputs", self.buffers["last_hidden"][b, i], time, b, i)

    def _gate(self, time: Expr, b: Expr, i: Expr, number: int) -> tuple[Expr, Expr]:
        """Returns what the state and what the input say to a gate."""
        n = number * self.spec.hidden + i
        return self.sums[b, n], self.buffers["gates"][time, b, n]

    def _lstm(self, time: Expr, b: Expr, i: Expr, sigmoid: Callable[[Expr], Expr]) -> Expr:
        gates = [of_state + of_input for of_state, of_input in (self._gate(time, b, i, number) for number in range(4))]
        take, keep, give = (sigmoid(gates[number]) for number in (0, 1, 3))
        kept = rounded_product(keep, self.buffers["last_cell"][b, i])
        self._store("last_cell", kept + rounded_product(take, tir_math.tanh(gates[2])), b, i)
        return give * tir_math.tanh(self.buffers["last_cell"][b, i])

    def _gru(self, time: Expr, b: Expr, i: Expr, sigmoid: Callable[[Expr], Expr]) -> Expr:
        gates = [of_state + of_input for of_state, of_input in (self._gate(time, b, i, number) for number in range(2))]
        reset, keep = (sigmoid(gate) for gate in gates)
        of_state, of_input = self._gate(time, b, i, 2)
        state = self.buffers["last_hidden"][b, i]
        new = tir_math.tanh(of_input + rounded_product(of_state, reset))
        return tir_math.let(new, lambda value: rounded_product(state - value, keep) + value)

    def _simple(self, time: Expr, b: Expr, i: Expr, _sigmoid: Callable[[Expr], Expr]) -> Expr:
        of_state, of_input = self._gate(time, b, i, 0)
        total = of_state + of_input
        return tir_math.tanh(total) if self.spec.kind == "tanh" else T.max(total, f32(0))


def emit_linear_fp16(x: Buffer, weight: Buffer, y: Buffer, rows: int, loop: Any = T.serial) -> None:
    """Emits y = x @ weight as FBGEMM's float16 kernels sum it: fused multiply-adds from the first row of the weight to
    the last, for the columns that fill pairs of registers; for the others in blocks of FP16_BLOCK rows, added up.

    x [rows, K], weight [K, N] (float16 numbers held in float32), y [rows, N].
    Source: FBGEMM include/fbgemm/FbgemmFPCommon.h cblas_gemm_compute, src/FbgemmFP16UKernelsAvx512.cc.
    """
    depth, columns = (int(extent) for extent in weight.shape)
    whole = columns // tir_math.VECTOR_RUN * tir_math.VECTOR_RUN
    with loop(0, rows) as m:
        with T.serial(0, columns) as n:
            T.buffer_store(y, f32(0), [m, n])
        if whole:
            with T.serial(0, depth) as k, T.serial(0, whole) as n:
                T.buffer_store(y, fma(x[m, k], weight[k, n], y[m, n]), [m, n])
        if whole < columns:
            part = T.alloc_buffer((columns - whole,), "float32", scope="global")
            for start in range(0, depth, FP16_BLOCK):
                with T.serial(whole, columns) as n:
                    T.buffer_store(part, f32(0), [n - whole])
                with T.serial(start, min(depth, start + FP16_BLOCK)) as k, T.serial(whole, columns) as n:
                    T.buffer_store(part, fma(x[m, k], weight[k, n], part[n - whole]), [n - whole])
                with T.serial(whole, columns) as n:
                    T.buffer_store(y, y[m, n] + part[n - whole], [m, n])


_STATES = {"lstm": ("hidden", "cell"), "rnn": ("hidden",)}
for _cell, _names in _STATES.items():
    _doc = f"the recurrent part of a quantized {_cell} layer"
    define_tir_op(f"torch.{_cell}_int8", _doc, ("gates", *_names, "weight", "factor", "bias"), _infer, _legalize)
    define_tir_op(f"torch.{_cell}_fp16", _doc, ("gates", *_names, "weight", "bias"), _infer, _legalize)
