"""How an op of the dialect is defined: its operands, attributes, type rule and checks in one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from qtorch_relay._tvm import Call, Op, TensorType, constant_array, define_relax_op, is_constant, register_error, relax
from qtorch_relay.errors import VerifyError
from qtorch_relay.qparams import CODE_DTYPES, code_range

# Type rules run inside TVM; an error keeps its class on the way through only if TVM knows it.
register_error("VerifyError", VerifyError)

Expr = Any
TypeRule = Callable[["Operands"], Any]
Check = Callable[["Operands"], None]


@dataclass(frozen=True)
class QnnOp:
    """One op of the dialect.

    operands: Relay's, in Relay's order. attributes: Relay's, then ours.
    extensions: further operands (ours), which come last, for each value of the attribute "arithmetic" that has any.
    """

    name: str
    operands: tuple[str, ...]
    attributes: tuple[str, ...]
    type_rule: TypeRule
    check: Check
    extensions: Mapping[str, tuple[str, ...]]

    def __call__(self, operands: Mapping[str, Expr], attributes: Mapping[str, Any]) -> Expr:
        """Returns the call node of this op."""
        arguments = [operands[name] for name in self.operand_names(attributes)]
        return Call(self.relax_op, arguments, attrs=dict(attributes))

    def operand_names(self, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of a call's operands, in order, given its attributes."""
        return (*self.operands, *self.extensions.get(attributes.get("arithmetic", ""), ()))

    @property
    def relax_op(self) -> Any:
        """TVM's op object."""
        return Op.get(self.name)


OPS: dict[str, QnnOp] = {}


