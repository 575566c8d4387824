"""ChooseQuantizationParams in TIR: the scale and zero point of a range, see numerics.dynamic.choose_scale.

    torch.choose_scale(low, high)        float32, or float64 if it is asked for
    torch.choose_zero_point(low, high)   int32

Each is an op on two tensors without dimensions; code that holds low and high already uses the expressions.
No product feeds a sum here, so nothing can be contracted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import T, TensorType, te
from qtorch_relay.tir.math import Expr, f32, f64, let
from qtorch_relay.tir.ops import call_tir_op, define_tir_op

SMALL_SCALE = np.float32(6.1e-5)
INT32_MIN = -(2**31)


def scale_of(low: Expr, high: Expr, steps: int) -> Expr:
    """Returns the float64 scale of a range from low <= 0 to high >= 0 in so many steps."""
    small = f64(float(SMALL_SCALE))
    return let(_unbounded_scale(low, high, steps), lambda scale: T.Select(scale < small, small, scale))


def _unbounded_scale(low: Expr, high: Expr, steps: int) -> Expr:
    def bounded_below(scale: Expr) -> Expr:
        narrow = T.Cast("float32", scale)
        return T.Select(T.Or(narrow == f32(0), T.isinf(f32(1) / narrow)), f64(0.1), scale)

    return let((T.Cast("float64", high) - T.Cast("float64", low)) / f64(float(steps)), bounded_below)


def zero_point_of(low: Expr, high: Expr, quant_min: int, quant_max: int) -> Expr:
    """Returns the int32 zero point of a range from low <= 0 to high >= 0."""
    steps = quant_max - quant_min
    small_scale, end = f64(float(SMALL_SCALE)), SMALL_SCALE * np.float32(steps)

    def of(unbounded: Expr) -> Expr:
        amplifier = f32(SMALL_SCALE) / T.Cast("float32", unbounded)
        wide_low = T.Select(low == f32(0), low, T.Select(high == f32(0), f32(-end), low * amplifier))
        wide_high = T.Select(low == f32(0), f32(end), T.Select(high == f32(0), high, high * amplifier))
        small = unbounded < small_scale
        scale = T.Select(small, small_scale, unbounded)
        ends = (
            T.Cast("float64", T.Select(small, wide, narrow)) for wide, narrow in ((wide_low, low), (wide_high, high))
        )
        below, above = (end / scale for end in ends)
        return let(below, lambda below: let(above, lambda above: let(point(below, above), rounded)))

    def point(below: Expr, above: Expr) -> Expr:
        from_below = f64(abs(quant_min)) - T.fabs(below) < f64(abs(quant_max)) - T.fabs(above)
        return T.Select(from_below, f64(quant_min) - below, f64(quant_max) - above)

    def rounded(value: Expr) -> Expr:
        bounded = T.max(T.min(T.nearbyint(value), f64(quant_max)), f64(quant_min))
        # what x86 converts NaN to
        return T.Select(T.isnan(value), T.int32(INT32_MIN), T.Cast("int32", bounded))

    return let(_unbounded_scale(low, high, steps), of)


def scale_as(scale: Expr, arithmetic: str) -> Expr:
    """Returns a float64 scale as kernels use it: as it is ("float64"), rounded ("float32"), or through its rounded
    "reciprocal"."""
    if arithmetic == "float64":
        return scale
    if arithmetic == "float32":
        return T.Cast("float32", scale)
    return f32(1) / T.Cast("float32", f64(1) / scale)


def choose_scale(low: Expr, high: Expr, quant_min: int, quant_max: int, arithmetic: str) -> Expr:
    """Returns the scale of a range that need not hold 0 yet."""
    return call_tir_op("torch.choose_scale", [low, high], steps=quant_max - quant_min, arithmetic=arithmetic)


def choose_zero_point(low: Expr, high: Expr, quant_min: int, quant_max: int) -> Expr:
    """Returns the zero point of a range that need not hold 0 yet."""
    return call_tir_op("torch.choose_zero_point", [low, high], quant_min=quant_min, quant_max=quant_max)


def _with_zero(low: Any, high: Any) -> tuple[Expr, Expr]:
    return T.min(low(), f32(0)), T.max(high(), f32(0))


def _legalize_scale(builder: Any, call: Any) -> Any:
    steps, arithmetic = int(call.attrs["steps"]), str(call.attrs["arithmetic"])

    def compute(low: Any, high: Any) -> Any:
        return te.compute((), lambda: scale_as(scale_of(*_with_zero(low, high), steps), arithmetic), name="scale")

    return builder.call_te(compute, *call.args)


def _legalize_zero_point(builder: Any, call: Any) -> Any:
    bounds = int(call.attrs["quant_min"]), int(call.attrs["quant_max"])

    def compute(low: Any, high: Any) -> Any:
        return te.compute((), lambda: zero_point_of(*_with_zero(low, high), *bounds), name="zero_point")

    return builder.call_te(compute, *call.args)


define_tir_op(
    "torch.choose_scale",
    "the scale of a range",
    ("low", "high"),
    lambda call, _builder: TensorType((), "float64" if str(call.attrs["arithmetic"]) == "float64" else "float32"),
    _legalize_scale,
)
define_tir_op(
    "torch.choose_zero_point",
    "the zero point of a range",
    ("low", "high"),
    lambda _call, _builder: TensorType((), "int32"),
    _legalize_zero_point,
)
