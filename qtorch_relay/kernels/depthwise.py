"""Depthwise convolution: rows interleaved by four, so that dot products reduce over kernel rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.conv2d_pack import Weight, accumulator_start, source_shift
from qtorch_relay.kernels.depthwise_plan import QUAD, ChannelBlocks, DepthwisePlan, plan_depthwise, row_taps
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.product import product_func
from qtorch_relay.kernels.requantize import Epilogue, emit, pack_requantize
from qtorch_relay.kernels.spec import Conv2dSpec, RequantizeParams
from qtorch_relay.kernels.tir import (
    Buffer,
    Expr,
    as_source,
    as_u8,
    lanes_of,
    load,
    scratch,
    splat,
    store,
)

VECTORS_IN_REGISTERS = 2
"""Vectors of channels of which the weights of a 3x3 window, tiles and what requantizes them fit into 32 registers."""

IN_ORDER_INTERLEAVE_CYCLES = 20.0
"""Of a column of four vectors of four channels: as many instructions, none beside another."""

MAX_TAPS = 64
"""Most taps of a window: the code of a tile is unrolled over them."""


def why_not_depthwise(spec: Conv2dSpec) -> str | None:
    """Returns why this kernel does not take a spec, or None."""
    if not spec.is_depthwise or spec.groups == 1:
        return "it is not depthwise with one output per input channel"
    if spec.kernel_h * spec.kernel_w > MAX_TAPS:
        return f"its window has {spec.kernel_h * spec.kernel_w} taps; accepted are at most {MAX_TAPS}"
    return None


def build_depthwise(isa: Isa, spec: Conv2dSpec) -> PrimFunc:
    """Returns depthwise(x, weight, init, requantize constants, out); see pack_depthwise for the constants."""
    plan = _plan(isa, spec)

    def emit(x: Buffer, weight: Buffer, init: Buffer, epilogue: Epilogue, out: Buffer) -> None:
        _Nest(spec, plan, isa, x, weight, init, epilogue, out).emit()

    return product_func("depthwise", isa, spec, plan.padded_vectors * isa.LANES, len(plan.dots) * QUAD, emit)


def _plan(isa: Isa, spec: Conv2dSpec) -> DepthwisePlan:
    """Returns the plan for an instruction set."""
    loads_weights = not isa.multiplies_memory
    if not isa.places_loads:
        return plan_depthwise(spec, isa.LANES, isa.REGISTERS, loads_weights)
    # where instructions are issued in order, LLVM holds in half of the registers what it loads ahead
    return plan_depthwise(spec, isa.LANES, isa.REGISTERS // 2, loads_weights, IN_ORDER_INTERLEAVE_CYCLES)


def pack_depthwise(
    isa: Isa,
    spec: Conv2dSpec,
    weight: Weight,
    in_zero_point: int,
    requantize: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None = None,
) -> list[npt.NDArray[Any]]:
    """Returns [weight s8, init s32, scales f32, codes s32] (+ factors f32 if "real"); see pack_requantize.

    weight: [channels, 1, kernel_h, kernel_w] codes; packed [block][dot][vector][lane][4 rows], zero where no tap is.
    """
    plan = _plan(isa, spec)
    taps = depthwise_dots(isa, spec, weight)
    by_lane, lane_channels = pack_taps(isa, taps, plan.blocks)
    packed = isa.dot_for(spec.pair_sums).arrange_for_registers(by_lane.reshape(-1, isa.LANES, QUAD))
    zero_point_u8 = in_zero_point + 128 if spec.in_dtype == "int8" else in_zero_point
    zero_point = zero_point_u8 - source_shift(isa.dot_for(spec.pair_sums))
    init, bound = accumulator_start(weight.reshape(spec.in_channels, -1), zero_point, bias_s32, lane_channels)
    return [packed, init, *pack_requantize(requantize, bound, lane_channels, zero_point_u8)]


def depthwise_dots(isa: Isa, spec: Conv2dSpec, weight: Weight) -> Weight:
    """Returns weights [channels, 1, kernel_h, kernel_w] as [channels, dots of the plan, 4 rows], 0 where no tap is."""
    plan = _plan(isa, spec)
    _, position = row_taps(spec, plan.rows)
    taps = np.zeros((spec.in_channels, len(plan.dots), QUAD), dtype=np.int8)
    for index, (row, column, quad) in enumerate(plan.dots):
        for kernel_row in range(spec.kernel_h):
            place = position[row, kernel_row]
            if place // QUAD == quad:
                taps[:, index, place % QUAD] = weight[:, 0, kernel_row, column]
    return taps


def pack_taps(
    isa: Isa, taps: npt.NDArray[np.int8], blocks: Sequence[ChannelBlocks]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Returns taps [channels, dots, 4] as flat [block][dot][vector][lane][4], and each lane's channel or -1."""
    packed, lanes = [], []
    for block in blocks:
        order = isa.interleaved_order(block.vectors)
        for index in range(block.count):
            channels = order + min(block.start + index * order.size, block.last_start)
            valid = channels < len(taps)
            by_lane = np.where(valid[..., None, None], taps[np.where(valid, channels, 0)], 0)
            # [vector, lane, dot, 4] -> [dot, vector, lane, 4]
            packed.append(by_lane.transpose(2, 0, 1, 3).astype(np.int8).ravel())
            lanes.append(np.where(valid, channels, -1).ravel())
    return np.concatenate(packed), np.concatenate(lanes)


