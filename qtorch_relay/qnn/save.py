"""save_module: a module of the dialect, or of plain Relax, as JSON that load_module reads back.

TVM 0.27's own tvm.ir.save_json crashes on every module with a typed tensor, qnn or not: the wheel's PrimType hashes
itself through a function of another calling convention than its tvm_ffi expects. Here the graph is written out by hand:

  {"format": "qtorch_relay.qnn", "version": 1, "functions": {name: function}}
  function: {"params": [variable], "pure": bool, "return": type, "attrs": {...}, "blocks": [block], "result": expr}
  block:    {"dataflow": bool, "bindings": [{"var": variable, "value": expression} or with "cast": type]}
  variable: {"id": n, "name": str, "type": type, "dataflow": bool}, and {"var": n} where it is used
  type:     {"tensor": [dtype or null, [extent] or null, rank]}, {"tuple": [type]}, {"shape": [extent] or rank},
            {"prim": dtype}, "any"
  expression: {"call": op, "args", "attrs", "attrs_type", "types"}, {"call_global": name, "args"}, {"var"},
            {"const": [dtype, shape, base64]}, {"tuple"}, {"item": [expression, n]}, {"shape": [extent]},
            {"if": [condition, sequence, sequence]}, or an extent
  extent:   a number, {"number": [dtype, value]}, {"var"} or {"prim": [operator, extent, extent]}
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from qtorch_relay._tvm import (
    BINARY_PRIM_OPS,
    FloatImm,
    GlobalVar,
    IntImm,
    Op,
    attr_fields,
    constant_array,
    is_constant,
    relax,
    tvm,
)
from qtorch_relay.errors import ModelFileError

FORMAT, VERSION = "qtorch_relay.qnn", 1


def save_module(mod: Any, path: str | Path) -> None:
    """Writes a module to a file; load_module gives a structurally equal one.

    Raises: ModelFileError for what the format has no word for (TIR functions, nested functions).
    """
    Path(path).write_text(module_json(mod), encoding="utf-8")


def module_json(mod: Any) -> str:
    """Returns the text that save_module writes."""
    functions = {}
    for name, function in mod.functions_items():
        if not isinstance(function, relax.Function):
            raise ModelFileError(f"{name.name_hint} is a TIR function; a module is saved before it is lowered")
        functions[str(name.name_hint)] = _Writer().function(function)
    return json.dumps({"format": FORMAT, "version": VERSION, "functions": functions})


class _Writer:
    """Writes one function; variables are numbered as they appear."""

    def __init__(self) -> None:
        self._ids: dict[Any, int] = {}

    def function(self, function: Any) -> dict[str, Any]:
        """Returns a function's JSON."""
        return {
            "params": [self.variable(param) for param in function.params],
            "pure": bool(function.is_pure),
            "return": self.type(function.ret_ty),
            "attrs": {} if function.attrs is None else self.attributes(function.attrs),
            **self.sequence(function.body),
        }

    def sequence(self, body: Any) -> dict[str, Any]:
        """Returns the JSON of blocks and of the expression that they end in."""
        blocks = [
            {
                "dataflow": isinstance(block, relax.DataflowBlock),
                "bindings": [self.binding(binding) for binding in block.bindings],
            }
            for block in body.blocks
        ]
        return {"blocks": blocks, "result": self.expression(body.body)}

    def binding(self, binding: Any) -> dict[str, Any]:
        """Returns a binding's JSON; the value first, since its variable is not known in it."""
        value = self.expression(binding.value)
        cast = {"cast": self.type(binding.ty)} if isinstance(binding, relax.MatchCast) else {}
        return {"value": value, **cast, "var": self.variable(binding.var)}

    def variable(self, variable: Any) -> dict[str, Any]:
        """Returns the JSON of a variable where it is defined."""
        return {
            "id": self._id(variable),
            "name": str(variable.name),
            "type": self.type(variable.ty),
            "dataflow": isinstance(variable, relax.DataflowVar),
        }

    def _id(self, variable: Any) -> int:
        return self._ids.setdefault(variable, len(self._ids))

    def type(self, ty: Any) -> Any:
        """Returns a type's JSON."""
        if isinstance(ty, relax.TensorType):
            shape = None if ty.shape is None else [self.expression(extent) for extent in ty.shape.values]
            return {"tensor": [None if ty.dtype is None else str(ty.dtype.dtype), shape, int(ty.ndim)]}
        if isinstance(ty, relax.TupleType):
            return {"tuple": [self.type(field) for field in ty.fields]}
        if isinstance(ty, relax.ShapeType):
            extents = ty.values
            return {"shape": int(ty.ndim) if extents is None else [self.expression(extent) for extent in extents]}
        if isinstance(ty, tvm.ir.PrimType):
            return {"prim": str(ty.dtype)}
        if isinstance(ty, relax.AnyType):
            return "any"
        raise ModelFileError(f"a value of type {ty} cannot be saved")

    def expression(self, expr: Any) -> Any:
        """Returns an expression's JSON."""
        if isinstance(expr, relax.Var):
            return {"var": self._variable_use(expr)}
        if is_constant(expr):
            return _array_json(constant_array(expr))
        if isinstance(expr, IntImm | FloatImm):
            return {"number": [str(expr.ty.dtype), expr.value]}
        if isinstance(expr, relax.Call):
            return self._call(expr)
        if isinstance(expr, relax.Tuple):
            return {"tuple": [self.expression(field) for field in expr.fields]}
        if isinstance(expr, relax.TupleGetItem):
            return {"item": [self.expression(expr.tuple_value), int(expr.index)]}
        if isinstance(expr, relax.ShapeExpr):
            return {"shape": [self.expression(extent) for extent in expr.values]}
        if isinstance(expr, relax.If):
            branches = (self.sequence(branch) for branch in (expr.true_branch, expr.false_branch))
            return {"if": [self.expression(expr.cond), *branches]}
        operator = type(expr).__name__
        if operator in BINARY_PRIM_OPS:
            return {"prim": [operator, self.expression(expr.a), self.expression(expr.b)]}
        raise ModelFileError(f"an expression of class {operator} cannot be saved")

    def _variable_use(self, variable: Any) -> Any:
        # a symbolic extent is defined by its first use: then its name and dtype are written beside its number
        if variable in self._ids or not isinstance(variable.ty, tvm.ir.PrimType):
            return self._id(variable)
        return {"id": self._id(variable), "name": str(variable.name), "prim": str(variable.ty.dtype)}

    def _call(self, call: Any) -> dict[str, Any]:
        arguments = [self.expression(argument) for argument in call.args]
        if isinstance(call.op, GlobalVar):
            return {"call_global": str(call.op.name_hint), "args": arguments}
        if not isinstance(call.op, Op):
            raise ModelFileError(f"a call of {call.op} cannot be saved")
        result: dict[str, Any] = {"call": str(call.op.name), "args": arguments}
        if call.attrs is not None:
            result |= {"attrs": self.attributes(call.attrs), "attrs_type": attr_fields(call.attrs)[0]}
        if len(call.ty_args):
            result["types"] = [self.type(ty) for ty in call.ty_args]
        return result

    def attributes(self, attrs: Any) -> dict[str, Any]:
        """Returns the attributes' JSON by name."""
        return {name: self.attribute(value) for name, value in attr_fields(attrs)[1].items()}

    def attribute(self, value: Any) -> Any:
        """Returns an attribute value's JSON: plain where it is plain."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, IntImm | FloatImm):
            return {"number": [str(value.ty.dtype), value.value]}
        if isinstance(value, tvm.DataType) or type(value).__name__ == "dtype":
            return {"dtype": str(value)}
        if type(value).__name__ in ("Array", "List", "list", "tuple"):
            return [self.attribute(item) for item in value]
        raise ModelFileError(f"an attribute {value!r} of class {type(value).__name__} cannot be saved")


def _array_json(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"const": [str(array.dtype), list(array.shape), data]}
