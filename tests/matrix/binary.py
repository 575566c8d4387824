"""Rows of ops on two quantized tensors, and of their forms with a number and with out.

Sizes leave no vector tail: PyTorch's scalar code of add rounds otherwise (tests/numerics/test_numerics.py shows it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tests.matrix.case import ENGINES, Apply, Case, uniform

DTYPES = (torch.quint8, torch.qint8)
# (lhs scale, zero point), (rhs ...), (output ...); zero points are of quint8, qint8's are 128 less
QPARAMS = {
    "near": ((0.047, 61), (0.031, 120), (0.07, 101)),
    "ends": ((0.021, 0), (0.034, 255), (0.05, 255)),
    "low": ((0.02, 255), (0.011, 0), (0.013, 0)),
    "even": ((0.25, 128), (0.5, 3), (0.5, 77)),
}
FAR = {
    "small": ((1e-8, 5), (3e-8, 250), (2e-8, 128)),
    "large": ((9e3, 100), (1e4, 101), (1.2e4, 99)),
    "narrow": ((0.1, 100), (0.002, 90), (0.09, 9)),
    "clamped": ((0.1, 100), (0.2, 90), (0.0021, 9)),
}
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "equal": ((2, 4, 8, 8), (2, 4, 8, 8)),
    "gate": ((1, 3, 8, 8), (1, 3, 1, 1)),
    "gated": ((1, 3, 1, 1), (1, 3, 8, 8)),
    "row": ((5, 64), (64,)),
    "one": ((4, 64), (1,)),
}
NUMBERS = (0.37, -0.37, 0.0, 11.5, -300.0, 3)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def quantize(x: torch.Tensor, qparams: tuple[float, int], dtype: torch.dtype) -> torch.Tensor:
    """Returns codes over the whole range: x is uniform in [-3, 3]."""
    scale, zero_point = qparams
    shifted = zero_point - 128 if dtype == torch.qint8 else zero_point
    return torch.quantize_per_tensor(x * (scale * 45) + scale * (128 - zero_point), scale, shifted, dtype)


class Binary(nn.Module):
    """One op on two tensors, without or with out."""

    def __init__(self, op: Any, qparams: Any, dtype: torch.dtype, *, out: bool = False) -> None:
        super().__init__()
        self.op, self.qparams, self.dtype, self.out = op, qparams, dtype, out

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        lhs, rhs, (scale, zero_point) = self.qparams
        a, b = quantize(x, lhs, self.dtype), quantize(y, rhs, self.dtype)
        if not self.out:
            return self.op(a, b, scale, zero_point - 128 if self.dtype == torch.qint8 else zero_point)
        out = quantize(x, self.qparams[2], self.dtype)
        returned = self.op(a, b, out)
        return returned, out, torch.relu(out)


class WithNumber(nn.Module):
    """Forms of one op with a number: the plain one, or all others."""

    def __init__(self, base: str, number: float, dtype: torch.dtype, *, relu: bool, plain: bool) -> None:
        super().__init__()
        self.base, self.number, self.dtype, self.relu, self.plain = base, number, dtype, "_relu" if relu else "", plain
        self.register_buffer("tensor", torch.tensor(number))

    def forward(self, x: torch.Tensor) -> Any:
        op = getattr(torch.ops.quantized, f"{self.base}{self.relu}")
        a = quantize(x, (0.047, 61), self.dtype)
        if self.plain:
            return op.Scalar(a, self.number)
        legacy = getattr(torch.ops.quantized, f"{self.base}_scalar{self.relu}")
        legacy_out = getattr(torch.ops.quantized, f"{self.base}_scalar{self.relu}_out")
        outs = [quantize(x, (0.05, 99), self.dtype) for _ in range(3)]
        results = [op.Scalar2(self.number, a), legacy(a, self.number), legacy.Tensor(a, self.tensor)]
        results += [op.Scalar_out(a, self.number, outs[0])]
        results += [legacy_out(a, self.number, outs[1]), legacy_out.Tensor(a, self.tensor, outs[2])]
        # PyTorch's mul_relu with out and a positive number returns a new tensor and leaves out as it was
        forgets_out = self.base == "mul" and self.relu and self.number > 0
        return results if forgets_out else [*results, torch.relu(outs[0]), torch.relu(outs[2])]


def _of_32_bits() -> Iterator[Case]:
    q = torch.ops.quantized

    def codes(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
        return torch.quantize_per_tensor(x, scale, zero_point, torch.qint32)

    def cat(x: torch.Tensor, y: torch.Tensor) -> Any:
        parts = [codes(x, 1e-3, 5), codes(y, 2e-3, -7)]
        last = [part.contiguous(memory_format=torch.channels_last) for part in parts]
        return q.cat(parts, 1, 3e-3, 11), q.cat_relu(last, 1, 3e-3, 11), q.cat(last, 1, None, None)

    for magnitude in (3.0, 3e4):
        inputs = tuple(uniform((2, 16, 4, 4), seed, -magnitude, magnitude) for seed in (10, 11))
        for op in ("add", "add_relu", "mul", "mul_relu"):

            def binary(x: torch.Tensor, y: torch.Tensor, op: str = op, magnitude: float = magnitude) -> Any:
                output = 3e-3 if op.startswith("add") else 1e-2 * magnitude
                return getattr(q, op)(codes(x, 1e-3 * magnitude, 5), codes(y, 2e-3 * magnitude, -7), output, 11)

            yield Case(f"quantized::{op}", f"qint32-{magnitude:g}", lambda f=binary: Apply(f), inputs)
        yield Case("quantized::cat", f"qint32-{magnitude:g}", lambda: Apply(cat), inputs)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    yield from _of_32_bits()
    for dtype in DTYPES:
        for op in ("add", "add_relu", "mul", "mul_relu"):
            packet = getattr(torch.ops.quantized, op)
            # qnnpack's kernel takes ratios of scales in [2**-14, 2**8) only; all of these have them
            for kind, qparams in {**QPARAMS, **FAR}.items():
                inputs = (uniform((2, 4, 8, 8), 1), uniform((2, 4, 8, 8), 2))

                def make(packet: Any = packet, qparams: Any = qparams, dtype: torch.dtype = dtype) -> nn.Module:
                    return Binary(packet, qparams, dtype)

                # qnnpack raises where ReLU leaves a single code: "range min must be below range max"
                raises = op == "add_relu" and kind == "ends" and dtype == torch.quint8
                engines, left_out = (ENGINES[:-1], {"qnnpack": "PyTorch raises"}) if raises else (ENGINES, {})
                yield Case(f"quantized::{op}", f"{name_of(dtype)}-{kind}", make, inputs, engines, left_out)
            for kind, (lhs, rhs) in SHAPES.items():

                def shaped(packet: Any = packet, dtype: torch.dtype = dtype) -> nn.Module:
                    return Binary(packet, QPARAMS["near"], dtype)

                yield Case(f"quantized::{op}", f"{name_of(dtype)}-{kind}", shaped, (uniform(lhs, 3), uniform(rhs, 4)))
            for form in (packet.out, getattr(torch.ops.quantized, f"{op}_out").default):
                for kind in ("near", "ends"):

                    def out(form: Any = form, kind: str = kind, dtype: torch.dtype = dtype) -> nn.Module:
                        return Binary(form, QPARAMS[kind], dtype, out=True)

                    inputs = (uniform((2, 4, 8, 8), 5), uniform((2, 4, 8, 8), 6))
                    name = f"quantized::{op}{'' if form is packet.out else '_out'}"
                    yield Case(name, f"{name_of(dtype)}-{kind}-{form}", out, inputs)
        for base in ("add", "mul"):
            for relu in (False, True):
                for number in NUMBERS:
                    for plain in (True, False) if number in (0.37, -0.37) else (True,):

                        def with_number(
                            base: str = base,
                            number: float = number,
                            dtype: torch.dtype = dtype,
                            relu: bool = relu,
                            plain: bool = plain,
                        ) -> nn.Module:
                            return WithNumber(base, number, dtype, relu=relu, plain=plain)

                        variant = f"{name_of(dtype)}-{number}{'-relu' if relu else ''}"
                        last = "_relu" if relu else ""
                        legacy = tuple(f"quantized::{base}_scalar{last}{out}" for out in ("", "_out"))
                        name, also = f"quantized::{base}{last}", () if plain else legacy
                        inputs = (uniform((4, 64), 7),)
                        form = "number" if plain else "forms"
                        yield Case(name, f"{variant}-{form}", with_number, inputs, also=also)
        yield from _concatenations(dtype)


def _concatenations(dtype: torch.dtype) -> Iterator[Case]:
    q = torch.ops.quantized
    zero = -128 if dtype == torch.qint8 else 0

    def pieces(x: torch.Tensor, layout: torch.memory_format) -> list[torch.Tensor]:
        parts = [x, x[:, :5], x[:, :2]]
        codes = [quantize(part, p, dtype) for part, p in zip(parts, QPARAMS["near"], strict=True)]
        return [c.contiguous(memory_format=layout) for c in codes]

    for layout in (torch.contiguous_format, torch.channels_last):
        for relu in ("", "_relu"):
            for dim in (1, -3) if layout == torch.channels_last else (1,):

                def run(x: torch.Tensor, layout: Any = layout, relu: str = relu, dim: int = dim) -> Any:
                    parts = pieces(x, layout)
                    cat, cat_out = getattr(q, f"cat{relu}"), getattr(q, f"cat{relu}_out")
                    wide = torch.zeros(x.shape[0], x.shape[1] + 7, x.shape[2], x.shape[3])
                    out = torch.quantize_per_tensor(wide, 0.06, 90 + zero, dtype)
                    results = [cat(parts, dim, 0.06, 90 + zero), cat(parts, dim, None, None)]
                    results += [cat(parts, dim, 0.06, None), cat(parts, dim, None, 90 + zero)]
                    results += [cat_out(parts, dim, out), torch.relu(out)]
                    return results

                variant = f"{name_of(dtype)}-{str(layout).removeprefix('torch.')}-dim{dim}"
                for shape in ((2, 11, 3, 5), (1, 40, 2, 2)) if dim == 1 and not relu else ((2, 11, 3, 5),):
                    yield Case(
                        f"quantized::cat{relu}",
                        f"{variant}-{shape[1]}",
                        lambda run=run: Apply(run),
                        (uniform(shape, 8),),
                        also=(f"quantized::cat{relu}_out",),
                    )

    def other(x: torch.Tensor) -> Any:
        a, b = quantize(x, (0.047, 61), dtype), quantize(x, (0.031, 120), dtype)
        return [q.cat([a, b], dim, 0.06, 90 + zero) for dim in range(x.ndim)]

    for shape in ((7,), (3, 5), (2, 3, 4), (2, 3, 2, 2, 3)):
        yield Case("quantized::cat", f"{name_of(dtype)}-{shape}", lambda: Apply(other), (uniform(shape, 9),))
