"""Int8 kernels as TIR, picked from one table by ISA and spec."""

from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec
from qtorch_relay.kernels.embedding import build_embedding_bag
from qtorch_relay.kernels.embedding_spec import EmbeddingBagSpec
from qtorch_relay.kernels.pointwise_spec import (
    AddSpec,
    ConcatenateSpec,
    DequantizeSpec,
    FixedAddSpec,
    LookupSpec,
    MulSpec,
    Piece,
    QuantizeSpec,
)
from qtorch_relay.kernels.pool_spec import AvgPool2dSpec, MaxPool2dSpec
from qtorch_relay.kernels.spec import (
    AccumulatorRequantize,
    Conv2dAddSpec,
    Conv2dSpec,
    DenseSpec,
    PairSaturatedDepthwiseSpec,
    RealRequantize,
)
from qtorch_relay.kernels.table import KERNELS, Kernel, NoKernelError, select

__all__ = [
    "KERNELS",
    "AccumulatorRequantize",
    "AddSpec",
    "AvgPool2dSpec",
    "ChooseQparamsSpec",
    "ConcatenateSpec",
    "Conv2dAddSpec",
    "Conv2dSpec",
    "DenseSpec",
    "DequantizeSpec",
    "DynamicDenseSpec",
    "DynamicQuantizeSpec",
    "EmbeddingBagSpec",
    "FixedAddSpec",
    "Kernel",
    "LookupSpec",
    "MaxPool2dSpec",
    "MulSpec",
    "NoKernelError",
    "PairSaturatedDepthwiseSpec",
    "Piece",
    "QuantizeSpec",
    "RealRequantize",
    "build_embedding_bag",
    "select",
]
