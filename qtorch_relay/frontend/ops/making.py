"""Converters of ops that make a tensor of a shape alone; torch folds them where nothing is written there."""

from __future__ import annotations

from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.conversion import DTYPES
from qtorch_relay.frontend.ops.filling import filled
from qtorch_relay.frontend.registry import converter, converter_of
from qtorch_relay.frontend.values import TensorValue


@converter_of({"aten::zeros": 0, "aten::ones": 1}, lowering="full")
def zeros(context: ImportContext, node: Node, number: int) -> TensorValue:
    """aten::zeros(SymInt[] size, *, ScalarType? dtype=None, ...) -> Tensor"""
    return _made(context, node, number, "float32")


@converter("aten::empty.memory_format", lowering="full", note="uninitialized memory in PyTorch; ours holds zeros")
def empty(context: ImportContext, node: Node) -> TensorValue:
    """aten::empty.memory_format(SymInt[] size, *, ScalarType? dtype=None, ...) -> Tensor"""
    return _made(context, node, 0, "float32")


@converter("aten::full", lowering="full")
def full(context: ImportContext, node: Node) -> TensorValue:
    """aten::full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, ...) -> Tensor"""
    number = context.number(node, "fill_value")
    default = "bool" if isinstance(number, bool) else "int64" if isinstance(number, int) else "float32"
    return _made(context, node, number, default)


@converter_of({"aten::new_zeros": 0, "aten::new_ones": 1, "aten::new_empty": 0}, lowering="full")
def new_zeros(context: ImportContext, node: Node, number: int) -> TensorValue:
    """aten::new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None, ...) -> Tensor"""
    return _made(context, node, number, context.tensor(node, "self").dtype)


@converter("aten::new_full", lowering="full")
def new_full(context: ImportContext, node: Node) -> TensorValue:
    """aten::new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, ...) -> Tensor"""
    return _made(context, node, context.number(node, "fill_value"), context.tensor(node, "self").dtype)


def _made(context: ImportContext, node: Node, number: float, default: str) -> TensorValue:
    """Returns a tensor of one number; default is the dtype where none is given."""
    given = context.argument(node, "dtype")
    dtype = default if given is None else DTYPES.get(given, "")
    return filled(context, node, context.integers(node, "size"), number, dtype)
