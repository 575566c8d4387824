"""Rows of ops that write numbers or other tensors into quantized ones, and of stacking."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from tests.matrix.case import Case, uniform
from tests.matrix.quantized import ENDS, ONE_KERNEL
from tests.matrix.quantized import both_layouts as _both_layouts
from tests.matrix.quantized import rows as _rows

# halfway between two codes among them, and past the range
NUMBERS = (0.0, 0.77, -0.0155, 0.0465, 300.0, -300.0)


def _with_scale(q: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.quantize_per_tensor(q.dequantize(), scale, q.q_zero_point(), q.dtype)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    rows, both_layouts = (partial(make, **ONE_KERNEL) for make in (_rows, _both_layouts))
    for number in NUMBERS:
        fill = lambda q, number=number: q.clone().fill_(number)  # noqa: E731
        yield from rows("aten::fill_", str(number), fill, (3, 5), dtypes=("u8", "s8", *ENDS))
        yield from rows(
            "aten::masked_fill",
            str(number),
            lambda q, number=number: q.masked_fill(q.dequantize() > 0.2, number),
            (3, 5),
        )
        yield from rows("aten::full_like", str(number), lambda q, number=number: torch.full_like(q, number), (3, 5))
    yield from rows("aten::fill_", "tensor", lambda q: q.clone().fill_(torch.tensor(0.3)), (3, 5))
    yield from rows("aten::ones_like", "", torch.ones_like, (3, 5))
    yield from rows(
        "aten::masked_fill", "tensor", lambda q: q.masked_fill(q.dequantize() > 0.2, torch.tensor(0.4)), (3, 5)
    )
    yield from rows(
        "aten::masked_fill", "broadcast", lambda q: q.masked_fill(torch.tensor([True, False, True]), 0.4), (2, 4, 3)
    )
    yield from rows(
        "aten::masked_fill_", "in place", lambda q: q.clone().masked_fill_(q.dequantize() > 0.2, 0.5), (3, 5)
    )
    yield from both_layouts(
        "aten::masked_fill", "map", lambda q: q.masked_fill(q.dequantize() > 0.2, -0.5), (2, 5, 3, 4)
    )
    yield from rows("aten::copy_", "quantized", lambda q: q.clone().copy_(_with_scale(q, 0.1)), (3, 5))
    yield from rows("aten::copy_", "float", lambda q, x: q.clone().copy_(x), (30, 50), uniform((30, 50), 9, -5, 5))
    for dim in (0, 1, -1):
        yield from rows("aten::stack", str(dim), lambda q, p, dim=dim: torch.stack([q, p], dim), (3, 5, 4), (3, 5, 4))
    for name in ("hstack", "vstack", "dstack", "column_stack"):
        for shape in ((5,), (3, 5), (2, 3, 5)):
            stack = getattr(torch, name)
            variant = "x".join(map(str, shape))
            yield from rows(f"aten::{name}", variant, lambda q, p, stack=stack: stack([q, p]), shape, shape)
    yield from rows(
        "aten::stack",
        "almost equal scales",
        lambda q: torch.stack([q, _with_scale(q, 0.03105)], 1),
        (3, 8, 9),
    )
