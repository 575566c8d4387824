"""What PyTorch 2.13 computes for quantized embeddings, in numpy, to the bit: FBGEMM's order of operations.

A row is 8 // bits codes to a byte, the first in the lowest bits, then scale and bias: float32 for 8 bits, float16
for 4 and 2. Every engine, index dtype and width runs the same sums.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.numerics.core import F32, Codes, Floats, fma_f32

Integers = npt.NDArray[np.integer[Any]]


def unpack_rows(rows: npt.NDArray[np.uint8], bits: int) -> tuple[Codes, Floats, Floats]:
    """Returns the codes [N, D], scales [N] and biases [N] of packed rows.

    Source: PyTorch quantized/cpu/qembeddingbag_prepack.cpp.
    """
    size = 8 if bits == 8 else 4
    packed, parameters = rows[:, :-size], np.ascontiguousarray(rows[:, -size:])
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = packed[:, :, None] >> shifts & np.uint8(2**bits - 1)
    numbers = parameters.view(np.float32 if bits == 8 else np.float16).astype(F32)
    return codes.reshape(len(rows), -1), numbers[:, 0], numbers[:, 1]


def embedding_bag(
    rows: npt.NDArray[np.uint8],
    bits: int,
    indices: Integers,
    offsets: Integers,
    weights: Floats | None = None,
    mapping: npt.NDArray[np.int32] | None = None,
) -> Floats:
    """Returns the sum of each bag's rows, one after the other: sum = fma(w * scale, code, sum + w * bias), from 0.

    offsets: where each bag starts and, last, where the last one ends. weights: w for each index, else 1. mapping: the
    row of an index, -1 for one that is pruned and adds nothing.
    Source: FBGEMM src/EmbeddingSpMDM.cc, EmbeddingSpMDMNBit.cc (generated code), RefImplementations.cc.
    """
    codes, scales, biases = unpack_rows(rows, bits)
    out = np.zeros((len(offsets) - 1, codes.shape[1]), F32)
    for bag, (start, end) in enumerate(pairwise(offsets)):
        for place in range(start, end):
            row = indices[place] if mapping is None else mapping[indices[place]]
            if row < 0:
                continue
            scale, bias = scales[row], biases[row]
            if weights is not None:
                scale, bias = F32(scale * weights[place]), F32(bias * weights[place])
            out[bag] = fma_f32(scale, codes[row].astype(F32), out[bag] + bias)
    return out
