"""Parameters in the binary format of Relay's save_param_dict and load_param_dict.

All numbers are little-endian:
  u64 0xF7E58D4F05049CB7, u64 0, u64 count, then for each name u64 length and its UTF-8 bytes,
  u64 count, then for each array u64 0xDD5E40F096B4A13F, u64 0, i32 device type (1, the CPU), i32 device number,
  i32 dimensions, u8 kind of number, u8 bits, u16 lanes (1), i64 for each extent, i64 bytes, the elements in C order.

Source: TVM 0.17, src/runtime/file_utils.cc (SaveParams), include/tvm/runtime/ndarray.h (SaveDLTensor).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from qtorch_relay.errors import InvalidInputError

LIST_MAGIC, ARRAY_MAGIC = 0xF7E58D4F05049CB7, 0xDD5E40F096B4A13F
_CPU = 1
# DLPack's kinds of numbers. Relay's bool is an unsigned integer of one bit that takes a byte.
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 1}


def save_params(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Returns named arrays as bytes that `tvm.relay.load_param_dict` reads.

    Raises: InvalidInputError for an array whose elements are not integers, floats or bools.
    """
    pieces = [struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays))]
    for name in arrays:
        encoded = name.encode()
        pieces += [struct.pack("<Q", len(encoded)), encoded]
    pieces.append(struct.pack("<Q", len(arrays)))
    pieces += [_array(name, array) for name, array in arrays.items()]
    return b"".join(pieces)


def _array(name: str, array: np.ndarray[Any, Any]) -> bytes:
    dtype = array.dtype
    if dtype.kind not in _KINDS:
        raise InvalidInputError(f"parameter {name} is {dtype}; Relay's parameters are integers, floats and bools")
    bits = 1 if dtype.kind == "b" else 8 * dtype.itemsize
    elements = np.ascontiguousarray(array, dtype.newbyteorder("<")).tobytes()
    header = struct.pack("<QQiiiBBH", ARRAY_MAGIC, 0, _CPU, 0, array.ndim, _KINDS[dtype.kind], bits, 1)
    return header + struct.pack(f"<{array.ndim}qq", *array.shape, len(elements)) + elements
