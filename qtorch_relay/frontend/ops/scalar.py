"""Converters of ops on Python numbers and shapes: computed at import, they leave nothing in the program."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue, TensorValue


def _number(value: Any) -> Any:
    """Returns a Python number for a 0-dimensional constant tensor."""
    return value.reshape(-1)[0].item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _fold(name: str, function: Callable[..., Any], *, arguments: int | None = None) -> None:
    @converter(name, lowering="computed at import")
    def convert(context: ImportContext, node: Node) -> Any:
        values = [_number(value) for value in context.arguments(node)][:arguments]
        for value in values:
            if isinstance(value, QuantizedValue | TensorValue):
                raise context.unsupported(node, f"needs numbers known at import, found {describe(value)}")
        return function(*values)


def _floor_divide(a: Any, b: Any) -> Any:
    return a // b


def _truncate(value: float) -> int:
    return int(value)


_FOLDED: dict[str, Callable[..., Any]] = {
    "prim::NumToTensor.Scalar": lambda value: value,
    "prim::NumToTensor": lambda value: value,
    "aten::Int": _truncate,
    "aten::ScalarImplicit": lambda value: value,
    "aten::IntImplicit": _truncate,
    "aten::Float": float,
    "aten::Bool": bool,
    "aten::add.int": operator.add,
    "aten::sub.int": operator.sub,
    "aten::mul.int": operator.mul,
    "aten::floordiv": _floor_divide,
    "aten::remainder.int": operator.mod,
    "aten::eq.int": operator.eq,
    "aten::ne.int": operator.ne,
    "aten::lt.int": operator.lt,
    "aten::gt.int": operator.gt,
    "aten::le.int": operator.le,
    "aten::ge.int": operator.ge,
    "aten::neg.int": operator.neg,
    "aten::__not__": operator.not_,
    "aten::__and__.bool": lambda a, b: a and b,
    "aten::__or__.bool": lambda a, b: a or b,
    "aten::__is__": lambda a, b: a is b,
    "aten::__isnot__": lambda a, b: a is not b,
    "prim::unchecked_cast": lambda value: value,
}
for _name, _function in _FOLDED.items():
    _fold(_name, _function)
for _name in ("aten::floor_divide",):
    _fold(_name, _floor_divide, arguments=2)


@converter("aten::size.int", lowering="computed at import")
def size_of_dim(context: ImportContext, node: Node) -> int:
    """aten::size.int(Tensor self, int dim) -> int"""
    return context.any_tensor(node, "self").shape[context.integer(node, "dim")]


@converter("aten::size", lowering="computed at import")
def size(context: ImportContext, node: Node) -> list[int]:
    """aten::size(Tensor self) -> int[]"""
    return list(context.any_tensor(node, "self").shape)


@converter("aten::dim", lowering="computed at import")
def dim(context: ImportContext, node: Node) -> int:
    """aten::dim(Tensor self) -> int"""
    return len(context.any_tensor(node, "self").shape)


@converter("aten::len.t", lowering="computed at import")
def length(context: ImportContext, node: Node) -> int:
    """aten::len.t(t[] a) -> int"""
    return len(context.argument(node, "a"))


@converter("aten::__getitem__.t", lowering="computed at import")
def getitem(context: ImportContext, node: Node) -> Any:
    """aten::__getitem__.t(t[](a) list, int idx) -> t(*)"""
    return context.argument(node, "list")[context.integer(node, "idx")]
