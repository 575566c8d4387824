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
    yield from _written_parts()
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


def _put(q: torch.Tensor, indices: tuple[torch.Tensor | None, ...], x: torch.Tensor) -> torch.Tensor:
    return q.clone().index_put_(indices, x)


def _into_columns(q: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    q = q.clone()
    q[:, torch.tensor([4, -1, 2])] = x
    return q


def _into_rows(q: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, ...]:
    q = q.clone()
    view = q[1:3]
    view.copy_(_with_scale(p, 0.1)[1:3])
    q[3].fill_(0.0465)
    return q, q[:, 1], view


def _out_forms(q: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(
        compare(q, other, out=torch.zeros(q.shape, dtype=torch.bool))
        for compare in (torch.lt, torch.ge, torch.eq)
        for other in (p, 0.3)
    )


def _written_parts() -> Iterator[Case]:
    """Yields rows of writes into parts of a quantized tensor, and of comparisons that are given their result."""
    rows = partial(_rows, **ONE_KERNEL)
    first, second = torch.tensor([3, 0, 1]), torch.tensor([4, -1, 2])
    yield from rows("aten::index_put_", "rows", lambda q, x: _put(q, (first,), x), (4, 50), uniform((50,), 3, -5, 5))
    yield from rows("aten::index_put_", "pairs", lambda q, x: _put(q, (first, second), x), (4, 5), uniform((3,), 4))
    yield from rows("aten::index_put_", "columns", _into_columns, (4, 5), uniform((4, 3), 5))
    for number in NUMBERS:
        value = torch.tensor(number)
        yield from rows(
            "aten::index_put_", f"mask-{number}", lambda q, v=value: _put(q, (q.dequantize() > 0.2,), v), (3, 5)
        )
        yield from rows("aten::index_put_", f"one-{number}", lambda q, v=value: _put(q, (first,), v), (4, 5))
    yield from rows("aten::slice_scatter", "views", _into_rows, (4, 6), (4, 6))
    yield from rows("aten::slice_scatter", "2", lambda q, p: torch.slice_scatter(q, p, 1, 1, 6, 2), (4, 6), (4, 3))
    yield from rows("aten::select_scatter", "-1", lambda q, p: torch.select_scatter(q, p, -1, 2), (4, 6), (4,))
    yield from rows("aten::lt", "out", _out_forms, (3, 9), (3, 9))
