"""The registry of op converters: torch op name -> function (context, node) -> value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtorch_relay.capture.graph import Node

if TYPE_CHECKING:
    from qtorch_relay.frontend.context import ImportContext

Convert = Callable[["ImportContext", Node], Any]

_NAME = re.compile(r"^[a-z_]+::[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?$")


@dataclass(frozen=True)
class Converter:
    """One converter: the op's name (with its overload, or without for all overloads), the function, and what it
    becomes."""

    op: str
    convert: Convert
    lowering: str


CONVERTERS: dict[str, Converter] = {}


def converter(*ops: str, lowering: str) -> Callable[[Convert], Convert]:
    """Registers a function for these ops. lowering says in a few words what they become ("qnn.conv2d +
    qnn.requantize")."""

    def register(function: Convert) -> Convert:
        for op in ops:
            if not _NAME.match(op):
                raise ValueError(f"{op!r} is not of the form namespace::name[.overload]")
            if op in CONVERTERS:
                raise ValueError(f"{op} has two converters")
            CONVERTERS[op] = Converter(op, function, lowering)
        return function

    return register


def find_converter(node: Node) -> Converter | None:
    """Returns the converter of a node's overload, else of its op, else None."""
    return CONVERTERS.get(node.op) or CONVERTERS.get(node.name)
