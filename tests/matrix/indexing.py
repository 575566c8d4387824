"""Rows of ops that choose elements by index tensors or masks, and of padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional

from tests.matrix.case import Case
from tests.matrix.quantized import ENDS, ONE_KERNEL, integers
from tests.matrix.quantized import both_layouts as _both_layouts
from tests.matrix.quantized import rows as _rows

T = torch.tensor
INDICES: dict[str, Callable[[Any], Any]] = {
    "first": lambda q: q[T([1, 0, 1])],
    "second": lambda q: q[:, T([2, -1])],
    "matrix": lambda q: q[:, :, T([[0, 3], [-2, 1]])],
    "pair": lambda q: q[:, T([2, 0, 1]), T([3, 4, -1])],
    "broadcast": lambda q: q[T([[1], [0]]), T([2, 0, 1])],
    "apart": lambda q: q[T([1, 0]), :, T([3, 4])],
    "all": lambda q: q[T([1, 0]), T([2, 2]), T([3, 4])],
    "mask": lambda q: q[:, T([True, False, True])],
    "mask of two": lambda q: q[T([[True, False, True], [False, True, False]])],
    "with a slice": lambda q: q[:, 1:][:, T([1, 0])],
}
PADS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "last": ((1, 2), {}),
    "two": ((1, 0, 2, 3), {"value": 0.83}),
    "cropped": ((-1, 2, 1, -2), {"value": -0.4}),
    "past the range": ((1, 1), {"value": 1e4}),
    "all": ((1, 1, 0, 1, 2, 0, 1, 1), {"value": -2.0}),
}


def cases() -> Iterator[Case]:
    """Yields the rows."""
    rows, both_layouts = (partial(make, **ONE_KERNEL) for make in (_rows, _both_layouts))
    for name, function in INDICES.items():
        yield from rows("aten::index", name, function, (2, 3, 5))
    yield from rows("aten::index", "run time", lambda q, i: q[:, i], (2, 3, 5), integers(2, 0, -1, -3))
    yield from both_layouts("aten::index", "map", lambda q: q[:, T([2, 0])], (2, 3, 5, 4))
    yield from rows("aten::index_select", "2", lambda q: q.index_select(2, T([4, 0, 0])), (2, 3, 5))
    yield from rows("aten::index_select", "0", lambda q: q.index_select(0, T([1])), (2, 3, 5))
    yield from rows(
        "aten::index_select", "run time", lambda q, i: q.index_select(-2, i), (2, 3, 5), integers(2, 0, 0, 1)
    )
    yield from both_layouts("aten::index_select", "map", lambda q: q.index_select(1, T([2, 0, 1])), (2, 3, 5, 4))
    yield from rows("aten::select_copy", "1", lambda q: torch.select_copy(q, 1, -1), (2, 3, 5))
    for name, (widths, options) in PADS.items():
        yield from both_layouts(
            "aten::pad",
            name,
            lambda q, widths=widths, options=options: functional.pad(q, widths, **options),
            (2, 3, 5, 4),
        )
    for dtype in ENDS:
        yield from rows("aten::pad", "end", lambda q: functional.pad(q, (1, 1)), (3, 4), dtypes=(dtype,))
    pad = torch.ops.aten.constant_pad_nd
    yield from rows("aten::constant_pad_nd", "two", lambda q: pad(q, [1, 2, 0, 1], 0.5), (2, 3, 4))
    yield from both_layouts(
        "aten::pad", "reflect", lambda q: functional.pad(q, (1, 2, 3, 0), mode="reflect"), (2, 3, 5, 4)
    )
    yield from rows("aten::pad", "reflect-rank 3", lambda q: functional.pad(q, (3, 2), mode="reflect"), (2, 3, 4))
    yield from rows("aten::reflection_pad1d", "2-1", lambda q: torch.ops.aten.reflection_pad1d(q, [2, 1]), (2, 3, 4))
    yield from both_layouts(
        "aten::reflection_pad2d", "all", lambda q: torch.ops.aten.reflection_pad2d(q, [2, 1, 1, 3]), (2, 3, 5, 4)
    )
