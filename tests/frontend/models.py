"""Small quantized modules, one per op family, made of torch.ops.quantized calls with chosen parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qtorch_relay._tvm import tvm

# Portable code for tests: LLVM compiles it ten times faster without optimization. That optimizing it changes nothing
# (fused multiply-adds above all) is tested op by op in tests/qnn, and on whole networks by `make zoo`.
UNOPTIMIZED = tvm.target.Target({"kind": "llvm", "opt-level": 0})

SCALE, ZERO_POINT = 0.047, 61


def quantize(x: torch.Tensor, scale: float = SCALE, zero_point: int = ZERO_POINT) -> torch.Tensor:
    return torch.quantize_per_tensor(x, scale, zero_point, torch.quint8)


def weight(shape: tuple[int, ...], seed: int, *, per_channel: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) * 0.3
    if not per_channel:
        return torch.quantize_per_tensor(values, 0.0081, 0, torch.qint8)
    scales = torch.rand(shape[0], generator=generator) * 0.01 + 0.002
    return torch.quantize_per_channel(values, scales, torch.zeros(shape[0], dtype=torch.int64), 0, torch.qint8)


class Conv(nn.Module):
    """A convolution (with or without ReLU and bias) with chosen output parameters."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        *,
        relu: bool = False,
        bias: bool = True,
        per_channel: bool = True,
    ) -> None:
        super().__init__()
        w = weight((out_channels, in_channels // groups, kernel, kernel), kernel, per_channel=per_channel)
        b = torch.randn(out_channels, generator=torch.Generator().manual_seed(1)) if bias else None
        pairs = [[value, value] for value in (stride, padding, dilation)]
        self._packed_params = torch.ops.quantized.conv2d_prepack(w, b, *pairs, groups)
        self.op = torch.ops.quantized.conv2d_relu if relu else torch.ops.quantized.conv2d
        self.zero_point = 0 if relu else 100

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x, self._packed_params, 0.061, self.zero_point)


class Convolutions(nn.Module):
    """Kernels, strides, padding, dilation, groups, with and without bias and ReLU, per tensor and per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                Conv(3, 20, 7, 2, 3, relu=True),
                Conv(20, 24, 3, 1, 1),
                Conv(24, 24, 3, 1, 1, groups=24, relu=True),
                Conv(24, 24, 5, 2, 2, groups=24),
                Conv(24, 48, 3, 1, 1, groups=24),
                Conv(48, 24, 1, relu=True),
                Conv(24, 24, 3, 1, 0, groups=24),
                Conv(24, 32, 1, bias=False),
                Conv(32, 32, 3, 1, 2, 2, groups=4, relu=True),
                Conv(32, 17, 1, per_channel=False),
                Conv(17, 8, 3, per_channel=False, relu=True, bias=False),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = quantize(x)
        for layer in self.layers:
            x = layer(x)
        return x.dequantize()


class Linear(nn.Module):
    def __init__(self, features: int, units: int, *, relu: bool, bias: bool, per_channel: bool) -> None:
        super().__init__()
        b = torch.randn(units, generator=torch.Generator().manual_seed(2)) if bias else None
        w = weight((units, features), units, per_channel=per_channel)
        self._packed_params = torch.ops.quantized.linear_prepack(w, b)
        self.op = torch.ops.quantized.linear_relu if relu else torch.ops.quantized.linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x, self._packed_params, 0.083, 90)


class Linears(nn.Module):
    """Two and three dimensions, with and without bias and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Linear(24, 37, relu=True, bias=True, per_channel=True)
        self.second = Linear(37, 16, relu=False, bias=True, per_channel=False)
        self.third = Linear(16, 5, relu=False, bias=False, per_channel=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = quantize(x)
        flat = self.third(self.second(self.first(codes.reshape(-1, 24))))
        return self.first(codes).dequantize(), flat


class Elementwise(nn.Module):
    """add, mul and their ReLU forms, of one shape and broadcast; outputs of 64 elements and more, no vector tail."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q = torch.ops.quantized
        a, b = quantize(x), quantize(y, 0.031, 120)
        gate = quantize(y[:, :, :1, :1], 0.02, 7)
        return (
            q.add(a, b, 0.07, 101),
            q.add_relu(a, b, 0.05, 33),
            q.mul(a, b, 0.11, 130),
            q.mul_relu(a, b, 0.09, 11),
            q.mul(a, gate, 0.06, 55),
            q.mul(gate, a, 0.06, 55),
        )


class Concatenations(nn.Module):
    """quantized::cat and aten::cat of planar and channels-last tensors, with equal and differing parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(16, 20, 1)
        self.other = Conv(16, 16, 1, relu=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cat = torch.ops.quantized.cat
        a, b = quantize(x), quantize(x, 0.031, 120)
        c, d = self.conv(a), self.other(a)
        return (
            cat([a, b], 1, 0.04, 77),
            cat([a, a], 2, None, None),
            cat([c, d], 1, 0.055, 40),
            cat([c, d], 1, 0.061, 100),
            cat([c, a], 1, 0.055, 40),
            torch.cat([a, a], 1),
        )


class Pools(nn.Module):
    """Average pools and means of planar and channels-last maps, odd channel counts included; max pools."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(21, 75, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        planar = quantize(x)
        last = self.conv(planar)
        results = []
        for value in (planar, last):
            results += [
                nn.functional.avg_pool2d(value, 3, 1, 1),
                nn.functional.avg_pool2d(value, 2),
                nn.functional.avg_pool2d(value, 3, 2, 1, count_include_pad=False),
                nn.functional.adaptive_avg_pool2d(value, 1),
                nn.functional.adaptive_avg_pool2d(value, (3, 2)),
                value.mean([2, 3]),
                value.mean([2, 3], keepdim=True),
                nn.functional.max_pool2d(value, 3, 2, 1),
                nn.functional.max_pool2d(value, 3, 2, 0, ceil_mode=True),
            ]
        return tuple(results)


class Activations(nn.Module):
    """Unary ops; the element count is a multiple of 64, so no element falls into a vector's tail."""

    def __init__(self, engine: str) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q = quantize(x)
        results = [
            torch.relu(q),
            torch.ops.quantized.relu6(q),
            nn.functional.hardtanh(q, -1.0, 1.5),
            torch.clamp(q, -0.5, 2.0),
            nn.functional.hardsigmoid(q),
            torch.sigmoid(q),
            torch.tanh(q),
            torch.ops.quantized.hardswish(q, 0.021, 19),
            torch.ops.quantized.leaky_relu(q, 0.1, False, 0.03, 70),
            torch.ops.quantized.elu(q, 0.03, 70, 1.0, 1.0, 1.0),
        ]
        return tuple(results)


class Shapes(nn.Module):
    """Ops that only move codes: the channel shuffle of ShuffleNet, slices, views."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(8, 16, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        value = self.conv(quantize(x))
        n, c, h, w = value.size()
        shuffled = value.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        first, second = shuffled.chunk(2, 1)
        return (
            self.conv(torch.ops.quantized.cat([second, first[:, :]], 1, None, None)[:, :8]),
            torch.flatten(value, 1),
            value.permute(0, 2, 3, 1),
            value[:, 2:9:3, 1:, :-1],
            value.select(1, 3).unsqueeze(0).squeeze(0),
            value.reshape(n, -1, 2).dequantize(),
        )


class Shared(nn.Module):
    """One module called twice with different input scales."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(8, 8, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.conv(quantize(x))
        return self.conv(first)


CASES: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "convolutions": (Convolutions, [(2, 3, 33, 29)]),
    "linears": (Linears, [(2, 3, 24)]),
    "elementwise": (Elementwise, [(2, 32, 4, 6), (2, 32, 4, 6)]),
    "concatenations": (Concatenations, [(2, 16, 5, 4)]),
    "pools": (Pools, [(2, 21, 6, 6)]),
    "activations": (Activations, [(2, 16, 8, 4)]),
    "shapes": (Shapes, [(2, 8, 6, 4)]),
    "shared": (Shared, [(1, 8, 6, 6)]),
}


def build(name: str, engine: str) -> tuple[nn.Module, list[tuple[str, tuple[int, ...]]]]:
    """Returns a case's module, its weights packed for an engine, and its input_infos."""
    make, shapes = CASES[name]
    torch.backends.quantized.engine = engine
    module = make(engine) if make is Activations else make()
    return module.eval(), [(f"x{i}", shape) for i, shape in enumerate(shapes)]
