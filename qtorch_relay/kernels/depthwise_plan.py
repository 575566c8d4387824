"""How a depthwise convolution is cut into blocks of channels, groups of rows and register tiles; plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from qtorch_relay.kernels.conv2d_tiling import MAX_CHUNKS, ceil_div
from qtorch_relay.kernels.spec import Conv2dSpec

QUAD = 4
"""Rows interleaved byte by byte, so that one dot product takes four taps of a column."""

MAX_ROWS = 4
"""Most output rows computed from the same interleaved rows."""

MIN_CHUNK_CYCLES = 18_000
"""A chunk takes at least about 5 us: below that a second thread costs more than it brings."""


@dataclass(frozen=True)
class ChannelBlocks:
    """`count` blocks of `vectors` vectors of channels; the first starts at `start`, the last at `last_start`.

    The last block may overlap the one before, which then computes the same codes twice, so that every block is full.
    """

    vectors: int
    start: int
    count: int
    last_start: int


@dataclass(frozen=True)
class DepthwisePlan:
    """Everything the loop nest and the weight packing need to know.

    rows: output rows of a row group, which share interleaved input rows. columns: output columns of a register tile.
    in_rows: input rows of a row group, relative to its first one, 4 to a quad, the last one repeated to fill a quad.
    dots: (row, kernel column, quad) of every dot product of an output column: those with a tap in the quad.
    The last row group and the last tile of a row overlap the ones before where they do not fit.
    """

    rows: int
    columns: int
    in_rows: tuple[int, ...]
    dots: tuple[tuple[int, int, int], ...]
    blocks: tuple[ChannelBlocks, ...]
    row_groups: int
    bands: int
    width: int
    """Columns of an interleaved row, padding included."""

    @property
    def quads(self) -> int:
        """Quads of input rows in a row group."""
        return len(self.in_rows) // QUAD

    @property
    def padded_vectors(self) -> int:
        """Vectors of channels, overlaps counted twice."""
        return sum(block.vectors * block.count for block in self.blocks)


def channel_blocks(channels: int, lanes: int) -> tuple[ChannelBlocks, ...]:
    """Returns blocks of one or two kinds that cover the channels, each inside them if there are enough channels.

    A kind is its own code: the rest gets one only where overlapping a wide block would repeat over an eighth.
    """
    vectors = next((v for v in (4, 2, 1) if v * lanes <= channels), 1)
    size = vectors * lanes
    count, rest = divmod(channels, size)
    if rest == 0 or count == 0:
        return (ChannelBlocks(vectors, 0, max(count, 1), max(channels - size, 0)),)
    narrow = next(v for v in (1, 2, 4) if v * lanes >= rest)
    if narrow == vectors or (size - rest) * 8 <= channels:
        return (ChannelBlocks(vectors, 0, count + 1, channels - size),)
    start = channels - narrow * lanes
    return ChannelBlocks(vectors, 0, count, (count - 1) * size), ChannelBlocks(narrow, start, 1, start)


def row_taps(spec: Conv2dSpec, rows: int) -> tuple[tuple[int, ...], dict[tuple[int, int], int]]:
    """Returns the input rows of a group, and the position of (output row, kernel row) among them."""
    wanted = {
        (row, tap): row * spec.stride[0] + tap * spec.dilation[0] for row in range(rows) for tap in range(spec.kernel_h)
    }
    in_rows = sorted(set(wanted.values()))
    position = {key: in_rows.index(row) for key, row in wanted.items()}
    in_rows += [in_rows[-1]] * (-len(in_rows) % QUAD)
    return tuple(in_rows), position


def plan_depthwise(
    spec: Conv2dSpec, lanes: int, registers: int, loads_weights: bool = False, interleave_cycles: float = 10.0
) -> DepthwisePlan:
    """Returns the plan with the least estimated time for vectors of `lanes` int32 accumulators.

    loads_weights: to multiply by weights in memory takes a load before. interleave_cycles: of a column of 4 vectors.
    """
    blocks = channel_blocks(spec.in_channels, lanes)
    width = (spec.out_w - 1) * spec.stride[1] + spec.span_w
    found = []
    for rows in range(1, min(MAX_ROWS, spec.out_h) + 1):
        in_rows, position = row_taps(spec, rows)
        dots = sorted(
            {(row, column, place // QUAD) for (row, _), place in position.items() for column in range(spec.kernel_w)}
        )
        for columns in range(1, spec.out_w + 1):
            # accumulators of a block of 4 vectors, and about 8 registers for rows, weights and the epilogue
            if rows * columns * 4 > registers - 8:
                break
            tiles = ceil_div(spec.out_w, columns)
            # about 5.5 cycles for an epilogue, 8 around a tile
            tile = columns * (len(dots) * 4 + rows * 4 * 5.5) + 8
            tile += len(dots) * 4 if loads_weights else 0
            cycles = ceil_div(spec.out_h, rows) * (len(in_rows) // QUAD * width * interleave_cycles + tiles * tile)
            found.append((cycles, len(dots) * columns, rows, columns, in_rows, tuple(dots)))
    cycles, _, rows, columns, in_rows, found_dots = min(found)
    row_groups = ceil_div(spec.out_h, rows)
    total = cycles * sum(block.vectors * block.count for block in blocks) / 4 * spec.batch
    wanted = max(1, min(MAX_CHUNKS, int(total) // MIN_CHUNK_CYCLES) // spec.batch)
    bands = min(row_groups, wanted)
    return DepthwisePlan(rows, columns, in_rows, found_dots, blocks, row_groups, bands, width)
