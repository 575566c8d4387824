"""Converters of convolutions with packed parameters and parameters of the output, transposed ones included."""

from __future__ import annotations

import numpy as np

from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import RealFactors, requantize_factors, sum_factor
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.accumulator import clamp_below_zero, requantize_accumulator
from qtorch_relay.frontend.ops.conv_sums import check_input, conv_layer, convolution_sums
from qtorch_relay.frontend.ops.conv_transposed import warn_where_pytorch_is_wrong
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import requantize_add
from qtorch_relay.qnn.op_def import static_shape

_REUSE = (
    "qnnpack's packed parameters keep the multipliers and the padding's code of their first call: called again with "
    "the same input scale and another output scale or input zero point PyTorch is wrong (3x3, padding 1, input 5x5, "
    "zero points 10, then 200: 64 of 100 codes, the border); ours is exact"
)
_TRANSPOSED = (
    "PyTorch is wrong, ours exact: onednn where a group's inputs and outputs differ in number and neither is 1; fbgemm "
    "for 2-d kernels of 2 rows and up to 6 columns without padding, groups and dilation, on multiples of 8 channels, "
    "with a batch over 1, a vertical stride of 2 or weights that overflow int16 (files and copies of such layers hold "
    "undefined weights); qnnpack in 3-d unless input and kernel have depth 1"
)


