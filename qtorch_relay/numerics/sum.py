"""The order in which PyTorch adds up float32 tensors on x86-64: written once, run on numpy arrays and emitted as Relax.

Float addition is not associative, so the order is part of the result. PyTorch sorts the reduced dimensions by stride,
merges those that lie behind each other, and adds by a cascade: blocks of 16, blocks of these, and so on. Which elements
share a vector register, and so a sum, depends on strides and extents. One thread is supposed: from 32 768 elements on,
several threads share the work and add in yet another order.
Source: aten/src/ATen/native/cpu/SumKernel.cpp, aten/src/ATen/TensorIterator.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from qtorch_relay.layout import Layout

LANES = 8  # float32 in a register: the sum kernels are AVX2 code on AVX-512 machines too
ROWS = 4  # rows of registers that are added side by side
LEVELS = 4

Array = TypeVar("Array")


class Arrays(Protocol[Array]):
    """What the order of summation is written in."""

    def shape(self, x: Array) -> tuple[int, ...]:
        """Returns the shape."""

    def permute(self, x: Array, axes: Sequence[int]) -> Array:
        """Returns the array with its axes in another order."""

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        """Returns the elements in another shape."""

    def part(self, x: Array, axis: int, begin: int, end: int) -> Array:
        """Returns the part from begin to end along an axis."""

    def join(self, parts: Sequence[Array], axis: int) -> Array:
        """Returns the arrays behind each other along an axis."""

    def add(self, x: Array, y: Array) -> Array:
        """Returns the sums of elements."""

    def sum_last(self, x: Array) -> Array:
        """Returns the sums over the last axis, added from its first element to its last."""


@dataclass(frozen=True)
class SumPlan:
    """How a sum over some axes goes.

    reduced: the reduced axes from the largest stride to the smallest. rows: extents after merging, the innermost last.
    columns: extent of the innermost merged axis that is kept. strides: of the innermost row, and of the columns (0 if
    there are none).
    """

    kept: tuple[int, ...]
    reduced: tuple[int, ...]
    rows: tuple[int, ...]
    columns: int
    strides: tuple[int, int]


def sum_plan(layout: Layout, axes: Iterable[int]) -> SumPlan:
    """Returns the plan of a sum over axes (counted from 0) of a tensor."""
    chosen = sorted(set(axes), key=lambda axis: -layout.strides[axis])
    kept = tuple(axis for axis in range(len(layout.shape)) if axis not in chosen)
    rows = _merged([(layout.shape[axis], layout.strides[axis]) for axis in chosen])
    columns = _merged([(layout.shape[axis], layout.strides[axis]) for axis in kept])
    row_stride = rows[-1][1] if rows else 0
    extent, stride = columns[-1] if columns else (1, 0)
    return SumPlan(kept, tuple(chosen), tuple(row for row, _ in rows), extent, (row_stride, stride))


def _merged(dims: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns (extent, stride) from the outermost on, with those that lie behind each other made one."""
    merged: list[tuple[int, int]] = []
    for extent, stride in dims:
        if extent == 1:
            continue
        if merged and merged[-1][1] == extent * stride:
            merged[-1] = (merged[-1][0] * extent, stride)
        else:
            merged.append((extent, stride))
    return merged


def ordered_sum(ops: Arrays[Array], x: Array, layout: Layout, axes: Iterable[int]) -> Array:
    """Returns the sum over axes as PyTorch computes it, with the reduced axes gone."""
    plan = sum_plan(layout, axes)
    shape = tuple(layout.shape[axis] for axis in plan.kept)
    moved = ops.permute(x, [*plan.kept, *plan.reduced])
    if not plan.rows:
        return ops.reshape(moved, shape)
    outer = math.prod(shape) // plan.columns
    stacked = ops.reshape(moved, (outer, plan.columns, *plan.rows))
    total = _inner_sum(ops, stacked, plan)
    if len(plan.rows) > 1:
        total = ops.sum_last(ops.reshape(total, (outer, plan.columns, math.prod(plan.rows[:-1]))))
    return ops.reshape(total, shape)


