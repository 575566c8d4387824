"""Matrix products of float32 in register tiles, in place of TVM's loops, which sum one element after the other.

[..., M, K] @ [..., K, N], or [..., K] @ [K, N]
"""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import Op, T, target_has_feature, tvm
from qtorch_relay.dimensions import is_fixed
from qtorch_relay.tir.functions import LANES, call_function, flat, loop_of, product
from qtorch_relay.tir.math import Expr, f32, fma

Buffer = Any

# Rows and vectors of a tile: with 32 registers of 16 numbers, and with 16 of 8.
WIDE_TILE, NARROW_TILE = (6, 4), (4, 1)


def legalize_matmul(builder: Any, call: Any) -> Expr:
    """Returns what a relax.matmul becomes: TVM's own loops where its operands are not float32 of fitting shapes."""
    lhs, rhs = (list(operand.ty.shape.values) for operand in call.args)
    dtypes = {str(operand.ty.dtype) for operand in call.args} | {str(call.ty.dtype)}
    if dtypes != {"float32"} or not _fits(lhs, rhs):
        return Op.get("relax.matmul").get_attr("FLegalize")(builder, call)
    return call_function(builder, "matmul", call.args, call.ty, _emit)


def _fits(lhs: list[Any], rhs: list[Any]) -> bool:
    """Says whether the right matrices are as many as the left ones, or one for all, of a size that is known."""
    if len(lhs) < 2 or len(rhs) < 2 or not all(is_fixed(size) for size in rhs[-2:]):
        return False
    same = len(lhs) == len(rhs) and all(_equal(a, b) for a, b in zip(lhs[:-2], rhs[:-2], strict=True))
    return len(rhs) == 2 or same


def _equal(a: Any, b: Any) -> bool:
    return int(a) == int(b) if is_fixed(a) and is_fixed(b) else str(a) == str(b)


def _emit(lhs: Buffer, rhs: Buffer, out: Buffer) -> None:
    depth, columns = (int(size) for size in rhs.shape[-2:])
    matrices = product(rhs.shape[:-2])
    rows = product(lhs.shape[:-1]) if len(rhs.shape) == 2 else lhs.shape[-2]
    tile_rows, tile_vectors = _tile()
    lanes = LANES if columns >= LANES else 1
    # the last vector begins early: a column computed twice is the same twice
    starts = [min(start, columns - lanes) for start in range(0, columns, lanes)]
    blocks = len(starts) // tile_vectors
    left, right, result = flat(lhs), flat(rhs), flat(out)

    def tiles(matrix: Expr, offsets: list[Expr]) -> None:
        """Emits all rows of some vectors of columns; the last row stands in for those behind it."""
        with T.serial(0, T.ceildiv(T.int64(1) * rows, tile_rows)) as group:
            picked = [
                T.bind(matrix * rows + T.min(group * tile_rows + i, T.int64(1) * rows - 1)) for i in range(tile_rows)
            ]
            _emit_tile(left, right, result, picked, offsets, matrix * depth * columns, depth, columns, lanes)

    work = matrices * rows * depth * columns
    if blocks:
        with loop_of(work)(0, matrices * blocks) as index:
            matrix, first = T.bind(index // blocks), T.bind(index % blocks * (tile_vectors * lanes))
            offsets = [T.min(first + vector * lanes, columns - lanes) for vector in range(tile_vectors)]
            tiles(matrix, [T.bind(offset) for offset in offsets])
    if len(starts) > blocks * tile_vectors:
        with loop_of(work)(0, matrices) as matrix:
            tiles(matrix, [T.int64(start) for start in starts[blocks * tile_vectors :]])


def _tile() -> tuple[int, int]:
    return WIDE_TILE if target_has_feature("avx512f", tvm.target.Target.current()) else NARROW_TILE


def _emit_tile(
    left: Buffer,
    right: Buffer,
    out: Buffer,
    rows: list[Expr],
    offsets: list[Expr],
    start: Expr,
    depth: int,
    columns: int,
    lanes: int,
) -> None:
    """Emits the sums of some rows for some vectors of columns; start: where the right matrix begins."""
    dtype = f"float32x{lanes}" if lanes > 1 else "float32"

    def spread(value: Expr) -> Expr:
        return T.broadcast(value, lanes) if lanes > 1 else value

    def span(first: Expr) -> Expr:
        return T.ramp(first, 1, lanes) if lanes > 1 else first

    sums = [[T.alloc_buffer((1,), dtype, scope="global") for _ in offsets] for _ in rows]
    for accumulator in (accumulator for row in sums for accumulator in row):
        T.buffer_store(accumulator, spread(f32(0)), [0])
    with T.serial(0, depth) as k:
        vectors = [T.bind(right[span(start + k * columns + offset)]) for offset in offsets]
        for row, accumulators in zip(rows, sums, strict=True):
            number = T.bind(spread(left[row * depth + k]))
            for vector, accumulator in zip(vectors, accumulators, strict=True):
                T.buffer_store(accumulator, fma(number, vector, accumulator[0]), [0])
    for row, accumulators in zip(rows, sums, strict=True):
        for offset, accumulator in zip(offsets, accumulators, strict=True):
            T.buffer_store(out, accumulator[0], [span(row * columns + offset)])
