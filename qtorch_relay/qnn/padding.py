"""Codes with more codes around or between them, all of which mean 0.0: the zero point, constant or not."""

from __future__ import annotations

from collections.abc import Sequence

from qtorch_relay._tvm import relax
from qtorch_relay.qnn.op_def import Expr, static_shape


def pad_codes(codes: Expr, widths: Sequence[tuple[int, int]], zero_point: int | Expr) -> Expr:
    """Returns codes with (before, after) more along each dimension; a negative width cuts off codes.

    zero_point: a number, or an int32 value without dimensions that is known at run time.
    """
    shape, dtype = static_shape(codes), str(codes.ty.dtype)
    cut = [(max(-before, 0), max(-after, 0)) for before, after in widths]
    if any(map(any, cut)):
        axes = [axis for axis, pair in enumerate(cut) if any(pair)]
        begin, end = [cut[axis][0] for axis in axes], [shape[axis] - cut[axis][1] for axis in axes]
        codes = relax.op.strided_slice(codes, axes, begin, end)
    return _surrounded(codes, [max(width, 0) for pair in widths for width in pair], zero_point, dtype)


def spread_codes(codes: Expr, axes: Sequence[int], steps: Sequence[int], zero_point: int | Expr) -> Expr:
    """Returns codes with step - 1 more between each two neighbours along each of the axes.

    Shapes: an extent n becomes (n - 1) * step + 1.
    """
    shape, dtype = list(static_shape(codes)), str(codes.ty.dtype)
    for axis, step in zip(axes, steps, strict=True):
        if step == 1:
            continue
        rows = relax.op.reshape(codes, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
        widths = [0] * (2 * len(shape) + 2)
        widths[2 * axis + 3] = step - 1
        shape[axis] *= step
        flat = relax.op.reshape(_surrounded(rows, widths, zero_point, dtype), shape)
        shape[axis] -= step - 1
        codes = relax.op.strided_slice(flat, [axis], [0], [shape[axis]])
    return codes


def _surrounded(codes: Expr, widths: Sequence[int], zero_point: int | Expr, dtype: str) -> Expr:
    """Returns codes padded by widths, (before, after) of each dimension in turn."""
    if not any(widths):
        return codes
    if isinstance(zero_point, int):
        return relax.op.nn.pad(codes, list(widths), pad_value=float(zero_point))
    # what is 0 after the subtraction of the zero point is the zero point after its addition
    shifted = relax.op.nn.pad(relax.op.subtract(relax.op.astype(codes, "int32"), zero_point), list(widths))
    return relax.op.astype(relax.op.add(shifted, zero_point), dtype)
