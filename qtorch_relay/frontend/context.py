"""ImportContext: what a converter can ask for while one graph is imported."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import (
    ConvParams,
    EmbeddingParams,
    LinearParams,
    Node,
    Operand,
    QuantizedConstant,
    TensorConstant,
    Value,
)
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.values import (
    AnyQuantized,
    ChannelwiseValue,
    QuantizedValue,
    RunTimeQuantizedValue,
    TensorValue,
)
from qtorch_relay.layout import Layout
from qtorch_relay.qparams import PerTensor

Kind = TypeVar("Kind")


class ImportContext:
    """The state of one import: values by name, the parameters met so far, and the block that is being built."""

    def __init__(self, builder: Any, engine: str, layouts: Mapping[str, Layout]) -> None:
        self.builder = builder
        self.engine = engine
        self._layouts = layouts
        self.params: dict[str, np.ndarray[Any, Any]] = {}
        self._param_vars: dict[str, Any] = {}
        self._param_of_array: dict[int, Any] = {}
        self._derived: dict[int, np.ndarray[Any, Any]] = {}
        self._values: dict[str, Any] = {}
        self._cut_short: list[tuple[str, int]] = []

    # ---- values of the graph

    def bind(self, value: Value, meaning: Any) -> Any:
        """Gives a graph value its meaning and returns it; a quantized tensor learns how PyTorch lays this value out."""
        if isinstance(meaning, QuantizedValue):
            layout = self._layouts.get(value.name)
            meaning = replace(meaning, channels_last=layout is not None and layout.is_channels_last)
        self._values[value.name] = meaning
        return meaning

    def resolve(self, operand: Operand) -> Any:
        """Returns what an operand means: a QuantizedValue, a TensorValue, packed parameters or a Python value."""
        if isinstance(operand, Value):
            return self._values[operand.name]
        if isinstance(operand, TensorConstant):
            return self._constant(operand)
        if isinstance(operand, QuantizedConstant):
            return self._quantized_constant(operand)
        if isinstance(operand, tuple) and hasattr(operand, "_make"):
            return operand._make(self.resolve(item) for item in operand)
        if isinstance(operand, list | tuple):
            return type(operand)(self.resolve(item) for item in operand)
        if isinstance(operand, dict):
            return {key: self.resolve(item) for key, item in operand.items()}
        return operand

    def argument(self, node: Node, name: str) -> Any:
        """Returns the meaning of a node's argument."""
        return self.resolve(node.args[name])

    def arguments(self, node: Node) -> list[Any]:
        """Returns the meanings of all arguments of a node, in order."""
        return [self.resolve(operand) for operand in node.args.values()]

    def quantized(self, node: Node, name: str) -> QuantizedValue:
        """Returns an argument that must be a tensor quantized per tensor, with parameters known at import."""
        return self._expect(node, name, QuantizedValue, "a tensor quantized per tensor with constant parameters")

    def quantized_of_any_scheme(self, node: Node, name: str) -> AnyQuantized:
        """Returns an argument that must be a quantized tensor: per tensor, per channel, or with run-time parameters."""
        value = self.argument(node, name)
        if isinstance(value, AnyQuantized):
            return value
        raise self.unsupported(node, f"{name} must be a quantized tensor, found {describe(value)}")

    def tensor(self, node: Node, name: str) -> TensorValue:
        """Returns an argument that must be a tensor that is not quantized."""
        return self._expect(node, name, TensorValue, "a tensor that is not quantized")

    def any_tensor(self, node: Node, name: str) -> QuantizedValue | TensorValue:
        """Returns an argument that must be a tensor, quantized or not."""
        value = self.argument(node, name)
        if isinstance(value, QuantizedValue | TensorValue):
            return value
        raise self.unsupported(node, f"{name} must be a tensor, found {describe(value)}")

    def layout(self, node: Node, name: str) -> Layout | None:
        """Returns how PyTorch holds a tensor argument in memory, None if capture could not tell."""
        operand = node.args[name]
        return self._layouts.get(operand.name) if isinstance(operand, Value) else None

    def conv_params(self, node: Node, name: str = "packed_weight") -> ConvParams:
        """Returns an argument that must be unpacked convolution parameters."""
        return self._expect(node, name, ConvParams, "packed convolution parameters")

    def linear_params(self, node: Node, name: str) -> LinearParams:
        """Returns an argument that must be unpacked linear parameters."""
        return self._expect(node, name, LinearParams, "packed linear parameters")

    def embedding_params(self, node: Node, name: str = "weight") -> EmbeddingParams:
        """Returns an argument that must be unpacked embedding parameters."""
        return self._expect(node, name, EmbeddingParams, "packed embedding parameters")

    def number(self, node: Node, name: str) -> float:
        """Returns an argument that is a number, also if the model keeps it as a one-element tensor."""
        operand = node.args[name]
        if isinstance(operand, TensorConstant) and operand.array.size == 1:
            return float(operand.array.reshape(-1)[0])
        value = self.resolve(operand)
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, np.ndarray) and value.size == 1:
            return float(value.reshape(-1)[0])
        raise self.unsupported(node, f"{name} must be a constant number, found {describe(value)}")

    def integer(self, node: Node, name: str) -> int:
        """Returns an argument that is a whole number."""
        value = self.number(node, name)
        if not math.isfinite(value) or value != int(value):
            raise self.unsupported(node, f"{name} must be a whole number, found {value}")
        return int(value)

    def integers(self, node: Node, name: str) -> list[int]:
        """Returns an argument that is a list of whole numbers."""
        value = self.argument(node, name)
        if isinstance(value, list | tuple) and all(isinstance(item, int | np.integer) for item in value):
            return [int(item) for item in value]
        raise self.unsupported(node, f"{name} must be a list of whole numbers, found {describe(value)}")

    def axis(self, node: Node, name: str, rank: int) -> int:
        """Returns an argument that names a dimension of a tensor of this rank, counted from 0."""
        return wrapped_axis(self.integer(node, name), rank)

    def cut_short(self, node: Node, extent: int) -> None:
        """Notes that an extent, not the node's own numbers, ends or starts what the node takes of a tensor.

        Of a named dimension that holds for some sizes and not for others, although the programs look alike.
        """
        self._cut_short.append((f"{node.op}{location(node)}", extent))

    def output_qparams(self, node: Node, dtype: str, scale: str, zero_point: str) -> PerTensor:
        """Returns the output's parameters, read from two arguments of the node."""
        return PerTensor(float(self.number(node, scale)), self.integer(node, zero_point), dtype)

    def _expect(self, node: Node, name: str, kind: type[Kind], words: str) -> Kind:
        value = self.argument(node, name)
        if isinstance(value, kind):
            return value
        raise self.unsupported(node, f"{name} must be {words}, found {describe(value)}")

    # ---- the program that is being built

    def emit(self, expr: Any, name: str = "") -> Any:
        """Appends a binding and returns its variable."""
        return self.builder.emit(expr, identifier(name) if name else "")

    def param(self, name: str, array: np.ndarray[Any, Any]) -> Any:
        """Returns the function parameter that holds an array; one array is one parameter, however often it is used."""
        known = self._param_of_array.get(id(array))
        if known is not None:
            return known
        unique, count = identifier(name), 1
        while unique in self.params:
            count += 1
            unique = f"{identifier(name)}_{count}"
        var = relax.Var(unique, relax.TensorType(array.shape, str(array.dtype)))
        self.params[unique] = array
        self._param_vars[unique] = var
        self._param_of_array[id(array)] = var
        return var

    def derived_param(self, name: str, source: np.ndarray[Any, Any], make: Callable[[], np.ndarray[Any, Any]]) -> Any:
        """Returns the parameter that holds what is made of an array of the model; it is made once of one array."""
        if id(source) not in self._derived:
            self._derived[id(source)] = make()
        return self.param(name, self._derived[id(source)])

    @property
    def extents_cut_short(self) -> tuple[tuple[str, int], ...]:
        """What was noted by cut_short: the op with its place in the model, and the extent."""
        return tuple(self._cut_short)

    @property
    def param_vars(self) -> list[Any]:
        """The function parameters met so far, in order."""
        return list(self._param_vars.values())

    def _constant(self, constant: TensorConstant) -> TensorValue | np.ndarray[Any, Any]:
        if constant.array.ndim == 0 and constant.array.dtype.kind in "iub":
            return constant.array
        return TensorValue(self.param(constant.name or "constant", constant.array))

    def _quantized_constant(self, constant: QuantizedConstant) -> QuantizedValue | ChannelwiseValue:
        tensor = constant.tensor
        codes = self.param(constant.name or "constant", tensor.codes)
        if isinstance(tensor.qparams, PerTensor):
            return QuantizedValue(codes, tensor.qparams)
        return ChannelwiseValue(codes, tensor.qparams)

    # ---- messages

    def unsupported(self, node: Node, reason: str) -> UnsupportedOpError:
        """Returns the error for a known op in a form that has no conversion."""
        return UnsupportedOpError(f"{node.op}{location(node)}: {reason}")


