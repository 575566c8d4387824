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
from qtorch_relay.kernels.tir import Buffer, as_u8, load, prim_func, store, vector


def build_lookup(isa: Isa, spec: LookupSpec) -> PrimFunc:
    """Returns lookup(x, table, out)."""

    def body(x: Buffer, table: Buffer, out: Buffer) -> None:
        size, size_at_once = math.prod(spec.shape), block_size(isa)
        if size < size_at_once:
            with T.serial(0, size) as index:
                entry = table[T.Cast("int32", as_u8(x[index]))]
                store(out, T.reinterpret(spec.out_dtype, entry), index, 1)
            return
        blocks = -(-size // size_at_once)
        # a code takes about a third of the time of an addition
        chunks = max(1, min(MAX_CHUNKS, size // (3 * MIN_CHUNK_SIZE)))
        loop = T.parallel if chunks > 1 else T.serial
        with loop(0, chunks) as chunk, T.serial(chunk * blocks // chunks, (chunk + 1) * blocks // chunks) as block:
            index = T.bind(T.min(block * size_at_once, size - size_at_once))
            entries = isa.lookup(table, as_u8(load(x, index, size_at_once)))
            store(out, T.reinterpret(vector(spec.out_dtype, size_at_once), entries), index, size_at_once)

    arguments = [("x", spec.shape, spec.in_dtype), ("table", (256,), "uint8"), ("out", spec.shape, spec.out_dtype)]
    return prim_func("lookup", arguments, body)


def pack_lookup(spec: LookupSpec, table: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Returns [table u8 [256]]; table: the result for each input code, least code first."""
    return [np.ascontiguousarray(table, dtype=spec.out_dtype).view(np.uint8)]


def lookup_reference(spec: LookupSpec, x: npt.NDArray[Any], table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns table[code - least code]."""
    codes: npt.NDArray[Any] = table[x.astype(np.int64) - np.iinfo(spec.in_dtype).min]
    return codes.astype(spec.out_dtype)
