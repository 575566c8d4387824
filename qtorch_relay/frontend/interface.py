"""What a module says of its inputs and outputs beyond their types: how they nest, and what their codes mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from qtorch_relay.capture.graph import Graph
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.context import describe
from qtorch_relay.frontend.values import QuantizedValue, TensorValue
from qtorch_relay.qparams import PerTensor
from qtorch_relay.runtime.interface import ModuleInterface

INPUT_ATTRIBUTE = "qtorch_relay.input"
OUTPUT_ATTRIBUTE = "qtorch_relay.output"


def write_interface(mod: Any, graph: Graph, structure: Any, leaves: Sequence[QuantizedValue | TensorValue]) -> Any:
    """Returns mod with attributes that read_interface reads."""
    nested = any(structure != 0 for _, structure in graph.arguments)
    inputs = {
        "arguments": graph.arguments if nested else None,
        "qparams": [_written(item.qparams) for item in graph.inputs],
    }
    outputs = {
        "structure": structure,
        "qparams": [_written(getattr(leaf, "qparams", None)) for leaf in leaves],
        "channels_last": [getattr(leaf, "channels_last", False) for leaf in leaves],
    }
    return mod.with_attr(INPUT_ATTRIBUTE, json.dumps(inputs)).with_attr(OUTPUT_ATTRIBUTE, json.dumps(outputs))


def read_interface(mod: Any) -> ModuleInterface | None:
    """Returns what write_interface wrote down, None for a module that was not imported."""
    if OUTPUT_ATTRIBUTE not in mod.attrs or INPUT_ATTRIBUTE not in mod.attrs:
        return None
    inputs, outputs = (json.loads(str(mod.attrs[name])) for name in (INPUT_ATTRIBUTE, OUTPUT_ATTRIBUTE))
    arguments = inputs["arguments"]
    return ModuleInterface(
        None if arguments is None else tuple((name, structure) for name, structure in arguments),
        tuple(map(_read, inputs["qparams"])),
        outputs["structure"],
        tuple(map(_read, outputs["qparams"])),
        tuple(outputs["channels_last"]),
    )


def output_interface(mod: Any) -> tuple[Any, list[PerTensor | None]]:
    """Returns how a module's outputs nest and their quantization parameters."""
    interface = read_interface(mod)
    return (None, []) if interface is None else (interface.structure, list(interface.output_qparams or ()))


def flatten_outputs(value: Any, leaves: list[QuantizedValue | TensorValue]) -> Any:
    """Appends the tensors of a nested output to leaves and returns how they nest (runtime.structure.Structure)."""
    if isinstance(value, QuantizedValue | TensorValue):
        leaves.append(value)
        return len(leaves) - 1
    if hasattr(value, "_fields"):
        fields = [[name, flatten_outputs(item, leaves)] for name, item in zip(value._fields, value, strict=True)]
        return {"namedtuple": [type(value).__name__, fields]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [flatten_outputs(item, leaves) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[key, flatten_outputs(item, leaves)] for key, item in value.items()]}
    if value is None:
        return None
    raise UnsupportedOpError(
        f"the model returns {describe(value)}; tensors, and tuples, lists and dicts of them, can be returned"
    )


def _written(qparams: PerTensor | None) -> dict[str, Any] | None:
    if qparams is None:
        return None
    return {"scale": qparams.scale, "zero_point": qparams.zero_point, "dtype": qparams.dtype}


def _read(written: dict[str, Any] | None) -> PerTensor | None:
    return None if written is None else PerTensor(**written)
