"""Rows of quantized::softmax, over every dimension of small and odd shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tests.matrix.case import Apply, Case, uniform


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for dtype in (torch.quint8, torch.qint8):
        shift = 128 if dtype == torch.qint8 else 0
        # input scale and zero point, output scale and zero point
        kinds = {
            "plain": ((0.021, 100), (1 / 256, 0)),
            "fine": ((0.003, 0), (1e-4, 3)),
            "coarse": ((0.5, 255), (1 / 128, 255)),
        }
        forms = [
            ((3, 17), 1),
            ((4, 10), -1),
            ((2, 100), 1),
            ((2, 5, 33), 1),
            ((3, 4, 2), 0),
            ((2, 16, 4, 4), 1),
            ((7,), 0),
        ]
        for i, (shape, dim) in enumerate(forms):
            for kind, (source, output) in kinds.items() if i < 4 else list(kinds.items())[:1]:

                def run(
                    x: torch.Tensor,
                    dtype: torch.dtype = dtype,
                    shift: int = shift,
                    source: Any = source,
                    output: Any = output,
                    dim: int = dim,
                ) -> torch.Tensor:
                    scale, zero_point = source
                    real = x * (scale * 45) + scale * (128 - zero_point)
                    q = torch.quantize_per_tensor(real, scale, zero_point - shift, dtype)
                    return torch.ops.quantized.softmax(q, dim, output[0], output[1] - shift)

                name = f"{str(dtype).removeprefix('torch.')}-{kind}-{shape}-{dim}"
                where: dict[str, Any] = {}
                if kind != "plain":
                    same = "PyTorch's float kernel is fbgemm's; the plain rows run here"
                    where = {"engines": ("fbgemm", "qnnpack"), "left_out": {"onednn": same, "x86": same}}
                yield Case("quantized::softmax", name, lambda f=run: Apply(f), (uniform(shape, i),), **where)
