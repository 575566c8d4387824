"""Rows of pools: average, adaptive and maximum, along one to three dimensions, in both memory layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional

from tests.matrix.case import Case
from tests.matrix.quantized import ENDS, FLOAT_ENGINES, ONE_KERNEL, TWO_KERNELS, crossed
from tests.matrix.quantized import both_layouts as _both_layouts
from tests.matrix.quantized import rows as _rows

rows, both_layouts = (partial(make, **TWO_KERNELS) for make in (_rows, _both_layouts))

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
WITHOUT_BATCH: dict[str, Any] = {"engines": FLOAT_ENGINES, "left_out": NO_BATCH}
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
    for turn, (name, options) in enumerate({**AVERAGE, **OVERRIDE}.items()):
        pool = _calling(functional.avg_pool2d, options)
        for channels, other in ((37, 0), (5, 1)):
            yield from crossed("aten::avg_pool2d", f"{name}-c{channels}", pool, (2, channels, 7, 9), turn=turn + other)
        volume = _calling(functional.avg_pool3d, options)
        yield from crossed("aten::avg_pool3d", name, volume, (2, 19, 5, 4, 6), turn=turn, **ONE_KERNEL)
    uneven = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}
    yield from both_layouts("aten::avg_pool2d", "3x2", _calling(functional.avg_pool2d, uneven), (1, 24, 8, 5))
    for dtype in ENDS:
        pool = _calling(functional.avg_pool2d, AVERAGE["k3s2p1"])
        yield from both_layouts("aten::avg_pool2d", "k3s2p1-end", pool, (1, 19, 7, 7), dtypes=(dtype,))
    for turn, (name, options) in enumerate(AVERAGE.items()):
        for shape in ((2, 21, 11), (3, 1, 9)):
            pool = _calling(functional.avg_pool1d, options)
            yield from crossed("aten::avg_pool1d", f"{name}-{'x'.join(map(str, shape))}", pool, shape, turn=turn)
    moved = _calling(functional.avg_pool1d, AVERAGE["k3s2p1"])
    yield from rows("aten::avg_pool1d", "transposed", lambda q: moved(q.transpose(1, 2)), (2, 11, 21))
    for op, function, shape in (
        ("aten::avg_pool1d", functional.avg_pool1d, (21, 11)),
        ("aten::avg_pool2d", functional.avg_pool2d, (21, 11, 7)),
    ):
        for name, others in (("k2", WITHOUT_BATCH), ("k3s2p1-ceil", {})):
            yield from rows(op, f"{name}-no batch", _calling(function, AVERAGE[name]), shape, dtypes=("u8",), **others)
        yield from rows(op, "k2-no batch", _calling(function, AVERAGE["k2"]), shape, dtypes=("s8",))
    for index, view in enumerate((lambda q: q[:, 3:20], lambda q: q.transpose(2, 3), lambda q: q[:, :, 1:, ::2])):
        pool = _calling(functional.avg_pool2d, AVERAGE["k3s1p1-excluding"])
        yield from crossed(
            "aten::avg_pool2d",
            f"view {index}",
            lambda q, view=view, pool=pool: pool(view(q)),
            (2, 24, 8, 9),
            turn=index,
        )


def _adaptive() -> Iterator[Case]:
    for turn, size in enumerate((1, (3, 2), (4, 5), (None, 3), (9, 11), (7, 10))):
        for channels, other in ((21, 0), (3, 1)):
            pool = _calling(functional.adaptive_avg_pool2d, {"output_size": size})
            name = f"{size}-c{channels}".replace(" ", "")
            yield from crossed("aten::adaptive_avg_pool2d", name, pool, (2, channels, 9, 10), turn=turn + other)
    for shape in ((2, 1, 1, 1), (2, 1, 6, 4)):
        pool = _calling(functional.adaptive_avg_pool2d, {"output_size": (3, 2)})
        yield from both_layouts("aten::adaptive_avg_pool2d", f"{shape[1]}x{shape[2]}", pool, shape)
    for dtype in ENDS:
        pool = _calling(functional.adaptive_avg_pool2d, {"output_size": (2, 3)})
        yield from both_layouts("aten::adaptive_avg_pool2d", "end", pool, (1, 11, 7, 7), dtypes=(dtype,))
    under = torch.ops.aten._adaptive_avg_pool2d
    yield from crossed("aten::_adaptive_avg_pool2d", "4x5", lambda q: under(q, [4, 5]), (2, 21, 9, 10), turn=0)
    yield from rows(
        "aten::adaptive_avg_pool2d", "no batch", lambda q: functional.adaptive_avg_pool2d(q, (4, 3)), (21, 9, 10)
    )
    for turn, size in enumerate((1, 4, 5, 11, 15)):
        pool = _calling(functional.adaptive_avg_pool1d, {"output_size": size})
        yield from crossed("aten::adaptive_avg_pool1d", str(size), pool, (2, 21, 15), turn=turn)
        yield from crossed(
            "aten::adaptive_avg_pool1d", f"{size}-t", lambda q, pool=pool: pool(q.mT), (2, 15, 21), turn=turn
        )
    for turn, size in enumerate((1, (2, 3, 4), (3, None, 2), (5, 4, 6))):
        pool = _calling(functional.adaptive_avg_pool3d, {"output_size": size})
        name = str(size).replace(" ", "")
        for other in (0, 1):
            yield from crossed(
                "aten::adaptive_avg_pool3d", name, pool, (2, 19, 5, 4, 6), turn=turn + other, **ONE_KERNEL
            )
    volume = _calling(functional.adaptive_avg_pool3d, {"output_size": (2, 3, 4)})
    yield from rows("aten::adaptive_avg_pool3d", "no batch", volume, (19, 5, 4, 6), **ONE_KERNEL)
    under_3d = torch.ops.aten._adaptive_avg_pool3d
    yield from rows(
        "aten::_adaptive_avg_pool3d", "2x3x4", lambda q: under_3d(q, [2, 3, 4]), (2, 19, 5, 4, 6), **ONE_KERNEL
    )


def _maximum() -> Iterator[Case]:
    for turn, (name, options) in enumerate(MAXIMUM.items()):
        others = {"engines": FLOAT_ENGINES, "left_out": DILATED} if name == "k3d2s2p1" else {}
        padded = {"padding": 0, "dilation": 1, "ceil_mode": False} | options
        for rank, shape in ((1, (2, 21, 13)), (2, (2, 21, 9, 11)), (3, (2, 5, 6, 7, 8))):
            given = {"engines": FLOAT_ENGINES, "left_out": NO_3D} if rank == 3 else others
            lists = {key: [value] * rank if key != "ceil_mode" else value for key, value in padded.items()}
            pools = [
                (f"aten::max_pool{rank}d", _calling(getattr(functional, f"max_pool{rank}d"), options)),
                (
                    f"aten::quantized_max_pool{rank}d",
                    _calling(getattr(torch.ops.aten, f"quantized_max_pool{rank}d"), lists),
                ),
            ]
            if rank < 3:
                pools.append(
                    (f"quantized::max_pool{rank}d", _calling(getattr(torch.ops.quantized, f"max_pool{rank}d"), lists))
                )
            for other, (op, pool) in enumerate(pools):
                yield from crossed(op, name, pool, shape, turn=turn + other, **given)
    for rank, shape in ((1, (21, 13)), (2, (21, 9, 11))):
        pool = _calling(getattr(functional, f"max_pool{rank}d"), MAXIMUM["k3s2p1-ceil"])
        yield from rows(f"aten::max_pool{rank}d", "no batch", pool, shape, dtypes=("u8",), **WITHOUT_BATCH)
        yield from rows(f"aten::max_pool{rank}d", "no batch", pool, shape, dtypes=("s8",))


def cases() -> Iterator[Case]:
    """Yields the rows."""
    yield from _average()
    yield from _adaptive()
    yield from _maximum()
