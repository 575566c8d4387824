"""Rows of unary ops, prelu and matmul. Element counts are multiples of 64: no vector tail (see tests/capture)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.matrix.case import Apply, Case, uniform

SHAPE = (2, 4, 8, 8)
DTYPES = (torch.quint8, torch.qint8)
SOURCES = {"mid": (0.047, 61), "least": (0.021, 0), "most": (0.09, 255), "tiny": (1e-7, 7), "huge": (1e3, 130)}
q, aten = torch.ops.quantized, torch.ops.aten

# op -> (quantized x, output scale, output zero point) -> result
WITH_OUTPUT: dict[str, Callable[..., Any]] = {
    "quantized::hardswish": lambda x, s, z: q.hardswish(x, s, z),
    "quantized::leaky_relu": lambda x, s, z: q.leaky_relu(x, 0.1, False, s, z),
    "quantized::elu": lambda x, s, z: q.elu(x, s, z, 1.3, 0.9, 0.7),
    "quantized::celu": lambda x, s, z: q.celu(x, s, z, 1.6),
    "quantized::dropout": lambda x, s, z: q.dropout(x, s, z, 0.5, False),
}
PLAIN: dict[str, Callable[..., Any]] = {
    "quantized::relu6": lambda x: (q.relu6(x), _relu6_in_place(x)),
    "quantized::threshold": lambda x: (q.threshold(x, 0.3, -0.2), q.threshold(x, -100.0, 50.0)),
    "quantized::clamp": lambda x: q.clamp(x, -0.3, 1.1),
    "aten::relu": lambda x: (torch.relu(x), _in_place(aten.relu_, x)),
    "aten::leaky_relu": lambda x: (aten.leaky_relu(x, 0.2), _in_place(aten.leaky_relu_, x, 0.3), _leaky_out(x)),
    "aten::threshold": lambda x: aten.threshold(x, 0.4, 0.1),
    "aten::gelu": lambda x: (aten.gelu(x), aten.gelu(x, approximate="tanh"), _in_place(aten.gelu_, x)),
    "aten::sigmoid": torch.sigmoid,
    "aten::tanh": torch.tanh,
    "aten::hardsigmoid": torch.nn.functional.hardsigmoid,
    "aten::hardtanh": lambda x: torch.nn.functional.hardtanh(x, -0.7, 1.2),
}
CLAMPS: dict[str, Callable[..., Any]] = {
    "none-max": lambda x: q.clamp(x, None, 0.5),
    "min-none": lambda x: q.clamp(x, 0.1, None),
    "crossed": lambda x: q.clamp(x, 1.1, -0.3),
}
REFUSED = {"qnnpack": "PyTorch refuses clamp without both bounds, and with min above max, on qnnpack"}


def _relu6_in_place(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.relu(x * 1 if not x.is_quantized else q.add.Scalar(x, 0.0))
    return q.relu6(x, True), q.mul.Scalar(x, 2.0)


def _in_place(op: Any, x: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the op's result, and what a later reader of its input finds."""
    x = q.mul.Scalar(x, 0.5)
    return op(x, *rest), q.mul.Scalar(x, 2.0)


