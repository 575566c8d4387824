"""The registry of op converters: torch op name -> function (context, node) -> value; and of the ops that need none or
are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from qtorch_relay.capture.graph import Node

if TYPE_CHECKING:
    from qtorch_relay.frontend.context import ImportContext

Convert = Callable[["ImportContext", Node], Any]
Data = TypeVar("Data")

# What exact says of an op that takes codes and floats, and of float ops whose sums PyTorch leaves to other libraries.
CODES_EXACT = "codes: all engines; floats: within rounding"
UP_TO_ORDER = "up to the order of float additions"
IN_MKLS_ORDER = (
    "float32 of at least 4 rows and 12 columns on CPUs with AVX-512; else up to the order of float additions"
)

_NAME = re.compile(r"^[a-z_]+::[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?$")


@dataclass(frozen=True)
class Converter:
    """One converter: the op's name (with its overload, or without for all overloads), the function, and what it
    becomes.

    exact: where its results are equal to PyTorch's to the last bit, in a few words. note: where PyTorch is not
    consistent with itself, and what ours gives there.
    """

    op: str
    convert: Convert
    lowering: str
    exact: str
    note: str


@dataclass(frozen=True)
class Folding:
    """An op that PyTorch itself runs at import, on constants, so that nothing of it is left; how says in a few
    words what becomes of it."""

    op: str
    how: str


@dataclass(frozen=True)
class Refusal:
    """An op that is known and cannot be imported: why, and the nearest form that can ("" if there is none)."""

    op: str
    reason: str
    nearest: str


CONVERTERS: dict[str, Converter] = {}
FOLDINGS: dict[str, Folding] = {}
REFUSALS: dict[str, Refusal] = {}


def converter(*ops: str, lowering: str, exact: str = "all engines", note: str = "") -> Callable[[Convert], Convert]:
    """Registers a function for these ops.

    lowering says in a few words what they become ("qnn.conv2d + qnn.requantize"); exact and note as in Converter.
    """

    def register(function: Convert) -> Convert:
        for op in ops:
            _check_new(op)
            CONVERTERS[op] = Converter(op, function, lowering, exact, note)
        return function

    return register


def converter_of(
    ops: Mapping[str, Data], *, lowering: str, exact: str = "all engines", note: str = ""
) -> Callable[[Callable[[ImportContext, Node, Data], Any]], Convert]:
    """Registers a function for ops that differ in one thing, which it is given as its last argument.

    ops: what each op hands over; lowering, exact and note as in converter.
    """
    by_op = dict(ops)

    def register(function: Callable[[ImportContext, Node, Data], Any]) -> Convert:
        @wraps(function)
        def convert(context: ImportContext, node: Node) -> Any:
            return function(context, node, by_op[node.op] if node.op in by_op else by_op[node.name])

        return converter(*by_op, lowering=lowering, exact=exact, note=note)(convert)

    return register


def fold(*ops: str, how: str) -> None:
    """Registers ops that act on the model's constants and are run at import."""
    for op in ops:
        _check_new(op)
        FOLDINGS[op] = Folding(op, how)


def refuse(*ops: str, reason: str, nearest: str = "") -> None:
    """Registers ops that cannot be imported, so that the error and the table of ops can say why."""
    for op in ops:
        _check_new(op)
        REFUSALS[op] = Refusal(op, reason, nearest)


def find_converter(node: Node) -> Converter | None:
    """Returns the converter of a node's overload, else of its op, else None."""
    return CONVERTERS.get(node.op) or CONVERTERS.get(node.name)


def find_refusal(node: Node) -> Refusal | None:
    """Returns why a node's overload or op is refused, else None."""
    return REFUSALS.get(node.op) or REFUSALS.get(node.name)


def _check_new(op: str) -> None:
    if not _NAME.match(op):
        raise ValueError(f"{op!r} is not of the form namespace::name[.overload]")
    if op in CONVERTERS or op in FOLDINGS or op in REFUSALS:
        raise ValueError(f"{op} is registered twice")
