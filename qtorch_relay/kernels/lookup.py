"""Codes replaced by the entries of a table of 256: every unary op."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.pointwise import MAX_CHUNKS, MIN_CHUNK_SIZE, block_size
from qtorch_relay.kernels.pointwise_spec import LookupSpec
from qtorch_relay.kernels.tir import Buffer, Expr, as_u8, lanes_of, load, pick, prim_func, store, vector


def build_lookup(isa: Isa, spec: LookupSpec) -> PrimFunc:
    """Returns lookup(x, table, out)."""

    def body(x: Buffer, table: Buffer, out: Buffer) -> None:
        size, size_at_once = math.prod(spec.shape), block_size(isa)
        if size < size_at_once:
            with T.serial(0, size) as index:
                store(out, look_up(isa, table, x[index], spec.out_dtype), index, 1)
            return
        blocks = -(-size // size_at_once)
        # a code takes about a third of the time of an addition
        chunks = max(1, min(MAX_CHUNKS, size // (3 * MIN_CHUNK_SIZE)))
        loop = T.parallel if chunks > 1 else T.serial
        with loop(0, chunks) as chunk, T.serial(chunk * blocks // chunks, (chunk + 1) * blocks // chunks) as block:
            index = T.bind(T.min(block * size_at_once, size - size_at_once))
            store(out, look_up(isa, table, load(x, index, size_at_once), spec.out_dtype), index, size_at_once)

    arguments = [("x", spec.shape, spec.in_dtype), ("table", (256,), "uint8"), ("out", spec.shape, spec.out_dtype)]
    return prim_func("lookup", arguments, body)


def look_up(isa: Isa, table: Buffer, codes: Expr, out_dtype: str) -> Expr:
    """Returns the entries of a table of 256 bytes, as out_dtype, for one code or up to a register of them."""
    count, whole = lanes_of(codes), block_size(isa)
    indices, dtype = as_u8(codes), vector(out_dtype, count)
    if count == 1:
        return T.reinterpret(dtype, table[T.Cast("int32", indices)])
    if count < whole:
        indices = T.Shuffle([T.bind(indices)] * (whole // count), [T.int32(lane) for lane in range(whole)])
    entries = isa.lookup(table, T.bind(indices))
    return T.reinterpret(dtype, entries if count == whole else pick(entries, range(count)))


def pack_lookup(spec: LookupSpec, table: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Returns [table u8 [256]]; table: the result for each input code, least code first."""
    return [np.ascontiguousarray(table, dtype=spec.out_dtype).view(np.uint8)]


def lookup_reference(spec: LookupSpec, x: npt.NDArray[Any], table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns table[code - least code]."""
    codes: npt.NDArray[Any] = table[x.astype(np.int64) - np.iinfo(spec.in_dtype).min]
    return codes.astype(spec.out_dtype)