def _leaky_out(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out = q.mul.Scalar(x, 0.7)
    return aten.leaky_relu.out(x, 0.1, out=out), q.mul.Scalar(out, 2.0)


def quantizer(source: tuple[float, int], dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns what gives codes over the whole range for x in [-3, 3]."""
    scale, zero_point = source

    def quantize(x: torch.Tensor) -> torch.Tensor:
        shifted = zero_point - 128 if dtype == torch.qint8 else zero_point
        return torch.quantize_per_tensor(x * (scale * 45) + scale * (128 - zero_point), scale, shifted, dtype)

    return quantize


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for dtype in DTYPES:
        name, shift = str(dtype).removeprefix("torch."), 128 if dtype == torch.qint8 else 0
        for kind, source in SOURCES.items():
            quantize = quantizer(source, dtype)
            inputs = (uniform(SHAPE, 1),)
            for op, function in WITH_OUTPUT.items():

                def with_output(
                    x: torch.Tensor, f: Any = function, quantize: Any = quantize, s: Any = source, shift: int = shift
                ) -> Any:
                    return f(quantize(x), s[0] * 1.3, 77 - shift), f(quantize(x), s[0] * 0.4, 255 - shift)

                yield Case(op, f"{name}-{kind}", lambda f=with_output: Apply(f), inputs)
            for op, function in PLAIN.items():

                def plain(x: torch.Tensor, f: Any = function, quantize: Any = quantize) -> Any:
                    return f(quantize(x))

                yield Case(op, f"{name}-{kind}", lambda f=plain: Apply(f), inputs)
            yield from _particular(dtype, name, shift, kind, quantize)
    yield from _products()


def _particular(dtype: torch.dtype, name: str, shift: int, kind: str, quantize: Any) -> Iterator[Case]:
    inputs = (uniform(SHAPE, 1),)
    engines = ("fbgemm", "onednn", "x86")
    for form, function in CLAMPS.items():

        def bound(x: torch.Tensor, f: Any = function) -> Any:
            return f(quantize(x))

        make = lambda f=bound: Apply(f)  # noqa: E731
        yield Case("quantized::clamp", f"{name}-{kind}-{form}", make, inputs, engines, left_out=REFUSED)

    def sigmoid(x: torch.Tensor) -> Any:
        return q.sigmoid(quantize(x), 1 / 256, -shift)

    yield Case("quantized::sigmoid", f"{name}-{kind}", lambda: Apply(sigmoid), inputs)

    def other_sigmoid(x: torch.Tensor) -> Any:
        return q.sigmoid(quantize(x), 0.011, 9 - shift)

    if dtype == torch.quint8:
        reason = {"qnnpack": "PyTorch: only an output scale of 1/256 is supported on qnnpack"}
        make = lambda: Apply(other_sigmoid)  # noqa: E731
        yield Case("quantized::sigmoid", f"{name}-{kind}-scale", make, inputs, engines, left_out=reason)
    else:
        yield Case("quantized::sigmoid", f"{name}-{kind}-scale", lambda: Apply(other_sigmoid), inputs)


def _products() -> Iterator[Case]:
    for dtype in DTYPES:
        name, shift = str(dtype).removeprefix("torch."), 128 if dtype == torch.qint8 else 0
        for shape, count in (((2, 5, 3, 7), 5), ((3, 4), 4), ((2, 3, 5), 1), ((9,), 1)):
            weight = torch.quantize_per_tensor(torch.linspace(-0.4, 1.2, count), 0.011, 100 - shift, dtype)
            broadcast = weight.reshape(
                [count if axis == 1 else 1 for axis in range(len(shape))] if len(shape) > 1 else [1]
            )

            def prelu(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, dtype: Any = dtype, shift: int = shift) -> Any:
                x = quantizer((0.03, 90), dtype)(x)
                return q.prelu(x, w, 0.021, 33 - shift), aten.prelu(x, w), aten._prelu_kernel(x, b)

            make = lambda f=prelu, w=weight, b=broadcast: Apply(f, w=w, b=b)  # noqa: E731
            yield Case("quantized::prelu", f"{name}-{shape}", make, (uniform(shape, 3),))
        few = (((5, 7), (7, 3)), ((2, 4, 9), (2, 9, 5)), ((2, 3, 4, 33), (2, 3, 33, 2)), ((2, 4, 8), (8, 3)))
        for lhs, rhs in (*few, ((4, 200), (200, 12)), ((2, 3, 9, 33), (2, 3, 33, 17)), ((2, 5, 401), (401, 16))):
            for kind, scales in {"exact": (0.25, 0.5, 8.0), "free": (0.031, 0.017, 0.4)}.items():

                def matmul(
                    x: torch.Tensor, y: torch.Tensor, dtype: Any = dtype, shift: int = shift, scales: Any = scales
                ) -> Any:
                    a, b = quantizer((scales[0], 100), dtype)(x), quantizer((scales[1], 140), dtype)(y)
                    return q.matmul(a, b, scales[2], 120 - shift)

                make = lambda f=matmul: Apply(f)  # noqa: E731
                yield Case("quantized::matmul", f"{name}-{lhs}-{kind}", make, (uniform(lhs, 4), uniform(rhs, 5)))
