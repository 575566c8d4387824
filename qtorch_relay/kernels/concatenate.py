"""Pieces of tensors of codes put one behind the other, each brought to the output's parameters by a table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.lookup import look_up
from qtorch_relay.kernels.pointwise import MAX_CHUNKS, MIN_CHUNK_SIZE, block_size
from qtorch_relay.kernels.pointwise_spec import ConcatenateSpec, Piece
from qtorch_relay.kernels.tir import Buffer, BufferDecl, Expr, load, prim_func, store

MAX_UNROLLED = 8
"""Most blocks of a piece that are written out one by one, with constant offsets."""


def build_concatenate(isa: Isa, spec: ConcatenateSpec) -> PrimFunc:
    """Returns concatenate(x0, x1, ..., tables, out): rows of each piece by turns."""
    first = spec.shapes[0]
    rows, inner = math.prod(first[: spec.axis]), math.prod(first[spec.axis + 1 :])
    extents = [shape[spec.axis] * inner for shape in spec.shapes]
    width = spec.out_shape[spec.axis] * inner

    def body(*buffers: Buffer) -> None:
        sources, tables, out = buffers[: len(spec.shapes)], buffers[-2], buffers[-1]
        chunks = max(1, min(MAX_CHUNKS, rows, rows * width // MIN_CHUNK_SIZE))
        loop = T.parallel if chunks > 1 else T.serial
        with loop(0, chunks) as chunk, T.serial(chunk * rows // chunks, (chunk + 1) * rows // chunks) as row:
            offset = 0
            for piece in spec.pieces:
                source, extent = sources[piece.source], extents[piece.source]
                start = T.bind(row * extent + piece.begin * inner)
                to = T.bind(row * width + offset)
                _copy(isa, source, start, out, to, piece.size * inner, _table(tables, piece))
                offset += piece.size * inner

    arguments: list[BufferDecl] = [(f"x{i}", shape, spec.dtype) for i, shape in enumerate(spec.shapes)]
    arguments += [("tables", (max(spec.tables, 1), 256), "uint8"), ("out", spec.out_shape, spec.dtype)]
    return prim_func("concatenate", arguments, body)


def _table(tables: Buffer, piece: Piece) -> Buffer | None:
    """Returns the table of a piece."""
    if piece.table is None:
        return None
    return T.decl_buffer((256,), "uint8", data=tables.data, elem_offset=piece.table * 256)


def _copy(isa: Isa, source: Buffer, start: Expr, out: Buffer, to: Expr, size: int, table: Buffer | None) -> None:
    """Writes `size` consecutive codes, in blocks of which the last two may overlap."""
    lanes = next(lanes for lanes in (block_size(isa) >> shift for shift in range(8)) if lanes <= size)
    blocks = -(-size // lanes)

    def block(offset: Expr) -> None:
        codes = load(source, start + offset, lanes)
        store(out, codes if table is None else look_up(isa, table, codes, source.dtype), to + offset, lanes)

    if blocks <= MAX_UNROLLED:
        for index in range(blocks):
            block(min(index * lanes, size - lanes))
        return
    with T.serial(0, blocks) as index:
        block(T.bind(T.min(index * lanes, size - lanes)))


def pack_concatenate(spec: ConcatenateSpec, tables: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Returns [tables u8 [number, 256]]: the result for each input code, least code first; zeros if there are none."""
    if not spec.tables:
        return [np.zeros((1, 256), np.uint8)]
    return [np.ascontiguousarray(tables, dtype=spec.dtype).view(np.uint8)]


def concatenate_reference(spec: ConcatenateSpec, *arguments: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the pieces, through their tables, one behind the other."""
    *inputs, tables = arguments
    least = np.iinfo(spec.dtype).min
    found = []
    for piece in spec.pieces:
        part = inputs[piece.source].take(range(piece.begin, piece.end), spec.axis)
        found.append(part if piece.table is None else tables[piece.table][part.astype(np.int64) - least])
    return np.concatenate(found, spec.axis).astype(spec.dtype)