@dataclass(frozen=True)
class _Block:
    """A block of channels: channel, its first lane in the constants, its first byte of weights."""

    vectors: int
    channel: Expr
    lane: Expr
    weights: Expr


@dataclass(frozen=True)
class _Nest:
    """Emits the loops of one depthwise convolution: chunks, blocks of channels, row groups, tiles."""

    spec: Conv2dSpec
    plan: DepthwisePlan
    isa: Isa
    x: Buffer
    weight: Buffer
    init: Buffer
    epilogue: Epilogue
    out: Buffer

    def emit(self) -> None:
        """Emits images x bands of row groups as one loop."""
        spec, plan = self.spec, self.plan
        chunks = spec.batch * plan.bands
        loop = T.parallel if chunks > 1 else T.serial
        with loop(0, chunks) as chunk:
            image, band = T.bind(chunk // plan.bands), T.bind(chunk % plan.bands)
            first, last = (T.bind((band + i) * plan.row_groups // plan.bands) for i in (0, 1))
            widest = max(block.vectors for block in plan.blocks)
            rows = scratch(plan.quads * plan.width * self._column_bytes(widest), self._byte)
            lane = 0
            for blocks in plan.blocks:
                self._blocks(blocks, lane, image, first, last, rows)
                lane += blocks.count * blocks.vectors * self.isa.LANES

    @property
    def _byte(self) -> str:
        """The dtype of interleaved rows: dot products that widen activations do it in registers."""
        return "int8" if self.isa.dot_for(self.spec.pair_sums).SOURCE == "int8" else "uint8"

    @property
    def _zero_point(self) -> Expr:
        return as_source(self.epilogue.in_zero_point, self._byte)

    def _codes(self, address: Expr, channels: int) -> Expr:
        """Returns codes of the input as interleaved rows have them."""
        return as_source(as_u8(load(self.x, address, channels)), self._byte)

    def _column_bytes(self, vectors: int) -> int:
        return vectors * self.isa.LANES * QUAD

    def _blocks(self, blocks: ChannelBlocks, lane: int, image: Expr, first: Expr, last: Expr, rows: Buffer) -> None:
        """Emits all row groups of a chunk for the blocks of one kind."""
        spec, plan = self.spec, self.plan
        self._fill_padding(rows, blocks.vectors)
        size = blocks.vectors * self.isa.LANES
        with T.serial(0, blocks.count) as index:
            first_lane = T.bind(lane + index * size)
            weights = T.bind(first_lane * (len(plan.dots) * QUAD))
            channel = T.bind(T.min(blocks.start + index * size, blocks.last_start))
            block = _Block(blocks.vectors, channel, first_lane, weights)
            with T.serial(first, last) as group:
                out_row = T.bind(T.min(group * plan.rows, spec.out_h - plan.rows))
                self._interleave(image, T.bind(out_row * spec.stride[0] - spec.padding[0]), block, rows)
                out_start = T.bind((image * spec.out_h + out_row) * spec.out_w)
                for vectors in self._vectors_at_once(blocks.vectors):
                    with T.serial(0, -(-spec.out_w // plan.columns)) as tile:
                        out_column = T.bind(T.min(tile * plan.columns, spec.out_w - plan.columns))
                        self._tile(rows, out_column, out_start + out_column, block, vectors)

    def _vectors_at_once(self, count: int) -> list[range]:
        """Returns the vectors of a block that tiles take at once: all, or those whose weights stay in registers."""
        size = count if self.isa.multiplies_memory else VECTORS_IN_REGISTERS
        return [range(first, min(first + size, count)) for first in range(0, count, size)]

    def _in_columns(self) -> tuple[int, int]:
        """Returns (padding columns on the left, input columns read)."""
        left = min(self.spec.padding[1], self.plan.width)
        return left, min(self.spec.in_w, self.plan.width - left)

    def _fill_padding(self, rows: Buffer, vectors: int) -> None:
        """Fills the padding columns of all quads with the zero point; they stay as they are for all row groups."""
        left, columns = self._in_columns()
        size, bytes_each = self._column_bytes(1), self._column_bytes(vectors)
        for quad in range(self.plan.quads):
            for start, count in ((0, left), (left + columns, self.plan.width - left - columns)):
                if count:
                    with T.serial(0, count * vectors) as i:
                        address = (quad * self.plan.width + start) * bytes_each + i * size
                        store(rows, splat(self._zero_point, size), address, size)

    def _interleave(self, image: Expr, in_row: Expr, block: _Block, rows: Buffer) -> None:
        """Writes the quads of a row group: in each column, for each channel, the bytes of four rows side by side."""
        spec, plan = self.spec, self.plan
        for quad in range(plan.quads):
            offsets = plan.in_rows[quad * QUAD : (quad + 1) * QUAD]
            with T.If(T.And(in_row + offsets[0] >= 0, in_row + offsets[-1] < spec.in_h)):
                with T.Then():
                    starts = [self._row_start(image, in_row + offset, block) for offset in offsets]
                    self._interleave_quad(quad, starts, None, block, rows)
                with T.Else():
                    # rows outside the image are read inside it, and the zero point is taken instead
                    inside = [T.bind(T.And(in_row + o >= 0, in_row + o < spec.in_h)) for o in offsets]
                    nearest = [T.max(0, T.min(in_row + offset, spec.in_h - 1)) for offset in offsets]
                    starts = [self._row_start(image, row, block) for row in nearest]
                    self._interleave_quad(quad, starts, inside, block, rows)

    def _row_start(self, image: Expr, row: Expr, block: _Block) -> Expr:
        """Returns the address of a block's channels in the first column of an input row."""
        spec = self.spec
        return T.bind((image * spec.in_h + row) * (spec.in_w * spec.in_channels) + block.channel)

    def _interleave_quad(
        self, quad: int, starts: list[Expr], inside: list[Expr] | None, block: _Block, rows: Buffer
    ) -> None:
        """Interleaves four rows; where a row is not inside, its bytes are the zero point."""
        left, columns = self._in_columns()
        if columns == 0:
            return
        channels = min(block.vectors * self.isa.LANES, self.spec.in_channels)

        def select(row: int, value: Expr) -> Expr:
            if inside is None:
                return value
            return T.Select(inside[row], value, splat(self._zero_point, lanes_of(value)))

        with T.serial(0, columns) as column:
            target = T.bind((quad * self.plan.width + left + column) * self._column_bytes(block.vectors))
            addresses = [start + column * self.spec.in_channels for start in starts]
            if channels < self.isa.LANES:
                # fewer channels than a vector: byte by byte; the other lanes have zero weights
                for row, address in enumerate(addresses):
                    with T.serial(0, channels) as channel:
                        code = select(row, self._codes(address + channel, 1))
                        store(rows, code, target + channel * QUAD + row, 1)
                return
            values = [T.bind(select(i, self._codes(address, channels))) for i, address in enumerate(addresses)]
            for i, piece in enumerate(self.isa.interleave(values)):
                store(rows, piece, target + i * lanes_of(piece), lanes_of(piece))

    def _tile(self, rows: Buffer, out_column: Expr, out_pixel: Expr, block: _Block, vectors: range) -> None:
        """Emits plan.rows x plan.columns output pixels of some vectors of a block, one after the other."""
        spec, plan, lanes = self.spec, self.plan, self.isa.LANES
        dots = self.isa.dot_for(spec.pair_sums)
        pixels = [(row, column) for row in range(plan.rows) for column in range(plan.columns)]
        size, column_bytes = self._column_bytes(1), self._column_bytes(block.vectors)
        in_start = T.bind(out_column * (spec.stride[1] * column_bytes))
        values: list[list[Expr]] = [[] for _ in pixels]
        for j in vectors:
            start = T.bind(load(self.init, block.lane + j * lanes, lanes))
            accumulators = dict.fromkeys(pixels, start)
            weights = {
                (dot, step): T.bind(dots.weights(self.weight, block.weights + (i * block.vectors + j) * size, step))
                for i, dot in enumerate(plan.dots)
                for step in range(dots.STEPS)
            }
            for in_column, quad in itertools.product(
                range((plan.columns - 1) * spec.stride[1] + spec.span_w), range(plan.quads)
            ):
                users = [
                    (dot, (dot[0], column))
                    for dot in plan.dots
                    for column in range(plan.columns)
                    if dot[2] == quad and column * spec.stride[1] + dot[1] * spec.dilation[1] == in_column
                ]
                if not users:
                    continue
                taps = T.bind(load(rows, in_start + (quad * plan.width + in_column) * column_bytes + j * size, size))
                for step in range(dots.STEPS):
                    codes = dots.activations(taps, step)
                    for dot, pixel in users:
                        accumulators[pixel] = T.bind(dots.add(accumulators[pixel], codes, weights[dot, step]))
            for value, pixel in zip(values, pixels, strict=True):
                value.append(accumulators[pixel])
        addresses = [
            (out_pixel + row * spec.out_w + column) * spec.out_channels + block.channel + vectors.start * lanes
            for row, column in pixels
        ]
        channels = min(len(vectors) * lanes, spec.in_channels)
        order = self.isa.interleaved_order(len(vectors))
        emit(
            self.epilogue.parts(values, block.lane + vectors.start * lanes, self.out, addresses, channels, order=order)
        )
