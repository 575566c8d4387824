"""Convolutions that PyTorch's engines do not take are refused with what was found and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qtorch_relay.capture.graph import ConvParams, Graph, GraphInput, Node, Operand, Value
from qtorch_relay.errors import UnsupportedOpError, UnsupportedQuantSchemeError
from qtorch_relay.frontend.importer import import_graph
from qtorch_relay.qparams import PerChannel, PerTensor, QuantizedTensor

QUINT8, QINT8 = 13, 12


def weight(dtype: str = "int8", zero_point: int = 0, axis: int | None = None) -> QuantizedTensor:
    codes = np.ones((4, 4, 3, 3), dtype)
    if axis is None:
        return QuantizedTensor(codes, PerTensor(0.1, zero_point, dtype))
    return QuantizedTensor(codes, PerChannel(np.full(4, 0.1), np.full(4, zero_point), axis, dtype))


PARAMS = ConvParams(
    weight=weight(),
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    output_padding=(0, 0),
    dilation=(1, 1),
    groups=1,
    transpose=False,
    name="conv",
)
TRANSPOSED = replace(PARAMS, transpose=True)


def convolve(engine: str, params: ConvParams, *, op: str = "quantized::conv2d.new", dtype: int = QUINT8) -> None:
    x, codes, y = Value("x"), Value("codes"), Value("y")
    args: dict[str, Operand] = {"qx": codes, "packed_weight": params, "output_scale": 0.5, "output_zero_point": 3}
    if "add" in op:
        args["qaccum"] = codes
    quantize: dict[str, Operand] = {"self": x, "scale": 0.1, "zero_point": 3, "dtype": dtype}
    nodes = (Node("aten::quantize_per_tensor", quantize, (codes,)), Node(op, args, (y,)))
    import_graph(Graph((GraphInput(x, (1, 4, 6, 6), "float32"),), nodes, y, engine))


REFUSED: dict[str, tuple[str, ConvParams, dict[str, Any], str]] = {
    "int8_input": ("fbgemm", PARAMS, {"dtype": QINT8}, "take uint8"),
    "uint8_weight": ("qnnpack", replace(PARAMS, weight=weight("uint8")), {}, "quantize it as qint8"),
    "asymmetric_weight": ("onednn", replace(PARAMS, weight=weight(zero_point=3)), {}, "zero point 0 only"),
    "transposed_per_channel": ("x86", replace(TRANSPOSED, weight=weight(axis=1)), {}, "per channel on x86"),
    "transposed_per_channel_in_groups": (
        "qnnpack",
        replace(TRANSPOSED, weight=weight(axis=1), groups=2),
        {},
        "per channel in groups",
    ),
    "output_padding": ("onednn", replace(TRANSPOSED, output_padding=(1, 0)), {}, r"output padding, found \(1, 0\)"),
    "channels_along_the_inputs": (
        "fbgemm",
        replace(PARAMS, weight=weight(axis=1)),
        {},
        "on axis 1; accepted is axis 0",
    ),
    "three_dimensions": (
        "fbgemm",
        replace(PARAMS, weight=QuantizedTensor(np.ones((4, 4, 3), np.int8), PerTensor(0.1, 0, "int8"))),
        {},
        "its input has 4 dimensions, its weight 3",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_pytorch_does_not_take_is_refused(name: str) -> None:
    engine, params, changes, message = REFUSED[name]
    with pytest.raises(UnsupportedQuantSchemeError, match=message):
        convolve(engine, params, **changes)


@pytest.mark.parametrize("engine", ["fbgemm", "x86", "qnnpack"])
def test_sum_is_for_onednn_alone(engine: str) -> None:
    with pytest.raises(UnsupportedOpError, match=r"onednn only.*use quantized::conv2d and quantized::add"):
        convolve(engine, PARAMS, op="quantized::conv2d_add")


def test_sum_of_another_shape_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=r"qaccum must be uint8 \(1, 4, 4, 4\), found uint8 \(1, 4, 6, 6\)"):
        convolve("onednn", PARAMS, op="quantized::conv2d_add_relu")
