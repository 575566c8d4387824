"""The text of one Relay function while it is being written: numbered lines, literals, parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.context import identifier
from qtorch_relay.relay.legend import legend
from qtorch_relay.relay.options import Options

VERSION_LINE = '#[version = "0.0.5"]'
# Numbers that Relay's parser reads as they are, by dtype: what comes behind the digits.
_SUFFIXES = {"float32": "f", "float64": "f64", "int32": "", "int64": "i64"}


class Writer:
    """Lines `%n = op(...) /* name: type */;` of main, in order, and the parameters that they name.

    inputs: names of the model's inputs. arrays: values of main's other parameters by name. names: what constant
    vectors are called, by dtype and bytes.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]],
        options: Options,
        names: Mapping[tuple[str, bytes], str],
    ) -> None:
        self.options = options
        self.layer = ""
        self.params: dict[str, np.ndarray[Any, Any]] = {}
        self._inputs = dict(inputs)
        self._arrays, self._names = arrays, names
        self._lines: list[str] = []
        self._values: dict[Any, str] = {}
        self._makers: dict[str, str] = {}
        self._made: dict[tuple[str, str, bytes, tuple[int, ...]], str] = {}
        self._once: dict[tuple[str, str], str] = {}
        self._count = 0

    # ---- lines

    def op(self, name: str, *operands: str, **attributes: Any) -> str:
        """Returns the text of a call; attributes are plain Python values."""
        written = [*operands, *(f"{key}={attribute(value)}" for key, value in attributes.items())]
        return f"{name}({', '.join(written)})"

    def emit(self, text: str, comment: str = "") -> str:
        """Appends a line that computes text and returns the name of its value.

        What has no comment of its own gets the name of the layer that it is part of.
        """
        if re.fullmatch(r"%\w+|-?\d[\w.+-]*", text):  # a value that has a name, or a number
            return text
        name, self._count = f"%{self._count}", self._count + 1
        note = comment or f"part of {self.layer}"
        self._lines.append(f"  {name} = {text}; /* {note} */")
        self._makers[name] = text.partition("(")[0]
        return name

    def emit_once(self, text: str) -> str:
        """Returns the value of a line that the layer has already, of a new one if it has none."""
        key = (self.layer, text)
        if key not in self._once:
            self._once[key] = self.emit(text)
        return self._once[key]

    def maker(self, text: str) -> str:
        """Returns the name of the op whose line gives a value, "" of a parameter or a literal."""
        return self._makers.get(text, "")

    def bind(self, var: Any, text: str, comment: str) -> None:
        """Gives a variable of the module its value: a line of its own unless text names one already."""
        self._values[var] = self.emit(text, comment)

    # ---- operands

    def operand(self, expr: Any) -> str:
        """Returns what stands for an expression in a call: a value's name, a literal, a parameter, a tuple of these."""
        if isinstance(expr, relax.Var):
            return self._values.get(expr) or self._parameter_of(expr)
        if is_constant(expr):
            return self.constant(constant_array(expr))
        if isinstance(expr, relax.Tuple):
            return self.tuple(self.operand(field) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return f"{self.operand(expr.tuple_value)}.{int(expr.index)}"
        raise UnsupportedOpError(f"an expression of class {type(expr).__name__} has no Relay text")

    def tuple(self, texts: Any) -> str:
        """Returns the text of a tuple."""
        written = list(texts)
        return f"({', '.join(written)}{',' if len(written) == 1 else ''})"

    def array(self, expr: Any) -> np.ndarray[Any, Any] | None:
        """Returns the value of a constant or of a weight, None of anything that is known at run time."""
        if is_constant(expr):
            array: np.ndarray[Any, Any] = constant_array(expr)
            return array
        return self._arrays.get(str(expr.name)) if isinstance(expr, relax.Var) else None

    def constant(self, array: np.ndarray[Any, Any], hint: str = "constant") -> str:
        """Returns a literal of a single number, else a parameter <layer>_<hint> that holds the array."""
        if array.ndim == 0:
            return literal(array[()])
        key = (self.layer, str(array.dtype), array.tobytes(), array.shape)
        if key not in self._made:
            self._made[key] = self.parameter(f"{self.layer}_{self._names.get(key[1:3], hint)}", array)
        return self._made[key]

    def parameter(self, name: str, array: np.ndarray[Any, Any]) -> str:
        """Returns a new parameter of main with this value; another one of that name is numbered."""
        unique, number = name, 1
        while unique in self.params or unique in self._inputs or unique in self._arrays:
            number += 1
            unique = f"{name}_{number}"
        self.params[unique] = array
        return f"%{unique}"

    def _parameter_of(self, var: Any) -> str:
        name = identifier(str(var.name))
        if name not in self._inputs and name not in self.params:
            self.params[name] = self._arrays[str(var.name)]
        return f"%{name}"

    # ---- the whole

    def text(self, result: Any, types: str) -> str:
        """Returns the module's text; types: that of what main returns."""
        params = [f"%{name}: {ty}" for name, ty in self._inputs.items()]
        params += [f"%{name}: {tensor_type(array.shape, str(array.dtype))}" for name, array in self.params.items()]
        returned = self.operand(result)
        head = f"def @main(\n  {', '.join(params[: len(self._inputs)])}"
        head += "".join(f",\n  {param}" for param in params[len(self._inputs) :])
        lines = [f"{head}\n) -> {types} {{", *self._lines, f"  {returned}", "}", ""]
        return "\n".join([VERSION_LINE, legend(self._lines), *lines])


def tensor_type(shape: Any, dtype: str) -> str:
    """Returns Relay's text of a tensor type."""
    return f"Tensor[({', '.join(str(int(extent)) for extent in shape)}), {dtype}]"


def attribute(value: Any) -> str:
    """Returns an attribute's text."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return f"{value!r}{'f' if abs(value) <= float(np.finfo(np.float32).max) else 'f64'}"
    return f"[{', '.join(attribute(item) for item in value)}]"


def literal(number: Any) -> str:
    """Returns the text of a single number of a numpy dtype; what the parser has no literal for is cast.

    Nine digits tell a float32 from all others, and 17 a float64.
    """
    dtype = str(number.dtype)
    if dtype == "bool":
        return str(bool(number))
    if dtype in ("float32", "float64"):
        suffix = _SUFFIXES[dtype]
        if not math.isfinite(number):
            sign = 0 if math.isnan(number) else (1 if number > 0 else -1)
            return f"divide({sign}{suffix}, 0{suffix})"
        return f"{float(number):.{9 if dtype == 'float32' else 17}g}{suffix}"
    if dtype in _SUFFIXES:
        return f"{int(number)}{_SUFFIXES[dtype]}"
    return f'cast({float(number):.9g}f, dtype="{dtype}")' if dtype == "float16" else f'cast({number}, dtype="{dtype}")'
