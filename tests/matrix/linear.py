"""Rows of linear layers with packed weights and given parameters."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import nn

from tests.matrix.case import ENGINES, Apply, Case, uniform
from tests.matrix.dynamic import NO_ASYMMETRIC, bias_of, int8_weight

SHAPES = {"2d": (3, 17), "1row": (1, 64), "3d": (2, 5, 33), "4d": (2, 1, 3, 8)}
# scale and zero point of input and output
QPARAMS = {"middle": (0.031, 60, 0.11, 90), "ends": (0.02, 255, 0.05, 0), "wide": (1e4, 0, 1e4, 255)}
ONEDNN_ONLY = dict.fromkeys(("fbgemm", "x86", "qnnpack"), "PyTorch has no such kernel for this engine")
FBGEMM_ONLY = dict.fromkeys(("onednn", "qnnpack"), "PyTorch has no such kernel for this engine")
NO_QINT8 = dict.fromkeys(("fbgemm", "x86", "qnnpack"), "PyTorch takes quint8 activations only on this engine")


def _packed(scheme: str, units: int, features: int, bias: bool) -> Any:
    weight = int8_weight(units, features, 3, scheme)
    return torch.ops.quantized.linear_prepack(weight, bias_of(units, 4) if bias else None)


def _static(
    op: str, scheme: str, features: int, qparams: tuple[float, int, float, int], dtype: torch.dtype, bias: bool
) -> nn.Module:
    function, (scale, point, y_scale, y_point) = getattr(torch.ops.quantized, op), qparams
    arguments = (0.07,) if op == "linear_leaky_relu" else ()

    def call(x: torch.Tensor, packed: Any) -> torch.Tensor:
        return function(torch.quantize_per_tensor(x, scale, point, dtype), packed, y_scale, y_point, *arguments)

    return Apply(call, packed=_packed(scheme, 7, features, bias))


def _on(left_out: dict[str, str]) -> dict[str, Any]:
    return {"engines": tuple(engine for engine in ENGINES if engine not in left_out), "left_out": left_out}


def cases() -> Iterator[Case]:
    """Yields the rows."""
    schemes = ("per_tensor", "per_channel", "per_tensor-asymmetric", "per_channel-asymmetric")
    for op, scheme, (name, shape) in product(("linear", "linear_relu"), schemes, SHAPES.items()):
        for which, qparams in QPARAMS.items():
            yield Case(
                f"quantized::{op}",
                f"u8-{scheme}-{name}-{which}",
                lambda o=op, s=scheme, k=shape[-1], q=qparams, b=name != "3d": _static(o, s, k, q, torch.quint8, b),
                (uniform(shape, 2, -4 * qparams[0] * 30, 4 * qparams[0] * 30),),
                **_on(NO_ASYMMETRIC if scheme.endswith("-asymmetric") else {}),
            )
    signed = (0.031, -5, 0.11, 12)
    for op, scheme, (name, shape) in product(("linear", "linear_relu"), schemes[:2], SHAPES.items()):
        yield Case(
            f"quantized::{op}",
            f"s8-{scheme}-{name}",
            lambda o=op, s=scheme, k=shape[-1]: _static(o, s, k, signed, torch.qint8, True),
            (uniform(shape, 2),),
            **_on(NO_QINT8),
        )
    for op, scheme, (name, shape) in product(("linear_leaky_relu", "linear_tanh"), schemes[:2], SHAPES.items()):
        qparams = (0.031, 60, 0.11, 90) if op == "linear_leaky_relu" else (0.031, 60, 1 / 128, 128)
        yield Case(
            f"quantized::{op}",
            f"u8-{scheme}-{name}",
            lambda o=op, s=scheme, k=shape[-1], q=qparams: _static(o, s, k, q, torch.quint8, True),
            (uniform(shape, 2),),
            **_on(ONEDNN_ONLY),
        )
    for relu, scheme, (name, shape) in product(("", "relu_"), schemes, SHAPES.items()):
        op = f"linear_with_input_q_dq_qweight_dq_{relu}output_fp32"
        function = getattr(torch.ops.quantized, op)
        yield Case(
            f"quantized::{op}",
            f"{scheme}-{name}",
            lambda f=function, s=scheme, k=shape[-1], b=name != "3d": Apply(
                lambda x, packed: f(x, 0.031, 60, packed), packed=_packed(s, 7, k, b)
            ),
            (uniform(shape, 2),),
            **_on(FBGEMM_ONLY),
        )
    yield from _fp16()
    yield from _second_names()


def _second_names() -> Iterator[Case]:
    """Ops that PyTorch has under two names."""
    x = (uniform((3, 24), 2),)

    def static(x: torch.Tensor, packed: Any) -> torch.Tensor:
        codes = torch.quantize_per_tensor(x, 0.03, 60, torch.quint8)
        return torch.ops._quantized.linear(codes, packed, 0.1, 90)

    def dynamic(x: torch.Tensor, packed: Any) -> torch.Tensor:
        return torch.ops._quantized.linear_dynamic(x, packed, True)

    for op, function in (("linear", static), ("linear_dynamic", dynamic)):
        yield Case(
            f"_quantized::{op}",
            "per_channel",
            lambda f=function: Apply(f, packed=_packed("per_channel", 7, 24, True)),
            x,
        )


def _fp16() -> Iterator[Case]:
    """Float16 weights: columns below and above a pair of registers, and more rows than FBGEMM sums in one block."""
    sizes = {"small": ((3, 17), 7), "pairs": ((2, 64), 64), "rest": ((2, 3, 33), 70), "blocks": ((2, 1100), 40)}
    for (name, (shape, units)), bias in product(sizes.items(), (True, False)):
        generator = torch.Generator().manual_seed(9)
        weight = torch.randn(units, shape[-1], generator=generator)
        weight[0, 0], weight[1, 1] = 1e6, 1e-7
        b = bias_of(units, 4) if bias else None
        variant = f"{name}{'' if bias else '-no_bias'}"
        for op in ("linear_dynamic_fp16", "linear_relu_dynamic_fp16"):
            function = getattr(torch.ops.quantized, op)
            yield Case(
                f"quantized::{op}",
                variant,
                lambda f=function, w=weight, b=b: Apply(
                    lambda x, packed: f(x, packed), packed=torch.ops.quantized.linear_prepack_fp16(w, b)
                ),
                (uniform(shape, 2),),
                **_on(FBGEMM_ONLY),
            )
        yield Case(
            "quantized::linear_dynamic_fp16_unpacked_weight",
            variant,
            lambda w=weight, b=b: Apply(
                lambda x, w, b: torch.ops.quantized.linear_dynamic_fp16_unpacked_weight(x, w, b), w=w, b=b
            ),
            (uniform(shape, 2),),
        )
