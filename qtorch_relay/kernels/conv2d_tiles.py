"""The loop nest of convolutions and dense layers on tile registers: 32 pixels times 32 channels at once."""

from __future__ import annotations

from qtorch_relay._tvm import T
from qtorch_relay.kernels.conv2d_nest import Block, Chunk, Conv2dNest, Pending, Tile, loop
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES
from qtorch_relay.kernels.conv2d_tiling import TILE_BYTES, TILE_ROWS
from qtorch_relay.kernels.isa import TileRegisters
from qtorch_relay.kernels.requantize import emit
from qtorch_relay.kernels.tir import Expr, load, scratch, store

ACTIVATIONS, WEIGHTS = 4, 6
"""First tile of activations and of weights; sums are tiles 0 to 3."""

EPILOGUE_PIXELS = 4
"""Pixels requantized together."""


class TileNest(Conv2dNest):
    """Emits the same loops with the sums of a block in tile registers.

    Rows of a tile past the last pixel, and bytes past the end of a run, are read from the copy of the input or past it
    and count nothing: their sums are not stored, their weights are zero.
    """

    @property
    def _tiles(self) -> TileRegisters:
        assert self.isa.tiles is not None
        return self.isa.tiles

    @property
    def _column_in(self) -> int:
        """Input bytes from a pixel to the next."""
        return self.spec.stride[1] * self.spec.in_channels

    @property
    def _slack(self) -> int:
        """Bytes that may be read past the copy of the input."""
        return (TILE_ROWS - 1) * self._column_in + TILE_BYTES

    def _blocks(self, chunk: Chunk, group: Expr, first: Expr, end: Expr, with_rest: Expr | None) -> None:
        self._tiles.begin()
        super()._blocks(chunk, group, first, end, with_rest)
        self._tiles.end()

    def _tile(self, chunk: Chunk, tile: Tile, block: Block, pending: Pending | None) -> None:
        """Emits the pixels of a tile, which lie in one row, 16 to a tile register."""
        spec, plan, tiles, lanes = self.spec, self.plan, self._tiles, self.isa.LANES
        pixels, reduction = tile.shape[1], self.plan.reduction
        groups = range(-(-pixels // TILE_ROWS))

        # memory is allocated first: a call may change tiles
        pitch = block.vectors * lanes
        sums = scratch(len(groups) * TILE_ROWS * pitch, "int32")
        start = scratch(pitch, "int32")
        for j in range(block.vectors):
            store(start, self.start(block.lane + j * lanes), j * lanes, lanes)
            for m in groups:
                # every row is the same
                tiles.load(m * block.vectors + j, start, j * lanes, 0)

        vector_bytes = lanes * DOT_BYTES
        step_bytes = TILE_ROWS * block.vectors * vector_bytes
        weights = T.bind(block.lane * (reduction.dots * DOT_BYTES))
        steps = reduction.full_dots // TILE_ROWS
        with loop(reduction.rows) as row, loop(reduction.segments) as segment:
            segment_in = spec.dilation[1] * spec.in_channels
            run = T.bind(tile.in_start + row * (spec.dilation[0] * plan.row_pitch) + segment * segment_in)
            run_weights = T.bind(weights + (row * reduction.segments + segment) * (steps * step_bytes))
            with loop(steps) as step:
                for m in groups:
                    first = run + step * TILE_BYTES + m * TILE_ROWS * self._column_in
                    tiles.load(ACTIVATIONS + m, chunk.source, first, self._column_in)
                for j in range(block.vectors):
                    # a dot of all vectors is a row of weights
                    dot = run_weights + step * step_bytes + j * vector_bytes
                    tiles.load(WEIGHTS + j, self.weight, dot, block.vectors * vector_bytes)
                    for m in groups:
                        tiles.dot(m * block.vectors + j, ACTIVATIONS + m, WEIGHTS + j)

        for m in groups:
            for j in range(block.vectors):
                tiles.store(m * block.vectors + j, sums, m * TILE_ROWS * pitch + j * lanes, pitch)
        for first_pixel in range(0, pixels, EPILOGUE_PIXELS):
            together = range(first_pixel, min(first_pixel + EPILOGUE_PIXELS, pixels))
            values = [
                [T.bind(load(sums, pixel * pitch + j * lanes, lanes)) for j in range(block.vectors)]
                for pixel in together
            ]
            addresses = [tile.out_start + pixel * spec.out_channels for pixel in together]
            emit(self.epilogue.parts(values, block.lane, self.out, addresses, block.channels))
