"""Depthwise convolution as FBGEMM sums it: each two consecutive taps of a window saturate to int16.

vpmaddubsw does just that, so the kernel is exact by using the instruction whose overflow it reproduces: four
consecutive taps of a channel lie in one 32-bit lane, vpmaddubsw makes the two saturated pairs of it, and a dot product
with ones adds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.conv2d_pack import Weight, accumulator_start
from qtorch_relay.kernels.depthwise import MAX_TAPS, pack_taps
from qtorch_relay.kernels.depthwise_plan import QUAD, ChannelBlocks, channel_blocks
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.product import product_func
from qtorch_relay.kernels.requantize import Epilogue, emit, pack_requantize
from qtorch_relay.kernels.spec import PairSaturatedDepthwiseSpec, RequantizeParams
from qtorch_relay.kernels.tir import Buffer, Expr, load, scratch, splat, store

BANDS = 8
"""Chunks of output rows for parallel execution, where there is enough to do."""
MIN_PARALLEL_MACS = 200_000
COPY_BYTES = 64


def why_not_depthwise_pairs(spec: PairSaturatedDepthwiseSpec) -> str | None:
    """Returns why this kernel does not take a spec, or None."""
    if not spec.is_depthwise or spec.in_dtype != "uint8":
        return "it is not depthwise with one output per uint8 input channel"
    if spec.kernel_h * spec.kernel_w > MAX_TAPS or spec.dilation != (1, 1):
        return f"its window has {spec.kernel_h * spec.kernel_w} taps of dilation {spec.dilation}"
    return None


def quads_of(spec: PairSaturatedDepthwiseSpec) -> int:
    """Returns the number of groups of four taps."""
    return -(-spec.kernel_h * spec.kernel_w // QUAD)


def build_depthwise_pairs(isa: Isa, spec: PairSaturatedDepthwiseSpec) -> PrimFunc:
    """Returns depthwise(x, weight, init, requantize constants, out); see pack_depthwise_pairs for the constants."""
    blocks = channel_blocks(spec.in_channels, isa.LANES)
    lanes = sum(block.count * block.vectors for block in blocks) * isa.LANES

    def emit(x: Buffer, weight: Buffer, init: Buffer, epilogue: Epilogue, out: Buffer) -> None:
        _Nest(spec, isa, blocks, x, weight, init, epilogue, out).emit()

    return product_func("depthwise_pairs", isa, spec, lanes, quads_of(spec) * QUAD, emit)


def pack_depthwise_pairs(
    isa: Isa,
    spec: PairSaturatedDepthwiseSpec,
    weight: Weight,
    in_zero_point: int,
    requantize: RequantizeParams,
    bias_s32: npt.NDArray[np.int32] | None = None,
) -> list[npt.NDArray[Any]]:
    """Returns [weight s8, init s32, scales f32, codes s32] (+ factors f32 if "real"); see pack_requantize.

    weight: [channels, 1, kernel_h, kernel_w] codes; packed [block][quad][vector][lane][4 taps], zero past the last tap.
    """
    flat = weight.reshape(spec.in_channels, -1)
    padded = np.zeros((spec.in_channels, quads_of(spec) * QUAD), np.int8)
    padded[:, : flat.shape[1]] = flat
    taps = padded.reshape(spec.in_channels, -1, QUAD)
    packed, lane_channels = pack_taps(isa, taps, channel_blocks(spec.in_channels, isa.LANES))
    init, bound = accumulator_start(flat, in_zero_point, bias_s32, lane_channels)
    return [packed, init, *pack_requantize(requantize, bound, lane_channels, in_zero_point)]


@dataclass(frozen=True)
class _Nest:
    """Emits the loops: images x bands of rows, each with a padded copy of its input rows, then blocks, rows,
    columns."""

    spec: PairSaturatedDepthwiseSpec
    isa: Isa
    blocks: tuple[ChannelBlocks, ...]
    x: Buffer
    weight: Buffer
    init: Buffer
    epilogue: Epilogue
    out: Buffer

    @property
    def stride(self) -> int:
        """Bytes from a pixel of the padded copy to the next."""
        return max(self.spec.in_channels, self.isa.LANES)

    @property
    def width(self) -> int:
        """Columns of the padded copy."""
        return self.spec.in_w + self.spec.padding[1] + self.spec.padding[3]

    def emit(self) -> None:
        """Emits the whole kernel."""
        spec = self.spec
        bands = min(BANDS, spec.out_h) if spec.macs >= MIN_PARALLEL_MACS else 1
        most_rows = -(-spec.out_h // bands)
        chunks = spec.batch * bands
        loop = T.parallel if chunks > 1 else T.serial
        with loop(0, chunks) as chunk:
            image, band = T.bind(chunk // bands), T.bind(chunk % bands)
            first, last = (T.bind((band + i) * spec.out_h // bands) for i in (0, 1))
            in_rows = (most_rows - 1) * spec.stride[0] + spec.kernel_h
            # the last pixels of the last block are read in whole vectors
            rows = scratch(in_rows * self.width * self.stride + 4 * self.isa.LANES, "uint8")
            self._copy(image, first, last, rows)
            lane = 0
            for block in self.blocks:
                self._block(block, lane, image, first, last, rows)
                lane += block.count * block.vectors * self.isa.LANES

    def _copy(self, image: Expr, first: Expr, last: Expr, rows: Buffer) -> None:
        """Copies the input rows of a band, with the zero point around the image."""
        spec = self.spec
        top, left, _, right = spec.padding
        row_bytes = self.width * self.stride
        with T.serial(0, (last - 1 - first) * spec.stride[0] + spec.kernel_h) as row:
            in_row = T.bind(first * spec.stride[0] - top + row)
            target = T.bind(row * row_bytes)
            with T.If(T.And(in_row >= 0, in_row < spec.in_h)):
                with T.Then():
                    self._fill(rows, target, left * self.stride)
                    self._copy_row(rows, target + left * self.stride, (image * spec.in_h + in_row) * spec.in_w)
                    self._fill(rows, target + (left + spec.in_w) * self.stride, right * self.stride)
                with T.Else():
                    self._fill(rows, target, row_bytes)

    def _fill(self, rows: Buffer, start: Expr, count: int) -> None:
        if count:
            with T.serial(0, count) as i:
                store(rows, splat(self.epilogue.in_zero_point, 1), start + i, 1)

    def _copy_row(self, rows: Buffer, target: Expr, pixel: Expr) -> None:
        channels = self.spec.in_channels
        if self.stride == channels:
            self._copy_bytes(rows, target, pixel * channels, self.spec.in_w * channels)
            return
        with T.serial(0, self.spec.in_w) as column:
            self._copy_bytes(rows, target + column * self.stride, (pixel + column) * channels, channels)

    def _copy_bytes(self, rows: Buffer, target: Expr, source: Expr, count: int) -> None:
        whole = count // COPY_BYTES
        if whole:
            with T.serial(0, whole) as i:
                store(rows, load(self.x, source + i * COPY_BYTES, COPY_BYTES), target + i * COPY_BYTES, COPY_BYTES)
        done = whole * COPY_BYTES
        for size in (32, 16, 8, 4, 2, 1):
            if count - done >= size:
                store(rows, load(self.x, source + done, size), target + done, size)
                done += size

    def _block(self, block: ChannelBlocks, lane: int, image: Expr, first: Expr, last: Expr, rows: Buffer) -> None:
        """Emits all output pixels of a band for the blocks of one kind."""
        spec = self.spec
        size = block.vectors * self.isa.LANES
        with T.serial(0, block.count) as index:
            first_lane = T.bind(lane + index * size)
            weights = T.bind(first_lane * (quads_of(spec) * QUAD))
            channel = T.bind(T.min(block.start + index * size, block.last_start))
            with T.serial(first, last) as row:
                start = T.bind((row - first) * (spec.stride[0] * self.width * self.stride) + channel)
                pixel = T.bind((image * spec.out_h + row) * spec.out_w)
                with T.serial(0, spec.out_w) as column:
                    source = T.bind(start + column * (spec.stride[1] * self.stride))
                    address = T.bind((pixel + column) * spec.out_channels + channel)
                    self._pixel(block, first_lane, weights, rows, source, address)

    def _pixel(
        self, block: ChannelBlocks, first_lane: Expr, weights: Expr, rows: Buffer, source: Expr, address: Expr
    ) -> None:
        """Emits one output pixel of a block of channels."""
        spec, lanes = self.spec, self.isa.LANES
        size = block.vectors * lanes
        offsets = [
            (row * self.width + column) * self.stride for row in range(spec.kernel_h) for column in range(spec.kernel_w)
        ]
        # past the last tap any bytes do: their weights are zero
        offsets += [offsets[-1]] * (-len(offsets) % QUAD)
        accumulators = [T.bind(load(self.init, first_lane + j * lanes, lanes)) for j in range(block.vectors)]
        for quad in range(quads_of(spec)):
            taps = [T.bind(load(rows, source + offset, size)) for offset in offsets[quad * QUAD : (quad + 1) * QUAD]]
            for j, u8 in enumerate(_registers(self.isa.interleave(taps), block.vectors, lanes * QUAD)):
                s8 = load(self.weight, weights + (quad * block.vectors + j) * lanes * QUAD, lanes * QUAD)
                accumulators[j] = T.bind(self.isa.dot_saturating_pairs(accumulators[j], u8, s8))
        channels = min(size, spec.in_channels)
        order = self.isa.interleaved_order(block.vectors)
        emit(self.epilogue.parts([accumulators], first_lane, self.out, [address], channels, order=order))


def _registers(pieces: list[Expr], vectors: int, size: int) -> list[Expr]:
    """Returns interleaved pieces as whole registers of `size` bytes, several pieces to each if they are smaller."""
    if vectors == len(pieces):
        return pieces
    each = len(pieces) // vectors
    lanes = [T.int32(lane) for lane in range(size)]
    return [T.bind(T.Shuffle(pieces[j * each : (j + 1) * each], lanes)) for j in range(vectors)]
