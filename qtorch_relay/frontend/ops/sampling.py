"""Converter of grid sampling: a quantized map, interpolated at places known only at run time."""

from __future__ import annotations

from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.registry import converter
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.tir.grid_sample import grid_sample

BILINEAR = 0


@converter("aten::grid_sampler", "aten::grid_sampler_2d", lowering="one expression per element")
def grid_sampler(context: ImportContext, node: Node) -> QuantizedValue:
    """aten::grid_sampler_2d(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners)
    -> Tensor

    Shapes: input [N, C, H, W] uint8 codes; grid [N, h, w, 2] float32; output [N, C, h, w] with input's parameters.
    Source: aten/src/ATen/native/GridSampler.cpp (quint8 and bilinear only; weights in float32, one product after the
    other).
    """
    value, grid = context.quantized(node, "input"), context.tensor(node, "grid")
    if value.qparams.dtype != "uint8" or len(value.shape) != 4 or grid.dtype != "float32":
        raise context.unsupported(
            node, f"{describe(value)} {value.shape} at {describe(grid)}; accepted: quint8 [N, C, H, W] at float32"
        )
    if context.integer(node, "interpolation_mode") != BILINEAR:
        raise context.unsupported(node, "PyTorch interpolates quantized tensors bilinearly only")
    sampled = grid_sample(
        value.expr,
        grid.expr,
        zero_point=value.qparams.zero_point,
        padding=context.integer(node, "padding_mode"),
        align_corners=bool(context.argument(node, "align_corners")),
    )
    return value.with_expr(context.emit(sampled, node.scope or "grid_sample"))
