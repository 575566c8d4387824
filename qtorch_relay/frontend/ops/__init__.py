"""All op converters; importing this fills the registry."""

from qtorch_relay.frontend.ops import (
    activation,
    binary,
    concatenate,
    conv,
    floating_elementwise,
    floating_nn,
    linear,
    packing,
    pooling,
    quantize,
    scalar,
    shape,
)

__all__ = [
    "activation",
    "binary",
    "concatenate",
    "conv",
    "floating_elementwise",
    "floating_nn",
    "linear",
    "packing",
    "pooling",
    "quantize",
    "scalar",
    "shape",
]
