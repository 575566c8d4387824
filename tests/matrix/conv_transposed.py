"""Rows of transposed convolutions, and of convolutions to which another tensor is added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from qtorch_relay.engine_constants import takes_direct_kernel
from tests.matrix.case import Apply, Case, uniform
from tests.matrix.conv import SHAPES, SYMMETRIC, Conv, case, input_of, module, output_qparams, pack

PER_TENSOR_ONLY = "PyTorch takes no transposed weight quantized per channel on this engine"
OUTPUT_PADDING = "PyTorch's onednn takes no output padding"
WRONG_ORDER = (
    "PyTorch's onednn is wrong where a group's inputs and outputs differ in number and neither is 1: it packs the "
    "weight in the wrong order. conv_transpose1d with kernel 1, 4 inputs, 8 outputs differs from fbgemm in 99 % of "
    "codes, with 4 and 4, 4 and 1, or 1 and 4 in none"
)
WRONG_ROWS = (
    "PyTorch's fbgemm takes a direct kernel for 2-d kernels of 2 rows and up to 6 columns, which computes the first "
    "image of a batch only, ignores the vertical stride, and saturates to int16: with 8 inputs and outputs, kernel "
    "2x2, stride 2, one image of 2x2, 18 of 128 codes differ; of 1x4 none"
)
WITHOUT_DEPTH = (
    "PyTorch's qnnpack runs conv_transpose3d without its depth: right only where input and kernel have depth 1"
)
ONLY_ONEDNN = "PyTorch has conv2d_add on engine onednn only"

TRANSPOSED: dict[str, Conv] = {
    "1d-k3s2p1": Conv(5, 5, (7,), (3,), (2,), (1,), output_padding=(0,), batch=2),
    "1d-k4s2": Conv(6, 6, (6,), (4,), (2,), output_padding=(0,), groups=2),
    "1d-widening": Conv(3, 7, (5,), (3,), (3,), (1,), (2,), output_padding=(1,)),
    "1d-of-one": Conv(1, 6, (5,), (3,), (2,), output_padding=(0,)),
    "2d-k3s2p1": Conv(6, 6, (4, 5), (3, 3), (2, 2), (1, 1), output_padding=(0, 0), batch=2),
    "2d-k3x2s1x3p1x0d1x2": Conv(5, 5, (4, 3), (3, 2), (1, 3), (1, 0), (1, 2), output_padding=(0, 0)),
    "2d-k4s2p1-groups": Conv(8, 8, (3, 4), (4, 4), (2, 2), (1, 1), output_padding=(0, 0), groups=4),
    "2d-narrowing": Conv(8, 5, (3, 4), (3, 3), (2, 2), (1, 1), output_padding=(1, 0)),
    "2d-depthwise": Conv(9, 9, (3, 4), (2, 2), (2, 2), output_padding=(0, 0), groups=9),
    "2d-depthwise-twice": Conv(8, 16, (3, 4), (3, 3), (2, 2), (1, 1), output_padding=(0, 0), groups=8),
    "2d-padded-wider": Conv(4, 4, (6, 5), (2, 1), (2, 1), (2, 1), output_padding=(0, 0)),
    "2d-k1": Conv(7, 7, (3, 3), (1, 1), output_padding=(0, 0)),
    "2d-k2s2-unet": Conv(16, 16, (4, 4), (2, 2), (2, 2), output_padding=(0, 0), batch=2),
    "2d-k2x3-one-row": Conv(8, 16, (1, 4), (2, 3), (2, 1), output_padding=(0, 0), x=(0.02, 3)),
    "3d-k2s2": Conv(4, 4, (2, 3, 3), (2, 2, 2), (2, 2, 2), output_padding=(0, 0, 0)),
    "3d-k3x2x1s1x2x3p1": Conv(3, 5, (3, 3, 2), (3, 2, 1), (1, 2, 3), (1, 0, 0), (2, 1, 1), output_padding=(0, 1, 1)),
    "3d-groups": Conv(6, 6, (2, 3, 2), (3, 3, 3), (2, 1, 2), (1, 1, 1), output_padding=(1, 0, 1), groups=3),
}  # fmt: skip


def wrong_order(conv: Conv) -> bool:
    """Says whether PyTorch's onednn packs a transposed weight in the wrong order."""
    inputs, outputs = conv.channels // conv.groups, conv.outputs // conv.groups
    return inputs != outputs and 1 not in (inputs, outputs)


