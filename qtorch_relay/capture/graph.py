"""The neutral graph between torch and the frontend: no torch in it, every constant resolved, every argument named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qtorch_relay.layout import Layout
from qtorch_relay.qparams import FloatQuantizedTensor, PerTensor, QuantizedTensor


@dataclass(frozen=True)
class Value:
    """An SSA value; its name is unique within a graph."""

    name: str


@dataclass(frozen=True, eq=False)
class TensorConstant:
    """A float or integer tensor of the model; name is its attribute path, or None for an anonymous constant."""

    array: npt.NDArray[Any]
    name: str | None = None


@dataclass(frozen=True, eq=False)
class QuantizedConstant:
    """A quantized tensor of the model."""

    tensor: QuantizedTensor | FloatQuantizedTensor
    name: str | None = None


@dataclass(frozen=True, eq=False)
class ConvParams:
    """Unpacked Conv{1,2,3}dPackedParams. One object per packed object, so sharing is identity.

    weight: codes [O, I/groups, ...] ([I, O/groups, ...] if transpose); bias: float32 [O] or None.
    stride, padding, output_padding and dilation have one entry per spatial dimension.
    """

    weight: QuantizedTensor
    bias: npt.NDArray[np.float32] | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transpose: bool
    name: str


@dataclass(frozen=True, eq=False)
class LinearParams:
    """Unpacked LinearPackedParams: weight codes [N, K]; bias float32 [N] or None."""

    weight: QuantizedTensor
    bias: npt.NDArray[np.float32] | None
    name: str


@dataclass(frozen=True, eq=False)
class LinearFp16Params:
    """Unpacked LinearPackedParams of float16 weights [N, K]; bias float32 [N] or None."""

    weight: npt.NDArray[np.float16]
    bias: npt.NDArray[np.float32] | None
    name: str


@dataclass(frozen=True, eq=False)
class CellParams:
    """Unpacked CellParamsBase of a recurrent layer: its two linear layers, which hold the biases.

    input_layer: of the layer's input; hidden_layer: of its state. reduce_range: dynamic codes end at 127.
    """

    input_layer: LinearParams | LinearFp16Params
    hidden_layer: LinearParams | LinearFp16Params
    reduce_range: bool
    name: str


@dataclass(frozen=True, eq=False)
class EmbeddingParams:
    """Unpacked EmbeddingPackedParams, as the rows that PyTorch's kernels read: uint8 [rows, bytes].

    rows: the codes of a row, 8 // bits to a byte from the lowest bits on, then its scale and bias, float32 for
    bits = 8, else float16; real = scale * code + bias.
    """

    rows: npt.NDArray[np.uint8]
    bits: int
    name: str


Operand: TypeAlias = (
    Value | TensorConstant | QuantizedConstant | ConvParams | LinearParams | LinearFp16Params | CellParams
    | EmbeddingParams
    | None | bool | int | float | str | list[Any] | tuple[Any, ...] | dict[Any, Any]
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Block:
    """A branch of prim::If or the body of prim::Loop."""

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Operand, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One call of an op.

    op: "namespace::name" with ".overload" if it has one, as in torch schemas ("aten::add.Tensor").
    args: operands by the schema's argument names, in order ("0", "1", ... for prim ops, which have no schema).
    scope: the module path the call came from ("layer1.0.conv1"), "" if unknown.
    source: the model's source line, for messages ("resnet.py:92").
    """

    op: str
    args: dict[str, Operand]
    outputs: tuple[Value, ...]
    scope: str = ""
    source: str = ""
    blocks: tuple[Block, ...] = ()

    @property
    def name(self) -> str:
        """The op without its overload: "aten::add" for "aten::add.Tensor"."""
        return self.op.split(".")[0]

    @property
    def function(self) -> str:
        """The op's name alone, the same in place or not: "add" for "aten::add_.Tensor"."""
        return self.name.split("::")[1].rstrip("_")


@dataclass(frozen=True, eq=False)
class GraphInput:
    """A model input as the caller declared it: shape and dtype ("float32", "int64", ...).

    qparams: the parameters of a quantized tensor, whose codes have this dtype.
    """

    value: Value
    shape: tuple[int, ...]
    dtype: str
    qparams: PerTensor | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """A program with named inputs; output is one operand (a Value, or a tuple, list or dict of operands).

    layouts: how PyTorch holds the values in memory, by their names, when the inputs are contiguous. Some of its kernels
        round differently in one layout and another.
    arguments: the name of each argument of the model's forward, and how its tensors nest (as runtime.specs.Structure
        writes it, each argument's tensors counted from 0). () stands for one tensor each.
    """

    inputs: tuple[GraphInput, ...]
    nodes: tuple[Node, ...]
    output: Operand
    engine: str
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    arguments: tuple[tuple[str, Any], ...] = ()

    def walk(self) -> Iterator[Node]:
        """Yields every node, those of nested blocks included, in order."""
        stack = list(reversed(self.nodes))
        while stack:
            node = stack.pop()
            yield node
            for block in reversed(node.blocks):
                stack.extend(reversed(block.nodes))
