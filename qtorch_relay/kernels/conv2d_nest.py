"""The loop nest of convolutions and dense layers around an ISA's tile operations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from qtorch_relay._tvm import T
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES, Conv2dPlan, pixels_at_once
from qtorch_relay.kernels.conv2d_tiling import ceil_div
from qtorch_relay.kernels.isa import Dot, Isa
from qtorch_relay.kernels.requantize import TileEpilogue, emit
from qtorch_relay.kernels.spec import Conv2dSpec
from qtorch_relay.kernels.tir import (
    Buffer,
    Expr,
    as_source,
    as_u8,
    get,
    load,
    prefetch,
    put,
    registers,
    scratch,
    splat,
    store,
    vector,
)

Accumulators: TypeAlias = list[list[Buffer]]
"""Variables of a tile's sums."""

CACHE_LINE = 64

MIN_PREFETCHED_BYTES = 4 << 10
"""Weights of a block from which on the next block's are prefetched."""


@dataclass(frozen=True)
class Chunk:
    """One iteration of the parallel loop: pixel groups first..last of an image, read from source at origin.

    rests: the gathered rests of the runs, [output row of the chunk][dot][output column][4], or None.
    """

    image: Expr
    band: Expr
    first: Expr
    last: Expr
    source: Buffer
    origin: Expr
    rests: Buffer | None


@dataclass(frozen=True)
class Block:
    """Output channels computed together: `channels` of them from out_channel on, `vectors` vectors from lane on."""

    group: Expr
    lane: Expr
    out_channel: Expr
    vectors: int
    channels: int


@dataclass(frozen=True)
class Tile:
    """A register tile of output pixels: where it reads and writes, its number in the chunk, its rows and columns."""

    in_start: Expr
    rest_start: Expr
    out_start: Expr
    number: Expr
    shape: tuple[int, int]


@dataclass(frozen=True)
class Pending:
    """The sums of the last tile, [pixel][vector] in memory, that are requantized among the dots of the next one.

    Requantizing a tile after its dots leaves the units for products idle: its instructions wait for the last dots, and
    too few of the next tile's fit into the processor's queues behind them. Between dots they are nearly free.

    out_start: where the tile's outputs begin. pixels, at_once: of the tile, and requantized together.
    """

    sums: Buffer
    out_start: Buffer
    pixels: int
    at_once: int

    @property
    def units(self) -> int:
        """Parts in which the tile is requantized."""
        return ceil_div(self.pixels, self.at_once)


