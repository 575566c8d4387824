"""Rows of batch, layer, group and instance norm. One kernel serves every engine: most rows run on fbgemm alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.matrix.case import Case, uniform

DTYPES = (torch.quint8, torch.qint8)
SAME = "the kernel is fbgemm's; other rows of this op run here"
FBGEMM_ONLY: dict[str, Any] = {"engines": ("fbgemm",), "left_out": dict.fromkeys(("onednn", "x86", "qnnpack"), SAME)}
# input scale and zero point, output scale and zero point; zero points are of quint8, qint8's are 128 less
QPARAMS = {"near": ((0.047, 61), (0.031, 120)), "ends": ((0.02, 255), (0.009, 0)), "small": ((1e-6, 0), (0.017, 255))}


class Norm(nn.Module):
    """One normalization with weights of chosen size; weights that cancel against the bias show every rounding."""

    def __init__(
        self,
        op: Any,
        channels: int,
        dtype: torch.dtype,
        qparams: Any,
        *,
        statistics: bool = False,
        affine: bool = True,
        magnitude: float = 1.0,
        layout: torch.memory_format = torch.contiguous_format,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(channels)
        weight = torch.randn(channels, generator=generator) * magnitude
        bias = torch.randn(channels, generator=generator) * (weight if magnitude > 1 else 1)
        self.register_buffer("weight", weight if affine else None)
        self.register_buffer("bias", bias if affine else None)
        shift = 128 if dtype == torch.qint8 else 0
        (scale, zero_point), (self.scale, output_zero_point) = qparams
        self.source, self.dtype, self.layout, self.eps = (scale, zero_point - shift), dtype, layout, eps
        self.zero_point, self.offset = output_zero_point - shift, scale * (128 - zero_point)
        centre, spread = torch.randn(channels, generator=generator), torch.rand(channels, generator=generator) + 0.01
        self.register_buffer("mean", centre * scale * 30 if statistics else None)
        self.register_buffer("var", spread * (scale * 40) ** 2 if statistics else None)
        self.op = op

    def forward(self, x: torch.Tensor) -> Any:
        # x is uniform in [-3, 3]: codes over the whole range
        q = torch.quantize_per_tensor(x * (self.source[0] * 45) + self.offset, *self.source, self.dtype)
        q = q.contiguous(memory_format=self.layout)
        if self.mean is not None:
            return self.op(q, self.weight, self.bias, self.mean, self.var, self.eps, self.scale, self.zero_point)
        return self.op(q, self.weight, self.bias, self.eps, self.scale, self.zero_point)


def _layer_norm(dims: int) -> Any:
    def run(q: torch.Tensor, *rest: Any) -> torch.Tensor:
        shape = list(q.shape[-dims:])
        weight, bias = (None if w is None else w.reshape(shape) for w in rest[:2])
        return torch.ops.quantized.layer_norm(q, shape, weight, bias, *rest[2:])

    return run


def _group_norm(groups: int) -> Any:
    return lambda q, *rest: torch.ops.quantized.group_norm(q, groups, *rest)


def _batch_norms(dtype: torch.dtype, name: str) -> Iterator[Case]:
    q = torch.ops.quantized
    shapes = {"batch_norm1d": [(3, 5), (2, 33, 7)], "batch_norm2d": [(2, 9, 3, 5), (1, 40, 2, 3)]}
    shapes["batch_norm3d"] = [(1, 7, 2, 3, 2), (2, 32, 1, 2, 3)]
    shapes["batch_norm"] = [shape for several in shapes.values() for shape in several]
    for op, several in shapes.items():
        for relu in ("", "_relu"):
            for i, shape in enumerate(several):
                kind = list(QPARAMS)[i % len(QPARAMS)]

                def make(op: str = op + relu, shape: Any = shape, kind: str = kind) -> nn.Module:
                    return Norm(getattr(q, op), shape[1], dtype, QPARAMS[kind], statistics=True)

                where = {} if i == 0 and not relu and dtype == torch.quint8 else FBGEMM_ONLY
                yield Case(f"quantized::{op}{relu}", f"{name}-{kind}-{shape}", make, (uniform(shape, 1),), **where)
    for layout in (torch.contiguous_format, torch.channels_last):
        for shape in ((2, 9, 3, 5), (1, 40, 2, 3)):

            def aten(layout: Any = layout, shape: Any = shape) -> nn.Module:
                op = torch.ops.aten.quantized_batch_norm
                return Norm(op, shape[1], dtype, QPARAMS["near"], statistics=True, layout=layout)

            variant = f"{name}-{shape}-{layout}".replace("torch.", "")
            yield Case("aten::quantized_batch_norm", variant, aten, (uniform(shape, 2),))


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        yield from _batch_norms(dtype, name)
        yield from _layer_norms(dtype, name)
        yield from _group_norms(dtype, name)


KINDS = (("near", True, 1.0), ("ends", False, 1.0), ("small", True, 1e4))


def _layer_norms(dtype: torch.dtype, name: str) -> Iterator[Case]:
    shapes = (((3, 2, 77), 1), ((4, 8, 8), 2), ((5, 31), 1), ((6, 1), 1), ((2, 3, 40), 2))
    for i, (shape, dims) in enumerate(shapes):
        for kind, affine, magnitude in KINDS if i == 0 else KINDS[i % 3 :][:1]:

            def make(
                shape: Any = shape, dims: int = dims, kind: str = kind, affine: bool = affine, size: float = magnitude
            ) -> nn.Module:
                elements = int(np.prod(shape[-dims:]))
                return Norm(_layer_norm(dims), elements, dtype, QPARAMS[kind], affine=affine, magnitude=size)

            variant = f"{name}-{shape}-{dims}-{kind}-{magnitude:g}-affine_{affine}"
            where = {} if kind == "near" and dtype == torch.quint8 else FBGEMM_ONLY
            yield Case("quantized::layer_norm", variant, make, (uniform(shape, 3),), **where)


def _group_norms(dtype: torch.dtype, name: str) -> Iterator[Case]:
    planar, last = torch.contiguous_format, torch.channels_last
    forms = [((2, 6, 5), 3, planar), ((2, 12, 3, 5), 4, planar), ((2, 8, 2, 2, 3), 2, planar)]
    forms += [((2, 12, 3, 5), 4, last), ((1, 66, 3, 2), 1, last), ((1, 64, 4, 2), 2, last), ((1, 6, 3, 2), 6, last)]
    for i, (shape, groups, layout) in enumerate(forms):
        for kind, affine, magnitude in KINDS if i in (1, 4) else KINDS[i % 3 :][:1]:

            def make(
                shape: Any = shape,
                groups: int = groups,
                layout: Any = layout,
                kind: str = kind,
                affine: bool = affine,
                magnitude: float = magnitude,
            ) -> nn.Module:
                run = torch.ops.quantized.instance_norm if groups == shape[1] else _group_norm(groups)
                options: dict[str, Any] = {"affine": affine, "magnitude": magnitude, "layout": layout}
                return Norm(run, shape[1], dtype, QPARAMS[kind], **options)

            op = "quantized::instance_norm" if groups == shape[1] else "quantized::group_norm"
            variant = f"{name}-{shape}-{groups}-{kind}-{magnitude:g}-affine_{affine}-{layout}".replace("torch.", "")
            where = {} if kind == "near" and dtype == torch.quint8 else FBGEMM_ONLY
            yield Case(op, variant, make, (uniform(shape, 4),), **where)

    for shape in ((2, 5, 7), (1, 3, 2, 5)):

        def instance(shape: Any = shape) -> nn.Module:
            return Norm(torch.ops.quantized.instance_norm, shape[1], dtype, QPARAMS["near"])

        yield Case("quantized::instance_norm", f"{name}-{shape}", instance, (uniform(shape, 6),))

    def large() -> nn.Module:
        # small codes, so that PyTorch's float32 sums over maps of 512 pixels are exact
        layout = torch.channels_last
        zero_point = 10 if dtype == torch.quint8 else 138
        return Norm(_group_norm(2), 4, dtype, ((0.5, zero_point), (0.04, 120)), layout=layout, eps=0.1)

    values = uniform((2, 4, 20, 27), 5, -0.2, 0.2) - np.float32((128 - 20) / 45)
    yield Case("quantized::group_norm", f"{name}-large-channels_last", large, (values,), **FBGEMM_ONLY)