@converter("quantized::conv1d", lowering="qnn.conv2d + qnn.requantize", note=_REUSE)
def quantized_conv1d(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv1d(Tensor qx, Conv2dPackedParamsBase packed_weight, float output_scale, int output_zero_point)
    -> Tensor

    Shapes: qx [N, C, L] u8; weight [O, C/groups, K] s8, per tensor or per channel on axis 0; Y [N, O, OL].
    Source: aten/src/ATen/native/quantized/cpu/qconv.cpp.
    """
    return _convolve(context, node)


@converter("quantized::conv1d_relu", lowering="qnn.conv2d + qnn.requantize + maximum", note=_REUSE)
def quantized_conv1d_relu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv1d_relu(Tensor qx, Conv2dPackedParamsBase packed_weight, float output_scale, int
    output_zero_point) -> Tensor

    The ReLU is a clamp of the codes from below at the output's zero point, here and in two and three dimensions.
    """
    return _convolve(context, node, relu=True)


@converter("quantized::conv2d.new", "quantized::conv3d.new", lowering="qnn.conv2d + qnn.requantize", note=_REUSE)
def quantized_conv2d(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv2d.new(Tensor qx, Conv2dPackedParamsBase packed_weight, float output_scale, int output_zero_point)
    -> Tensor

    Shapes: qx [N, C, H, W] u8; weight [O, C/groups, KH, KW] s8, per tensor or per channel on axis 0; Y [N, O, OH, OW];
    conv3d has a depth before the height.
    Source: aten/src/ATen/native/quantized/cpu/qconv.cpp.
    """
    return _convolve(context, node)


@converter(
    "quantized::conv2d_relu.new",
    "quantized::conv3d_relu.new",
    lowering="qnn.conv2d + qnn.requantize + maximum",
    note=_REUSE,
)
def quantized_conv2d_relu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv2d_relu.new(Tensor qx, Conv2dPackedParamsBase packed_weight, float output_scale, int
    output_zero_point) -> Tensor"""
    return _convolve(context, node, relu=True)


@converter("quantized::conv2d", "quantized::conv3d", lowering="qnn.conv2d + qnn.requantize", note=_REUSE)
def quantized_conv2d_legacy(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv2d(Tensor qx, Conv2dPackedParamsBase weight, int[] stride, int[] padding, int[] dilation, int
    groups, float output_scale, int output_zero_point) -> Tensor

    The form before PyTorch 1.6: it takes stride, padding, dilation and groups, and uses those of the packed parameters.
    """
    return _convolve(context, node, packed="weight")


@converter(
    "quantized::conv2d_relu",
    "quantized::conv3d_relu",
    lowering="qnn.conv2d + qnn.requantize + maximum",
    note=_REUSE,
)
def quantized_conv2d_relu_legacy(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv2d_relu(Tensor qx, Conv2dPackedParamsBase weight, int[] stride, int[] padding, int[] dilation, int
    groups, float output_scale, int output_zero_point) -> Tensor

    As the legacy form of conv2d.
    """
    return _convolve(context, node, packed="weight", relu=True)


@converter(
    *(f"quantized::conv_transpose{dims}d" for dims in (1, 2, 3)),
    lowering="qnn.conv2d_transpose + qnn.requantize",
    note=_TRANSPOSED,
)
def quantized_conv_transpose(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv_transpose2d(Tensor qx, Conv2dPackedParamsBase packed_weight, float output_scale, int
    output_zero_point) -> Tensor

    Shapes: qx [N, C, H, W] u8; weight [C, O/groups, KH, KW] s8, per tensor, on qnnpack also per channel on axis 1; Y
    [N, O, OH, OW].
    Source: aten/src/ATen/native/quantized/cpu/qconv.cpp.
    """
    return _convolve(context, node)


@converter(
    "quantized::conv2d_add",
    lowering="qnn.conv2d + qnn.requantize_add",
    exact="onednn, the only engine that has it",
    note="PyTorch writes the result over a channels-last qaccum and gives it the result's scale; ours leaves it alone",
)
def quantized_conv2d_add(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv2d_add(Tensor qx, Tensor qaccum, Conv2dPackedParamsBase packed_weight, float output_scale, int
    output_zero_point) -> Tensor

    Shapes: as conv2d; qaccum [N, O, OH, OW] u8.
    Source: aten/src/ATen/native/quantized/cpu/qconv.cpp apply_add.
    """
    return _convolve_and_add(context, node, relu=False)


@converter(
    "quantized::conv2d_add_relu",
    lowering="qnn.conv2d + qnn.requantize_add + maximum",
    exact="onednn, the only engine that has it",
    note="as conv2d_add",
)
def quantized_conv2d_add_relu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv2d_add_relu(Tensor qx, Tensor qaccum, Conv2dPackedParamsBase packed_weight, float output_scale,
    int output_zero_point) -> Tensor

    The ReLU comes after the sum: a clamp of the codes from below at the output's zero point.
    """
    return _convolve_and_add(context, node, relu=True)


def _convolve(
    context: ImportContext, node: Node, *, packed: str = "packed_weight", relu: bool = False
) -> QuantizedValue:
    """Returns a convolution's codes; whether it is transposed is known to the packed parameters alone, as in
    PyTorch."""
    value, layer = context.quantized(node, "qx"), conv_layer(context, node, packed)
    check_input(node, value.shape, value.qparams.dtype, layer)
    if layer.params.transpose:
        warn_where_pytorch_is_wrong(node, layer, value.shape)
    sums, planes = convolution_sums(context, layer, value.expr, value.qparams.zero_point, value.qparams.scale)
    result = requantize_accumulator(
        context,
        sums,
        value.qparams,
        layer.scales,
        context.output_qparams(node, "uint8", "output_scale", "output_zero_point"),
        layer.params.bias,
        layer=layer.name,
        engine=layer.engine,
        kind="conv",
        axis=1,
        relu=relu,
    )
    return result.with_expr(planes.restore(context, result.expr))


def _convolve_and_add(context: ImportContext, node: Node, *, relu: bool) -> QuantizedValue:
    value, residual, layer = context.quantized(node, "qx"), context.quantized(node, "qaccum"), conv_layer(context, node)
    if context.engine != "onednn" or layer.params.transpose:
        raise context.unsupported(
            node,
            f"PyTorch has it on engine onednn only, for convolutions that are not transposed; found {context.engine}; "
            "use quantized::conv2d and quantized::add",
        )
    check_input(node, value.shape, value.qparams.dtype, layer)
    sums, _ = convolution_sums(context, layer, value.expr, value.qparams.zero_point, value.qparams.scale)
    if residual.shape != static_shape(sums) or residual.qparams.dtype != "uint8":
        raise context.unsupported(
            node,
            f"qaccum must be uint8 {static_shape(sums)}, found {residual.qparams.dtype} {residual.shape}",
        )
    output = context.output_qparams(node, "uint8", "output_scale", "output_zero_point")
    channels = static_shape(sums)[1]
    factors = requantize_factors(
        "onednn", "conv", value.qparams.scale, layer.scales, output.scale, layer.params.bias, channels
    )
    if not isinstance(factors, RealFactors):
        raise AssertionError("onednn requantizes real values")
    addend = context.param(f"{layer.name}_bias", factors.addend) if factors.addend.any() else factors.addend
    codes = requantize_add(
        sums,
        residual.expr,
        np.float32(value.qparams.scale) * np.asarray(layer.scales, np.float32),
        residual.qparams.scale,
        residual.qparams.zero_point,
        output.scale,
        output.zero_point,
        1,
        "uint8",
        factors={**factors.operands(), "addend": addend, "residual_factor": sum_factor(residual.qparams.scale)},
    )
    result = QuantizedValue(context.emit(codes, layer.name), output)
    return clamp_below_zero(context, result) if relu else result