def wrapped_axis(dim: int, rank: int) -> int:
    """Returns a dimension that may count from the end, counted from 0; a tensor without dimensions has one to name.

    dim is one that exists: capture has run the op, and PyTorch raises for others.
    Source: c10/core/WrapDimMinimal.h.
    """
    return dim % max(rank, 1)


def location(node: Node) -> str:
    """Returns " in layer1.0.conv1 (resnet.py:92)", as far as it is known."""
    where = f" in {node.scope}" if node.scope else ""
    return where + (f" ({node.source})" if node.source else "")


def describe(value: Any) -> str:
    """Says in words what a value is."""
    if isinstance(value, QuantizedValue):
        return f"a quantized tensor of {value.qparams.dtype}"
    if isinstance(value, ChannelwiseValue):
        return f"a tensor of {value.qparams.dtype} quantized per channel along axis {value.qparams.axis}"
    if isinstance(value, RunTimeQuantizedValue):
        return f"a quantized tensor of {value.dtype} whose scale and zero point are run-time values"
    if isinstance(value, TensorValue):
        return f"a tensor of {value.dtype}"
    return "None" if value is None else f"{type(value).__name__} {value!r}"


def identifier(name: str) -> str:
    """Returns a name that is a valid identifier in printed IR ("layer1.0.conv1" -> "layer1_0_conv1")."""
    clean = re.sub(r"\W", "_", name)
    return f"v_{clean}" if clean[:1].isdigit() else clean
