"""Matrix products of float32 in register tiles, in place of TVM's loops, which sum one element after the other.

    relax.matmul                [..., M, K] @ [..., K, N], or [..., K] @ [K, N]
    torch.linear(x, w, bias)    x [..., K] @ w [K, N] + bias [N]

The order of additions is that of the library PyTorch calls, Intel MKL, on CPUs with AVX-512: along K in blocks (see
block_of), in each from the first element to the last with fused multiply-adds; the blocks' sums are added one after the
other, to the bias where there is one. So results are PyTorch's to the last bit, but for products of fewer than
MKL_LEAST_ROWS rows or MKL_LEAST_COLUMNS columns: for those MKL has code whose order depends on addresses in memory.
Found by experiment, which tests/frontend/test_float_products.py repeats.
"""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import Op, T, TensorType, target_has_feature, tvm
from qtorch_relay.dimensions import is_fixed
from qtorch_relay.tir.functions import LANES, call_function, flat, loop_of, product
from qtorch_relay.tir.math import Expr, f32, fma
from qtorch_relay.tir.ops import call_tir_op, define_tir_op

Buffer = Any

# Rows and vectors of a tile: with 32 registers of 16 numbers, and with 16 of 8.
WIDE_TILE, NARROW_TILE = (6, 4), (4, 1)

MKL_LEAST_ROWS, MKL_LEAST_COLUMNS, MKL_BLOCK = 4, 12, 192


def block_of(depth: int) -> int:
    """Returns how many of depth products MKL adds up at a time."""
    if depth <= MKL_BLOCK:
        return depth
    return depth // 2 if depth < 2 * MKL_BLOCK else MKL_BLOCK


def linear(x: Expr, weight: Expr, bias: Expr) -> Expr:
    """Returns x @ weight + bias of float32 x [..., K], weight [K, N] and bias [N], two dimensions of x at least."""
    return call_tir_op("torch.linear", [x, weight, bias])


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


def _infer_linear(call: Any, _builder: Any) -> Any:
    rows, columns = (list(argument.ty.shape.values) for argument in call.args[:2])
    return TensorType([*rows[:-1], columns[-1]], "float32")


def _legalize_linear(builder: Any, call: Any) -> Expr:
    return call_function(builder, "linear", call.args, call.ty, _emit_linear)


define_tir_op("torch.linear", "x @ weight + bias", ("x", "weight", "bias"), _infer_linear, _legalize_linear)


def _emit(lhs: Buffer, rhs: Buffer, out: Buffer) -> None:
    _Product(lhs, rhs, out).emit()


def _emit_linear(lhs: Buffer, rhs: Buffer, bias: Buffer, out: Buffer) -> None:
    _Product(lhs, rhs, out, bias).emit()


class _Product:
    """Emits the code of one product, or of one for each matrix of a stack."""

    def __init__(self, lhs: Buffer, rhs: Buffer, out: Buffer, bias: Buffer | None = None) -> None:
        self.depth, self.columns = (int(size) for size in rhs.shape[-2:])
        self.matrices = product(rhs.shape[:-2])
        self.rows = product(lhs.shape[:-1]) if len(rhs.shape) == 2 else lhs.shape[-2]
        self.left, self.right, self.out, self.bias = flat(lhs), flat(rhs), flat(out), bias
        self.lanes = LANES if self.columns >= LANES else 1
        self.dtype = f"float32x{self.lanes}" if self.lanes > 1 else "float32"

    def emit(self) -> None:
        lanes, columns = self.lanes, self.columns
        tile_rows, tile_vectors = _tile()
        # the last vector begins early: a column computed twice is the same twice
        starts = [min(start, columns - lanes) for start in range(0, columns, lanes)]
        blocks = len(starts) // tile_vectors
        work = self.matrices * self.rows * self.depth * columns
        if blocks:
            with loop_of(work)(0, self.matrices * blocks) as index:
                matrix, first = T.bind(index // blocks), T.bind(index % blocks * (tile_vectors * lanes))
                offsets = [T.min(first + vector * lanes, columns - lanes) for vector in range(tile_vectors)]
                self._emit_rows(matrix, [T.bind(offset) for offset in offsets], tile_rows)
        if len(starts) > blocks * tile_vectors:
            with loop_of(work)(0, self.matrices) as matrix:
                self._emit_rows(matrix, [T.int64(start) for start in starts[blocks * tile_vectors :]], tile_rows)

    def _emit_rows(self, matrix: Expr, offsets: list[Expr], tile_rows: int) -> None:
        """Emits all rows of some vectors of columns; the last row stands in for those behind it."""
        rows = self.rows
        with T.serial(0, T.ceildiv(T.int64(1) * rows, tile_rows)) as group:
            picked = [
                T.bind(matrix * rows + T.min(group * tile_rows + i, T.int64(1) * rows - 1)) for i in range(tile_rows)
            ]
            self._emit_tile(picked, offsets, matrix * self.depth * self.columns)

    def _emit_tile(self, rows: list[Expr], offsets: list[Expr], start: Expr) -> None:
        """Emits the sums of some rows for some vectors of columns; start: where the right matrix begins."""
        block, count = block_of(self.depth), len(rows) * len(offsets)
        sums, totals = ([self._variable() for _ in range(count)] for _ in range(2))
        first = [self._first(offset) for offset in offsets] * len(rows)
        for total, value in zip(totals, first, strict=True):
            T.buffer_store(total, value, [0])

        def add_block(begin: Expr, size: int) -> None:
            self._emit_sums(sums, rows, offsets, start, begin, size)
            for total, found in zip(totals, sums, strict=True):
                T.buffer_store(total, total[0] + found[0], [0])

        with T.serial(0, self.depth // block) as number:
            add_block(number * block, block)
        if self.depth % block:
            add_block(T.int64(self.depth // block * block), self.depth % block)
        for i, total in enumerate(totals):
            row, offset = rows[i // len(offsets)], offsets[i % len(offsets)]
            T.buffer_store(self.out, total[0], [self._span(row * self.columns + offset)])

    def _emit_sums(
        self, sums: list[Buffer], rows: list[Expr], offsets: list[Expr], start: Expr, begin: Expr, size: int
    ) -> None:
        """Emits the sums of a block of products; begin: its place along K."""
        for accumulator in sums:
            T.buffer_store(accumulator, self._spread(f32(0)), [0])
        with T.serial(0, size) as step:
            k = T.bind(begin + step)
            vectors = [T.bind(self.right[self._span(start + k * self.columns + offset)]) for offset in offsets]
            for i, row in enumerate(rows):
                number = T.bind(self._spread(self.left[row * self.depth + k]))
                for accumulator, vector in zip(sums[i * len(offsets) :], vectors, strict=False):
                    T.buffer_store(accumulator, fma(number, vector, accumulator[0]), [0])

    def _first(self, offset: Expr) -> Expr:
        """Returns what the sums of the blocks are added to."""
        return self._spread(f32(0)) if self.bias is None else self.bias[self._span(offset)]

    def _variable(self) -> Buffer:
        return T.alloc_buffer((1,), self.dtype, scope="global")

    def _spread(self, value: Expr) -> Expr:
        return T.broadcast(value, self.lanes) if self.lanes > 1 else value

    def _span(self, first: Expr) -> Expr:
        return T.ramp(first, 1, self.lanes) if self.lanes > 1 else first


def _tile() -> tuple[int, int]:
    return WIDE_TILE if target_has_feature("avx512f", tvm.target.Target.current()) else NARROW_TILE
