"""Quantized 2-D convolutions and dense layers: the loop nest around an ISA's tile operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES, Conv2dPlan, plan_conv2d
from qtorch_relay.kernels.requantize import Epilogue, requantize_arguments
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec
from qtorch_relay.kernels.tir import (
    Buffer,
    BufferDecl,
    Expr,
    as_u8,
    get,
    load,
    prim_func,
    put,
    registers,
    scratch,
    store,
)

MAX_REDUCTION = 65_793
"""Most products of one output: (2^31 - 1) / (255 * 128), so no accumulator leaves int32."""


def why_not_conv2d(spec: Conv2dSpec | DenseSpec) -> str | None:
    """Returns why these kernels do not take a spec, or None."""
    if spec.reduction > MAX_REDUCTION:
        return f"{spec.reduction} products could overflow int32; accepted are at most {MAX_REDUCTION}"
    return None


def build_conv2d(isa: Any, spec: Conv2dSpec) -> PrimFunc:
    """Returns conv2d(x, weight, init, requantize constants, out); see pack_conv2d for the constants."""
    return _build("conv2d", isa, spec, spec)


def build_dense(isa: Any, spec: DenseSpec) -> PrimFunc:
    """Returns dense(x, weight, init, requantize constants, out): a 1x1 convolution over one row of pixels."""
    return _build("dense", isa, spec, spec.as_conv2d())


def _build(name: str, isa: Any, interface: Conv2dSpec | DenseSpec, spec: Conv2dSpec) -> PrimFunc:
    """Returns the kernel of a convolution with the shapes of interface."""
    plan = plan_conv2d(spec, isa.LANES, isa.REGISTERS)
    lanes = plan.padded_vectors * isa.LANES
    arguments: list[BufferDecl] = [
        ("x", interface.in_shape, spec.in_dtype),
        ("weight", (lanes * plan.reduction.dots * DOT_BYTES,), "int8"),
        ("init", (lanes,), "int32"),
        *requantize_arguments(spec.requantize, lanes),
        ("out", interface.out_shape, spec.out_dtype),
    ]

    def body(x: Buffer, weight: Buffer, init: Buffer, *rest: Buffer) -> None:
        epilogue = Epilogue(isa, spec.requantize, spec.out_dtype, lanes, rest[:-1])
        _Nest(spec, plan, isa, x, weight, init, epilogue, rest[-1]).emit()

    return prim_func(name, arguments, body)


@dataclass(frozen=True)
class _Chunk:
    """One iteration of the parallel loop: pixel groups first..last of an image, read from source at origin."""

    image: Expr
    band: Expr
    first: Expr
    last: Expr
    source: Buffer
    origin: Expr


@dataclass(frozen=True)
class _Block:
    """Output channels computed together: `channels` of them from out_channel on, `vectors` vectors from lane on."""

    group: Expr
    lane: Expr
    out_channel: Expr
    vectors: int
    channels: int


@dataclass(frozen=True)
class _Nest:
    """Emits the loops of one convolution: chunks, channel groups, blocks, pixel groups, tiles."""

    spec: Conv2dSpec
    plan: Conv2dPlan
    isa: Any
    x: Buffer
    weight: Buffer
    init: Buffer
    epilogue: Epilogue
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
            source, origin = self._input(image, band, first, last)
            chunk = _Chunk(image, band, first, last, source, origin)
            if plan.groups.count == 1:
                first_block, end_block = (_start(part + i, plan.channel_parts, plan.blocks) for i in (0, 1))
                self._blocks(chunk, T.int32(0), first_block, end_block, _is_last(part, plan.channel_parts))
            else:
                with T.serial(*(_start(part + i, plan.channel_parts, plan.groups.count) for i in (0, 1))) as group:
                    self._blocks(chunk, group, 0, plan.blocks, None)

    def _blocks(self, chunk: _Chunk, group: Expr, first: Expr, end: Expr, with_rest: Expr | None) -> None:
        """Emits these full blocks of a channel group, then the rest (under a condition, if any)."""
        plan, lanes = self.plan, self.isa.LANES

        def block(index: Expr, vectors: int, channels: int) -> _Block:
            lane = T.bind((group * plan.group_vectors + index * plan.vectors) * lanes)
            out_channel = T.bind(group * plan.groups.out_channels + index * (plan.vectors * lanes))
            return _Block(group, lane, out_channel, vectors, channels)

        if plan.blocks:
            with T.serial(first, end) as index:
                self._block(chunk, block(index, plan.vectors, plan.vectors * lanes))
        if plan.rest_vectors:
            channels = plan.groups.out_channels - plan.blocks * plan.vectors * lanes
            _when(with_rest, lambda: self._block(chunk, block(plan.blocks, plan.rest_vectors, channels)))

    def _input(self, image: Expr, band: Expr, first: Expr, last: Expr) -> tuple[Buffer, Expr]:
        """Returns the buffer the reduction reads and the offset of the first input row of pixel group `first`."""
        spec, plan = self.spec, self.plan
        image_start = image * (spec.in_h * spec.in_w * spec.in_channels) if not plan.tiling.flat else 0
        if not plan.copies_input:
            return self.x, T.bind(image_start + first * self._group_in())
        tiling = plan.tiling
        most_rows = -(-tiling.groups // plan.bands) * tiling.tile_h + (tiling.last[0] if tiling.last else 0)
        in_rows = (most_rows - 1) * spec.stride[0] + spec.span_h
        # runs under 4 bytes are read as 4
        padded = scratch(in_rows * plan.row_pitch + DOT_BYTES, "uint8")
        rows = (last - first) * tiling.tile_h
        if tiling.last:
            rows += T.if_then_else(band == plan.bands - 1, tiling.last[0], 0)
        top = T.bind(first * (tiling.tile_h * spec.stride[0]) - spec.padding[0])
        with T.serial(0, (rows - 1) * spec.stride[0] + spec.span_h) as row:
            self._copy_row(padded, row, image_start, top + row)
        return padded, T.int32(0)

    def _copy_row(self, padded: Buffer, row: Expr, image_start: Expr, in_row: Expr) -> None:
        """Copies one input row as u8 between columns of the zero point; rows outside the image are all zero point."""
        spec, plan = self.spec, self.plan
        left = min(spec.padding[1] * spec.in_channels, plan.row_pitch)
        middle = min(spec.in_w * spec.in_channels, plan.row_pitch - left)
        start = T.bind(row * plan.row_pitch)

        def fill(offset: int, size: int) -> None:
            if size > 0:
                with T.serial(0, size) as i:
                    store(padded, self.epilogue.in_zero_point, start + offset + i, 1)

        with T.If(T.And(in_row >= 0, in_row < spec.in_h)):
            with T.Then():
                fill(0, left)
                if middle > 0:
                    source = T.bind(image_start + in_row * (spec.in_w * spec.in_channels))
                    with T.serial(0, middle) as i:
                        store(padded, as_u8(self.x[source + i]), start + left + i, 1)
                fill(left + middle, plan.row_pitch - left - middle)
            with T.Else():
                fill(0, plan.row_pitch)

    def _group_in(self) -> int:
        """Input bytes from one pixel group to the next."""
        tiling, spec = self.plan.tiling, self.spec
        if tiling.flat:
            return tiling.tile_w * spec.in_channels
        return tiling.tile_h * spec.stride[0] * self.plan.row_pitch

    def _block(self, chunk: _Chunk, block: _Block) -> None:
        """Emits all pixels of a chunk for one block of output channels."""
        spec, plan, tiling = self.spec, self.plan, self.plan.tiling
        image_out = chunk.image * (spec.out_h * spec.out_w) if not tiling.flat else 0
        group_pixels = tiling.tile_w if tiling.flat else tiling.tile_h * spec.out_w
        tile_in = tiling.tile_w * spec.stride[1] * spec.in_channels
        origin = T.bind(chunk.origin + block.group * plan.groups.in_channels)

        def tile(group: Expr, index: Expr, shape: tuple[int, int]) -> None:
            in_start = T.bind(origin + (group - chunk.first) * self._group_in() + index * tile_in)
            pixel = image_out + group * group_pixels + index * tiling.tile_w
            self._tile(chunk.source, in_start, block, T.bind(pixel * spec.out_channels + block.out_channel), shape)

        with T.serial(chunk.first, chunk.last) as group:
            if tiling.tiles > 1:
                with T.serial(0, tiling.tiles) as index:
                    tile(group, index, (tiling.tile_h, tiling.tile_w))
            else:
                tile(group, 0, (tiling.tile_h, tiling.tile_w))
            if tiling.column_rest:
                tile(group, tiling.tiles, (tiling.tile_h, tiling.column_rest))
        if tiling.last is not None:
            shape = tiling.last
            _when(_is_last(chunk.band, plan.bands), lambda: tile(tiling.groups, 0, shape))

    def _tile(self, source: Buffer, in_start: Expr, block: _Block, out_start: Expr, shape: tuple[int, int]) -> None:
        """Emits one register tile: rows outer and columns inner, so that one broadcast and one row of weights live."""
        spec, plan, isa = self.spec, self.plan, self.isa
        pixels = [(row, column) for row in range(shape[0]) for column in range(shape[1])]
        row_in, column_in = spec.stride[0] * plan.row_pitch, spec.stride[1] * spec.in_channels
        in_offsets = [row * row_in + column * column_in for row, column in pixels]
        accumulators = [registers(block.vectors, "int32x16") for _ in pixels]
        for j in range(block.vectors):
            start = T.bind(load(self.init, block.lane + j * isa.LANES, isa.LANES))
            for accumulator in accumulators:
                put(accumulator[j], start)

        vector_bytes = isa.LANES * DOT_BYTES
        dot_weights = block.vectors * vector_bytes

        def dots(run: Expr, run_weights: Expr, offset: Expr) -> None:
            s8 = [T.bind(load(self.weight, run_weights + j * vector_bytes, vector_bytes)) for j in range(block.vectors)]
            for in_offset, accumulator in zip(in_offsets, accumulators, strict=True):
                u8 = T.bind(isa.activations(source, run + offset + in_offset))
                for j in range(block.vectors):
                    put(accumulator[j], isa.dot(get(accumulator[j]), u8, s8[j]))

        reduction = plan.reduction
        weights = T.bind(block.lane * (reduction.dots * DOT_BYTES))
        with _loop(reduction.rows) as row, _loop(reduction.segments) as segment:
            run_index = row * reduction.segments + segment
            run_weights = T.bind(weights + run_index * (len(reduction.offsets) * dot_weights))
            segment_in = spec.dilation[1] * spec.in_channels
            run = T.bind(in_start + row * (spec.dilation[0] * plan.row_pitch) + segment * segment_in)
            with _loop(reduction.full_dots) as step:
                dots(run, run_weights + step * dot_weights, step * DOT_BYTES)
            if reduction.last_offset is not None:
                dots(run, run_weights + reduction.full_dots * dot_weights, reduction.last_offset)

        values = [[get(variable) for variable in accumulator] for accumulator in accumulators]
        addresses = [out_start + (row * spec.out_w + column) * spec.out_channels for row, column in pixels]
        self.epilogue.emit(values, block.lane, self.out, addresses, block.channels)


def _start(index: Expr, parts: int, total: int) -> Expr:
    """Returns where part `index` of `total` things cut into `parts` nearly equal parts starts."""
    return index * total // parts if parts > 1 else index * total


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
def _loop(extent: int) -> Iterator[Expr]:
    """A serial loop, or nothing around a single iteration."""
    if extent == 1:
        yield T.int32(0)
        return
    with T.serial(0, extent) as index:
        yield index
