"""Rows of resizing: nearest, nearest-exact and bilinear, by sizes and by scale factors, in both memory layouts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional

from tests.matrix.case import Case, uniform
from tests.matrix.quantized import ENDS, ONE_KERNEL, crossed, rows

TARGETS: dict[str, dict[str, Any]] = {
    "x2": {"scale_factor": 2},
    "x1.7": {"scale_factor": 1.7},
    "x0.6": {"scale_factor": (0.6, 1.3)},
    "size": {"size": (11, 4)},
    "same": {"size": (5, 6)},
    "recomputed": {"scale_factor": 1.7, "recompute_scale_factor": True},
}


def _interpolated(options: dict[str, Any], mode: str) -> Any:
    return lambda q: functional.interpolate(q, mode=mode, **options)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    both = partial(crossed, **ONE_KERNEL)
    for turn, (name, options) in enumerate(TARGETS.items()):
        yield from both("aten::upsample_nearest2d", name, _interpolated(options, "nearest"), (2, 3, 5, 6), turn=turn)
        exact = _interpolated(options, "nearest-exact")
        yield from both("aten::_upsample_nearest_exact2d", name, exact, (2, 3, 5, 6), turn=turn + 1)
        for align_corners in (False, True):
            if align_corners and "scale_factor" in options and name != "x2":
                continue
            bilinear = _interpolated(options | {"align_corners": align_corners}, "bilinear")
            variant = f"{name}{'-corners' if align_corners else ''}"
            yield from both("aten::upsample_bilinear2d", variant, bilinear, (2, 11, 5, 6), turn=turn + align_corners)
    bilinear = _interpolated({"scale_factor": 1.7}, "bilinear")
    for dtype in ENDS:
        yield from rows("aten::upsample_bilinear2d", "end", bilinear, (1, 3, 7, 4), dtypes=(dtype,), **ONE_KERNEL)
    yield from _sampled()
    one = _interpolated({"size": (1, 1), "align_corners": True}, "bilinear")
    yield from both("aten::upsample_bilinear2d", "to one", one, (1, 11, 7, 4), turn=0)
    for turn, options in enumerate(({"scale_factor": 2}, {"scale_factor": 1.7}, {"size": (7, 3, 5)})):
        name = "-".join(map(str, options.values())).replace(" ", "")
        near, exact = _interpolated(options, "nearest"), _interpolated(options, "nearest-exact")
        yield from both("aten::upsample_nearest3d", name, near, (2, 3, 4, 3, 5), turn=turn)
        yield from both("aten::_upsample_nearest_exact3d", name, exact, (2, 3, 4, 3, 5), turn=turn)
    direct, direct_bilinear = torch.ops.aten.upsample_nearest2d, torch.ops.aten.upsample_bilinear2d
    yield from both("aten::upsample_nearest2d", "direct", lambda q: direct(q, [9, 8], 1.9, None), (2, 3, 5, 6), turn=0)
    yield from both(
        "aten::upsample_bilinear2d",
        "direct",
        lambda q: direct_bilinear(q, [9, 8], False, 1.9, None),
        (2, 9, 5, 6),
        turn=0,
    )


def _sampled() -> Iterator[Case]:
    """Yields rows of sampling at places of an input: inside, outside, at the corners, far away, and not numbers."""
    grid = uniform((2, 9, 8, 2), 5, -3, 3)
    ends = [-1.0, 1.0, 0.0, 1.0001, np.nan, np.inf, -np.inf, 1e9, -3e9, 1e20, -1e38, 2.5e8]
    grid[0, 0, :6, 0], grid[0, 1, :6, 0], grid[1, :6, 2, 1], grid[1, :6, 3, 1] = ends[:6], ends[6:], ends[:6], ends[6:]
    for padding in ("zeros", "border", "reflection"):
        for corners in (False, True):
            for channels_last in (False, True):
                yield from rows(
                    "aten::grid_sampler_2d",
                    f"{padding}{'-corners' if corners else ''}",
                    lambda q, g, p=padding, c=corners: functional.grid_sample(q, g, "bilinear", p, c),
                    (2, 3, 6, 11),
                    grid,
                    dtypes=("u8",) if channels_last else ("u8", *(end for end in ENDS if end.startswith("u8"))),
                    channels_last=channels_last,
                    **ONE_KERNEL,
                )
    yield from rows(
        "aten::grid_sampler_2d",
        "of one",
        lambda q, g: functional.grid_sample(q, g, padding_mode="reflection", align_corners=True),
        (2, 3, 1, 1),
        grid,
        dtypes=("u8",),
        **ONE_KERNEL,
    )
