"""Relax ops that become one TIR expression per element, for float arithmetic that Relax cannot say.

    torch.fma(a, b, c)         a * b + c of float32, rounded once
    torch.sigmoid(x)           as PyTorch computes it, see tir/math.py
    torch.silu(x)              likewise
    torch.tanh(x)              correctly rounded, see tir/math.py

TVM legalizes them like its own ops, and fuses what they become with their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qtorch_relay._tvm import Call, Op, T, TensorType, define_relax_op, register_op_attr, relax, te
from qtorch_relay.tir import math as tir_math
from qtorch_relay.tir.functions import product

Expr = Any
Legalize = Callable[[Any, Any], Expr]


def define_tir_op(name: str, doc: str, operands: tuple[str, ...], infer_type: Any, legalize: Legalize) -> None:
    """Registers a Relax op.

    infer_type: (call, builder) -> type. legalize: (builder, call) -> what TVM's LegalizeOps puts in its place.
    """
    define_relax_op(name, doc, operands, infer_type)
    register_op_attr(name, "FLegalize", legalize)


def call_tir_op(name: str, operands: list[Expr], **attributes: Any) -> Expr:
    """Returns a call of an op that define_tir_op has registered."""
    return Call(Op.get(name), operands, attrs=attributes)


def _shape(expr: Expr) -> list[Any]:
    return list(expr.ty.shape.values)


def _broadcast(shapes: list[list[Any]]) -> list[Any]:
    """Returns the shape that shapes broadcast to; an extent that is not known counts as it is written."""
    rank = max(len(shape) for shape in shapes)
    padded = [[1] * (rank - len(shape)) + shape for shape in shapes]
    result = []
    for extents in zip(*padded, strict=True):
        wide = [extent for extent in extents if not _is_one(extent)]
        result.append(wide[0] if wide else 1)
    return result


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """Returns a * b + c of float32 tensors that broadcast, rounded once on any target."""
    return call_tir_op("torch.fma", [a, b, c])


def _infer_fma(call: Any, _builder: Any) -> Any:
    return TensorType(_broadcast([_shape(argument) for argument in call.args]), "float32")


def _legalize_fma(builder: Any, call: Any) -> Expr:
    shape = _shape(call)

    def compute(*tensors: Any) -> Any:
        def element(*index: Any) -> Any:
            return tir_math.fma(*(_read(tensor, index) for tensor in tensors))

        return te.compute(shape, element, name="fma")

    return builder.call_te(compute, *call.args)


def _read(tensor: Any, index: tuple[Any, ...]) -> Any:
    """Returns a tensor's element for an index into what it broadcasts to."""
    own = index[len(index) - len(tensor.shape) :]
    return tensor(*(0 if _is_one(extent) else i for extent, i in zip(tensor.shape, own, strict=True)))


def _is_one(extent: Any) -> bool:
    return int(extent.value) == 1 if hasattr(extent, "value") else extent == 1


def sigmoid(x: Expr) -> Expr:
    """Returns PyTorch's sigmoid of a float32 tensor, to the last bit.

    PyTorch walks through a tensor with vector code and leaves fewer than VECTOR_RUN elements at its end to the C
    library.
    (With threads it cuts tensors of more than 32768 elements into stretches that end so.)
    """
    return call_tir_op("torch.sigmoid", [x])


def silu(x: Expr) -> Expr:
    """Returns PyTorch's silu of a float32 tensor, to the last bit; its last elements as in sigmoid."""
    return call_tir_op("torch.silu", [x])


def tanh(x: Expr) -> Expr:
    """Returns tanh of a float32 tensor, correctly rounded; PyTorch's differs from that by one unit in the last place
    for six values in ten thousand."""
    return call_tir_op("torch.tanh", [x])


def _infer_same(call: Any, _builder: Any) -> Any:
    return TensorType(_shape(call.args[0]), "float32")


def _legalize_with_end(function: Callable[..., Expr]) -> Legalize:
    """Returns how an op of function(x, exp_of) is legalized: exp is SLEEF's, at the tensor's end the C library's."""

    def legalize(builder: Any, call: Any) -> Expr:
        def compute(x: Any, table: Any) -> Any:
            size = product(x.shape)
            whole = size // tir_math.VECTOR_RUN * tir_math.VECTOR_RUN

            def element(*index: Any) -> Any:
                value = x(*index)
                if isinstance(size, int) and whole == size:
                    return function(value)
                rest = function(value, lambda exponent: tir_math.exp_c(exponent, table))
                if isinstance(size, int) and whole == 0:
                    return rest
                return T.if_then_else(_flat(index, x.shape) < whole, function(value), rest)

            return te.compute(x.shape, element, name=function.__name__)

        return builder.call_te(compute, call.args[0], relax.const(tir_math.EXP_C_TABLE, "float64"))

    return legalize


def _flat(index: tuple[Any, ...], shape: Sequence[Any]) -> Any:
    flat = index[0] if index else 0
    for i, extent in zip(index[1:], shape[1:], strict=True):
        flat = flat * extent + i
    return flat


def _legalize_tanh(builder: Any, call: Any) -> Expr:
    def compute(x: Any) -> Any:
        return te.compute(_shape(call), lambda *index: tir_math.tanh(x(*index)), name="tanh")

    return builder.call_te(compute, call.args[0])


define_tir_op("torch.fma", "a * b + c, rounded once", ("a", "b", "c"), _infer_fma, _legalize_fma)
define_tir_op("torch.sigmoid", "PyTorch's sigmoid", ("x",), _infer_same, _legalize_with_end(tir_math.sigmoid))
define_tir_op("torch.silu", "PyTorch's silu", ("x",), _infer_same, _legalize_with_end(tir_math.silu))
define_tir_op("torch.tanh", "tanh, correctly rounded", ("x",), _infer_same, _legalize_tanh)
