"""FoldConstants: what follows from constants alone is computed here, in numpy.

TVM's FoldConstant compiles a function with LLVM for every op and shape that it evaluates, which was a third of the time
that small programs took to compile. It still folds what has no row here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant, relax, tvm
from qtorch_relay.lowering.rebuild import op_name

Array = np.ndarray[Any, Any]
Fold = Callable[..., Array | None]


@tvm.transform.module_pass(opt_level=0, name="FoldConstants")
class FoldConstants:
    """Binds constants in place of what functions compute from constants by moves, casts and exact arithmetic.

    Their users still read variables. A constant as operand would be written into the code, where the code generator
    could see that a float64 fits float32 and narrow the arithmetic.

    Before: a = R.astype(const, "int32"); b = R.subtract(a, const)
    After:  a = const; b = const
    """

    def transform_module(self, mod: Any, _context: Any) -> Any:
        """Returns the module with constants folded."""
        folded = mod.clone()
        for global_var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                folded.update_func(global_var, _fold_function(function))
        return folded


def _fold_function(function: Any) -> Any:
    known: dict[Any, Array] = {}
    blocks = [
        type(block)([_with_constant(binding, known) for binding in block.bindings]) for block in function.body.blocks
    ]
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _with_constant(binding: Any, known: dict[Any, Array]) -> Any:
    """Returns the binding, of a constant if what is called follows from known values; known learns what is bound."""
    expr = binding.value
    if is_constant(expr):
        known[binding.var] = constant_array(expr)
        return binding
    if expr in known:
        known[binding.var] = known[expr]
        return binding
    value = _fold(expr, known)
    if value is None:
        return binding
    known[binding.var] = value
    return relax.VarBinding(binding.var, relax.const(value, str(value.dtype)))


def _fold(expr: Any, known: dict[Any, Array]) -> Array | None:
    """Returns the value of a call, None if it is not folded."""
    fold = FOLDS.get(op_name(expr))
    if fold is None:
        return None
    operands = []
    for argument in expr.args:
        if isinstance(argument, relax.ShapeExpr):
            continue
        operand = constant_array(argument) if is_constant(argument) else known.get(argument)
        if operand is None:
            return None
        operands.append(operand)
    with np.errstate(all="ignore"):
        value = fold(expr, *operands)
    return None if value is None else np.ascontiguousarray(value).reshape(value.shape)


def _cast(call: Any, data: Array) -> Array | None:
    """Returns the elements cast; a float that fits no integer is left to the target's own instruction."""
    dtype = np.dtype(str(call.ty.dtype))
    return None if data.dtype.kind == "f" and dtype.kind != "f" else data.astype(dtype)


def _move(call: Any, data: Array) -> Array:
    """Returns the same elements in the shape of the result."""
    return data.reshape([int(extent) for extent in call.ty.shape.values])


def _permute(call: Any, data: Array) -> Array:
    return data.transpose(None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes])


def _exactly(function: Callable[[Array, Array], Array]) -> Fold:
    """Returns the fold of an op that is rounded once or wraps around, as IEEE 754 and two's complement say."""
    return lambda _call, lhs, rhs: function(lhs, rhs)


FOLDS: dict[str, Fold] = {
    "relax.astype": _cast,
    "relax.reshape": _move,
    "relax.expand_dims": _move,
    "relax.squeeze": _move,
    "relax.permute_dims": _permute,
    "relax.add": _exactly(np.add),
    "relax.subtract": _exactly(np.subtract),
    "relax.multiply": _exactly(np.multiply),
}
