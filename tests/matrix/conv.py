"""Rows of convolutions of one to three dimensions, transposed and with a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.matrix.case import ENGINES, Apply, Case, uniform

UNPACKABLE = (
    "PyTorch does not unpack 3-d convolutions packed for qnnpack; tests/frontend/test_conv3d_qnnpack.py imports them "
    "as packed for fbgemm"
)
SYMMETRIC = "PyTorch's onednn packs weights of zero point 0 only"


@dataclass(frozen=True)
class Conv:
    """A convolution: x [batch, channels, *size], weight [outputs, channels / groups, *kernel] or the two swapped.

    output_padding: given, the convolution is transposed. weights: "random", or "large" for sums that overflow int16.
    """

    channels: int
    outputs: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    output_padding: tuple[int, ...] | None = None
    batch: int = 1
    weights: str = "random"
    per_channel: bool = True
    weight_zero_point: bool = False
    bias: bool = True
    relu: bool = False
    channels_last: bool = False
    legacy: bool = False
    x: tuple[float, int] = (0.024, 117)  # scale and zero point of the input
    y: tuple[float, int] = (0.0, 131)  # of the output; scale 0.0 stands for one that fits the values

    @property
    def dims(self) -> int:
        return len(self.size)

    @property
    def transposed(self) -> bool:
        return self.output_padding is not None

    @property
    def op(self) -> str:
        return f"conv{'_transpose' if self.transposed else ''}{self.dims}d"

    def geometry(self) -> dict[str, tuple[int, ...]]:
        """Returns stride, padding and dilation, the left out ones filled in."""
        return {
            "stride": self.stride or (1,) * self.dims,
            "padding": self.padding or (0,) * self.dims,
            "dilation": self.dilation or (1,) * self.dims,
        }


def weight_of(conv: Conv, seed: int = 0) -> torch.Tensor:
    """Returns the quantized weight."""
    rng = np.random.default_rng(seed)
    shape = (conv.outputs, conv.channels // conv.groups, *conv.kernel)
    if conv.transposed:
        shape = (conv.channels, conv.outputs // conv.groups, *conv.kernel)
    values = rng.integers(-128, 128, shape) if conv.weights == "random" else rng.choice([-128, -90, 100, 127], shape)
    codes = torch.from_numpy(values.astype(np.int8))
    axis = 1 if conv.transposed else 0
    scales = rng.uniform(0.002, 0.02, shape[axis])
    points = rng.integers(-128, 128, shape[axis]) if conv.weight_zero_point else np.zeros(shape[axis], np.int64)
    if not conv.per_channel:
        return torch._make_per_tensor_quantized_tensor(codes, float(scales[0]), int(points[0]))
    return torch._make_per_channel_quantized_tensor(codes, torch.from_numpy(scales), torch.from_numpy(points), axis)


def pack(conv: Conv) -> Any:
    """Returns the parameters, packed for the engine that is set."""
    geometry = conv.geometry()
    bias = torch.from_numpy(uniform((conv.outputs,), 5, -4, 4)) if conv.bias else None
    extra = [list(conv.output_padding)] if conv.output_padding is not None else []
    return getattr(torch.ops.quantized, f"{conv.op}_prepack")(
        weight_of(conv), bias, list(geometry["stride"]), list(geometry["padding"]), *extra,
        list(geometry["dilation"]), conv.groups,
    )  # fmt: skip


def input_of(conv: Conv) -> np.ndarray[Any, Any]:
    """Returns floats that become all codes, the two ends often."""
    scale, zero_point = conv.x
    reals = uniform((conv.batch, conv.channels, *conv.size), 3, -40, 295)
    return ((reals - zero_point) * scale).astype(np.float32)


def output_qparams(conv: Conv) -> tuple[float, int]:
    """Returns the output's parameters: given ones, or a scale by which a third of the range holds the spread."""
    scale, zero_point = conv.y
    if scale:
        return scale, zero_point
    products = conv.channels // conv.groups * int(np.prod(conv.kernel))
    return conv.x[0] * 0.011 * 74 * 74 * float(np.sqrt(products)) / 40, zero_point


def module(conv: Conv) -> nn.Module:
    """Returns the convolution on a float input."""
    ops, relu = torch.ops.quantized, "_relu" if conv.relu else ""
    scale, zero_point = output_qparams(conv)
    memory = {4: torch.channels_last, 5: torch.channels_last_3d}.get(conv.dims + 2, torch.contiguous_format)

    def run(x: torch.Tensor, packed: Any) -> torch.Tensor:
        codes = torch.quantize_per_tensor(x, *conv.x, torch.quint8)
        if conv.channels_last:
            codes = codes.contiguous(memory_format=memory)
        if conv.legacy:
            # arguments that PyTorch does not read
            other = [[7] * conv.dims] * 3
            return getattr(ops, conv.op + relu)(codes, packed, *other, 5, scale, zero_point)
        return getattr(ops, conv.op + relu)(codes, packed, scale, zero_point)

    return Apply(run, packed=pack(conv))


