"""Scales and zero points that are chosen at run time, on single numbers; tir.qparams has the formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay.relay.forms.common import attributes
from qtorch_relay.relay.registry import relax_form
from qtorch_relay.relay.writer import Writer
from qtorch_relay.tir.qparams import INT32_MIN, SMALL_SCALE

_SMALL_F32, _SMALL_F64 = f"{SMALL_SCALE:.9g}f", f"{float(SMALL_SCALE):.17g}f64"


class _Numbers:
    """Lines on single numbers."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Callable[..., str]:
        """Returns the function that writes a line with Relay's op of that name."""
        return lambda *operands, **attrs: self._writer.emit(self._writer.op(name, *operands, **attrs))


def _range(writer: Writer, call: Any) -> tuple[_Numbers, str, str]:
    """Returns the low and high end of a range that holds 0."""
    line = _Numbers(writer)
    low, high = map(writer.operand, call.args)
    return line, line.minimum(low, "0f"), line.maximum(high, "0f")


def _unbounded_scale(line: _Numbers, low: str, high: str, steps: int) -> str:
    width = line.subtract(line.cast(high, dtype="float64"), line.cast(low, dtype="float64"))
    scale = line.divide(width, f"{steps}f64")
    narrow = line.cast(scale, dtype="float32")
    # 1 / scale is infinite, also where the scale is 0
    unusable = line.isinf(line.divide("1f", narrow))
    return line.where(unusable, "0.10000000000000001f64", scale)


@relax_form("torch.choose_scale", becomes="plain ops on single numbers")
def choose_scale(writer: Writer, call: Any) -> str:
    """The scale of a range, at least SMALL_SCALE."""
    attrs = attributes(call)
    line, low, high = _range(writer, call)
    scale = line.maximum(_unbounded_scale(line, low, high, attrs["steps"]), _SMALL_F64)
    if attrs["arithmetic"] == "float64":
        return scale
    if attrs["arithmetic"] == "float32":
        return line.cast(scale, dtype="float32")
    return line.divide("1f", line.cast(line.divide("1f64", scale), dtype="float32"))


@relax_form("torch.choose_zero_point", becomes="plain ops on single numbers")
def choose_zero_point(writer: Writer, call: Any) -> str:
    """The zero point from the end of the range that loses less by rounding, ties to even."""
    attrs = attributes(call)
    least, greatest = attrs["quant_min"], attrs["quant_max"]
    steps = greatest - least
    line, low, high = _range(writer, call)
    unbounded = _unbounded_scale(line, low, high, steps)
    amplifier = line.divide(_SMALL_F32, line.cast(unbounded, dtype="float32"))
    end = float(SMALL_SCALE * np.float32(steps))
    no_low, no_high = line.equal(low, "0f"), line.equal(high, "0f")
    wide_low = line.where(no_low, low, line.where(no_high, f"{-end:.9g}f", line.multiply(low, amplifier)))
    wide_high = line.where(no_low, f"{end:.9g}f", line.where(no_high, high, line.multiply(high, amplifier)))
    small = line.less(unbounded, _SMALL_F64)
    scale = line.maximum(unbounded, _SMALL_F64)
    below, above = (
        line.divide(line.cast(line.where(small, wide, narrow), dtype="float64"), scale)
        for wide, narrow in ((wide_low, low), (wide_high, high))
    )
    lost_below = line.subtract(f"{abs(least)}f64", line.abs(below))
    lost_above = line.subtract(f"{abs(greatest)}f64", line.abs(above))
    from_below, from_above = line.subtract(f"{least}f64", below), line.subtract(f"{greatest}f64", above)
    point = line.where(line.less(lost_below, lost_above), from_below, from_above)
    bounded = line.clip(_to_even(line, point), a_min=float(least), a_max=float(greatest))
    return line.where(line.isnan(point), str(INT32_MIN), line.cast(bounded, dtype="int32"))


def _to_even(line: _Numbers, value: str) -> str:
    """As relax.round is written, in float64."""
    tie = line.equal(line.abs(line.subtract(value, line.trunc(value))), "0.5f64")
    even = line.multiply(line.round(line.multiply(value, "0.5f64")), "2f64")
    return line.where(tie, even, line.round(value))
