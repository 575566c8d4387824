"""Rows of dynamic convolutions: floats in, parameters chosen at run time, floats out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from tests.matrix.case import ENGINES, Apply, Case, uniform
from tests.matrix.conv import SHAPES, SYMMETRIC, UNPACKABLE, Conv, pack
from tests.matrix.conv_transposed import TRANSPOSED, left_out_of

RANGES = {"around-zero": (-2.7, 3.1), "above-zero": (0.6, 5.0), "below-zero": (-900.0, -1.0), "tiny": (-1e-7, 3e-7)}


def dynamic_module(conv: Conv, reduce_range: bool) -> nn.Module:
    """Returns the dynamic convolution of a float input."""
    op = getattr(torch.ops.quantized, f"{conv.op}_dynamic")
    return Apply(lambda x, packed: op(x, packed, reduce_range), packed=pack(conv))


def _case(name: str, conv: Conv, bounds: tuple[float, float], left_out: dict[str, str], *, reduce_range: bool) -> Case:
    return Case(
        f"quantized::{conv.op}_dynamic",
        name,
        partial(dynamic_module, conv, reduce_range),
        (uniform((conv.batch, conv.channels, *conv.size), 11, *bounds),),
        tuple(engine for engine in ENGINES if engine not in left_out),
        left_out,
    )


def cases() -> Iterator[Case]:
    """Yields the rows."""
    static = ("1d-k3", "1d-k3d2g3", "2d-k3", "2d-k1s2", "2d-groups2", "2d-depthwise-large", "3d-k2x3x1s2x1x2p1x0x2")
    for name in (*static, "2d-groups101", "3d-depthwise-large"):
        for per_channel in (True, False):
            for asymmetric in (False, True):
                conv = replace(SHAPES[name], per_channel=per_channel, weight_zero_point=asymmetric, bias=not asymmetric)
                scheme = ("per_channel" if per_channel else "per_tensor") + ("-asymmetric" if asymmetric else "")
                left_out = {"onednn": SYMMETRIC} if asymmetric else {}
                if conv.dims == 3:
                    left_out["qnnpack"] = UNPACKABLE
                yield _case(f"{name}-{scheme}", conv, (-2.7, 3.1), left_out, reduce_range=per_channel)
    for name in ("1d-k3s2p1", "1d-k4s2", "2d-k3s2p1", "2d-k3x2s1x3p1x0d1x2", "2d-depthwise-twice", "3d-k2s2"):
        for asymmetric in (False, True):
            conv = replace(TRANSPOSED[name], per_channel=False, weight_zero_point=asymmetric)
            scheme = "per_tensor" + ("-asymmetric" if asymmetric else "")
            yield _case(f"{name}-{scheme}", conv, (-2.7, 3.1), left_out_of(conv), reduce_range=not asymmetric)
    for name, bounds in RANGES.items():
        for reduce_range in (True, False):
            conv = replace(SHAPES["2d-k3"], per_channel=reduce_range, bias=name != "tiny")
            yield _case(f"2d-k3-{name}-{reduce_range}", conv, bounds, {}, reduce_range=reduce_range)
    yield _case("2d-k3-zeros", SHAPES["2d-k3"], (0.0, 0.0), {}, reduce_range=True)
