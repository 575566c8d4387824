"""One row per canonicalization: a call of a qnn op, the inputs of a numeric run, and what numerics says it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtorch_relay import qnn
from qtorch_relay._tvm import relax
from qtorch_relay.engine_constants import (
    AccumulatorFactors,
    RealFactors,
    fixed_point_add_factors,
    kernel_factors,
    mul_multiplier,
    requantize_factors,
    sum_factor,
)
from qtorch_relay.numerics import conv, core, dynamic, pool
from qtorch_relay.qparams import PerTensor

Arrays = tuple[np.ndarray[Any, Any], ...]
EVEN = {"rounding": "TONEAREST_EVEN"}
RNG = np.random.default_rng(0)
CHANNELS = 6
X_SCALE, Y_SCALE, Y_ZERO_POINT = 0.0217, 0.0831, 3
W_SCALES = RNG.uniform(0.001, 0.01, CHANNELS)
BIAS = RNG.normal(0, 1, CHANNELS).astype(np.float32)
Y = PerTensor(Y_SCALE, Y_ZERO_POINT, "uint8")
LHS, RHS = PerTensor(0.031, 5, "uint8"), PerTensor(0.017, 131, "uint8")
SUMS = RNG.integers(-60_000, 60_000, (4, CHANNELS, 16, 16)).astype(np.int32)
CODES_A, CODES_B = (RNG.integers(0, 256, (4, CHANNELS, 16, 16)).astype(np.uint8) for _ in range(2))
FLOATS = np.concatenate(
    [
        RNG.normal(0, 20, 5000),
        (np.arange(-400, 400) + 0.5) * np.float64(np.float32(Y_SCALE)),
        [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0],
    ]
).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """body: the call, from the variables named in inputs; expected: the same from arrays."""

    name: str
    inputs: dict[str, np.ndarray[Any, Any]]
    body: Callable[..., Any]
    expected: Callable[..., np.ndarray[Any, Any]]


def _requantize(name: str, engine: str, *, per_channel: bool) -> Case:
    scales = W_SCALES if per_channel else np.float64(W_SCALES[0])
    factors = requantize_factors(engine, "conv", X_SCALE, scales, Y_SCALE, BIAS, CHANNELS)
    real = isinstance(factors, RealFactors)

    def body(x: Any) -> Any:
        return qnn.requantize(
            x,
            np.float32(X_SCALE) * np.asarray(scales, np.float32),
            0,
            Y_SCALE,
            Y_ZERO_POINT,
            axis=1,
            out_dtype="uint8",
            arithmetic="real" if real else "accumulator",
            factors=factors.operands(),
            **EVEN,
        )

    def expected(sums: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if isinstance(factors, AccumulatorFactors):
            # the integer bias is added before the op, by an R.add of its own
            without = AccumulatorFactors(factors.addend, factors.addend_factor, factors.multiplier, None)
            return core.requantize_accumulator(sums, without, Y)
        return core.requantize_real(sums, factors, Y)

    return Case(name, {"x": SUMS}, body, expected)


def _choose(name: str, x: np.ndarray[Any, Any], engine: str) -> tuple[Case, Case]:
    """The scale and the zero point of one range; each is a case, because a case has one output."""
    arithmetic = "reciprocal" if engine == "onednn" else "float32"

    def output(index: int) -> Callable[..., Any]:
        return lambda data: relax.TupleGetItem(qnn.choose_qparams(data, 0, 127, arithmetic=arithmetic), index)

    def params(data: np.ndarray[Any, Any]) -> dynamic.DynamicParams:
        return dynamic.choose_params(data, engine, reduce_range=True)

    return (
        Case(f"choose_scale_{name}", {"x": x}, output(0), lambda data: np.asarray(params(data).scale)),
        Case(f"choose_zero_point_{name}", {"x": x}, output(1), lambda data: np.int32(params(data).zero_point)),
    )


def _dequantize(name: str, engine: str) -> Case:
    params = dynamic.DynamicParams(np.float32(X_SCALE), 3)
    factors = kernel_factors(engine, "linear", W_SCALES)
    arithmetic = {"fbgemm": "fused", "qnnpack": "rounded", "onednn": "real"}[engine]
    operands = {"input_factor": X_SCALE, "kernel_factor": factors} if engine == "onednn" else {}
    operands["addend"] = BIAS

    def body(x: Any, scale: Any) -> Any:
        return qnn.dequantize(x, scale, 0, axis=-1, arithmetic=arithmetic, factors=operands)

    return Case(
        name,
        {"x": SUMS.reshape(-1, CHANNELS), "scale": np.float32(X_SCALE) * factors},
        body,
        lambda x, _scale: dynamic.dequantize_sums(x, params, W_SCALES, BIAS, engine),
    )


def _conv_sums(x: np.ndarray[Any, Any], w: np.ndarray[Any, Any], zx: int, zw: Any, pad: int) -> np.ndarray[Any, Any]:
    shifted = np.pad(x.astype(np.int64) - zx, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    weight = w.astype(np.int64) - np.asarray(zw).reshape(-1, 1, 1, 1)
    height, width = shifted.shape[2] - w.shape[2] + 1, shifted.shape[3] - w.shape[3] + 1
    return sum(
        np.einsum("nchw,oc->nohw", shifted[:, :, i : i + height, j : j + width], weight[:, :, i, j])
        for i in range(w.shape[2])
        for j in range(w.shape[3])
    ).astype(np.int32)


def _pool(name: str, kernel: int, arithmetic: str, factor: float) -> Case:
    q = PerTensor(0.5, 7, "uint8")

    def body(x: Any) -> Any:
        window = (kernel, kernel)
        return qnn.avg_pool2d(
            x, 0.5, 7, 0.5, 7, window, window, (0, 0), layout="NCHW", arithmetic=arithmetic, factor=factor
        )

    def expected(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if arithmetic == "quotient":
            return pool.mean_spatial(x, q, "fbgemm", contiguous=True)[..., None, None]
        if arithmetic == "scaled":
            return pool.avg_pool2d(
                x, q, pool.Pool2d((kernel, kernel), (kernel, kernel)), "qnnpack", channels_last=False
            )
        if arithmetic == "scaled_shifted":
            return pool.avg_pool2d(x, q, pool.Pool2d((kernel, kernel), (kernel, kernel)), "fbgemm", channels_last=False)
        channels_last = arithmetic == "fused"
        return pool.adaptive_avg_pool2d(x, q, (1, 1), "fbgemm", channels_last=channels_last)

    codes = RNG.integers(0, 256, (64, 8, 12, 12)).astype(np.uint8)
    return Case(name, {"x": codes}, body, expected)


def _elementwise(name: str, body: Callable[..., Any], formula: Callable[..., Any]) -> Case:
    return Case(name, {"a": CODES_A, "b": CODES_B}, body, lambda a, b: formula(a, LHS, b, RHS, Y))


_PARAMETERS = (LHS.scale, LHS.zero_point, RHS.scale, RHS.zero_point, Y_SCALE, Y_ZERO_POINT)
_FIXED = fixed_point_add_factors(LHS.scale, RHS.scale, Y_SCALE).operands()
_TABLES = np.stack([core.concatenate_table(side, Y, vectorized=True, channels_last=True) for side in (LHS, RHS)])
_W = RNG.integers(-128, 128, (5, CHANNELS, 3, 3)).astype(np.int8)
_PX = RNG.integers(0, 256, (2, 8, 9, 9)).astype(np.uint8)
_PW = RNG.choice([-128, -100, 90, 127], (16, 1, 3, 3)).astype(np.int8)
_D = RNG.integers(-128, 128, (5, 40)).astype(np.int8)
_DX = RNG.integers(0, 256, (7, 40)).astype(np.uint8)
_EXTRA = np.random.default_rng(1)
_PW2 = _EXTRA.integers(-128, 128, (8, 2, 1, 3)).astype(np.int8)
_ZW, _SW = _EXTRA.integers(-128, 128, 8), _EXTRA.uniform(0.01, 0.1, 8)
_TW = _EXTRA.integers(-128, 128, (8, 3, 3, 2)).astype(np.int8)
_REAL = requantize_factors("onednn", "conv", X_SCALE, W_SCALES, Y_SCALE, BIAS, CHANNELS)
_SQUARES = ((np.arange(-128, 128) ** 2) // 129).astype(np.int8)
_K = np.float32(1) / np.float32(144)

CASES = (
    Case(
        "quantize",
        {"x": FLOATS},
        lambda x: qnn.quantize(x, Y_SCALE, Y_ZERO_POINT, out_dtype="uint8", arithmetic="fused"),
        lambda x: core.quantize_f32(x, Y),
    ),
    Case(
        "dequantize",
        {"x": CODES_A},
        lambda x: qnn.dequantize(x, LHS.scale, LHS.zero_point),
        lambda x: core.dequantize_f32(x, LHS),
    ),
    Case(
        "requantize_relay_upward",
        {"x": SUMS},
        lambda x: qnn.requantize(x, 0.25, 0, 64.0, 3, axis=1, out_dtype="uint8"),
        lambda x: np.clip(np.floor(x * np.float32(0.25 / 64) + np.float32(0.5)) + 3, 0, 255).astype(np.uint8),
    ),
    Case(
        "requantize_relay_tonearest",
        {"x": SUMS},
        lambda x: qnn.requantize(x, 0.25, 0, 64.0, 3, axis=1, rounding="TONEAREST", out_dtype="uint8"),
        lambda x: np.clip(np.sign(x) * np.floor(np.abs(x / 256) + 0.5) + 3, 0, 255).astype(np.uint8),
    ),
    _requantize("requantize_fbgemm_per_channel", "fbgemm", per_channel=True),
    _requantize("requantize_fbgemm_per_tensor", "fbgemm", per_channel=False),
    _requantize("requantize_onednn", "onednn", per_channel=True),
    _requantize("requantize_qnnpack", "qnnpack", per_channel=False),
    Case(
        "lookup",
        {"x": CODES_A.view(np.int8)},
        lambda x: qnn.lookup(x, _SQUARES, 0.5, 0, 0.5, 0, "square"),
        lambda x: _SQUARES[x.astype(np.int64) + 128],
    ),
    Case(
        "conv2d",
        {"x": CODES_A, "w": _W},
        lambda x, w: qnn.conv2d(x, w, 9, 0, 0.5, 0.25, (3, 3), 5, padding=(1, 1)),
        lambda x, w: _conv_sums(x, w, 9, 0, 1),
    ),
    Case(
        "conv2d_asymmetric_weights",
        {"x": CODES_A, "w": _W},
        lambda x, w: qnn.conv2d(x, w, 9, [1, -2, 3, 0, 127], 0.5, 0.25, (3, 3), 5),
        lambda x, w: _conv_sums(x, w, 9, [1, -2, 3, 0, 127], 0),
    ),
    Case(
        "conv2d_s16_pairs",
        {"x": _PX, "w": _PW},
        lambda x, w: qnn.conv2d(x, w, 9, 0, 0.5, 0.25, (3, 3), 16, (2, 2), (1, 1), groups=8, accumulation="s16_pairs"),
        lambda x, w: conv.depthwise_sums_fbgemm(x, w, 9, (2, 2), (1, 1)),
    ),
    Case(
        "conv2d_s16_pairs_of_two_channels_with_kernel_zero_points",
        {"x": _PX, "w": _PW2},
        lambda x, w: qnn.conv2d(x, w, 9, _ZW, 0.5, _SW, (1, 3), 8, groups=4, accumulation="s16_pairs"),
        # two channels of a group are two planes of a depth of two
        lambda x, w: conv.depthwise_sums_fbgemm(x.reshape(2, 4, 2, 9, 9), w[:, None], 9, (1, 1, 1), (0, 0, 0), _ZW)[
            :, :, 0
        ],
    ),
    Case(
        "conv2d_run_time_zero_point",
        {"x": CODES_A, "w": _W, "zero_point": np.array(9, np.int32), "scale": np.array(0.5, np.float32)},
        lambda x, w, zero_point, scale: qnn.conv2d(x, w, zero_point, 0, scale, 0.25, (3, 3), 5, padding=(1, 1)),
        lambda x, w, zero_point, _scale: _conv_sums(x, w, int(zero_point), 0, 1),
    ),
    Case(
        "conv2d_transpose",
        {"x": _PX, "w": _TW},
        lambda x, w: qnn.conv2d_transpose(x, w, 9, 0, 0.5, 0.25, (2, 3), (1, 0), (1, 2), 2, output_padding=(1, 2)),
        lambda x, w: conv.transposed_sums(
            x, w, 9, stride=(2, 3), padding=(1, 0), dilation=(1, 2), groups=2, output_padding=(1, 2)
        ),
    ),
    Case(
        "conv2d_transpose_padding_wider_than_the_kernel_with_kernel_zero_points",
        {"x": _PX, "w": _TW[:, :, :2, :2]},
        lambda x, w: qnn.conv2d_transpose(x, w, 9, [3, -7, 0], 0.5, 0.25, padding=(3, 2)),
        lambda x, w: conv.transposed_sums(
            x, w, 9, [3, -7, 0], stride=(1, 1), padding=(3, 2), dilation=(1, 1), output_padding=(0, 0)
        ),
    ),
    Case(
        "requantize_add",
        {"x": SUMS, "r": CODES_B},
        lambda x, r: qnn.requantize_add(
            x,
            r,
            np.float32(X_SCALE) * W_SCALES.astype(np.float32),
            RHS.scale,
            RHS.zero_point,
            Y_SCALE,
            Y_ZERO_POINT,
            1,
            factors={**_REAL.operands(), "residual_factor": sum_factor(RHS.scale)},
        ),
        lambda x, r: conv.requantize_sum(x, _REAL, r, RHS, sum_factor(RHS.scale), Y),
    ),
    Case(
        "dense",
        {"x": _DX, "w": _D},
        lambda x, w: qnn.dense(x, w, 9, 0, 0.5, 0.25, 5),
        lambda x, w: ((x.astype(np.int64) - 9) @ w.astype(np.int64).T).astype(np.int32),
    ),
    _elementwise(
        "add_float32",
        lambda a, b: qnn.add(a, b, *_PARAMETERS, arithmetic="float32", **EVEN),
        core.add_f32_fma,
    ),
    _elementwise(
        "add_fixed_point",
        lambda a, b: qnn.add(a, b, *_PARAMETERS, arithmetic="fixed_point", factors=_FIXED, **EVEN),
        core.add_fixed_point,
    ),
    _elementwise(
        "mul",
        lambda a, b: qnn.mul(
            a,
            b,
            *_PARAMETERS,
            arithmetic="float32",
            factors={"multiplier": mul_multiplier(LHS.scale, RHS.scale, Y_SCALE)},
            **EVEN,
        ),
        core.mul_f32,
    ),
    _elementwise(
        "concatenate",
        lambda a, b: qnn.concatenate(
            [a, b], [LHS.scale, RHS.scale], [LHS.zero_point, RHS.zero_point], Y_SCALE, Y_ZERO_POINT, 2, tables=_TABLES
        ),
        lambda a, _lhs, b, _rhs, _out: np.concatenate([_TABLES[0][a], _TABLES[1][b]], 2),
    ),
    _pool("avg_pool2d_scaled", 12, "scaled", 0.5 / (np.float32(0.5) * np.float32(144))),
    _pool("avg_pool2d_scaled_shifted", 4, "scaled_shifted", np.float32(1) / np.float32(16)),
    _pool("avg_pool2d_fused", 12, "fused", np.float32(1) / (np.float32(1) / _K)),
    _pool("avg_pool2d_codes", 12, "codes", (np.float32(1) / np.float32(12)) / np.float32(12)),
    _pool("avg_pool2d_quotient", 12, "quotient", 144.0),
    *_choose("both_signs", FLOATS[:5000], "fbgemm"),
    *_choose("onednn", FLOATS[:5000], "onednn"),
    *_choose("of_zeros", np.zeros(7, np.float32), "fbgemm"),
    *_choose("tiny", FLOATS[:50] * np.float32(1e-7), "fbgemm"),
    *_choose("tiny_positive", np.abs(FLOATS[:50]) * np.float32(1e-7), "fbgemm"),
    *_choose("denormal", -np.abs(FLOATS[:50]) * np.float32(1e-43), "qnnpack"),
    *_choose("infinite", np.asarray([1.0, np.inf], np.float32), "fbgemm"),
    Case(
        "quantize_run_time",
        {"x": FLOATS, "s": np.asarray(0.043, np.float32), "z": np.asarray(77, np.int32)},
        lambda x, s, z: qnn.quantize(x, s, z, out_dtype="uint8", arithmetic="fused"),
        lambda x, s, z: core.quantize_f32(x, PerTensor(float(s), int(z), "uint8")),
    ),
    Case(
        "quantize_run_time_rounded",
        {"x": FLOATS[:5000], "s": np.asarray(0.043, np.float32), "z": np.asarray(77, np.int32)},
        lambda x, s, z: qnn.quantize(x, s, z, out_dtype="uint8", arithmetic="rounded"),
        lambda x, s, z: dynamic.quantize_dynamic(x, dynamic.DynamicParams(np.float32(s), int(z)), "onednn"),
    ),
    Case(
        "dense_run_time",
        {"x": _DX, "w": _D, "s": np.asarray(0.043, np.float32), "z": np.asarray(77, np.int32)},
        lambda x, w, s, z: qnn.dense(x, w, z, [1, 0, -128, 127, 5], s, 0.25, 5),
        lambda x, w, s, z: (
            (x.astype(np.int64) - z) @ (w.astype(np.int64) - np.asarray([[1], [0], [-128], [127], [5]])).T
        ).astype(np.int32),
    ),
    _dequantize("dequantize_fused", "fbgemm"),
    _dequantize("dequantize_rounded", "qnnpack"),
    _dequantize("dequantize_real", "onednn"),
)