SHAPES: dict[str, Conv] = {
    "1d-k3": Conv(5, 7, (17,), (3,)),
    "1d-k1": Conv(16, 8, (9,), (1,), batch=2),
    "1d-k4s2p1": Conv(3, 8, (20,), (4,), (2,), (1,), batch=3),
    "1d-k3d2g3": Conv(6, 9, (15,), (3,), (1,), (2,), (2,), 3),
    "1d-depthwise": Conv(16, 16, (12,), (3,), (1,), (1,), (1,), 16),
    "2d-k3": Conv(5, 7, (6, 7), (3, 3), batch=2),
    "2d-k3x2s2x1p1x0d1x2": Conv(6, 5, (9, 8), (3, 2), (2, 1), (1, 0), (1, 2)),
    "2d-k1": Conv(17, 33, (3, 5), (1, 1)),
    "2d-k1s2": Conv(16, 16, (5, 5), (1, 1), (2, 2)),
    "2d-groups2": Conv(8, 12, (5, 6), (3, 3), (1, 1), (1, 1), (1, 1), 2, batch=2),
    "2d-groups16-of-4": Conv(64, 64, (4, 5), (3, 3), (1, 1), (1, 1), (1, 1), 16),
    "2d-depthwise-odd": Conv(13, 13, (5, 6), (3, 3), (1, 1), (1, 1), (1, 1), 13),
    "2d-depthwise-unpadded": Conv(16, 16, (5, 6), (3, 3), (2, 2), (0, 0), (1, 1), 16),
    "2d-depthwise-large": Conv(16, 16, (5, 6), (3, 3), (1, 1), (1, 1), (1, 1), 16, weights="large"),
    "2d-depthwise-twice-large": Conv(8, 16, (6, 5), (3, 3), (2, 1), (1, 1), (1, 1), 8, weights="large"),
    "2d-depthwise5-large": Conv(8, 8, (6, 7), (5, 5), (1, 2), (2, 2), (1, 1), 8, weights="large", batch=2),
    "2d-groups101": Conv(101, 101, (3, 3), (3, 3), (1, 1), (1, 1), (1, 1), 101),
    "2d-one-pixel": Conv(24, 16, (1, 1), (3, 3), (1, 1), (1, 1)),
    "3d-k3": Conv(4, 6, (4, 5, 6), (3, 3, 3), batch=2),
    "3d-k1": Conv(9, 8, (2, 3, 4), (1, 1, 1)),
    "3d-k2x3x1s2x1x2p1x0x2": Conv(3, 5, (5, 6, 4), (2, 3, 1), (2, 1, 2), (1, 0, 2)),
    "3d-k2d2g2": Conv(6, 8, (5, 4, 5), (2, 2, 2), (1, 2, 1), (0, 1, 1), (2, 1, 2), 2, batch=2),
    "3d-depthwise": Conv(9, 9, (3, 4, 4), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 9),
    "3d-depthwise-large": Conv(8, 8, (3, 4, 4), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 8, weights="large"),
    "3d-depthwise-twice-large": Conv(8, 16, (4, 3, 3), (3, 3, 3), (2, 1, 2), (1, 1, 1), (1, 1, 1), 8, weights="large"),
}
EXTREMES: dict[str, dict[str, Any]] = {
    "x-zero-point-0": {"x": (0.02, 0)},
    "x-zero-point-255": {"x": (0.02, 255), "relu": True},
    "y-zero-point-0": {"y": (0.0, 0), "relu": True},
    "y-zero-point-255": {"y": (0.0, 255)},
    "small-scales": {"x": (1e-8, 3), "y": (1e-7, 100)},
    "large-scales": {"x": (1e4, 250), "y": (3e4, 100)},
    "saturating": {"y": (1e-6, 77)},
    "vanishing": {"y": (1e5, 200)},
}


def _static() -> Iterator[tuple[str, Conv]]:
    for number, (name, shape) in enumerate(SHAPES.items()):
        for per_channel in (True, False):
            # weights with zero points take turns at the two schemes
            for weight_zero_point in (False, True) if per_channel == bool(number % 2) else (False,):
                scheme = ("per_channel" if per_channel else "per_tensor") + ("-asymmetric" if weight_zero_point else "")
                conv = replace(shape, per_channel=per_channel, weight_zero_point=weight_zero_point)
                yield f"{name}-{scheme}", conv
        yield f"{name}-relu-channels_last-no_bias", replace(shape, relu=True, channels_last=shape.dims > 1, bias=False)
        yield f"{name}-relu-per_tensor", replace(shape, relu=True, per_channel=False, y=(0.0, 9))
    for name in ("1d-k3", "2d-groups2", "2d-k1", "3d-k3"):
        for extreme, changes in EXTREMES.items():
            for per_channel in (True, False):
                scheme = "per_channel" if per_channel else "per_tensor"
                yield f"{name}-{extreme}-{scheme}", replace(SHAPES[name], per_channel=per_channel, **changes)
    for name in ("2d-k3", "3d-k3"):
        for relu in (False, True):
            yield f"{name}-legacy{'-relu' if relu else ''}", replace(SHAPES[name], legacy=True, relu=relu)


def _left_out(conv: Conv) -> dict[str, str]:
    reasons = {}
    if conv.weight_zero_point:
        reasons["onednn"] = SYMMETRIC
    if conv.dims == 3:
        reasons["qnnpack"] = UNPACKABLE
    return reasons


def case(op: str, name: str, make: Callable[[], nn.Module], conv: Conv, left_out: dict[str, str]) -> Case:
    """Returns the row of a convolution."""
    engines = tuple(engine for engine in ENGINES if engine not in left_out)
    return Case(f"quantized::{op}", name, make, (input_of(conv),), engines, left_out)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for name, conv in _static():
        op = conv.op + ("_relu" if conv.relu else "")
        yield case(op, name, partial(module, conv), conv, _left_out(conv))
