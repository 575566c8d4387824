"""Scales and zero points that are chosen at run time, on single numbers; tir.qparams has the formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtorch_relay.relay.forms.common import attributes
from qtorch_relay.relay.registry import relax_form
from qtorch_relay.relay.writer import Writer
from qtorch_relay.tir.qparams import INT32_MIN, SMALL_SCALE

_SMALL_F32, _SMALL_F64 = f"{SMALL_SCALE:.9g}f", f"{float(SMALL_SCALE):.17g}f64"
_RAISED = 3 * 2**51
_STOP = "`annotation.stop_fusion`"


class _Numbers:
    """Lines on single numbers, each written once: what scale and zero point have in common, they share."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Callable[..., str]:
        """Returns the function that writes a line with Relay's op of that name."""
        return lambda *operands, **attrs: self._writer.emit_once(self._writer.op(name, *operands, **attrs))


def _range(writer: Writer, call: Any) -> tuple[_Numbers, str, str]:
    """Returns the low and high end of a range that holds 0."""
    line = _Numbers(writer)
    low, high = map(writer.operand, call.args)
    return line, line.minimum(low, "0f"), line.maximum(high, "0f")


def _unbounded_scale(line: _Numbers, low: str, high: str, steps: int) -> str:
    width = line.subtract(line.cast(high, dtype="float64"), line.cast(low, dtype="float64"))
    # a divisor that TVM cannot take for a constant, whose reciprocal it would multiply by
    scale = line.divide(width, line.where(line.isnan(width), "0f64", f"{steps}f64"))
    narrow = line.cast(scale, dtype="float32")
    # 1 / scale is infinite, also where the scale is 0
    unusable = line.isinf(line.divide("1f", narrow))
    return line.where(unusable, "0.10000000000000001f64", scale)


def _alone(writer: Writer, number: str) -> str:
    """Returns the call that keeps Relay from computing a number anew for each element that it is used for.

    Relay fuses what stands before an op of many elements into its loop, and every way that leads to a value is a copy
    of it there: a build took minutes.
    """
    return writer.op("annotation.stop_fusion", number)


@relax_form("torch.choose_scale", becomes=f"plain ops on single numbers, {_STOP}")
def choose_scale(writer: Writer, call: Any) -> str:
    """The scale of a range, at least SMALL_SCALE."""
    attrs = attributes(call)
    line, low, high = _range(writer, call)
    scale = line.maximum(_unbounded_scale(line, low, high, attrs["steps"]), _SMALL_F64)
    if attrs["arithmetic"] == "float32":
        scale = line.cast(scale, dtype="float32")
    elif attrs["arithmetic"] != "float64":
        scale = line.divide("1f", line.cast(line.divide("1f64", scale), dtype="float32"))
    return _alone(writer, scale)


@relax_form("torch.choose_zero_point", becomes=f"plain ops on single numbers, {_STOP}")
def choose_zero_point(writer: Writer, call: Any) -> str:
    """The zero point from the end of the range that loses less by rounding, ties to even.

    Shorter than in tir.qparams, with the same result. Where the scale is not too small, the factor that widens the
    range is 1. A range on one side of 0 is widened like any other, not to its exact end: that end is within a part in
    2**20 of it, and the zero point rounds to the same code.
    """
    attrs = attributes(call)
    least, greatest = attrs["quant_min"], attrs["quant_max"]
    line, low, high = _range(writer, call)
    unbounded = _unbounded_scale(line, low, high, greatest - least)
    factor = line.maximum(line.divide(_SMALL_F32, line.cast(unbounded, dtype="float32")), "1f")
    scale = line.maximum(unbounded, _SMALL_F64)
    below, above = (line.divide(line.cast(line.multiply(end, factor), dtype="float64"), scale) for end in (low, high))
    lost_below = line.subtract(f"{abs(least)}f64", line.abs(below))
    lost_above = line.subtract(f"{abs(greatest)}f64", line.abs(above))
    from_below, from_above = line.subtract(f"{least}f64", below), line.subtract(f"{greatest}f64", above)
    point = line.where(line.less(lost_below, lost_above), from_below, from_above)
    whole = line.cast(_to_even(line, point, least, greatest), dtype="int32")
    return _alone(writer, line.where(line.isnan(point), str(INT32_MIN), whole))


def _to_even(line: _Numbers, value: str, least: int, greatest: int) -> str:
    """As in relay.finish: from 2**52 to 2**53 the float64 numbers are the integers."""
    bounded = line.clip(value, a_min=float(least), a_max=float(greatest))
    raised = line.clip(
        line.add(bounded, f"{_RAISED}f64"), a_min=float(_RAISED + least), a_max=float(_RAISED + greatest)
    )
    return line.subtract(raised, f"{_RAISED}f64")
