"""Arrays and torch tensors to TVM's tensors and back.

torch is used only if the caller already has: its tensors cannot exist before it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import InvalidInputError
from qtorch_relay.qparams import PerTensor
from qtorch_relay.runtime import ffi
from qtorch_relay.runtime.specs import ALIGNMENT_BYTES, DTYPES, TensorSpec, empty_aligned

# Looked up, since numpy composes a dtype's name anew each time it is asked.
_NUMPY_DTYPES = {name: np.dtype(name) for name in DTYPES}


def is_torch(value: object) -> bool:
    """Says whether a value is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_array(value: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    """Returns an input as an array, over the memory of a torch tensor; in any memory layout.

    Raises:
        InvalidInputError: not an array or CPU tensor of the spec's shape and dtype.
    """
    if is_torch(value):
        return _from_torch(value, spec)
    if not _is_array(value):
        raise InvalidInputError(
            f"input {spec.name} is a {type(value).__name__}; accepted are numpy arrays and torch tensors"
        )
    if value.shape != spec.shape or value.dtype != _NUMPY_DTYPES[spec.dtype]:
        raise _mismatch(value.shape, value.dtype, spec)
    return value


def to_numpy(output: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    """Returns an output as an array over TVM's memory; codes if the spec has quantization parameters."""
    return np.from_dlpack(output)


def to_torch(output: Any, spec: TensorSpec) -> Any:
    """Returns an output as a torch tensor over TVM's memory, quantized if the spec has quantization parameters."""
    torch = sys.modules["torch"]
    tensor = torch.from_dlpack(output)
    qparams = spec.qparams
    if qparams is None:
        return tensor
    if isinstance(qparams, PerTensor):
        return torch._make_per_tensor_quantized_tensor(tensor, qparams.scale, qparams.zero_point)
    scales, zero_points = torch.tensor(qparams.scales), torch.tensor(qparams.zero_points)
    return torch._make_per_channel_quantized_tensor(tensor, scales, zero_points, qparams.axis)


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the array, or a copy if it is not contiguous, writable and aligned to 64 bytes as TVM's code assumes."""
    if array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % ALIGNMENT_BYTES == 0:
        return array
    copy = empty_aligned(array.shape, str(array.dtype))
    copy[...] = array
    return copy


def borrow(array: npt.NDArray[Any]) -> Any:
    """Returns a TVM tensor over an aligned array's memory, which it keeps alive."""
    return ffi.tvm_ffi().from_dlpack(array)


def as_bits(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the elements as integers of the same width, so that NaN equals itself and -0.0 differs from 0.0."""
    return array.view(f"u{array.dtype.itemsize}")


def _is_array(value: object) -> TypeGuard[npt.NDArray[Any]]:
    return isinstance(value, np.ndarray)


def _from_torch(tensor: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    if tensor.is_quantized:
        raise InvalidInputError(f"input {spec.name} is a quantized tensor; pass its codes, tensor.int_repr()")
    if tensor.device.type != "cpu" or tensor.layout != sys.modules["torch"].strided:
        raise InvalidInputError(
            f"input {spec.name} is a {tensor.layout} tensor on {tensor.device}; accepted are dense tensors on the CPU"
        )
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tuple(tensor.shape) != spec.shape or dtype != spec.dtype:
        raise _mismatch(tensor.shape, dtype, spec)
    array: npt.NDArray[Any] = tensor.detach().resolve_neg().numpy()
    return array


def _mismatch(shape: Sequence[int], dtype: object, spec: TensorSpec) -> InvalidInputError:
    return InvalidInputError(f"input {spec.name} is {dtype} {list(shape)}; accepted is {spec.dtype} {list(spec.shape)}")
