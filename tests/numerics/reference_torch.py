"""Runs PyTorch's quantized ops on codes, for the tests that compare numerics with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.qparams import PerTensor, code_range

ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")
TORCH_DTYPES = {"uint8": torch.quint8, "int8": torch.qint8}


def tensor(codes: npt.NDArray[Any], qparams: PerTensor, channels_last: bool = False) -> torch.Tensor:
    """Returns a quantized tensor with these codes."""
    made = torch._make_per_tensor_quantized_tensor(
        torch.from_numpy(np.ascontiguousarray(codes)), qparams.scale, qparams.zero_point
    )
    return made.contiguous(memory_format=torch.channels_last) if channels_last else made


def weight(codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float64], zero_point: int = 0) -> torch.Tensor:
    """Returns quantized weights: per tensor for 0-dimensional scales, else per channel along axis 0."""
    data = torch.from_numpy(np.ascontiguousarray(codes))
    if scales.ndim == 0:
        return torch._make_per_tensor_quantized_tensor(data, float(scales), zero_point)
    points = torch.full((len(scales),), zero_point, dtype=torch.int64)
    return torch._make_per_channel_quantized_tensor(data, torch.from_numpy(scales), points, 0)


def codes_of(result: torch.Tensor) -> npt.NDArray[Any]:
    """Returns the codes of a quantized tensor in logical order."""
    return result.int_repr().numpy()


def binary(
    op: str,
    engine: str,
    lhs: tuple[npt.NDArray[Any], PerTensor],
    rhs: tuple[npt.NDArray[Any], PerTensor],
    out: PerTensor,
    channels_last: tuple[bool, bool] = (False, False),
) -> npt.NDArray[Any]:
    """Returns the codes of quantized::<op>(lhs, rhs, scale, zero_point)."""
    with quantized_engine(engine):
        result = getattr(torch.ops.quantized, op)(
            tensor(*lhs, channels_last[0]), tensor(*rhs, channels_last[1]), out.scale, out.zero_point
        )
    return codes_of(result)


def all_codes(dtype: str) -> npt.NDArray[Any]:
    """Returns the 256 codes of a dtype."""
    low, high = code_range(dtype)
    return np.arange(low, high + 1).astype(dtype)


def random_codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "uint8") -> npt.NDArray[Any]:
    """Returns random codes over the whole range."""
    low, high = code_range(dtype)
    return rng.integers(low, high + 1, shape).astype(dtype)


def random_qparams(rng: np.random.Generator, dtype: str = "uint8", scale: float | None = None) -> PerTensor:
    """Returns random parameters with any zero point."""
    low, high = code_range(dtype)
    given = float(rng.uniform(0.005, 0.1)) if scale is None else scale
    return PerTensor(given, int(rng.integers(low, high + 1)), dtype)
