"""Readable text of a QNN module: one line per op, names that say where values come from, parameters by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import Call, Op, constant_array, is_constant, relax
from qtorch_relay.dimensions import size_text
from qtorch_relay.qnn.op_def import OPS, Operands

_SHOWN_NUMBERS = 4


def to_text(mod: Any) -> str:
    """Returns the text of main: its parameters, then one line per binding with operand and attribute names.

    Scalars are written in place; vectors as their dtype, shape and first numbers; defaults are written too, so that a
    line
    says all there is to know.
    """
    main = mod["main"]
    inputs = int(main.attrs["num_input"]) if main.attrs and "num_input" in main.attrs else len(main.params)
    lines = ["def main("]
    for i, param in enumerate(main.params):
        if i == inputs:
            lines.append("  # weights")
        lines.append(f"  {param.name}: {type_text(param)},")
    lines.append("):")
    for block in main.body.blocks:
        for binding in block.bindings:
            lines.append(f"  {binding.var.name}: {type_text(binding.var)} = {_value(binding.value)}")
    lines.append(f"  return {_value(main.body.body)}")
    return "\n".join(lines)


def type_text(expr: Any) -> str:
    """Returns the dtypes and sizes of a value, as "uint8[1, 8, 8]", of a tuple in parentheses."""
    ty = expr.ty
    if hasattr(ty, "fields"):
        return f"({', '.join(_tensor(field) for field in ty.fields)})"
    return _tensor(ty)


def _tensor(ty: Any) -> str:
    return f"{ty.dtype}[{', '.join(size_text(extent) for extent in ty.shape.values)}]"


def _value(expr: Any) -> str:
    if isinstance(expr, relax.Var):
        return str(expr.name)
    if is_constant(expr):
        return _constant(constant_array(expr))
    if isinstance(expr, relax.Tuple):
        return f"({', '.join(_value(field) for field in expr.fields)})"
    if isinstance(expr, relax.TupleGetItem):
        return f"{_value(expr.tuple_value)}[{expr.index}]"
    if isinstance(expr, Call) and isinstance(expr.op, Op):
        return _call(expr)
    return str(expr).split("\n")[0]


def _constant(array: np.ndarray[Any, Any]) -> str:
    if array.ndim == 0 or array.size == 1:
        return _number(array.reshape(-1)[0])
    shown = ", ".join(_number(value) for value in array.reshape(-1)[:_SHOWN_NUMBERS])
    more = ", ..." if array.size > _SHOWN_NUMBERS else ""
    return f"{array.dtype}{list(array.shape)}({shown}{more})"


def _number(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, np.floating) else str(value)


def _call(call: Any) -> str:
    name = call.op.name
    if name in OPS:
        named = Operands(call)
        operands = [
            _value(named[label])
            if label in ("data", "lhs", "rhs", "kernel", "weight")
            else f"{label}={_value(named[label])}"
            for label in named.names
        ]
        attributes = [f"{key}={_attribute(value)}" for key, value in named.attrs.items()]
        return f"{name}({', '.join(operands + attributes)})"
    operands = [_value(argument) for argument in call.args]
    attributes = []
    if call.attrs is not None:
        attributes = [f"{field}={_attribute(getattr(call.attrs, field))}" for field in _attribute_names(call.attrs)]
    return f"{name.removeprefix('relax.')}({', '.join(operands + attributes)})"


def _attribute_names(attrs: Any) -> list[str]:
    return [field.name for field in type(attrs).__tvm_ffi_type_info__.fields]


def _attribute(value: Any) -> str:
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, tuple) or type(value).__name__ == "Array":
        return f"[{', '.join(_attribute(item) for item in value)}]"
    return str(value)
