"""Rows of fake quantization: QAT models before they are converted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from tests.matrix.case import Apply, Case
from tests.matrix.engine_free import thinned
from tests.matrix.quantize import reals, scaled

RANGES = ((0, -128, 127), (7, 0, 255), (255, 0, 255), (-128, -128, 127), (3, 0, 15), (7, 0, 127))
SCALES = (1e-8, 3.3e-5, 0.037, 1e4)
CHANNELS = 5


def _per_tensor() -> Iterator[Case]:
    for scale in SCALES:
        for zero_point, low, high in RANGES:
            variant = f"{scale}-{zero_point}-{low}-{high}"
            x = reals((3, 61), scale)
            limits = {"quant_min": low, "quant_max": high}

            def numbers(x: Any, scale: float = scale, point: int = zero_point, limits: Any = limits) -> Any:
                return torch.fake_quantize_per_tensor_affine(x, scale, point, **limits)

            def tensors(x: Any, scale: Any, point: Any, limits: Any = limits) -> Any:
                return torch.fake_quantize_per_tensor_affine(x, scale, point, **limits)

            def learnable(x: Any, scale: Any, point: Any, limits: Any = limits) -> Any:
                return torch._fake_quantize_learnable_per_tensor_affine(x, scale, point, **limits)

            op, learned = "aten::fake_quantize_per_tensor_affine", "aten::_fake_quantize_learnable_per_tensor_affine"
            yield Case(op, variant, lambda f=numbers: Apply(f), (x,))
            point = np.array([zero_point], np.int32)
            inputs = (x, np.array([scale], np.float32), point)
            yield Case(op, f"run-time-{variant}", lambda f=tensors: Apply(f), inputs)
            shifted = np.array([zero_point + 0.4], np.float32)
            yield Case(learned, f"run-time-{variant}", lambda f=learnable: Apply(f), (*inputs[:2], shifted))
            constants = {"scale": torch.tensor([scale]), "point": torch.tensor(shifted)}
            yield Case(learned, variant, lambda f=learnable, c=constants: Apply(f, **c), (x,))


def _per_channel() -> Iterator[Case]:
    op, learned = "aten::fake_quantize_per_channel_affine", "aten::_fake_quantize_learnable_per_channel_affine"
    for number, (shape, axis) in enumerate((((CHANNELS, 31), 0), ((2, CHANNELS, 3, 4), 1), ((4, 9, CHANNELS), 2))):
        for low, high in ((-128, 127), (0, 255), (0, 15), (-127, 127)):
            rng = np.random.default_rng(number)
            scales = (10.0 ** rng.uniform(-8, 4, CHANNELS)).astype(np.float32)
            x = scaled(reals(shape, 1.0), scales, axis)
            whole = rng.integers(low, high + 1, CHANNELS).astype(np.int32)
            real = np.clip(whole + rng.uniform(-0.5, 0.5, CHANNELS), low, high).astype(np.float32)

            def channels(x: Any, scales: Any, points: Any, args: tuple[int, ...] = (axis, low, high)) -> Any:
                return torch.fake_quantize_per_channel_affine(x, scales, points, *args)

            def learnable(x: Any, scales: Any, points: Any, args: tuple[int, ...] = (axis, low, high)) -> Any:
                return torch._fake_quantize_learnable_per_channel_affine(x, scales, points, *args)

            variant = f"axis{axis}of{len(shape)}-{low}-{high}"
            for name, function, points in (
                (op, channels, whole),
                (op, channels, real),
                (learned, learnable, real),
            ):
                kind = f"{variant}-{points.dtype}"
                yield Case(name, f"run-time-{kind}", lambda f=function: Apply(f), (x, scales, points))
                constants = {"scales": torch.from_numpy(scales), "points": torch.from_numpy(points)}
                yield Case(name, kind, lambda f=function, c=constants: Apply(f, **c), (x,))


class _Trained(torch.nn.Module):
    """A model prepared for QAT, its observers switched off."""

    def __init__(self, qconfig: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        quantization = torch.ao.quantization
        self.quant = quantization.QuantStub()
        self.qconfig = qconfig
        quantization.prepare_qat(self.train(), inplace=True)
        self(torch.randn(2, 30))
        self.eval().apply(quantization.disable_observer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.quant(x)
        return result


def _modules() -> Iterator[Case]:
    x = np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32) * 2
    for version in (0, 1):

        def make(version: int = version) -> torch.nn.Module:
            return _Trained(torch.ao.quantization.get_default_qat_qconfig("fbgemm", version=version))

        yield Case("aten::fake_quantize_per_tensor_affine", f"qat-module-version{version}", make, (x,))


def _rows() -> Iterator[Case]:
    yield from _per_tensor()
    yield from _per_channel()
    yield from _modules()


def cases() -> Iterator[Case]:
    """Yields the rows."""
    return thinned(_rows(), 7)