class Operands:
    """The operands and attributes of one call, by name."""

    def __init__(self, call: Any) -> None:
        self.op = OPS[call.op.name]
        self.call = call
        self.attrs: dict[str, Any] = {key: _plain(call.attrs[key]) for key in self.op.attributes}
        self.names = self.op.operand_names(self.attrs)
        if len(self.names) != len(call.args):
            raise VerifyError(f"{self.op.name}: {len(call.args)} operands, expected {len(self.names)}: {self.names}")
        self._values = dict(zip(self.names, call.args, strict=True))

    def __getitem__(self, name: str) -> Expr:
        return self._values[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns an operand's static shape."""
        return static_shape(self._values[name])

    def dtype(self, name: str) -> str:
        """Returns an operand's dtype, such as "uint8"."""
        return str(self._values[name].ty.dtype)

    def constant(self, name: str) -> np.ndarray[Any, Any]:
        """Returns a scale or zero point as an array; the dialect wants these to be constants."""
        value = self._values[name]
        if not is_constant(value):
            raise VerifyError(f"{self.op.name}: {name} must be a constant")
        array: np.ndarray[Any, Any] = constant_array(value)
        return array

    def scalar(self, name: str) -> Any:
        """Returns a scale (np.float32) or zero point that must be a single number."""
        array = self.constant(name)
        if array.size != 1:
            raise VerifyError(f"{self.op.name}: {name} must be one number, found shape {array.shape}")
        return array.reshape(-1)[0]


def _plain(value: Any) -> Any:
    """Turns a TVM attribute value into plain Python."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value if not isinstance(value, str) else str(value)
    if hasattr(value, "value") and not hasattr(value, "items"):
        return value.value
    return tuple(_plain(item) for item in value)


def static_shape(expr: Expr) -> tuple[int, ...]:
    """Returns the static shape of a tensor expression."""
    return tuple(int(extent) for extent in expr.ty.shape.values)


def define_op(
    name: str,
    operands: tuple[str, ...],
    attributes: tuple[str, ...],
    type_rule: TypeRule,
    check: Check,
    doc: str,
    extensions: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> QnnOp:
    """Registers an op with TVM and in OPS; a second definition of one name is an error of ours."""
    if name in OPS:
        raise ValueError(f"{name} is defined twice")
    op = QnnOp(name, operands, attributes, type_rule, check, extensions)
    OPS[name] = op

    def infer_type(call: Any, _builder: Any) -> Any:
        return type_rule(Operands(call))

    define_relax_op(name, doc, operands, infer_type)
    return op


def tensor_type(shape: tuple[int, ...], dtype: str) -> Any:
    """Returns a Relax tensor type."""
    return TensorType(shape, dtype)


def as_scale(value: Any) -> Expr:
    """Returns a float32 constant from a number, an array or a constant."""
    return value if hasattr(value, "ty") else relax.const(np.asarray(value, dtype=np.float32), "float32")


def as_zero_point(value: Any) -> Expr:
    """Returns an int32 constant from a number, an array or a constant."""
    return value if hasattr(value, "ty") else relax.const(np.asarray(value, dtype=np.int32), "int32")


def is_run_time(operands: Operands, name: str) -> bool:
    """Says whether an operand is known only when the program runs."""
    return not is_constant(operands[name])


def check_scale(operands: Operands, name: str, axis_length: int | None = None, *, run_time_too: bool = False) -> None:
    """Refuses a scale that is not finite and positive, or has a wrong length.

    run_time_too: it may be known only when the program runs; then its dtype and length are checked.
    """
    if run_time_too and is_run_time(operands, name):
        _check_run_time(operands, name, "float32", axis_length)
        return
    scale = operands.constant(name)
    if str(scale.dtype) != "float32":
        raise VerifyError(f"{operands.op.name}: {name} must be float32, found {scale.dtype}")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise VerifyError(
            f"{operands.op.name}: {name} must be finite and greater than 0, found {scale.reshape(-1)[:4]}"
        )
    _check_length(operands, name, scale, axis_length)


def check_zero_point(
    operands: Operands, name: str, code_dtype: str, axis_length: int | None = None, *, run_time_too: bool = False
) -> None:
    """Refuses a zero point that is not int32, not in the range of its codes, or has a wrong length.

    run_time_too: as in check_scale.
    """
    if run_time_too and is_run_time(operands, name):
        _check_run_time(operands, name, "int32", axis_length)
        return
    zero_point = operands.constant(name)
    if str(zero_point.dtype) != "int32":
        raise VerifyError(f"{operands.op.name}: {name} must be int32, found {zero_point.dtype}")
    low, high = code_range(code_dtype)
    if not ((zero_point >= low).all() and (zero_point <= high).all()):
        raise VerifyError(
            f"{operands.op.name}: {name} must lie in [{low}, {high}] for {code_dtype}, "
            f"found {zero_point.reshape(-1)[:4]}"
        )
    _check_length(operands, name, zero_point, axis_length)


def _check_run_time(operands: Operands, name: str, dtype: str, axis_length: int | None) -> None:
    check_dtype(operands, name, (dtype,))
    if operands.shape(name) not in ((), (1,), (axis_length,)):
        expected = "one number" if axis_length is None else f"one number or a vector of {axis_length}"
        raise VerifyError(f"{operands.op.name}: {name} must be {expected}, found shape {operands.shape(name)}")


def _check_length(operands: Operands, name: str, value: np.ndarray[Any, Any], axis_length: int | None) -> None:
    if value.size != 1 and (value.ndim != 1 or value.shape[0] != axis_length):
        expected = "one number" if axis_length is None else f"one number or a vector of {axis_length}"
        raise VerifyError(f"{operands.op.name}: {name} must be {expected}, found shape {value.shape}")


def check_dtype(operands: Operands, name: str, accepted: tuple[str, ...]) -> None:
    """Refuses an operand of another dtype."""
    found = operands.dtype(name)
    if found not in accepted:
        raise VerifyError(f"{operands.op.name}: {name} must be {' or '.join(accepted)}, found {found}")


def check_vector(operands: Operands, name: str, length: int) -> None:
    """Refuses a float32 operand that is neither one number nor a vector of this length."""
    check_dtype(operands, name, ("float32",))
    if operands.shape(name) not in ((), (1,), (length,)):
        raise VerifyError(f"{operands.op.name}: {name} must have shape ({length},), found {operands.shape(name)}")


def check_choice(operands: Operands, attribute: str, accepted: tuple[Any, ...]) -> None:
    """Refuses an attribute value that is not in the list."""
    found = operands.attrs[attribute]
    if found not in accepted:
        raise VerifyError(f"{operands.op.name}: {attribute} must be one of {accepted}, found {found!r}")


CODES_8BIT = ("uint8", "int8")
ALL_CODES = CODE_DTYPES
