"""Rows of pools: average, adaptive and maximum, along one to three dimensions, in both memory layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as functional

from tests.matrix.case import Case
from tests.matrix.quantized import ENDS, FLOAT_ENGINES, both_layouts, rows

AVERAGE: dict[str, dict[str, Any]] = {
    "k2": {"kernel_size": 2},
    "k3s2p1": {"kernel_size": 3, "stride": 2, "padding": 1},
    "k3s1p1-excluding": {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
    "k3s2p1-ceil": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    "k2s3-ceil": {"kernel_size": 2, "stride": 3, "ceil_mode": True},
    "k3s2p1-ceil-excluding": {
        **{"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}
    },
}
OVERRIDE = {
    "k3s2p1-divided by 5": {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5},
    "k3s2p1-ceil-divided by 7": {
        **{"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "divisor_override": 7}
    },
}
NO_BATCH = {"qnnpack": "PyTorch's qnnpack accepts 4 dimensions alone"}
NO_3D = {"qnnpack": "PyTorch's qnnpack has no max_pool3d"}
DILATED = {
    "qnnpack": "PyTorch's qnnpack kernel does not return the largest codes (tests/numerics/test_inconsistent.py)"
}

MAXIMUM: dict[str, dict[str, Any]] = {
    "k2": {"kernel_size": 2, "stride": 2},
    "k3s2p1": {"kernel_size": 3, "stride": 2, "padding": 1},
    "k3s2p1-ceil": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    "k2s3-ceil": {"kernel_size": 2, "stride": 3, "ceil_mode": True},
    "k2d2": {"kernel_size": 2, "stride": 1, "dilation": 2},
    "k3d2s2p1": {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2},
}


def _calling(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    return lambda q: function(q, **options)


def _average() -> Iterator[Case]:
    # 37 and 24 channels: 16 lanes and both kinds of rest; 5: a rest alone
    for name, options in {**AVERAGE, **OVERRIDE}.items():
        for channels in (37, 5):
            pool = _calling(functional.avg_pool2d, options)
            yield from both_layouts("aten::avg_pool2d", f"{name}-c{channels}", pool, (2, channels, 7, 9))
    uneven = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}
    yield from both_layouts("aten::avg_pool2d", "3x2", _calling(functional.avg_pool2d, uneven), (1, 24, 8, 5))
    for dtype in ENDS:
        pool = _calling(functional.avg_pool2d, AVERAGE["k3s2p1"])
        yield from both_layouts("aten::avg_pool2d", "k3s2p1-end", pool, (1, 19, 7, 7), dtypes=(dtype,))
    for op, shape in (
        ("aten::avg_pool1d", (2, 21, 11)),
        ("aten::avg_pool1d", (1, 18, 1)),
        ("aten::avg_pool1d", (3, 1, 9)),
    ):
        for name, options in AVERAGE.items():
            if shape[2] > 1 or "p1" in name:
                variant = f"{name}-{'x'.join(map(str, shape))}"
                yield from rows(op, variant, _calling(functional.avg_pool1d, options), shape)
    moved = _calling(functional.avg_pool1d, AVERAGE["k3s2p1"])
    yield from rows("aten::avg_pool1d", "transposed", lambda q: moved(q.transpose(1, 2)), (2, 11, 21))
    for name in ("k2", "k3s2p1-ceil"):
        no_batch = FLOAT_ENGINES if name == "k2" else None
        for op, function, shape in (
            ("aten::avg_pool1d", functional.avg_pool1d, (21, 11)),
            ("aten::avg_pool2d", functional.avg_pool2d, (21, 11, 7)),
        ):
            others = {"engines": no_batch, "left_out": NO_BATCH} if no_batch else {}
            yield from rows(op, f"{name}-no batch", _calling(function, AVERAGE[name]), shape, dtypes=("u8",), **others)
            yield from rows(op, f"{name}-no batch", _calling(function, AVERAGE[name]), shape, dtypes=("s8",))
    for name, options in {**AVERAGE, **OVERRIDE}.items():
        pool = _calling(functional.avg_pool3d, options)
        yield from both_layouts("aten::avg_pool3d", name, pool, (2, 19, 5, 4, 6))
    for index, view in enumerate((lambda q: q[:, 3:20], lambda q: q.transpose(2, 3), lambda q: q[:, :, 1:, ::2])):
        pool = _calling(functional.avg_pool2d, AVERAGE["k3s1p1-excluding"])
        yield from both_layouts(
            "aten::avg_pool2d", f"view {index}", lambda q, view=view, pool=pool: pool(view(q)), (2, 24, 8, 9)
        )


def _adaptive() -> Iterator[Case]:
    for size in (1, (3, 2), (4, 5), (None, 3), (9, 11), (7, 10)):
        for channels in (21, 8, 3):
            pool = _calling(functional.adaptive_avg_pool2d, {"output_size": size})
            name = f"{size}-c{channels}".replace(" ", "")
            yield from both_layouts("aten::adaptive_avg_pool2d", name, pool, (2, channels, 9, 10))
    for shape in ((2, 1, 1, 1), (2, 1, 6, 4)):
        pool = _calling(functional.adaptive_avg_pool2d, {"output_size": (3, 2)})
        yield from both_layouts("aten::adaptive_avg_pool2d", f"{shape[1]}x{shape[2]}", pool, shape)
    for dtype in ENDS:
        pool = _calling(functional.adaptive_avg_pool2d, {"output_size": (2, 3)})
        yield from both_layouts("aten::adaptive_avg_pool2d", "end", pool, (1, 11, 7, 7), dtypes=(dtype,))
    under = torch.ops.aten._adaptive_avg_pool2d
    yield from both_layouts("aten::_adaptive_avg_pool2d", "4x5", lambda q: under(q, [4, 5]), (2, 21, 9, 10))
    yield from rows(
        "aten::adaptive_avg_pool2d", "no batch", lambda q: functional.adaptive_avg_pool2d(q, (4, 3)), (21, 9, 10)
    )
    for size in (1, 4, 5, 11, 15):
        pool = _calling(functional.adaptive_avg_pool1d, {"output_size": size})
        yield from rows("aten::adaptive_avg_pool1d", str(size), pool, (2, 21, 15))
        yield from rows("aten::adaptive_avg_pool1d", f"{size}-t", lambda q, pool=pool: pool(q.mT), (2, 15, 21))
    for size in (1, (2, 3, 4), (3, None, 2), (5, 4, 6)):
        pool = _calling(functional.adaptive_avg_pool3d, {"output_size": size})
        name = str(size).replace(" ", "")
        yield from both_layouts("aten::adaptive_avg_pool3d", name, pool, (2, 19, 5, 4, 6))
    volume = _calling(functional.adaptive_avg_pool3d, {"output_size": (2, 3, 4)})
    yield from rows("aten::adaptive_avg_pool3d", "no batch", volume, (19, 5, 4, 6))
    yield from rows("aten::_adaptive_avg_pool3d", "2x3x4",
                    lambda q: torch.ops.aten._adaptive_avg_pool3d(q, [2, 3, 4]), (2, 19, 5, 4, 6))  # fmt: skip


def _maximum() -> Iterator[Case]:
    for name, options in MAXIMUM.items():
        dilated = "d2" in name and "p1" in name
        others = {"engines": FLOAT_ENGINES, "left_out": DILATED} if dilated else {}
        plain, padded = dict(options), {"padding": 0, "dilation": 1, "ceil_mode": False} | options
        for rank, shape in ((1, (2, 21, 13)), (2, (2, 21, 9, 11))):
            layouts = both_layouts if rank == 2 else rows
            function = getattr(functional, f"max_pool{rank}d")
            lists = {key: [value] * rank if key != "ceil_mode" else value for key, value in padded.items()}
            for dtype in ("u8", "s8"):
                given = others if dtype == "u8" else {}
                yield from layouts(
                    f"aten::max_pool{rank}d", name, _calling(function, plain), shape, dtypes=(dtype,), **given
                )
                for op, pool in (
                    (f"aten::quantized_max_pool{rank}d", getattr(torch.ops.aten, f"quantized_max_pool{rank}d")),
                    (f"quantized::max_pool{rank}d", getattr(torch.ops.quantized, f"max_pool{rank}d")),
                ):
                    yield from layouts(op, name, _calling(pool, lists), shape, dtypes=(dtype,), **given)
        three = {"engines": FLOAT_ENGINES, "left_out": NO_3D}
        yield from both_layouts(
            "aten::max_pool3d", name, _calling(functional.max_pool3d, plain), (2, 5, 6, 7, 8), **three
        )
        lists = {key: [value] * 3 if key != "ceil_mode" else value for key, value in padded.items()}
        yield from both_layouts(
            "aten::quantized_max_pool3d",
            name,
            _calling(torch.ops.aten.quantized_max_pool3d, lists),
            (2, 5, 6, 7, 8),
            **three,
        )
    no_batch = {"engines": FLOAT_ENGINES, "left_out": NO_BATCH}
    for rank, shape in ((1, (21, 13)), (2, (21, 9, 11))):
        pool = _calling(getattr(functional, f"max_pool{rank}d"), MAXIMUM["k3s2p1-ceil"])
        yield from rows(f"aten::max_pool{rank}d", "no batch", pool, shape, dtypes=("u8",), **no_batch)
        yield from rows(f"aten::max_pool{rank}d", "no batch", pool, shape, dtypes=("s8",))


def cases() -> Iterator[Case]:
    """Yields the rows."""
    yield from _average()
    yield from _adaptive()
    yield from _maximum()
