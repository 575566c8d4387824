"""Rows of ops between real tensors and codes, of every scheme, dtype and way to give parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tests.matrix.case import Apply, Case
from tests.matrix.engine_free import thinned

LIMITS = {torch.quint8: (0, 255), torch.qint8: (-128, 127), torch.qint32: (-(2**31), 2**31 - 1)}
SCALES = (1e-8, 3.3e-5, 0.037, 1.0, 1e4)
CHANNELS = 5


def reals(shape: tuple[int, ...], scale: float, seed: int = 0) -> np.ndarray[Any, Any]:
    """Returns float32 values that hit ties, the ends of the codes, int32's and int64's range, and NaN and infinity."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    special = [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0, 1e-45, 2147483647.0, -2147483904.0, 4e9, -4e9]
    kinds = [
        rng.normal(size=count) * 60 * scale,
        (rng.integers(-300, 300, count) + 0.5) * scale,
        rng.normal(size=count) * 1e6 * scale,
        rng.normal(size=count) * 3e9 * scale,
    ]
    values = np.choose(rng.integers(0, len(kinds), count), kinds)
    values[: len(special)] = special[:count]
    return rng.permutation(values).astype(np.float32).reshape(shape)


def scaled(values: np.ndarray[Any, Any], scales: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    """Returns float32 values, each channel times its scale; what float32 does not hold is infinite."""
    along = [-1 if dim == axis else 1 for dim in range(values.ndim)]
    with np.errstate(over="ignore"):
        return np.asarray(values * scales.reshape(along), np.float32)


def _zero_points(dtype: torch.dtype) -> tuple[int, ...]:
    low, high = LIMITS[dtype]
    return tuple(dict.fromkeys((low, 0, 7, high) if dtype != torch.qint32 else (low, 0, -12345, 16777217, high)))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _row(op: str, variant: str, function: Callable[..., Any], inputs: tuple[Any, ...], **parameters: Any) -> Case:
    return Case(op, variant, lambda: Apply(function, **parameters), inputs)


def _per_tensor() -> Iterator[Case]:
    for dtype in LIMITS:
        for scale in SCALES:
            for zero_point in _zero_points(dtype):

                def both(
                    x: torch.Tensor, scale: float = scale, zero_point: int = zero_point, dtype: torch.dtype = dtype
                ) -> Any:
                    codes = torch.quantize_per_tensor(x, scale, zero_point, dtype)
                    return codes.int_repr(), codes.dequantize()

                variant = f"{_name(dtype)}-{scale}-{zero_point}"
                yield _row("aten::quantize_per_tensor", variant, both, (reals((3, 67), scale),))
        for shape in ((1,), (31,), (2, 3, 5, 7), ()):

            def codes(x: torch.Tensor, dtype: torch.dtype = dtype) -> Any:
                return torch.quantize_per_tensor(x, 0.1, 3, dtype).int_repr()

            yield _row("aten::quantize_per_tensor", f"{_name(dtype)}-shape{shape}", codes, (reals(shape, 0.1),))


def _tensor_parameters() -> Iterator[Case]:
    for dtype in LIMITS:

        def constant(x: torch.Tensor, scale: Any, zero_point: Any, dtype: torch.dtype = dtype) -> Any:
            return torch.quantize_per_tensor(x, scale, zero_point, dtype).dequantize()

        for kind in (torch.float32, torch.float64):
            parameters = {"scale": torch.tensor(0.037, dtype=kind), "zero_point": torch.tensor(5)}
            variant = f"tensor-{_name(dtype)}-{_name(kind)}"
            yield _row("aten::quantize_per_tensor", variant, constant, (reals((130,), 0.037),), **parameters)

        for zero_point in _zero_points(dtype):

            def at_run_time(x: torch.Tensor, scale: Any, zero_point: Any, dtype: torch.dtype = dtype) -> Any:
                codes = torch.quantize_per_tensor(x, scale, zero_point, dtype)
                return codes.int_repr(), codes.dequantize()

            for scale in SCALES:
                inputs = (reals((130,), scale), np.array(scale, np.float32), np.array(zero_point))
                variant = f"run-time-{_name(dtype)}-{scale}-{zero_point}"
                yield _row("aten::quantize_per_tensor", variant, at_run_time, inputs)

        def computed(x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype = dtype) -> Any:
            scale = (y * y + 0.5) * 0.01
            codes = torch.quantize_per_tensor(x, scale, torch.zeros((), dtype=torch.int32), dtype)
            return codes.int_repr(), codes.dequantize()

        inputs = (np.random.default_rng(1).normal(size=(4, 33)).astype(np.float32), np.array([1.7], np.float32))
        yield _row("aten::quantize_per_tensor", f"computed-{_name(dtype)}", computed, inputs)


def _lists() -> Iterator[Case]:
    for dtype in LIMITS:

        def each(x: torch.Tensor, y: torch.Tensor, scales: Any, zero_points: Any, dtype: torch.dtype = dtype) -> Any:
            codes = torch.quantize_per_tensor([x, y], scales, zero_points, dtype)
            return [*(code.int_repr() for code in codes), *torch.dequantize(codes)]

        inputs = (reals((3, 21), 0.1), reals((70,), 0.02, 1))
        numbers = {"scales": torch.tensor([0.1, 0.02]), "zero_points": torch.tensor([3, 100])}
        yield _row("aten::quantize_per_tensor", f"list-{_name(dtype)}", each, inputs, **numbers)
        run_time = (*inputs, *(value.numpy() for value in numbers.values()))
        yield _row("aten::quantize_per_tensor", f"list-run-time-{_name(dtype)}", each, run_time)

    def tuple_of(x: torch.Tensor) -> Any:
        return torch.dequantize((torch.quantize_per_tensor(x, 0.1, 3, torch.quint8), x))

    yield _row("aten::dequantize", "mixed-list", tuple_of, (reals((40,), 0.1),))


def _channel_parameters(dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    low, high = LIMITS[dtype]
    scales = torch.from_numpy(10.0 ** rng.uniform(-8, 4, CHANNELS))
    return scales, torch.from_numpy(rng.integers(low, high + 1, CHANNELS))


def _channel_reals(shape: tuple[int, ...], axis: int, scales: torch.Tensor) -> np.ndarray[Any, Any]:
    values = reals(shape, 1.0, axis)
    return scaled(values, scales.numpy(), axis)


SHAPES = (((CHANNELS, 41), 0), ((3, CHANNELS), 1), ((2, CHANNELS, 5, 7), 1), ((4, 6, CHANNELS), 2))


def _per_channel() -> Iterator[Case]:
    for dtype in LIMITS:
        for number, (shape, axis) in enumerate(SHAPES):
            for kind in (torch.float64, torch.float32):
                scales, zero_points = _channel_parameters(dtype, number)
                scales = scales.to(kind)

                def both(x: torch.Tensor, scales: Any, points: Any, axis: int = axis, dtype: Any = dtype) -> Any:
                    codes = torch.quantize_per_channel(x, scales, points, axis, dtype)
                    return codes.int_repr(), codes.dequantize()

                x = _channel_reals(shape, axis, scales)
                variant = f"{_name(dtype)}-axis{axis}of{len(shape)}-{_name(kind)}"
                yield _row("aten::quantize_per_channel", variant, both, (x,), scales=scales, points=zero_points)
                inputs = (x, scales.numpy(), zero_points.numpy())
                yield _row("aten::quantize_per_channel", f"run-time-{variant}", both, inputs)

        def facts(x: torch.Tensor, scales: Any, points: Any, dtype: Any = dtype) -> Any:
            codes = torch.quantize_per_channel(x, scales, points, 0, dtype)
            return codes.q_per_channel_scales(), codes.q_per_channel_zero_points(), x * codes.q_per_channel_axis()

        scales, zero_points = _channel_parameters(dtype, 9)
        x = np.random.default_rng(1).normal(size=(CHANNELS, 3)).astype(np.float32)
        for op in ("q_per_channel_scales", "q_per_channel_zero_points", "q_per_channel_axis"):
            yield _row(f"aten::{op}", _name(dtype), facts, (x,), scales=scales, points=zero_points)
            yield _row(f"aten::{op}", f"run-time-{_name(dtype)}", facts, (x, scales.numpy(), zero_points.numpy()))


def _float_parameters() -> Iterator[Case]:
    for dtype, high in ((torch.quint8, 255), (torch.qint8, 127), (torch.quint4x2, 15), (torch.quint2x4, 3)):
        for number, (shape, axis) in enumerate(SHAPES):
            rng = np.random.default_rng(number)
            scales = torch.from_numpy((10.0 ** rng.uniform(-8, 4, CHANNELS)).astype(np.float32))
            zero_points = torch.from_numpy(rng.uniform(-3, high + 3, CHANNELS).astype(np.float32))

            def both(x: torch.Tensor, scales: Any, points: Any, axis: int = axis, dtype: Any = dtype) -> Any:
                return torch.quantize_per_channel(x, scales, points, axis, dtype).dequantize()

            def codes(x: torch.Tensor, scales: Any, points: Any, axis: int = axis, dtype: Any = dtype) -> Any:
                return torch.quantize_per_channel(x, scales, points, axis, dtype).int_repr()

            x, variant = _channel_reals(shape, axis, scales), f"float-{_name(dtype)}-axis{axis}of{len(shape)}"
            yield _row("aten::quantize_per_channel", variant, both, (x,), scales=scales, points=zero_points)
            inputs = (x, scales.numpy(), zero_points.numpy())
            yield _row("aten::quantize_per_channel", f"run-time-{variant}", both, inputs)
            if x.size % 4 == 0 or dtype in LIMITS:
                yield _row("aten::int_repr", variant, codes, (x,), scales=scales, points=zero_points)


def _constants() -> Iterator[Case]:
    """Yields rows where the quantized tensor is the model's: weight-only layers and reference modules."""
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    tensors = {
        "quint8": torch.quantize_per_tensor(weight, 0.02, 100, torch.quint8),
        "qint32": torch.quantize_per_tensor(weight, 1e-6, 3, torch.qint32),
        "channels": torch.quantize_per_channel(weight, torch.rand(6) + 0.01, torch.arange(6), 0, torch.qint8),
        "float-channels": torch.quantize_per_channel(weight, torch.rand(6) + 0.01, torch.rand(6), 0, torch.quint8),
        "4bit": torch.quantize_per_channel(weight, torch.rand(6) + 0.01, torch.rand(6), 0, torch.quint4x2),
    }
    for name, tensor in tensors.items():
        x = np.random.default_rng(2).normal(size=(6, 8)).astype(np.float32)
        yield _row("aten::dequantize", f"constant-{name}", lambda x, w: x * w.dequantize(), (x,), w=tensor)


def _parts() -> Iterator[Case]:
    x = np.random.default_rng(3).normal(size=(4, 40)).astype(np.float32)
    for dtype in LIMITS:
        name = _name(dtype)

        def facts(x: torch.Tensor, dtype: torch.dtype = dtype) -> Any:
            codes = torch.quantize_per_tensor(x, 0.03, 9, dtype)
            return x * codes.q_scale(), x + codes.q_zero_point(), codes.int_repr()

        for op in ("q_scale", "q_zero_point", "int_repr"):
            yield _row(f"aten::{op}", name, facts, (x,))

        def remade(x: torch.Tensor, dtype: torch.dtype = dtype) -> Any:
            codes = torch.quantize_per_tensor(x, 0.03, 9, dtype).int_repr()
            return torch._make_per_tensor_quantized_tensor(codes, 0.5, 3).dequantize()

        yield _row("aten::_make_per_tensor_quantized_tensor", name, remade, (x,))

        def by_channel(x: torch.Tensor, scales: Any, points: Any, dtype: torch.dtype = dtype) -> Any:
            codes = torch.quantize_per_tensor(x, 0.03, 9, dtype).int_repr()
            return torch._make_per_channel_quantized_tensor(codes, scales, points, 0).dequantize()

        numbers = {"scales": torch.rand(4, dtype=torch.float64), "points": torch.tensor([1, 5, 9, 0])}
        yield _row("aten::_make_per_channel_quantized_tensor", name, by_channel, (x,), **numbers)


def _dynamic() -> Iterator[Case]:
    rng = np.random.default_rng(4)
    inputs = {
        "both-signs": rng.normal(size=(5, 37)) * 3,
        "positive": rng.random((5, 37)) + 2,
        "negative": -rng.random((5, 37)) - 2,
        "zeros": np.zeros((5, 37)),
        "small": rng.normal(size=(5, 37)) * 1e-6,
        "large": rng.normal(size=(5, 37)) * 1e30,
    }
    for name, array in inputs.items():
        for dtype in (torch.quint8, torch.qint8):
            for reduce_range in (False, True):

                def codes(x: torch.Tensor, dtype: torch.dtype = dtype, reduce_range: bool = reduce_range) -> Any:
                    dynamic = torch.quantize_per_tensor_dynamic(x, dtype, reduce_range)
                    return dynamic.int_repr(), dynamic.dequantize()

                variant = f"{name}-{_name(dtype)}{'-reduced' if reduce_range else ''}"
                yield _row("aten::quantize_per_tensor_dynamic", variant, codes, (array.astype(np.float32),))

        array = array.astype(np.float32)
        yield Case("aten::_choose_qparams_per_tensor", name, lambda: torch.jit.script(_Chosen()), (array,))


class _Chosen(torch.nn.Module):
    """Chooses parameters when it runs; a trace would keep those of the example."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale, zero_point = torch._choose_qparams_per_tensor(x, True)
        return torch.quantize_per_tensor(x, scale, zero_point, torch.quint8).dequantize()


def _rows() -> Iterator[Case]:
    yield from _per_tensor()
    yield from _tensor_parameters()
    yield from _lists()
    yield from _per_channel()
    yield from _float_parameters()
    yield from _constants()
    yield from _parts()


def cases() -> Iterator[Case]:
    """Yields the rows."""
    yield from thinned(_rows(), 7)
    yield from _dynamic()
