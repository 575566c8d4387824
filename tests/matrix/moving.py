"""Rows of ops that move codes and keep their parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.matrix.case import Apply, Case, uniform


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for dtype in (torch.quint8, torch.qint8):
        for dims in ((0, 1), (1, 2), (-1, 0)):

            def transpose(x: torch.Tensor, dtype: torch.dtype = dtype, dims: tuple[int, int] = dims) -> torch.Tensor:
                return torch.quantize_per_tensor(x, 0.031, 7, dtype).transpose(*dims)

            name = str(dtype).removeprefix("torch.")
            yield Case(
                "aten::transpose", f"{name}-{dims[0]}-{dims[1]}", lambda f=transpose: Apply(f), (uniform((3, 5, 7), 1),)
            )
