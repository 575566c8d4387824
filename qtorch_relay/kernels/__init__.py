"""Int8 kernels as TIR, picked from one table by ISA and spec."""

from qtorch_relay.kernels.spec import (
    AccumulatorRequantize,
    Conv2dSpec,
    DenseSpec,
    RealRequantize,
)
from qtorch_relay.kernels.table import KERNELS, Kernel, NoKernelError, select

__all__ = [
    "KERNELS",
    "AccumulatorRequantize",
    "Conv2dSpec",
    "DenseSpec",
    "Kernel",
    "NoKernelError",
    "RealRequantize",
    "select",
]