@dataclass(frozen=True)
class Conv2dNest:
    """Emits the loops of one convolution: chunks, channel groups, blocks, pixel groups, tiles.

    start: returns what the accumulators of a vector of channels begin with, from its first lane.
    """

    spec: Conv2dSpec
    plan: Conv2dPlan
    isa: Isa
    x: Buffer
    weight: Buffer
    start: Callable[[Expr], Expr]
    epilogue: TileEpilogue
    out: Buffer

    def emit(self) -> None:
        """Emits images x bands x parts of the channels as one loop."""
        plan = self.plan
        loop = T.parallel if plan.chunks > 1 else T.serial
        with loop(0, plan.chunks) as index:
            image = T.bind(index // (plan.bands * plan.channel_parts))
            band = T.bind(index // plan.channel_parts % plan.bands)
            part = T.bind(index % plan.channel_parts)
            first, last = (T.bind(_start(band + i, plan.bands, plan.tiling.groups)) for i in (0, 1))
            rows = self._out_rows(band, first, last)
            source, origin = self._input(image, first, rows)
            rests = self._gather(source, origin, rows) if plan.reduction.gathers else None
            chunk = Chunk(image, band, first, last, source, origin, rests)
            if plan.groups.count == 1:
                first_block, end_block = (_start(part + i, plan.channel_parts, plan.blocks) for i in (0, 1))
                self._blocks(chunk, T.int32(0), first_block, end_block, _is_last(part, plan.channel_parts))
            else:
                with T.serial(*(_start(part + i, plan.channel_parts, plan.groups.count) for i in (0, 1))) as group:
                    self._blocks(chunk, group, 0, plan.blocks, None)

    def _blocks(self, chunk: Chunk, group: Expr, first: Expr, end: Expr, with_rest: Expr | None) -> None:
        """Emits these full blocks of a channel group, then the rest (under a condition, if any)."""
        plan, lanes = self.plan, self.isa.LANES

        def block(index: Expr, vectors: int, channels: int) -> Block:
            lane = T.bind((group * plan.group_vectors + index * plan.vectors) * lanes)
            out_channel = T.bind(group * plan.groups.out_channels + index * (plan.vectors * lanes))
            return Block(group, lane, out_channel, vectors, channels)

        if plan.blocks:
            with T.serial(first, end) as index:
                self._block(chunk, block(index, plan.vectors, plan.vectors * lanes))
        if plan.rest_vectors:
            channels = plan.groups.out_channels - plan.blocks * plan.vectors * lanes
            _when(with_rest, lambda: self._block(chunk, block(plan.blocks, plan.rest_vectors, channels)))

    def _out_rows(self, band: Expr, first: Expr, last: Expr) -> Expr:
        """Returns the number of output rows of a chunk."""
        tiling = self.plan.tiling
        rows = (last - first) * tiling.tile_h
        if tiling.last:
            rows += T.if_then_else(band == self.plan.bands - 1, tiling.last[0], 0)
        return T.bind(rows)

    @property
    def _most_rows(self) -> int:
        """Most output rows of a chunk."""
        tiling = self.plan.tiling
        return -(-tiling.groups // self.plan.bands) * tiling.tile_h + (tiling.last[0] if tiling.last else 0)

    @property
    def _dot(self) -> Dot:
        return self.isa.dot_for(self.spec.pair_sums)

    @property
    def _at_once(self) -> int:
        """Most dots whose activations one read takes."""
        return self._dot.AT_ONCE

    @property
    def _slack(self) -> int:
        """Elements that may be read past the copy: runs under 4 bytes are read as 4."""
        return DOT_BYTES

    def _source_code(self, code_u8: Expr) -> Expr:
        """Returns u8 codes as dot products read them."""
        return as_source(code_u8, self._dot.SOURCE)

    def _input(self, image: Expr, first: Expr, rows: Expr) -> tuple[Buffer, Expr]:
        """Returns the buffer the reduction reads and the offset of the first input row of pixel group `first`."""
        spec, plan = self.spec, self.plan
        image_start = image * (spec.in_h * spec.in_w * spec.in_channels) if not plan.tiling.flat else 0
        if not plan.copies_input:
            return self.x, T.bind(image_start + first * self._group_in())
        if plan.tiling.flat:
            return self._copy_pixels(first, rows), T.int32(0)
        in_rows = (self._most_rows - 1) * spec.stride[0] + spec.span_h
        padded = scratch(in_rows * plan.row_pitch + self._slack, self._dot.SOURCE)
        top = T.bind(first * (plan.tiling.tile_h * spec.stride[0]) - spec.padding[0])
        with T.serial(0, (rows - 1) * spec.stride[0] + spec.span_h) as row:
            self._copy_row(padded, row, image_start, top + row)
        return padded, T.int32(0)

    def _copy_pixels(self, first: Expr, rows: Expr) -> Buffer:
        """Returns a copy of the pixels of a chunk, which lie one after the other in a flat tiling.

        rows: groups of the chunk, and the pixels after the last group where it has them.
        """
        spec, tiling = self.spec, self.plan.tiling
        most = self._most_rows * tiling.tile_w + (tiling.last[1] if tiling.last else 0)
        copy = scratch(most * spec.in_channels + self._slack, self._dot.SOURCE)
        start = T.bind(first * self._group_in())
        end = self.spec.batch * spec.in_h * spec.in_w * spec.in_channels
        with T.serial(0, T.bind(T.min(rows * self._group_in(), end - start))) as i:
            store(copy, self._source_code(as_u8(self.x[start + i])), i, 1)
        return copy

    def _gather(self, source: Buffer, origin: Expr, rows: Expr) -> Buffer:
        """Returns the rests of the runs of all output pixels of a chunk, those of a dot side by side."""
        spec, plan, reduction = self.spec, self.plan, self.plan.reduction
        dots = len(reduction.gathered)
        rests = scratch(self._most_rows * dots * spec.out_w * DOT_BYTES, self._dot.SOURCE)
        with T.serial(0, rows) as row, T.serial(0, spec.out_w) as column:
            pixel = row * (spec.stride[0] * plan.row_pitch) + column * (spec.stride[1] * spec.in_channels)
            start = T.bind(origin + pixel + reduction.full_dots * DOT_BYTES)
            for index, kernel_rows in enumerate(reduction.gathered):
                code = T.int32(0)
                places = itertools.product(kernel_rows, range(reduction.rest))
                for shift, (kernel_row, byte) in zip(range(0, 32, 8), places, strict=False):
                    value = load(source, start + kernel_row * (spec.dilation[0] * plan.row_pitch) + byte, 1)
                    value = as_u8(value) if self._dot.SOURCE == "int8" else value
                    code = T.bitwise_or(code, T.shift_left(T.Cast("int32", value), T.int32(shift)))
                address = ((row * dots + index) * spec.out_w + column) * DOT_BYTES
                store(rests, self._source_code(T.reinterpret("uint8x4", code)), address, DOT_BYTES)
        return rests

    def _copy_row(self, padded: Buffer, row: Expr, image_start: Expr, in_row: Expr) -> None:
        """Copies one input row as u8 between columns of the zero point; rows outside the image are all zero point."""
        spec, plan = self.spec, self.plan
        left = min(spec.padding[1] * spec.in_channels, plan.row_pitch)
        middle = min(spec.in_w * spec.in_channels, plan.row_pitch - left)
        start = T.bind(row * plan.row_pitch)

        def fill(offset: int, size: int) -> None:
            if size > 0:
                with T.serial(0, size) as i:
                    store(padded, self._source_code(self.epilogue.in_zero_point), start + offset + i, 1)

        with T.If(T.And(in_row >= 0, in_row < spec.in_h)):
            with T.Then():
                fill(0, left)
                if middle > 0:
                    source = T.bind(image_start + in_row * (spec.in_w * spec.in_channels))
                    with T.serial(0, middle) as i:
                        store(padded, self._source_code(as_u8(self.x[source + i])), start + left + i, 1)
                fill(left + middle, plan.row_pitch - left - middle)
            with T.Else():
                fill(0, plan.row_pitch)

    def _group_in(self) -> int:
        """Input bytes from one pixel group to the next."""
        tiling, spec = self.plan.tiling, self.spec
        if tiling.flat:
            return tiling.tile_w * spec.in_channels
        return tiling.tile_h * spec.stride[0] * self.plan.row_pitch

    def _block(self, chunk: Chunk, block: Block) -> None:
        """Emits all pixels of a chunk for one block of output channels."""
        spec, plan, tiling = self.spec, self.plan, self.plan.tiling
        image_out = chunk.image * (spec.out_h * spec.out_w) if not tiling.flat else 0
        group_pixels = tiling.tile_w if tiling.flat else tiling.tile_h * spec.out_w
        tile_in = tiling.tile_w * spec.stride[1] * spec.in_channels
        origin = T.bind(chunk.origin + block.group * plan.groups.in_channels)

        def tile(group: Expr, index: Expr, shape: tuple[int, int], waiting: Pending | None = None) -> None:
            in_start = T.bind(origin + (group - chunk.first) * self._group_in() + index * tile_in)
            pixel = image_out + group * group_pixels + index * tiling.tile_w
            rest_pixel = (group - chunk.first) * (tiling.tile_h * len(plan.reduction.gathered) * spec.out_w)
            rest_start = (rest_pixel + index * tiling.tile_w) * DOT_BYTES
            out_start = T.bind(pixel * spec.out_channels + block.out_channel)
            number = T.bind((group - chunk.first) * plan.tiling.tiles_per_group + index)
            self._tile(chunk, Tile(in_start, rest_start, out_start, number, shape), block, waiting)

        pending = self._pending(block, (image_out + chunk.first * group_pixels) * spec.out_channels)
        with T.serial(chunk.first, chunk.last) as group:
            if tiling.tiles > 1:
                with T.serial(0, tiling.tiles) as index:
                    tile(group, index, (tiling.tile_h, tiling.tile_w), pending)
            else:
                tile(group, 0, (tiling.tile_h, tiling.tile_w), pending)
            if tiling.column_rest:
                tile(group, tiling.tiles, (tiling.tile_h, tiling.column_rest))
        if tiling.last is not None:
            shape = tiling.last
            _when(_is_last(chunk.band, plan.bands), lambda: tile(chunk.last, 0, shape))
        if pending is not None:
            with loop(pending.units) as unit:
                self._requantize_at_once(block, pending, unit)

    def _pending(self, block: Block, first_pixel: Expr) -> Pending | None:
        """Returns memory for the sums of a full tile, None where tiles are requantized at once.

        It begins with zeros for the first tile's place, which that tile's own codes then replace.
        """
        if not self.plan.interleaves:
            return None
        tiling, lanes = self.plan.tiling, self.isa.LANES
        pixels = tiling.tile_h * tiling.tile_w
        at_once = min(pixels_at_once(block.vectors), pixels)
        sums = scratch(pixels * block.vectors * lanes, "int32")
        for index in range(pixels * block.vectors):
            store(sums, splat(T.int32(0), lanes), index * lanes, lanes)
        (out_start,) = registers(1, "int32")
        put(out_start, first_pixel + block.out_channel)
        return Pending(sums, out_start, pixels, at_once)

    def _requantize(self, block: Block, pending: Pending, unit: Expr, apart: bool = False) -> Iterator[None]:
        """Writes the codes of one part of the tile that waits; the last part may hold pixels of the one before.

        apart: other code is emitted between its vectors.
        """
        lanes, vectors = self.isa.LANES, block.vectors
        first = T.bind(T.min(unit * pending.at_once, pending.pixels - pending.at_once))
        sums = [
            [load(pending.sums, ((first + i) * vectors + j) * lanes, lanes) for j in range(vectors)]
            for i in range(pending.at_once)
        ]
        addresses = [get(pending.out_start) + (first + i) * self.spec.out_channels for i in range(pending.at_once)]
        return self.epilogue.parts(sums, block.lane, self.out, addresses, block.channels, apart)

    def _requantize_at_once(self, block: Block, pending: Pending, unit: Expr) -> None:
        emit(self._requantize(block, pending, unit))

    def _tile(self, chunk: Chunk, tile: Tile, block: Block, pending: Pending | None) -> None:
        """Emits one register tile: rows outer and columns inner, so that one broadcast and one row of weights live.

        Its sums replace those of the tile that waits, which are requantized among its dots.
        """
        spec, plan, isa = self.spec, self.plan, self.isa
        pixels = [(row, column) for row in range(tile.shape[0]) for column in range(tile.shape[1])]
        row_in, column_in = spec.stride[0] * plan.row_pitch, spec.stride[1] * spec.in_channels
        in_offsets = [row * row_in + column * column_in for row, column in pixels]
        accumulators = self._accumulators(block, len(pixels))
        dot_weights = block.vectors * isa.LANES * DOT_BYTES

        reduction = plan.reduction
        weights = T.bind(block.lane * (reduction.dots * DOT_BYTES))
        with loop(reduction.rows) as row, loop(reduction.segments) as segment:
            run_index = row * reduction.segments + segment
            run_weights = T.bind(weights + run_index * (len(reduction.offsets) * dot_weights))
            segment_in = spec.dilation[1] * spec.in_channels
            run = T.bind(tile.in_start + row * (spec.dilation[0] * plan.row_pitch) + segment * segment_in)

            def steps(first: Expr, count: int) -> None:
                at = run_index * len(reduction.offsets) + first
                self._run(
                    accumulators,
                    chunk.source,
                    run + first * DOT_BYTES,
                    in_offsets,
                    run_weights + first * dot_weights,
                    dot_weights,
                    count,
                    lambda step: self._prefetch_next_block(block, weights, tile.number, at + step),
                )

            done = 0
            if pending is not None:
                slots = ceil_div(pending.units, reduction.rows * reduction.segments)
                between = reduction.full_dots // slots
                exact = slots * reduction.rows * reduction.segments == pending.units
                with loop(slots) as slot:
                    unit, first = run_index * slots + slot, slot * between
                    if exact:
                        # a vector at a time: the queues of processors hold few instructions that wait for others
                        parts = self._requantize(block, pending, unit, apart=True)
                        count = pending.at_once * block.vectors
                        turns = min(count, between)
                        for turn in range(turns):
                            emit(itertools.islice(parts, ceil_div(count, turns)))
                            start, end = (index * between // turns for index in (turn, turn + 1))
                            steps(first + start, end - start)
                        emit(parts)
                    else:
                        _when(unit < pending.units, partial(self._requantize_at_once, block, pending, unit))
                        steps(first, between)
                done = slots * between
            if done < reduction.full_dots:
                steps(done, reduction.full_dots - done)
            if reduction.last_offset is not None:
                last_weights = run_weights + reduction.full_dots * dot_weights
                self._dots(accumulators, chunk.source, run + reduction.last_offset, in_offsets, last_weights)
        gathered = len(reduction.gathered)
        rest_offsets = [(row * gathered * spec.out_w + column) * DOT_BYTES for row, column in pixels]
        for index in range(gathered):
            rest_weights = weights + (reduction.dots - gathered + index) * dot_weights
            rest_start = tile.rest_start + index * spec.out_w * DOT_BYTES
            self._dots(accumulators, chunk.rests, rest_start, rest_offsets, rest_weights)

        values = self._sums(accumulators)[: len(pixels)]
        if pending is not None:
            for index, value in enumerate(itertools.chain(*values)):
                store(pending.sums, value, index * isa.LANES, isa.LANES)
            put(pending.out_start, tile.out_start)
            return
        addresses = [tile.out_start + (row * spec.out_w + column) * spec.out_channels for row, column in pixels]
        emit(self.epilogue.parts(values, block.lane, self.out, addresses, block.channels))

    def _accumulators(self, block: Block, pixels: int) -> Accumulators:
        """Returns the accumulators of a tile, [pixel][vector], with what they begin with."""
        lanes = self.isa.LANES
        accumulators = [registers(block.vectors, vector("int32", lanes)) for _ in range(pixels)]
        for j in range(block.vectors):
            start = T.bind(self.start(block.lane + j * lanes))
            for accumulator in accumulators:
                put(accumulator[j], start)
        return accumulators

    def _run(
        self,
        accumulators: Accumulators,
        source: Buffer,
        run: Expr,
        offsets: Sequence[int],
        run_weights: Expr,
        dot_weights: int,
        count: int,
        before: Callable[[Expr], None],
    ) -> None:
        """Adds `count` dots next to each other, as many at a time as one read takes; before is called at each time.

        dot_weights: bytes of the weights of a dot.
        """
        for start, turns, at_once in _by_powers(count, self._at_once):
            with loop(turns) as index:
                step = start + index * at_once
                before(step)
                address = run_weights + step * dot_weights
                self._dots(accumulators, source, run + step * DOT_BYTES, offsets, address, at_once)

    def _dots(
        self,
        accumulators: Accumulators,
        source: Buffer,
        run: Expr,
        offsets: Sequence[int],
        run_weights: Expr,
        count: int = 1,
    ) -> None:
        """Adds `count` dots next to each other, of the activations at run + offsets."""
        dot, vectors = self._dot, len(accumulators[0])
        vector_bytes = self.isa.LANES * DOT_BYTES
        read: dict[tuple[int, int], Expr] = {}
        for index, step in itertools.product(range(count), range(dot.STEPS)):
            addresses = [run_weights + (index * vectors + j) * vector_bytes for j in range(vectors)]
            weights = [T.bind(dot.weights(self.weight, address, step)) for address in addresses]
            for pixel, (offset, accumulator) in enumerate(zip(offsets, accumulators, strict=True)):
                if (pixel, step) not in read:
                    read[pixel, step] = T.bind(dot.read(source, run + offset, step, count))
                codes = dot.spread(read[pixel, step], index, count)
                for j in range(vectors):
                    put(accumulator[j], dot.add(get(accumulator[j]), codes, weights[j]))

    def _sums(self, accumulators: Accumulators) -> list[list[Expr]]:
        """Returns the sums of every pixel, [pixel][vector]."""
        return [[get(variable) for variable in accumulator] for accumulator in accumulators]

    def _prefetch_next_block(self, block: Block, weights: Expr, tile: Expr, dot: Expr) -> None:
        """Fetches a line of the next block's weights at each dot, so that all are there when this block is done.

        The dots of all tiles are counted and fetch every 2^n-th time another line, so n fits the number of tiles. What
        lies behind the last block are the next layer's weights, where lift_constants puts them.
        """
        if not self.isa.prefetches:
            return
        plan = self.plan
        lines = plan.reduction.dots * block.vectors * self.isa.LANES * DOT_BYTES // CACHE_LINE
        if lines * CACHE_LINE < MIN_PREFETCHED_BYTES:
            return
        tiles = plan.max_tiles_per_chunk
        slower = max((tiles * plan.reduction.dots // lines).bit_length() - 1, 0)
        line = T.shift_right(tile * plan.reduction.dots + dot, T.int32(slower))
        prefetch(self.weight, weights + (lines + line) * CACHE_LINE)


def _start(index: Expr, parts: int, total: int) -> Expr:
    """Returns where part `index` of `total` things cut into `parts` nearly equal parts starts."""
    return index * total // parts if parts > 1 else index * total


def _by_powers(count: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yields (start, turns, size) of runs that cover `count`: as many of size `most` as fit, then of half of it, ..."""
    start = 0
    while start < count:
        turns = (count - start) // most
        if turns:
            yield start, turns, most
        start += turns * most
        most //= 2


def _is_last(index: Expr, parts: int) -> Expr | None:
    """Returns whether an index is the last one, None where there is only one."""
    return index == parts - 1 if parts > 1 else None


def _when(condition: Expr | None, emit: Callable[[], None]) -> None:
    """Emits statements under a condition, or always where it is None."""
    if condition is None:
        emit()
        return
    with T.If(condition), T.Then():
        emit()


@contextmanager
def loop(extent: int) -> Iterator[Expr]:
    """A serial loop, or nothing around a single iteration."""
    if extent == 1:
        yield T.int32(0)
        return
    with T.serial(0, extent) as index:
        yield index
