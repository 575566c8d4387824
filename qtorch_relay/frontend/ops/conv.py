"""Converters of convolutions with packed parameters."""

from __future__ import annotations

from qtorch_relay.capture.graph import ConvParams, Node
from qtorch_relay.engine_constants import resolve_x86, saturates_in_pairs
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.ops.accumulator import layer_name, requantize_accumulator, weight_qparams
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import conv2d


@converter("quantized::conv2d.new", lowering="qnn.conv2d + qnn.requantize")
def quantized_conv2d(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv2d.new(Tensor qx, Conv2dPackedParamsBase packed_weight, float output_scale, int output_zero_point)
    -> Tensor

    Shapes: qx [N, C, H, W] u8 or s8; weight [O, C/groups, KH, KW] s8, per tensor or per channel on axis 0; Y [N, O, OH,
    OW].
    Source: aten/src/ATen/native/quantized/cpu/qconv.cpp.
    """
    return _convolve(context, node, relu=False)


@converter("quantized::conv2d_relu.new", lowering="qnn.conv2d + qnn.requantize + maximum")
def quantized_conv2d_relu(context: ImportContext, node: Node) -> QuantizedValue:
    """quantized::conv2d_relu.new(Tensor qx, Conv2dPackedParamsBase packed_weight, float output_scale, int
    output_zero_point) -> Tensor

    The ReLU is a clamp of the codes from below at the output's zero point.
    """
    return _convolve(context, node, relu=True)


def _convolve(context: ImportContext, node: Node, *, relu: bool) -> QuantizedValue:
    value = context.quantized(node, "qx")
    params = context.conv_params(node)
    if params.transpose or len(params.stride) != 2:
        raise context.unsupported(node, "the packed parameters are not those of a two-dimensional convolution")
    layer = layer_name(node, params.name)
    engine = resolve_x86("conv", params.weight.qparams, params.groups) if context.engine == "x86" else context.engine
    scales, zero_points = weight_qparams(params.weight, channel_axis=0)
    weight = context.param(f"{layer}_weight", params.weight.codes)
    accumulator = context.emit(
        conv2d(
            value.expr,
            weight,
            value.qparams.zero_point,
            zero_points,
            value.qparams.scale,
            scales,
            kernel_size=params.weight.codes.shape[2:],
            channels=params.weight.codes.shape[0],
            strides=(params.stride[0], params.stride[1]),
            padding=params.padding,
            dilation=(params.dilation[0], params.dilation[1]),
            groups=params.groups,
            accumulation=_accumulation(engine, value, params),
        ),
        f"{layer}_sum",
    )
    output = context.output_qparams(node, value.qparams.dtype, "output_scale", "output_zero_point")
    return requantize_accumulator(
        context,
        accumulator,
        value.qparams,
        scales,
        output,
        params.bias,
        layer=layer,
        engine=engine,
        kind="conv",
        axis=1,
        relu=relu,
    )


def _accumulation(engine: str, value: QuantizedValue, params: ConvParams) -> str:
    """Returns how this engine sums the products: exactly, but for fbgemm's depthwise kernel on weights that can
    overflow."""
    saturates = engine == "fbgemm" and saturates_in_pairs(
        params.weight.codes,
        groups=params.groups,
        in_channels=value.shape[1],
        stride=params.stride,
        padding=params.padding,
        dilation=params.dilation,
    )
    return "s16_pairs" if saturates else "s32"
