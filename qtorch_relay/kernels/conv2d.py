"""Quantized 2-D convolution: the loop nest around an ISA's tile operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES, Conv2dPlan, plan_conv2d
from qtorch_relay.kernels.requantize import Epilogue, requantize_arguments
from qtorch_relay.kernels.spec import Conv2dSpec
from qtorch_relay.kernels.tir import Buffer, BufferDecl, Expr, get, load, prim_func, put, registers, scratch, store

MAX_REDUCTION = 65_793
"""Most products of one output: (2^31 - 1) / (255 * 128), so no accumulator leaves int32."""


def why_not_conv2d(spec: Conv2dSpec) -> str | None:
    """Returns why this kernel does not take a spec, or None."""
    if spec.groups != 1:
        return f"it has {spec.groups} groups; accepted is 1"
    if spec.reduction > MAX_REDUCTION:
        return f"{spec.reduction} products could overflow int32; accepted are at most {MAX_REDUCTION}"
    return None


def build_conv2d(isa: Any, spec: Conv2dSpec) -> PrimFunc:
    """Returns conv2d(x, weight, init, requantize constants, out); see pack_conv2d for the constants."""
    plan = plan_conv2d(spec, isa.LANES, isa.REGISTERS)
    channels = plan.padded_vectors * isa.LANES
    arguments: list[BufferDecl] = [
        ("x", spec.in_shape, spec.in_dtype),
        ("weight", (channels * plan.reduction.dots * DOT_BYTES,), "int8"),
        ("init", (channels,), "int32"),
        *requantize_arguments(spec.requantize, channels),
        ("out", spec.out_shape, spec.out_dtype),
    ]

    def body(x: Buffer, weight: Buffer, init: Buffer, *rest: Buffer) -> None:
        epilogue = Epilogue(isa, spec.requantize, spec.out_dtype, channels, rest[:-1])
        _Nest(spec, plan, isa, x, weight, init, epilogue, rest[-1]).emit()

    return prim_func("conv2d", arguments, body)


class _Nest:
    """Emits the loops of one convolution."""

    def __init__(
        self,
        spec: Conv2dSpec,
        plan: Conv2dPlan,
        isa: Any,
        x: Buffer,
        weight: Buffer,
        init: Buffer,
        epilogue: Epilogue,
        out: Buffer,
    ) -> None:
        self.spec, self.plan, self.isa = spec, plan, isa
        self.x, self.weight, self.init, self.epilogue, self.out = (
            x,
            weight,
            init,
            epilogue,
            out,
        )

    def emit(self) -> None:
        """Emits images x bands x groups of channel blocks as one loop."""
        plan = self.plan
        loop = T.parallel if plan.chunks > 1 else T.serial
        with loop(0, plan.chunks) as chunk:
            image = T.bind(chunk // (plan.bands * plan.block_groups))
            band = T.bind(chunk // plan.block_groups % plan.bands)
            block_group = T.bind(chunk % plan.block_groups)
            first = T.bind(_part(band, plan.bands, plan.tiling.groups))
            last = T.bind(_part(band + 1, plan.bands, plan.tiling.groups))
            source, origin = self._input(image, band, first, last)
            blocks = (
                _part(block_group, plan.block_groups, plan.blocks),
                _part(block_group + 1, plan.block_groups, plan.blocks),
            )
            full = plan.vectors, plan.vectors * self.isa.LANES
            partial = (
                plan.rest_vectors,
                self.spec.out_channels - plan.blocks * plan.vectors * self.isa.LANES,
            )
            if plan.blocks:
                with T.serial(blocks[0], blocks[1]) as block:
                    self._block(
                        source,
                        origin,
                        image,
                        band,
                        first,
                        last,
                        block * plan.vectors,
                        *full,
                    )
            if plan.rest_vectors:
                _when(
                    block_group == plan.block_groups - 1 if plan.block_groups > 1 else None,
                    lambda: self._block(
                        source,
                        origin,
                        image,
                        band,
                        first,
                        last,
                        plan.blocks * plan.vectors,
                        *partial,
                    ),
                )

    def _input(self, image: Expr, band: Expr, first: Expr, last: Expr) -> tuple[Buffer, Expr]:
        """Returns the buffer the reduction reads and the offset of the first input row of pixel group `first`."""
        spec, plan = self.spec, self.plan
        image_start = image * (spec.in_h * spec.in_w * spec.in_channels) if not plan.tiling.flat else 0
        if not plan.copies_input:
            return self.x, image_start + first * self._group_in()
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
        zero_point = self.epilogue.in_zero_point
        left = min(spec.padding[1] * spec.in_channels, plan.row_pitch)
        middle = min(spec.in_w * spec.in_channels, plan.row_pitch - left)
        start = T.bind(row * plan.row_pitch)

        def fill(offset: int, size: int) -> None:
            if size > 0:
                with T.serial(0, size) as i:
                    store(padded, zero_point, start + offset + i, 1)

        with T.If(T.And(in_row >= 0, in_row < spec.in_h)):
            with T.Then():
                fill(0, left)
                if middle > 0:
                    source = T.bind(image_start + in_row * (spec.in_w * spec.in_channels))
                    with T.serial(0, middle) as i:
                        store(
                            padded,
                            _as_u8(self.x[source + i], spec.in_dtype),
                            start + left + i,
                            1,
                        )
                fill(left + middle, plan.row_pitch - left - middle)
            with T.Else():
                fill(0, plan.row_pitch)

    def _group_in(self) -> int:
        """Input bytes from one pixel group to the next."""
        tiling, spec = self.plan.tiling, self.spec
        if tiling.flat:
            return tiling.tile_w * spec.in_channels
        return tiling.tile_h * spec.stride[0] * self.plan.row_pitch

    def _block(
        self,
        source: Buffer,
        origin: Expr,
        image: Expr,
        band: Expr,
        first: Expr,
        last: Expr,
        vector: Expr,
        vectors: int,
        channels: int,
    ) -> None:
        """Emits all pixels of a band for the block of `channels` output channels that starts at this vector."""
        spec, plan, tiling = self.spec, self.plan, self.plan.tiling
        channel = T.bind(vector * self.isa.LANES)
        weights = T.bind(channel * (plan.reduction.dots * DOT_BYTES))
        image_out = image * (spec.out_h * spec.out_w) if not tiling.flat else 0
        group_pixels = tiling.tile_w if tiling.flat else tiling.tile_h * spec.out_w
        tile_in = tiling.tile_w * spec.stride[1] * spec.in_channels

        def tile(group: Expr, index: Expr | int, shape: tuple[int, int]) -> None:
            in_start = T.bind(origin + (group - first) * self._group_in() + index * tile_in)
            pixel = image_out + group * group_pixels + index * tiling.tile_w
            out_start = T.bind(pixel * spec.out_channels + channel)
            self._tile(source, in_start, weights, channel, out_start, shape, vectors, channels)

        with T.serial(first, last) as group:
            if tiling.tiles > 1:
                with T.serial(0, tiling.tiles) as index:
                    tile(group, index, (tiling.tile_h, tiling.tile_w))
            elif tiling.tiles == 1:
                tile(group, 0, (tiling.tile_h, tiling.tile_w))
            if tiling.column_rest:
                tile(group, tiling.tiles, (tiling.tile_h, tiling.column_rest))
        if tiling.last is not None:
            shape = tiling.last
            _when(
                band == plan.bands - 1 if plan.bands > 1 else None,
                lambda: tile(tiling.groups, 0, shape),
            )

    def _tile(
        self,
        source: Buffer,
        in_start: Expr,
        weights: Expr,
        channel: Expr,
        out_start: Expr,
        shape: tuple[int, int],
        vectors: int,
        channels: int,
    ) -> None:
        """Emits one register tile: rows outer and columns inner, so that one broadcast and one row of weights live."""
        spec, plan, isa = self.spec, self.plan, self.isa
        pixels = [(row, column) for row in range(shape[0]) for column in range(shape[1])]
        in_offsets = [
            row * spec.stride[0] * plan.row_pitch + column * spec.stride[1] * spec.in_channels for row, column in pixels
        ]
        out_offsets = [(row * spec.out_w + column) * spec.out_channels for row, column in pixels]
        accumulators = registers(len(pixels) * vectors, "int32x16")
        for j in range(vectors):
            start = T.bind(load(self.init, channel + j * isa.LANES, isa.LANES))
            for i in range(len(pixels)):
                put(accumulators[i * vectors + j], start)

        def dots(run: Expr, run_weights: Expr, offset: Expr) -> None:
            vector_bytes = isa.LANES * DOT_BYTES
            s8 = [T.bind(load(self.weight, run_weights + j * vector_bytes, vector_bytes)) for j in range(vectors)]
            for i, in_offset in enumerate(in_offsets):
                u8 = T.bind(isa.activations(source, run + offset + in_offset))
                for j in range(vectors):
                    accumulator = accumulators[i * vectors + j]
                    put(accumulator, isa.dot(get(accumulator), u8, s8[j]))

        reduction = plan.reduction
        dot_weights = vectors * isa.LANES * DOT_BYTES
        run_weights = len(reduction.offsets) * dot_weights
        with _loop(reduction.rows) as row, _loop(reduction.segments) as segment:
            run = in_start + row * (spec.dilation[0] * plan.row_pitch) + segment * (spec.dilation[1] * spec.in_channels)
            run_start = T.bind(weights + (row * reduction.segments + segment) * run_weights)
            run = T.bind(run)
            with _loop(reduction.full_dots) as step:
                dots(run, run_start + step * dot_weights, step * DOT_BYTES)
            if reduction.last_offset is not None:
                dots(
                    run,
                    run_start + reduction.full_dots * dot_weights,
                    reduction.last_offset,
                )

        values = [[get(accumulators[i * vectors + j]) for j in range(vectors)] for i in range(len(pixels))]
        addresses = [out_start + offset for offset in out_offsets]
        self.epilogue.emit(values, channel, self.out, addresses, channels)


def _part(index: Expr, parts: int, total: int) -> Expr:
    """Returns where part `index` of `total` things cut into `parts` nearly equal parts starts."""
    return index * total // parts if parts > 1 else index * total


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


def _as_u8(code: Expr, dtype: str) -> Expr:
    """Returns a code as u8; s8 codes are moved up by 128, as their zero point is."""
    if dtype == "uint8":
        return code
    return T.bitwise_xor(T.reinterpret("uint8", code), T.uint8(128))
