"""All op converters; importing this fills the registry."""

from qtorch_relay.frontend.ops import (
    activation,
    axes,
    binary,
    concatenate,
    conv,
    floating_elementwise,
    floating_nn,
    linear,
    packing,
    partition,
    pooling,
    quantize,
    scalar,
    shape,
)

__all__ = [
    "activation",
    "axes",
    "binary",
    "concatenate",
    "conv",
    "floating_elementwise",
    "floating_nn",
    "linear",
    "packing",
    "partition",
    "pooling",
    "quantize",
    "scalar",
    "shape",
]
