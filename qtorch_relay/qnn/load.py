"""load_module: reads what save_module wrote. No code of the file is run, and its sizes are checked."""

from __future__ import annotations

import base64
import binascii
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from qtorch_relay._tvm import (
    BINARY_PRIM_OPS,
    FloatImm,
    GlobalVar,
    IntImm,
    Op,
    dict_attrs,
    make_node,
    relax,
    tvm,
    update_type,
)
from qtorch_relay.errors import ModelFileError
from qtorch_relay.qnn.save import FORMAT, VERSION

# A module of ResNet-152 in int8 has 80 MB.
MAX_BYTES = 4 << 30
MAX_RANK = 32
# The ops that a module may call: Relax's, and ours.
OPS_OF = ("relax.", "qnn.", "torch.")


def load_module(path: str | Path) -> Any:
    """Returns the module that a file of save_module holds, structurally equal to the one saved.

    The format has no checksum: a file whose numbers were altered is read as what it says.
    Raises: ModelFileError if the file cannot be read, is not a saved module, or is larger than 4 GiB.
    """
    try:
        size = Path(path).stat().st_size
        if size > MAX_BYTES:
            raise ModelFileError(f"{path} has {size} bytes; at most {MAX_BYTES} are read")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ModelFileError(f"a saved module is JSON; {path} is not text: {error}") from error
    return module_of_json(text)


