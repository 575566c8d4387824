"""Transposed convolutions that PyTorch's engines compute wrongly, which is said when one is imported."""

from __future__ import annotations

import warnings

from qtorch_relay.capture.graph import Node
from qtorch_relay.engine_constants import takes_direct_kernel
from qtorch_relay.errors import PyTorchDiffersWarning
from qtorch_relay.frontend.context import location
from qtorch_relay.frontend.ops.conv_sums import ConvLayer


def warn_where_pytorch_is_wrong(node: Node, layer: ConvLayer, shape: tuple[int, ...]) -> None:
    """Warns if PyTorch does not compute what a transposed convolution of data of this shape is; ours does."""
    reason = _why_pytorch_is_wrong(layer, shape)
    if reason is not None:
        warnings.warn(PyTorchDiffersWarning(f"{node.op}{location(node)}", reason), stacklevel=2)


def _why_pytorch_is_wrong(layer: ConvLayer, shape: tuple[int, ...]) -> str | None:
    """Returns what PyTorch does wrongly, None if nothing is known; rows of tests/matrix/conv_transposed.py show it."""
    params = layer.params
    inputs, outputs = params.weight.codes.shape[0] // params.groups, params.weight.codes.shape[1]
    if layer.engine == "onednn" and inputs != outputs and 1 not in (inputs, outputs):
        return "onednn packs its weight in the wrong order; qnnpack and fbgemm are right"
    direct = takes_direct_kernel(
        params.weight.codes.shape,
        groups=params.groups,
        stride=params.stride,
        padding=params.padding,
        dilation=params.dilation,
    )
    if layer.engine == "fbgemm" and direct and (shape[0] != 1 or params.stride[0] != 1):
        return (
            "fbgemm's kernel for 2 rows ignores the vertical stride and all images but the first, and files and copies "
            "of the model hold undefined weights; qnnpack is right"
        )
    depths = (shape[2], params.weight.codes.shape[2])
    if layer.engine == "qnnpack" and len(shape) == 5 and set(depths) != {1}:
        return "qnnpack leaves the depth out; fbgemm is right"
    return None
