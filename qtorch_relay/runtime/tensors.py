"""Arrays and torch tensors to TVM's tensors and back.

torch is used only if the caller already has: its tensors cannot exist before it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
    if type(value) is np.ndarray:
        return False
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_array(value: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    """Returns an input as an array, over the memory of a torch tensor; in any memory layout.

    Raises:
        InvalidInputError: not an array or CPU tensor of the spec's shape and dtype.
    """
    if type(value) is np.ndarray and value.shape == spec.shape and value.dtype == _NUMPY_DTYPES[spec.dtype]:
        return value
    if is_torch(value):
        return _from_torch(value, spec)
    if not _is_array(value):
        raise InvalidInputError(
            f"input {spec.name} is a {type(value).__name__}; accepted are numpy arrays and torch tensors"
        )
    if not _fits(value.shape, spec) or value.dtype != _NUMPY_DTYPES[spec.dtype]:
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
    if spec.channels_last:
        layout = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
        tensor = tensor.contiguous(memory_format=layout)
    if isinstance(qparams, PerTensor):
        return torch._make_per_tensor_quantized_tensor(tensor, qparams.scale, qparams.zero_point)
    scales, zero_points = torch.tensor(qparams.scales), torch.tensor(qparams.zero_points)
    return torch._make_per_channel_quantized_tensor(tensor, scales, zero_points, qparams.axis)


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the array, or a copy if it is not contiguous, writable and at a multiple of 64 bytes."""
    if array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % ALIGNMENT_BYTES == 0:
        return array
    return aligned_copy(array)


def aligned_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a dense copy at a multiple of 64 bytes."""
    copy = empty_aligned(array.shape, str(array.dtype))
    np.copyto(copy, array)
    return copy


def side_by_side(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Returns copies that lie one behind the other in memory, each at a multiple of 64 bytes, as bundles hold them."""
    starts, end = [], 0
    for array in arrays.values():
        starts.append(end)
        end += -(-array.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    memory = empty_aligned((end,), "uint8")
    placed = {}
    for (name, array), start in zip(arrays.items(), starts, strict=True):
        placed[name] = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        placed[name][...] = array
    return placed


def borrow(array: npt.NDArray[Any]) -> Any:
    """Returns a TVM tensor over a dense, writable array's memory, which it keeps alive."""
    return ffi.tvm_ffi().from_dlpack(array)


def as_bits(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the elements as integers of the same width, so that NaN equals itself and -0.0 differs from 0.0."""
    return array.view(f"u{array.dtype.itemsize}")


def _is_array(value: object) -> TypeGuard[npt.NDArray[Any]]:
    return isinstance(value, np.ndarray)


def _from_torch(tensor: Any, spec: TensorSpec) -> npt.NDArray[Any]:
    if tensor.is_quantized:
        tensor = _codes(tensor, spec)
    if tensor.device.type != "cpu" or tensor.layout != sys.modules["torch"].strided:
        raise InvalidInputError(
            f"input {spec.name} is a {tensor.layout} tensor on {tensor.device}; accepted are dense tensors on the CPU"
        )
    dtype = str(tensor.dtype).removeprefix("torch.")
    if not _fits(tuple(tensor.shape), spec) or dtype != spec.dtype:
        raise _mismatch(tensor.shape, dtype, spec)
    array: npt.NDArray[Any] = tensor.detach().resolve_neg().numpy()
    return array


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    return shape == spec.shape or spec.sizes_in(shape) is not None


def _codes(tensor: Any, spec: TensorSpec) -> Any:
    """Returns the codes of a quantized tensor, which must have the parameters that the program was compiled for."""
    qparams = spec.qparams
    if not isinstance(qparams, PerTensor):
        raise InvalidInputError(f"input {spec.name} is a quantized tensor; accepted is {spec.dtype}, not quantized")
    torch = sys.modules["torch"]
    if tensor.qscheme() not in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        raise InvalidInputError(f"input {spec.name} is quantized per channel; accepted is per tensor")
    found = (tensor.q_scale(), tensor.q_zero_point())
    if found != (qparams.scale, qparams.zero_point):
        raise InvalidInputError(
            f"input {spec.name} has scale {found[0]} and zero point {found[1]}; "
            f"the model was compiled for scale {qparams.scale} and zero point {qparams.zero_point}"
        )
    return tensor.int_repr()


def _mismatch(shape: Sequence[int], dtype: object, spec: TensorSpec) -> InvalidInputError:
    accepted = f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"
    return InvalidInputError(f"input {spec.name} is {dtype} {list(shape)}; accepted is {accepted}")