def module_of_json(text: str) -> Any:
    """Returns the module in text of module_json."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"a saved module is JSON; this is not: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise ModelFileError(f"a saved module has format {FORMAT!r} and version {VERSION}")
    try:
        names = {name: GlobalVar(name) for name in data["functions"]}
        functions = {names[name]: _Reader(names).function(value) for name, value in data["functions"].items()}
        return tvm.IRModule(functions)
    except RecursionError as error:
        raise ModelFileError("a saved module nests its expressions too deep") from error
    except (
        KeyError, IndexError, TypeError, ValueError, AttributeError, binascii.Error, tvm.error.InternalError
    ) as error:  # fmt: skip
        raise ModelFileError(f"a saved module is damaged: {type(error).__name__}: {error}") from error


class _Reader:
    """Reads one function."""

    def __init__(self, globals_by_name: dict[str, Any]) -> None:
        self._globals = globals_by_name
        self._variables: dict[int, Any] = {}

    def function(self, data: Any) -> Any:
        """Returns the function."""
        params = [self.variable(param) for param in data["params"]]
        body, returned = self.sequence(data), self.type(data["return"])
        function = relax.Function(params, body, returned, is_pure=bool(data["pure"]))
        return function.with_attrs({name: self.attribute(value) for name, value in data["attrs"].items()})

    def sequence(self, data: Any) -> Any:
        """Returns blocks and the expression they end in."""
        blocks = []
        for block in data["blocks"]:
            bindings = [self.binding(binding) for binding in block["bindings"]]
            blocks.append((relax.DataflowBlock if block["dataflow"] else relax.BindingBlock)(bindings))
        result = self.expression(data["result"])
        sequence = relax.SeqExpr(blocks, result)
        update_type(sequence, result.ty)
        return sequence

    def binding(self, data: Any) -> Any:
        """Returns a binding; the value of a call has its variable's type."""
        value = self.expression(data["value"])
        if "cast" in data:
            cast = self.type(data["cast"])
            return relax.MatchCast(self.variable(data["var"]), value, cast)
        variable = self.variable(data["var"])
        if isinstance(value, relax.Call | relax.If):
            update_type(value, variable.ty)
        return relax.VarBinding(variable, value)

    def variable(self, data: Any) -> Any:
        """Returns a new variable."""
        make = relax.DataflowVar if data["dataflow"] else relax.Var
        self._variables[data["id"]] = make(str(data["name"]), self.type(data["type"]))
        return self._variables[data["id"]]

    def type(self, data: Any) -> Any:
        """Returns a type."""
        if data == "any":
            return relax.AnyType()
        ((kind, value),) = data.items()
        if kind == "tensor":
            dtype, extents, rank = value
            if extents is None:
                return relax.TensorType(dtype=dtype, ndim=rank)
            return relax.TensorType([self.expression(extent) for extent in extents], dtype)
        if kind == "tuple":
            return relax.TupleType([self.type(field) for field in value])
        if kind == "shape":
            if isinstance(value, int):
                return relax.ShapeType(ndim=value)
            return relax.ShapeType([self.expression(extent) for extent in value])
        if kind == "prim":
            return tvm.ir.PrimType(value)
        raise ValueError(f"a type of kind {kind!r}")

    def expression(self, data: Any) -> Any:
        """Returns an expression."""
        if "call" in data:
            return self._call(data)
        if "call_global" in data:
            return relax.Call(self._globals[data["call_global"]], [self.expression(item) for item in data["args"]])
        ((kind, value),) = data.items()
        readers = {
            "var": self._variable_use,
            "const": _constant,
            "number": _number,
            "tuple": lambda fields: relax.Tuple([self.expression(field) for field in fields]),
            "item": lambda pair: relax.TupleGetItem(self.expression(pair[0]), int(pair[1])),
            "shape": lambda extents: relax.ShapeExpr([self.expression(extent) for extent in extents]),
            "if": self._if,
            "prim": self._prim,
        }
        if kind not in readers:
            raise ValueError(f"an expression of kind {kind!r}")
        return readers[kind](value)

    def _variable_use(self, use: Any) -> Any:
        if isinstance(use, int):
            return self._variables[use]
        return self._variables.setdefault(use["id"], tvm.tirx.Var(str(use["name"]), use["prim"]))

    def _prim(self, data: Any) -> Any:
        operator, left, right = data
        return BINARY_PRIM_OPS[operator](self.expression(left), self.expression(right))

    def _if(self, data: Any) -> Any:
        condition, true_branch, false_branch = data
        return relax.If(self.expression(condition), self.sequence(true_branch), self.sequence(false_branch))

    def _call(self, data: Any) -> Any:
        name = data["call"]
        if not name.startswith(OPS_OF):
            raise ValueError(f"a call of {name!r}")
        attrs = None
        if "attrs" in data:
            attrs = self._attributes(data["attrs_type"], data["attrs"])
        arguments = [self.expression(argument) for argument in data["args"]]
        return relax.Call(Op.get(name), arguments, attrs, [self.type(ty) for ty in data.get("types", [])])

    def _attributes(self, kind: str, data: dict[str, Any]) -> Any:
        values = {name: self.attribute(value) for name, value in data.items()}
        if kind == "ir.DictAttrs":
            return dict_attrs(values)
        if not kind.startswith("relax.attrs."):
            raise ValueError(f"attributes of kind {kind!r}")
        return make_node(kind, **values)

    def attribute(self, data: Any) -> Any:
        """Returns an attribute's value."""
        if isinstance(data, list):
            return [self.attribute(item) for item in data]
        if isinstance(data, dict):
            ((kind, value),) = data.items()
            return _number(value) if kind == "number" else tvm.DataType(value)
        return data


def _number(data: Any) -> Any:
    dtype, value = data
    return FloatImm(dtype, value) if dtype.startswith("float") else IntImm(dtype, value)


def _constant(data: Any) -> Any:
    dtype, shape, text = data
    if len(shape) > MAX_RANK or not all(isinstance(extent, int) and extent >= 0 for extent in shape):
        raise ValueError(f"a constant of shape {shape}")
    raw = base64.b64decode(text, validate=True)
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if len(raw) != expected:
        raise ValueError(f"a constant of shape {shape} and dtype {dtype} has {len(raw)} bytes, expected {expected}")
    return relax.const(np.frombuffer(raw, dtype=dtype).reshape(shape), dtype)
