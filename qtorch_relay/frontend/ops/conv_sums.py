"""From codes and packed parameters to a convolution's int32 sums, the way each engine of PyTorch makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qtorch_relay.capture.graph import ConvParams, Node
from qtorch_relay.engine_constants import resolve_x86, saturates_in_pairs
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.frontend.context import ImportContext, location
from qtorch_relay.frontend.ops.accumulator import layer_name, weight_qparams
from qtorch_relay.frontend.ops.planes import Planes, to_planes
from qtorch_relay.qnn import conv2d, conv2d_transpose
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qparams import PerChannel


@dataclass(frozen=True, eq=False)
class ConvLayer:
    """One call of a convolution: its parameters, the name for its values, and the engine that PyTorch runs it on.

    scales: of the weight, one number or one per output channel; zero_points likewise.
    """

    params: ConvParams
    name: str
    engine: str
    scales: Any
    zero_points: Any


def conv_layer(context: ImportContext, node: Node, name: str = "packed_weight") -> ConvLayer:
    """Returns the layer that a node's packed parameters are.

    Raises: UnsupportedQuantSchemeError if PyTorch's engine does not take its weight.
    """
    params = context.conv_params(node, name)
    reason = _why_not(context.engine, params)
    if reason is not None:
        raise UnsupportedQuantSchemeError(f"{node.op}{location(node)}: {reason}")
    engine = context.engine
    if engine == "x86":
        engine = resolve_x86(
            "conv", params.weight.qparams, params.groups, params.output_padding if params.transpose else ()
        )
    scales, zero_points = weight_qparams(params.weight, channel_axis=1 if params.transpose else 0)
    return ConvLayer(params, layer_name(node, params.name), engine, scales, zero_points)


def _why_not(engine: str, params: ConvParams) -> str | None:
    """Returns why PyTorch's engine does not pack a weight, None if it does.

    Source: aten/src/ATen/native/quantized/cpu/qconv_prepack.cpp.
    """
    weight = params.weight.qparams
    if weight.dtype != "int8":
        return f"its weight is {weight.dtype}; PyTorch reads it as int8, whatever it means; quantize it as qint8"
    per_channel = isinstance(weight, PerChannel)
    if params.transpose and per_channel and engine != "qnnpack":
        return f"PyTorch takes no transposed weight quantized per channel on {engine}; quantize it per tensor"
    if params.transpose and per_channel and params.groups > 1:
        return "PyTorch takes no transposed weight quantized per channel in groups; quantize it per tensor"
    if engine == "onednn":
        if np.any(weight.zero_points if isinstance(weight, PerChannel) else weight.zero_point):
            return "onednn takes weights of zero point 0 only; quantize the weight symmetrically"
        if params.transpose and any(params.output_padding):
            return f"onednn takes no output padding, found {params.output_padding}"
    return None


def check_input(node: Node, shape: tuple[int, ...], dtype: str, layer: ConvLayer) -> None:
    """Refuses data that PyTorch's convolutions do not take.

    Raises: UnsupportedQuantSchemeError for codes other than uint8, or of another rank than the weight's.
    """
    found = None
    if dtype != "uint8":
        found = f"its input has codes of {dtype}; PyTorch's quantized convolutions take uint8 (quint8)"
    elif len(shape) != layer.params.weight.codes.ndim:
        found = f"its input has {len(shape)} dimensions, its weight {layer.params.weight.codes.ndim}"
    if found is not None:
        raise UnsupportedQuantSchemeError(f"{node.op}{location(node)}: {found}")


def convolution_sums(
    context: ImportContext, layer: ConvLayer, data: Any, zero_point: Any, scale: Any
) -> tuple[Any, Planes]:
    """Returns the int32 sums [N, O, OH, OW] of a convolution of any rank, and how to get back from two dimensions.

    data: uint8 codes; their zero point and scale are numbers, or run-time values.
    """
    params = layer.params
    channels = static_shape(data)[1]
    planes = to_planes(context, data, zero_point, params, layer.name)
    operands = (planes.data, planes.weight, zero_point, layer.zero_points, scale, layer.scales)
    if params.transpose:
        sums = conv2d_transpose(
            *operands,
            strides=planes.stride,
            padding=planes.padding,
            dilation=planes.dilation,
            groups=params.groups,
            output_padding=planes.output_padding,
        )
        return context.emit(sums, f"{layer.name}_sum"), planes
    outputs, _, *kernel = static_shape(planes.weight)
    sums = conv2d(
        *operands,
        kernel_size=(kernel[0], kernel[1]),
        channels=outputs,
        strides=planes.stride,
        padding=planes.padding,
        dilation=planes.dilation,
        groups=params.groups,
        accumulation=_accumulation(layer, channels),
    )
    return context.emit(sums, f"{layer.name}_sum"), planes


def _accumulation(layer: ConvLayer, channels: int) -> str:
    """Returns how this engine sums the products: exactly, but for fbgemm's depthwise kernel on weights that can
    overflow."""
    params = layer.params
    saturates = layer.engine == "fbgemm" and saturates_in_pairs(
        params.weight.codes,
        groups=params.groups,
        in_channels=channels,
        stride=params.stride,
        padding=params.padding,
        dilation=params.dilation,
    )
    return "s16_pairs" if saturates else "s32"
