"""All op converters; importing this fills the registry."""

from qtorch_relay.frontend.ops import (
    activation,
    binary,
    conv,
    linear,
    pooling,
    quantize,
    scalar,
    shape,
)

__all__ = ["activation", "binary", "conv", "linear", "pooling", "quantize", "scalar", "shape"]
