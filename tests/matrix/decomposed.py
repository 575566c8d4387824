"""Rows of quantized_decomposed ops, as PT2E and reference graphs hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers the ops)

from tests.matrix.case import Apply, Case
from tests.matrix.engine_free import thinned

OPS = torch.ops.quantized_decomposed
DTYPES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int32: (-(2**24), 2**24)}
CHANNELS = 4


def _reals(shape: tuple[int, ...], scale: float) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(len(shape))
    count = int(np.prod(shape))
    values = np.where(rng.random(count) < 0.5, rng.normal(size=count) * 90, rng.integers(-300, 300, count) + 0.5)
    return (values * scale).astype(np.float32).reshape(shape)


def _per_tensor() -> Iterator[Case]:
    for dtype, (low, high) in DTYPES.items():
        for scale in (3.3e-5, 0.037, 0.1, 120.0):
            limits = (low, high, dtype)
            x = _reals((3, 50), scale)

            def numbers(x: Any, scale: float = scale, limits: Any = limits) -> Any:
                codes = OPS.quantize_per_tensor(x, scale, 3, *limits)
                return codes, OPS.dequantize_per_tensor(codes, scale, 3, *limits)

            def tensors(x: Any, scale: Any, point: Any, limits: Any = limits) -> Any:
                codes = OPS.quantize_per_tensor.tensor(x, scale, point, *limits)
                return codes, OPS.dequantize_per_tensor.tensor(codes, scale, point, *limits)

            name = f"{str(dtype).removeprefix('torch.')}-{scale}"
            for op in ("quantize_per_tensor", "dequantize_per_tensor"):
                yield Case(f"quantized_decomposed::{op}", name, lambda f=numbers: Apply(f), (x,))
            constants = {"scale": torch.tensor(scale), "point": torch.tensor(3)}
            make = lambda f=tensors, c=constants: Apply(f, **c)  # noqa: E731
            yield Case("quantized_decomposed::quantize_per_tensor", f"tensor-{name}", make, (x,))
            inputs = (x, np.array(scale, np.float32), np.array(3))
            run_time = lambda f=tensors: Apply(f)  # noqa: E731
            yield Case("quantized_decomposed::quantize_per_tensor", f"run-time-{name}", run_time, inputs)


def _per_channel() -> Iterator[Case]:
    for dtype, (low, high) in DTYPES.items():
        for shape, axis in (((CHANNELS, 31), 0), ((2, CHANNELS, 3, 5), 1)):
            for kind in (torch.float32, torch.float64):
                rng = np.random.default_rng(axis)
                scales = torch.from_numpy(10.0 ** rng.uniform(-3, 0, CHANNELS)).to(kind)
                points = torch.from_numpy(rng.integers(0, 100, CHANNELS))

                def both(x: Any, scales: Any, points: Any, args: Any = (axis, low, high, dtype)) -> Any:
                    codes = OPS.quantize_per_channel(x, scales, points, *args)
                    return codes, OPS.dequantize_per_channel(codes, scales, points, *args)

                def no_points(x: Any, scales: Any, points: Any, args: Any = (axis, low, high, dtype)) -> Any:
                    codes = OPS.quantize_per_channel(x, scales, points, *args)
                    return OPS.dequantize_per_channel(codes, scales, None, *args)

                x, constants = _reals(shape, 0.05), {"scales": scales, "points": points}
                name = f"{str(dtype).removeprefix('torch.')}-axis{axis}-{str(kind).removeprefix('torch.')}"
                for op, function in (("quantize_per_channel", both), ("dequantize_per_channel", no_points)):
                    full = f"quantized_decomposed::{op}"
                    yield Case(full, name, lambda f=function, c=constants: Apply(f, **c), (x,))
                    inputs = (x, scales.numpy(), points.numpy())
                    yield Case(full, f"run-time-{name}", lambda f=function: Apply(f), inputs)


def _rows() -> Iterator[Case]:
    yield from _per_tensor()
    yield from _per_channel()


def cases() -> Iterator[Case]:
    """Yields the rows."""
    return thinned(_rows(), 7)
