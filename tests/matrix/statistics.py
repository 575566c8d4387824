"""Rows of means and standard deviations over any dimensions, in both memory layouts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.matrix.case import Case
from tests.matrix.quantized import ENDS, TWO_KERNELS
from tests.matrix.quantized import both_layouts as _both_layouts
from tests.matrix.quantized import row as _row
from tests.matrix.quantized import rows as _rows

OPTIMIZED = {
    "channels_last": True,
    "engines": ("x86",),
    "left_out": dict.fromkeys(("fbgemm", "onednn", "qnnpack"), "in other rows"),
}
rows, both_layouts = (partial(make, **TWO_KERNELS) for make in (_rows, _both_layouts))

# as PyTorch reduces them: codes (innermost dimensions), rows, columns, rows of columns, several runs
DIMS = ([2, 3], [-1, -2], [3], [1], [0, 2], [1, 3], [0, 1, 2, 3], [])


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for dims in DIMS:
        name = "".join(map(str, dims)) or "all"
        for shape in ((2, 45, 5, 4), (3, 6, 17, 3)):
            sizes = "x".join(map(str, shape))
            mean = lambda q, dims=dims: q.mean(dims)  # noqa: E731
            yield from both_layouts("aten::mean", f"{name}-{sizes}", mean, shape)
            yield _row("aten::mean", f"{name}-{sizes}-optimized", mean, shape, **OPTIMIZED)
        deviation = lambda q, dims=dims: q.std(dims or None)  # noqa: E731
        yield from both_layouts("aten::std", name, deviation, (2, 5, 5, 4))
        yield _row("aten::std", f"{name}-optimized", deviation, (2, 5, 5, 4), **OPTIMIZED)
    for dtype in ENDS:
        yield from both_layouts(
            "aten::mean", "end", lambda q: q.mean([2, 3], keepdim=True), (2, 7, 5, 5), dtypes=(dtype,)
        )
        yield from rows("aten::std", "end", lambda q: q.std(-1), (3, 9), dtypes=(dtype,))
    yield from rows("aten::mean", "no dims", lambda q: q.mean(), (5, 7))
    yield from rows("aten::mean", "vector", lambda q: q.mean(0), (70,))
    yield from rows("aten::mean", "transposed", lambda q: q.transpose(1, 2).mean(2, keepdim=True), (3, 9, 11))
    yield from rows("aten::mean", "volume", lambda q: q.mean([2, 3, 4]), (2, 5, 3, 3, 4))
    yield from rows("aten::std", "no dims", lambda q: q.std(), (5, 7))
    yield from rows("aten::std", "biased", lambda q: q.std(unbiased=False), (5, 7))
    yield from rows("aten::std", "dim-biased-keepdim", lambda q: q.std(1, unbiased=False, keepdim=True), (5, 7, 2))
    yield from rows("aten::std", "correction", lambda q: q.std(1, correction=2), (5, 7))
    yield from rows("aten::std", "one element", lambda q: q.std(1), (5, 1))
    yield from rows("aten::std", "one element biased", lambda q: q.std(1, correction=0), (5, 1))