def _inner_sum(ops: Arrays[Array], x: Array, plan: SumPlan) -> Array:
    """Returns the sums over the last axis of [outer, columns, ...]."""
    row_stride, column_stride = plan.strides
    if row_stride == 1 and plan.rows[-1] >= LANES:
        return _contiguous_sum(ops, x)
    if len(plan.rows) > 1 or not column_stride:
        return _row_sum(ops, x)
    if column_stride == 1 and plan.columns >= LANES:
        whole = plan.columns // (ROWS * LANES) * (ROWS * LANES)
    elif row_stride < column_stride:
        whole = 0
    else:
        whole = plan.columns // ROWS * ROWS
    parts = [
        total(ops, ops.part(x, 1, begin, end))
        for begin, end, total in ((0, whole, _cascade), (whole, plan.columns, _row_sum))
        if begin < end
    ]
    return parts[0] if len(parts) == 1 else ops.join(parts, 1)


def _contiguous_sum(ops: Arrays[Array], x: Array) -> Array:
    """Returns the sums of rows that are contiguous: by registers, then what is left over, then across a register."""
    *outer, extent = ops.shape(x)
    whole = extent // LANES
    last = len(outer)
    registers = ops.reshape(ops.part(x, last, 0, whole * LANES), (*outer, whole, LANES))
    sums = _row_sum(ops, ops.permute(registers, [*range(last), last + 1, last]))
    if whole * LANES < extent:
        sums = ops.join([ops.part(x, last, whole * LANES, extent), sums], last)
    return ops.sum_last(sums)


def _row_sum(ops: Arrays[Array], x: Array) -> Array:
    """Returns the sums over the last axis: four cascades over every fourth element, what is left joins the first."""
    *outer, extent = ops.shape(x)
    whole, last = extent // ROWS, len(outer)
    if not whole:
        return ops.sum_last(x)
    fourths = ops.reshape(ops.part(x, last, 0, whole * ROWS), (*outer, whole, ROWS))
    sums = _cascade(ops, ops.permute(fourths, [*range(last), last + 1, last]))
    if whole * ROWS < extent:
        first, others = ops.part(sums, last, 0, 1), ops.part(sums, last, 1, ROWS)
        sums = ops.join([first, ops.part(x, last, whole * ROWS, extent), others], last)
    return ops.sum_last(sums)


def _cascade(ops: Arrays[Array], x: Array) -> Array:
    """Returns the sums over the last axis: each full block is added up before it joins the next level."""
    *outer, extent = ops.shape(x)
    step = 1 << max(4, (extent - 1).bit_length() // LEVELS)
    last = len(outer)
    total: Array | None = None
    for level in range(LEVELS):
        count = ops.shape(x)[last]
        whole = 0 if level == LEVELS - 1 else count // step * step
        if whole < count:
            left = ops.sum_last(ops.part(x, last, whole, count))
            total = left if total is None else ops.add(total, left)
        if not whole:
            break
        x = ops.sum_last(ops.reshape(ops.part(x, last, 0, whole), (*outer, whole // step, step)))
    if total is None:
        raise ValueError("a sum of nothing")
    return total


class NumpyArrays:
    """Arrays of numpy."""

    def shape(self, x: npt.NDArray[Any]) -> tuple[int, ...]:
        """Returns the shape."""
        return x.shape

    def permute(self, x: npt.NDArray[Any], axes: Sequence[int]) -> npt.NDArray[Any]:
        """Returns the array with its axes in another order."""
        return x.transpose(axes)

    def reshape(self, x: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
        """Returns the elements in another shape."""
        return x.reshape(shape)

    def part(self, x: npt.NDArray[Any], axis: int, begin: int, end: int) -> npt.NDArray[Any]:
        """Returns the part from begin to end along an axis."""
        return x.take(range(begin, end), axis)

    def join(self, parts: Sequence[npt.NDArray[Any]], axis: int) -> npt.NDArray[Any]:
        """Returns the arrays behind each other along an axis."""
        return np.concatenate(parts, axis)

    def add(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the sums of elements."""
        total: npt.NDArray[Any] = x + y
        return total

    def sum_last(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the sums over the last axis, added in order."""
        total: npt.NDArray[Any] = np.add.accumulate(x, axis=-1)[..., -1]
        return total


def sum_f32(x: npt.NDArray[np.float32], layout: Layout, axes: Iterable[int]) -> npt.NDArray[np.float32]:
    """Returns torch.sum over axes of float32 values that lie in memory as layout says; the reduced axes are gone."""
    return ordered_sum(NumpyArrays(), x, layout, axes)