def left_out_of(conv: Conv) -> dict[str, str]:
    """Returns why a transposed convolution does not run, or is wrong, on some of PyTorch's engines."""
    padded = any(conv.output_padding or ())
    onednn = ""
    if conv.weight_zero_point:
        onednn = SYMMETRIC
    elif padded:
        onednn = OUTPUT_PADDING
    elif wrong_order(conv):
        onednn = WRONG_ORDER
    geometry = {key: conv.geometry()[key] for key in ("stride", "padding", "dilation")}
    weight_shape = (conv.channels, conv.outputs // conv.groups, *conv.kernel)
    fbgemm = WRONG_ROWS if takes_direct_kernel(weight_shape, groups=conv.groups, **geometry) else ""
    reasons = {
        "fbgemm": fbgemm,
        "onednn": onednn,
        # x86 gives to fbgemm what onednn does not take
        "x86": fbgemm if conv.weight_zero_point or padded else onednn,
        "qnnpack": WITHOUT_DEPTH if conv.dims == 3 else "",
    }
    if conv.per_channel:
        reasons |= dict.fromkeys(("fbgemm", "onednn", "x86"), PER_TENSOR_ONLY)
        if conv.groups > 1:
            reasons["qnnpack"] = PER_TENSOR_ONLY
    return {engine: reason for engine, reason in reasons.items() if reason}


def add_module(conv: Conv, residual: tuple[float, int], *, planar: bool) -> nn.Module:
    """Returns the convolution of one float input plus another, both quantized."""
    op = torch.ops.quantized.conv2d_add_relu if conv.relu else torch.ops.quantized.conv2d_add
    scale, zero_point = output_qparams(conv)

    def run(x: torch.Tensor, y: torch.Tensor, packed: object) -> torch.Tensor:
        added = torch.quantize_per_tensor(y, *residual, torch.quint8)
        if not planar:
            added = added.contiguous(memory_format=torch.channels_last)
        return op(torch.quantize_per_tensor(x, *conv.x, torch.quint8), added, packed, scale, zero_point)

    return Apply(run, packed=pack(conv))


def _add_cases() -> Iterator[Case]:
    left_out = dict.fromkeys(("fbgemm", "x86", "qnnpack"), ONLY_ONEDNN)
    names = ("2d-k3", "2d-k3x2s2x1p1x0d1x2", "2d-k1", "2d-k1s2", "2d-groups2", "2d-depthwise-odd", "2d-depthwise-large")
    for name in names:
        for number, (per_channel, relu, planar) in enumerate(
            [(True, False, False), (False, True, False), (False, False, True), (True, True, True)]
        ):
            conv = replace(SHAPES[name], per_channel=per_channel, relu=relu, bias=number != 2)
            residual = [(0.31, 0), (0.5, 255), (0.07, 99), (2.0, 128)][number]
            scheme = ("per_channel" if per_channel else "per_tensor") + ("-planar" if planar else "")
            with torch.no_grad():
                shape = tuple(module(replace(conv, relu=False))(torch.from_numpy(input_of(conv))).shape)
            yield Case(
                f"quantized::conv2d_add{'_relu' if relu else ''}",
                f"{name}-{scheme}",
                partial(add_module, conv, residual, planar=planar),
                (input_of(conv), uniform(shape, 4, -300 * residual[0], 300 * residual[0])),
                ("onednn",),
                left_out,
            )


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for name, shape in TRANSPOSED.items():
        for per_channel in (False, True):
            for weight_zero_point in (False, True):
                conv = replace(shape, per_channel=per_channel, weight_zero_point=weight_zero_point)
                scheme = ("per_channel" if per_channel else "per_tensor") + ("-asymmetric" if weight_zero_point else "")
                left_out = left_out_of(conv)
                if len(left_out) < 4:
                    yield case(conv.op, f"{name}-{scheme}", partial(module, conv), conv, left_out)
    for name in ("1d-k3s2p1", "2d-k3s2p1"):
        for extreme in ({"x": (1e-8, 0), "y": (1e-7, 255)}, {"x": (1e4, 255), "bias": False}, {"y": (1e-6, 0)}):
            conv = replace(TRANSPOSED[name], per_channel=False, channels_last=len(extreme) == 1, **extreme)
            label = "-".join(f"{key}-{value}" for key, value in extreme.items())
            yield case(conv.op, f"{name}-{label}", partial(module, conv), conv, left_out_of(conv))
    yield from _add_cases()
