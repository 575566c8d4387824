"""Rows of codes of 32 bits (qint32): ops that move, choose, compare or fill them. Averages of them are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as functional

from tests.matrix.case import Case
from tests.matrix.quantized import ONE_KERNEL, WIDE, rows

Shape = tuple[int, ...]

FUNCTIONS: tuple[tuple[str, str, Callable[[Any], Any], Shape], ...] = (
    ("aten::transpose", "wide", lambda q: q.transpose(0, 1), (3, 5)),
    ("aten::flip", "wide", lambda q: q.flip([1]), (3, 5)),
    ("aten::reshape", "wide", lambda q: q.reshape(-1, 3), (3, 5)),
    ("aten::chunk", "wide", lambda q: q.chunk(2, 1), (3, 5)),
    ("aten::expand", "wide", lambda q: q.expand(2, 3, 5), (3, 1)),
    ("aten::stack", "wide", lambda q: torch.stack([q, q.flip([1])]), (3, 9)),
    ("aten::max", "wide", lambda q: q.max(), (3, 5)),
    ("aten::max", "wide-dim", lambda q: tuple(q.max(1)), (3, 5)),
    ("aten::min", "wide-dim", lambda q: tuple(q.min(0)), (3, 5)),
    ("aten::topk", "wide", lambda q: q.topk(3).values, (3, 9)),
    ("aten::gt", "wide", lambda q: q > 0.1, (3, 9)),
    ("aten::eq", "wide", lambda q: q == q.flip([1]), (3, 9)),
    ("aten::index", "wide", lambda q: q[:, torch.tensor([1, 0])], (3, 5)),
    ("aten::index_select", "wide", lambda q: q.index_select(0, torch.tensor([2, 0])), (3, 5)),
    ("aten::pad", "wide", lambda q: functional.pad(q, (1, 2), value=0.5), (3, 5)),
    ("aten::fill_", "wide", lambda q: q.clone().fill_(0.3), (3, 5)),
    ("aten::full_like", "wide", lambda q: torch.full_like(q, 0.3), (3, 5)),
    ("aten::masked_fill", "wide", lambda q: q.masked_fill(q.dequantize() > 0.2, 0.3), (3, 9)),
    ("aten::max_pool2d", "wide", lambda q: functional.max_pool2d(q, 2), (1, 3, 6, 6)),
    ("aten::upsample_nearest2d", "wide", lambda q: functional.interpolate(q, scale_factor=2), (1, 3, 4, 4)),
)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for op, name, function, shape in FUNCTIONS:
        yield from rows(op, name, function, shape, dtypes=tuple(WIDE), scale=1e-4, **ONE_KERNEL)
