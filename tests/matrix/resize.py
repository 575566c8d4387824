"""Rows of resizing: nearest, nearest-exact and bilinear, by sizes and by scale factors, in both memory layouts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional

from tests.matrix.case import Case
from tests.matrix.quantized import ENDS, ONE_KERNEL
from tests.matrix.quantized import both_layouts as _both_layouts

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
    both_layouts = partial(_both_layouts, **ONE_KERNEL)
    for name, options in TARGETS.items():
        for mode, op in (("nearest", "aten::upsample_nearest2d"), ("nearest-exact", "aten::_upsample_nearest_exact2d")):
            yield from both_layouts(op, name, _interpolated(options, mode), (2, 3, 5, 6))
        for align_corners in (False, True):
            if align_corners and "scale_factor" in options and name != "x2":
                continue
            given = options | {"align_corners": align_corners}
            corners = "-corners" if align_corners else ""
            yield from both_layouts(
                "aten::upsample_bilinear2d", f"{name}{corners}", _interpolated(given, "bilinear"), (2, 19, 5, 6)
            )
    for dtype in ENDS:
        bilinear = _interpolated({"scale_factor": 1.7}, "bilinear")
        yield from both_layouts("aten::upsample_bilinear2d", "end", bilinear, (1, 11, 7, 4), dtypes=(dtype,))
    one = _interpolated({"size": (1, 1), "align_corners": True}, "bilinear")
    yield from both_layouts("aten::upsample_bilinear2d", "to one", one, (1, 11, 7, 4))
    for options in ({"scale_factor": 2}, {"scale_factor": 1.7}, {"size": (7, 3, 5)}):
        for mode, op in (("nearest", "aten::upsample_nearest3d"), ("nearest-exact", "aten::_upsample_nearest_exact3d")):
            name = "-".join(map(str, options.values())).replace(" ", "")
            yield from both_layouts(op, name, _interpolated(options, mode), (2, 3, 4, 3, 5))
    direct = torch.ops.aten.upsample_nearest2d
    yield from both_layouts("aten::upsample_nearest2d", "direct", lambda q: direct(q, [9, 8], 1.9, None), (2, 3, 5, 6))
    direct_bilinear = torch.ops.aten.upsample_bilinear2d
    yield from both_layouts(
        "aten::upsample_bilinear2d", "direct", lambda q: direct_bilinear(q, [9, 8], False, 1.9, None), (2, 9, 5, 6)
    )
