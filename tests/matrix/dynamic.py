"""Rows of linear layers that quantize their float input when they run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, product

import numpy as np
import numpy.typing as npt
import torch

from tests.matrix.case import ENGINES, Apply, Case, uniform

SHAPES = {"2d": (3, 17), "1row": (1, 64), "3d": (2, 5, 33), "4d": (2, 1, 3, 8)}
NO_ASYMMETRIC = {"onednn": "PyTorch's onednn refuses weights whose zero point is not 0"}


def int8_weight(units: int, features: int, seed: int, scheme: str) -> torch.Tensor:
    """Returns seeded int8 weights; scheme: per_tensor or per_channel, "-asymmetric" for zero points other than 0."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(units, features, generator=generator) * 0.4
    points = torch.zeros(units, dtype=torch.int64)
    if scheme.endswith("-asymmetric"):
        points = torch.randint(-128, 128, (units,), generator=generator)
    if scheme.startswith("per_tensor"):
        return torch.quantize_per_tensor(values, 0.0093, int(points[0]), torch.qint8)
    scales = torch.rand(units, generator=generator, dtype=torch.float64) * 0.02 + 1e-4
    return torch.quantize_per_channel(values, scales, points, 0, torch.qint8)


def bias_of(units: int, seed: int) -> torch.Tensor:
    """Returns seeded float32 numbers."""
    return torch.randn(units, generator=torch.Generator().manual_seed(seed))


def inputs_of(shape: tuple[int, ...]) -> dict[str, npt.NDArray[np.float32]]:
    """Returns what a range can be: both signs, one sign, off zero, empty, tiny, huge, and values that tie."""
    x = uniform(shape, 5)
    ties = np.round(uniform(shape, 6, -60, 190)) + np.float32(0.5)
    ties.reshape(-1)[:2] = (-62.5, 192.5)
    return {
        "both": x,
        "positive": np.abs(x),
        "negative": -np.abs(x),
        "offset": x + np.float32(7),
        "zeros": np.zeros_like(x),
        "tiny": x * np.float32(1e-6),
        "tiny_positive": np.abs(x) * np.float32(1e-6),
        "tiny_negative": -np.abs(x) * np.float32(1e-6),
        "denormal": x * np.float32(1e-41),
        "huge": x * np.float32(1e38),
        "ties": ties.astype(np.float32),
    }


def _linear(op: str, scheme: str, units: int, features: int, bias: bool, *arguments: object) -> Apply:
    packed = torch.ops.quantized.linear_prepack(
        int8_weight(units, features, 3, scheme), bias_of(units, 4) if bias else None
    )
    function = getattr(torch.ops.quantized, op)
    return Apply(lambda x, packed: function(x, packed, *arguments), packed=packed)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    ops = ("linear_dynamic", "linear_relu_dynamic")
    schemes = ("per_tensor", "per_channel", "per_tensor-asymmetric", "per_channel-asymmetric")
    for (op, scheme, (name, shape)), reduce_range in zip(
        product(ops, schemes, SHAPES.items()), cycle((False, True, True)), strict=False
    ):
        bias = name != "3d"
        left_out = NO_ASYMMETRIC if scheme.endswith("-asymmetric") else {}
        yield Case(
            f"quantized::{op}",
            f"{scheme}-{name}{'' if bias else '-no_bias'}-{'7bit' if reduce_range else '8bit'}",
            lambda o=op, s=scheme, k=shape[-1], b=bias, r=reduce_range: _linear(o, s, 7, k, b, r),
            (uniform(shape, 2),),
            engines=tuple(engine for engine in ENGINES if engine not in left_out),
            left_out=left_out,
        )
    for op, scheme, reduce_range in zip(ops, ("per_tensor", "per_channel"), (False, True), strict=True):
        for name, array in inputs_of((4, 24)).items():
            yield Case(
                f"quantized::{op}",
                f"{scheme}-range_{name}-{'7bit' if reduce_range else '8bit'}",
                lambda o=op, s=scheme, r=reduce_range: _linear(o, s, 19, 24, True, r),
                (array,),
            )
