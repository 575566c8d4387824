"""Lookups of quantized embeddings, as FBGEMM computes them: out = fma(scale, code, out + bias), row by row.

The bags' extents are known only at run time, so the loops' bounds are values of the program. Every index and offset is
checked before a row is read; one out of range raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.embedding_spec import EmbeddingBagSpec
from qtorch_relay.kernels.pointwise import MIN_CHUNK_SIZE
from qtorch_relay.kernels.tir import Buffer, BufferDecl, Expr, intrinsic, prim_func, rounded_product
from qtorch_relay.tir.indices import require_index

PRUNED = -1


def build_embedding_bag(spec: EmbeddingBagSpec) -> PrimFunc:
    """Returns embedding_bag(table, indices[, offsets][, weights][, mapping], out)."""
    arguments: list[BufferDecl] = [
        ("table", (spec.table_rows, spec.row_size_bytes), "uint8"),
        ("indices", (spec.indices,), spec.index_dtype),
    ]
    if spec.offset_count is not None:
        arguments.append(("offsets", (spec.offset_count,), spec.offsets_dtype))
    if spec.weighted:
        arguments.append(("weights", (spec.indices,), "float32"))
    if spec.mapping_size is not None:
        arguments.append(("mapping", (spec.mapping_size,), "int32"))
    names = [name for name, _, _ in arguments]

    def body(*buffers: Buffer) -> None:
        _Bags(spec, dict(zip(names, buffers[:-1], strict=True)), buffers[-1]).emit()

    return prim_func("embedding_bag", [*arguments, ("out", (spec.bags, spec.dim), "float32")], body)


class _Bags:
    """Emits the loops of one kernel."""

    def __init__(self, spec: EmbeddingBagSpec, inputs: dict[str, Buffer], out: Buffer) -> None:
        self.spec, self.inputs, self.out = spec, inputs, out

    def emit(self) -> None:
        """Emits the checks, then a sum a bag."""
        spec = self.spec
        self._check_indices()
        if spec.offset_count is not None:
            self._check_offsets()
        work = spec.indices * spec.dim
        loop = T.parallel if work >= MIN_CHUNK_SIZE and spec.bags > 1 else T.serial
        with loop(0, spec.bags) as bag:
            with T.serial(0, spec.dim) as element:
                T.buffer_store(self.out, T.float32(0), [bag * spec.dim + element])
            start = T.bind(self._start(bag))
            with T.serial(0, T.bind(self._start(bag + 1) - start)) as place:
                self._add(bag, T.bind(start + place))

    def _check_indices(self) -> None:
        limit = self.spec.table_rows if self.spec.mapping_size is None else self.spec.mapping_size
        with T.serial(0, self.spec.indices) as place:
            index = self._index(place)
            require_index(index, T.int64(0), T.int64(limit - 1), "a quantized embedding")
            if self.spec.mapping_size is not None:
                row = self.inputs["mapping"][index]
                inside = T.And(row >= PRUNED, row < self.spec.table_rows)
                _require(inside, f"an embedding's mapping gives a row outside 0..{self.spec.table_rows - 1}")

    def _check_offsets(self) -> None:
        spec = self.spec
        with T.serial(0, spec.bags) as bag:
            ordered = T.And(self._start(bag) >= 0, self._start(bag) <= self._start(bag + 1))
            _require(ordered, "offsets of an embedding bag are negative or decrease")
            _require(
                self._start(bag + 1) <= spec.indices,
                f"an offset of an embedding bag is beyond the {spec.indices} indices",
            )

    def _index(self, place: Expr) -> Expr:
        return T.Cast("int64", self.inputs["indices"][place])

    def _start(self, bag: Expr) -> Expr:
        """Returns the place of a bag's first index; for the bag after the last, where indices end."""
        spec = self.spec
        if spec.offset_count is None:
            return T.Cast("int64", bag) * spec.bag_length
        last = spec.offset_count - 1
        given = T.Cast("int64", self.inputs["offsets"][T.min(bag, last)])
        return given if spec.has_last_offset else T.Select(bag > last, T.int64(spec.indices), given)

    def _add(self, bag: Expr, place: Expr) -> None:
        """Adds a row to a bag."""
        index = T.bind(self._index(place))
        if self.spec.mapping_size is None:
            self._add_row(bag, place, index)
            return
        row = T.bind(T.Cast("int64", self.inputs["mapping"][index]))
        with T.If(row != PRUNED), T.Then():
            self._add_row(bag, place, row)

    def _add_row(self, bag: Expr, place: Expr, row: Expr) -> None:
        spec, table = self.spec, self.inputs["table"]
        start = T.bind(row * spec.row_size_bytes)
        scale, bias = (T.bind(value) for value in self._parameters(start + spec.code_size_bytes))
        if spec.weighted:
            weight = T.bind(self.inputs["weights"][place])
            scale, bias = (T.bind(rounded_product(value, weight)) for value in (scale, bias))
        codes_per_byte = 8 // spec.bits
        with T.serial(0, spec.code_size_bytes) as position:
            byte = T.bind(T.Cast("int32", table[start + position]))
            for slot in range(codes_per_byte):
                code = T.bitwise_and(T.shift_right(byte, T.int32(slot * spec.bits)), T.int32(2**spec.bits - 1))
                element = bag * spec.dim + position * codes_per_byte + slot
                total = intrinsic("float32", "llvm.fma", scale, T.Cast("float32", code), self.out[element] + bias)
                T.buffer_store(self.out, total, [element])

    def _parameters(self, start: Expr) -> Sequence[Expr]:
        """Returns a row's scale and bias."""
        table = self.inputs["table"]

        def little_endian(first: Any, size_bytes: int) -> Expr:
            value = T.Cast("uint32", table[first])
            for byte in range(1, size_bytes):
                value = T.bitwise_or(value, T.shift_left(T.Cast("uint32", table[first + byte]), T.uint32(8 * byte)))
            return value

        if self.spec.bits == 8:
            return [T.reinterpret("float32", little_endian(start + offset, 4)) for offset in (0, 4)]
        return [_half_to_float(T.bind(little_endian(start + offset, 2))) for offset in (0, 2)]


def _half_to_float(half: Expr) -> Expr:
    """Returns the float32 of the 16 bits of a float16, without the runtime function that LLVM would call for it.

    The exponent and fraction of a float16, moved 13 bits up, are those of a float32 that is 2**112 times too small;
    the product is exact, for subnormal numbers too. Infinity and NaN keep all exponent bits instead.
    """
    magnitude = T.shift_left(T.bitwise_and(half, T.uint32(0x7FFF)), T.uint32(13))
    scaled = T.reinterpret("uint32", T.reinterpret("float32", magnitude) * T.float32(2.0**112))
    special = T.bitwise_and(half, T.uint32(0x7C00)) == T.uint32(0x7C00)
    finite = T.Select(special, T.bitwise_or(magnitude, T.uint32(0x7F800000)), scaled)
    sign = T.shift_left(T.bitwise_and(half, T.uint32(0x8000)), T.uint32(16))
    return T.reinterpret("float32", T.bitwise_or(finite, sign))


def _require(condition: Expr, message: str) -> None:
    """Raises at run time with a message unless a condition holds."""
    with T.Assert(condition, message, "IndexError"):
        pass
