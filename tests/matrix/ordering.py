"""Rows of ops that order codes: extremes, sort, topk; and of comparisons."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from tests.matrix.case import Case
from tests.matrix.quantized import ONE_KERNEL
from tests.matrix.quantized import both_layouts as _both_layouts
from tests.matrix.quantized import rows as _rows

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
TIES = 0.4  # a scale that leaves few codes, so that many are equal


def _spread(extent: int) -> Any:
    """Returns values whose codes all differ, in no order."""
    return np.random.default_rng(3).permutation(np.linspace(-2.5, 3.0, extent)).astype(np.float32)


def _distinct(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.quantize_per_tensor(x, 0.031, 100 if dtype == torch.quint8 else -20, dtype)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    rows, both_layouts = (partial(make, **ONE_KERNEL) for make in (_rows, _both_layouts))
    for name in ("max", "min"):
        yield from both_layouts(f"aten::{name}", "all", lambda q, name=name: getattr(q, name)(), (2, 3, 5, 4))
        for dim in (0, 1, -1):
            for keepdim in (False, True):
                yield from rows(
                    f"aten::{name}",
                    f"{dim}{'-keepdim' if keepdim else ''}",
                    lambda q, name=name, dim=dim, keepdim=keepdim: tuple(getattr(q, name)(dim, keepdim)),
                    (4, 9, 7),
                    scale=TIES,
                )
    for descending in (False, True):
        way = "down" if descending else "up"
        for dim in (0, -1):
            yield from rows(
                "aten::sort",
                f"{dim}-{way}",
                lambda q, dim=dim, descending=descending: tuple(q.sort(dim, descending)),
                (9, 13),
                scale=TIES,
            )
            yield from rows(
                "aten::argsort",
                f"{dim}-{way}",
                lambda q, dim=dim, descending=descending: q.argsort(dim, descending),
                (9, 13),
                scale=TIES,
            )
        yield from rows(
            "aten::sort",
            f"stable-{way}",
            lambda q, descending=descending: tuple(q.sort(stable=True, dim=1, descending=descending)),
            (3, 90, 2),
            scale=TIES,
        )
        for shape, dim, count in (((3, 25), -1, 4), ((7, 3), 0, 7), ((2, 200), 1, 3), ((2, 5), 1, 1)):
            yield from rows(
                "aten::topk",
                f"values-{'x'.join(map(str, shape))}-{dim}-{count}-{way}",
                lambda q, dim=dim, count=count, descending=descending: q.topk(count, dim, descending).values,
                shape,
                scale=TIES,
            )
        for dtype in (torch.quint8, torch.qint8):
            for extent, count in ((150, 20), (150, 2), (12, 12)):
                yield from rows(
                    "aten::topk",
                    f"{str(dtype)[6:]}-{extent}-{count}-{way}",
                    lambda x, dtype=dtype, count=count, descending=descending: tuple(
                        _distinct(x, dtype).topk(count, largest=descending)
                    ),
                    _spread(extent),
                    dtypes=("u8",),
                )
    yield from both_layouts("aten::sort", "map", lambda q: tuple(q.sort(1)), (2, 9, 3, 2))
    yield from rows("aten::msort", "matrix", torch.msort, (9, 4), scale=TIES)
    for name in COMPARISONS:
        compare = getattr(operator, name)
        yield from rows(f"aten::{name}", "tensor", compare, (3, 7, 5), (3, 7, 5), scale=TIES)
        yield from rows(f"aten::{name}", "broadcast", compare, (3, 7, 5), (7, 1), scale=TIES)
        yield from rows(f"aten::{name}", "number", lambda q, compare=compare: compare(q, 0.8), (3, 7, 5), scale=TIES)
        yield from rows(f"aten::{name}", "code's number", lambda q, compare=compare: compare(q, 0.062), (3, 7, 5))
        yield from rows(
            f"aten::{name}",
            "other parameters",
            lambda q, compare=compare: compare(q, torch.quantize_per_tensor(q.dequantize(), 0.2, 3, q.dtype)),
            (3, 7, 5),
        )
        yield from rows(f"aten::{name}", "float", lambda q, x, compare=compare: compare(q, x), (3, 7), _spread(7))
        yield from rows(f"aten::{name}", "of float", lambda q, x, compare=compare: compare(x, q), (3, 7), _spread(7))
    yield from both_layouts("aten::gt", "map", operator.gt, (2, 5, 3, 4), (2, 5, 3, 4), scale=TIES)
