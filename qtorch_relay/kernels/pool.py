"""Maximum and average pooling of NHWC codes, vectors of channels at a time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.pointwise import MIN_CHUNK_SIZE, CodeWriter, Place, block_size, places, round_to_s32
from qtorch_relay.kernels.pool_spec import AvgPool2dSpec, MaxPool2dSpec
from qtorch_relay.kernels.tir import (
    Buffer,
    Expr,
    fma,
    get,
    load,
    prim_func,
    put,
    registers,
    rounded_product,
    splat,
    store,
    vector,
)
from qtorch_relay.numerics.core import fma_f32
from qtorch_relay.qparams import code_range

MAX_TAPS = 64
"""Most pixels of a maximum's window, and of a sum's within the image: their code is unrolled over them."""


def why_not_max_pool2d(spec: MaxPool2dSpec) -> str | None:
    """Returns why this kernel does not take a spec, or None."""
    taps = math.prod(spec.kernel)
    return None if taps <= MAX_TAPS else f"its window has {taps} pixels; accepted are at most {MAX_TAPS}"


def why_not_avg_pool2d(spec: AvgPool2dSpec) -> str | None:
    """Returns why this kernel does not take a spec, or None."""
    if spec.dilation != (1, 1) or spec.ceil_mode:
        return "it has a dilation or ceil_mode; accepted are neither"
    # sums of codes and of centered codes are exact in f32 below 2^24
    if math.prod(spec.kernel) * 255 >= 1 << 24:
        return f"its window has {math.prod(spec.kernel)} pixels; accepted are fewer than 2^24 / 255"
    return None


def _loop(spec: MaxPool2dSpec | AvgPool2dSpec) -> Any:
    """Returns the loop over output rows: parallel if there is enough to do."""
    work = math.prod(spec.out_shape) * math.prod(spec.kernel)
    return T.parallel if work >= 4 * MIN_CHUNK_SIZE else T.serial


def build_max_pool2d(isa: Isa, spec: MaxPool2dSpec) -> PrimFunc:
    """Returns max_pool2d(x, out)."""
    lowest = code_range(spec.dtype)[0]
    pointwise = _windows_meet_image(spec)

    def body(x: Buffer, out: Buffer) -> None:
        with _loop(spec)(0, spec.batch * spec.out_h) as row, T.serial(0, spec.out_w) as column:
            first_row = row % spec.out_h * spec.stride[0] - spec.padding[0]
            first_column = column * spec.stride[1] - spec.padding[1]
            rows = [T.bind(first_row + tap * spec.dilation[0]) for tap in range(spec.kernel[0])]
            columns = [T.bind(first_column + tap * spec.dilation[1]) for tap in range(spec.kernel[1])]
            row_starts = [T.bind((row // spec.out_h * spec.in_h + _nearest(r, spec.in_h)) * spec.in_w) for r in rows]
            nearest = [T.bind(_nearest(c, spec.in_w)) for c in columns]
            out_start = T.bind((row * spec.out_w + column) * spec.channels)

            def maximum(channel: Expr, lanes: int) -> None:
                best = None
                for r, start in zip(rows, row_starts, strict=True):
                    for c, place in zip(columns, nearest, strict=True):
                        codes = load(x, (start + place) * spec.channels + channel, lanes)
                        if not pointwise:
                            inside = T.And(T.And(r >= 0, r < spec.in_h), T.And(c >= 0, c < spec.in_w))
                            codes = T.Select(inside, codes, splat(T.Cast(spec.dtype, T.int32(lowest)), lanes))
                        best = codes if best is None else T.max(best, codes)
                store(out, best, out_start + channel, lanes)

            whole = block_size(isa)
            lanes = next((size for size in (whole, whole // 2, whole // 4) if size <= spec.channels), 1)
            with T.serial(0, -(-spec.channels // lanes)) as block:
                maximum(T.bind(T.min(block * lanes, spec.channels - lanes)), lanes)

    arguments = [("x", spec.in_shape, spec.dtype), ("out", spec.out_shape, spec.dtype)]
    return prim_func("max_pool2d", arguments, body)


def _nearest(index: Expr, size: int) -> Expr:
    """Returns the index inside the image next to an index."""
    return T.max(0, T.min(index, size - 1))


def _windows_meet_image(spec: MaxPool2dSpec) -> bool:
    """Says whether each tap outside the image may be replaced by the nearest pixel inside.

    It may if that pixel is a tap too: windows without gaps that reach into the image.
    """
    starts = [(spec.in_h, spec.out_h, 0), (spec.in_w, spec.out_w, 1)]
    return spec.dilation == (1, 1) and all(
        spec.padding[axis] < spec.kernel[axis] and (length - 1) * spec.stride[axis] - spec.padding[axis] < size
        for size, length, axis in starts
    )


def pack_max_pool2d(spec: MaxPool2dSpec) -> list[npt.NDArray[Any]]:
    """Returns no constants."""
    return []


def max_pool2d_reference(spec: MaxPool2dSpec, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the greatest code of each window."""
    out = np.full(spec.out_shape, code_range(spec.dtype)[0], spec.dtype)
    for row in range(spec.out_h):
        for column in range(spec.out_w):
            rows = row * spec.stride[0] - spec.padding[0] + np.arange(spec.kernel[0]) * spec.dilation[0]
            columns = column * spec.stride[1] - spec.padding[1] + np.arange(spec.kernel[1]) * spec.dilation[1]
            rows, columns = rows[(rows >= 0) & (rows < spec.in_h)], columns[(columns >= 0) & (columns < spec.in_w)]
            if rows.size and columns.size:
                out[:, row, column] = x[:, rows][:, :, columns].max((1, 2))
    return out


def build_avg_pool2d(isa: Isa, spec: AvgPool2dSpec) -> PrimFunc:
    """Returns avg_pool2d(x, factors, codes, out)."""
    low, high = code_range(spec.dtype)

    def body(x: Buffer, factors: Buffer, codes: Buffer, out: Buffer) -> None:
        zero_point = codes[0]
        writer = CodeWriter(
            isa, out, spec.dtype, zero_point if spec.arithmetic == "scaled" else None, T.int32(low), T.int32(high)
        )
        with _loop(spec)(0, spec.batch * spec.out_h) as row, T.serial(0, spec.out_w) as column:
            out_row = T.bind(row % spec.out_h)
            first_row = T.bind(out_row * spec.stride[0] - spec.padding[0])
            first_column = T.bind(column * spec.stride[1] - spec.padding[1])
            rows = T.bind(T.max(first_row, 0)), T.bind(T.min(first_row + spec.kernel[0], spec.in_h))
            columns = T.bind(T.max(first_column, 0)), T.bind(T.min(first_column + spec.kernel[1], spec.in_w))
            pixels = T.bind((rows[1] - rows[0]) * (columns[1] - columns[0]))
            whole = T.bind(pixels == math.prod(spec.kernel))
            offset = T.bind(zero_point * pixels)
            factor = T.bind(factors[out_row * spec.out_w + column])
            image_start = T.bind(row // spec.out_h * spec.in_h)
            out_start = T.bind((row * spec.out_w + column) * spec.channels)

            def block(channel: Expr, windows: list[Place]) -> None:
                lanes = windows[0].size
                sums = (_NarrowSums if _fits_words(spec) and lanes > 1 else _Sums)(windows)

                def add(in_row: Expr, in_column: Expr) -> None:
                    sums.add(x, T.bind(((image_start + in_row) * spec.in_w + in_column) * spec.channels + channel))

                def add_what_is_inside() -> None:
                    with T.serial(rows[0], rows[1]) as in_row, T.serial(columns[0], columns[1]) as in_column:
                        add(in_row, in_column)

                if math.prod(spec.kernel) > MAX_TAPS:
                    add_what_is_inside()
                else:
                    with T.If(whole):
                        with T.Then():
                            for tap_row, tap_column in itertools.product(*map(range, spec.kernel)):
                                add(first_row + tap_row, first_column + tap_column)
                        with T.Else():
                            add_what_is_inside()
                values = [_mean(isa, spec, total, offset, factor, zero_point, lanes) for total in sums.totals()]
                if lanes == 1:
                    writer.write_one(out_start + channel, values[0])
                else:
                    writer.write(out_start + channel, values)

            if spec.channels < isa.LANES:
                with T.serial(0, spec.channels) as channel:
                    block(channel, [Place(0)])
                return
            vectors = min(spec.channels, block_size(isa)) // isa.LANES
            size = vectors * isa.LANES
            with T.serial(0, -(-spec.channels // size)) as index:
                block(T.bind(T.min(index * size, spec.channels - size)), places(writer.order(vectors), 0))

    arguments = [
        ("x", spec.in_shape, spec.dtype),
        ("factors", (spec.out_h * spec.out_w,), "float32"),
        ("codes", (1,), "int32"),
        ("out", spec.out_shape, spec.dtype),
    ]
    return prim_func("avg_pool2d", arguments, body)


class _Sums:
    """The sums of the codes of windows, in vectors of int32."""

    def __init__(self, windows: list[Place]) -> None:
        """windows: the vectors of codes of one pixel."""
        self.windows = windows
        self.sums = registers(len(windows), vector("int32", windows[0].size))
        for total in self.sums:
            put(total, splat(T.int32(0), windows[0].size))

    def add(self, x: Buffer, start: Expr) -> None:
        """Adds the pixel whose codes begin at start."""
        for total, place in zip(self.sums, self.windows, strict=True):
            put(total, get(total) + place.moved(start).codes(x))

    def totals(self) -> list[Expr]:
        """Returns the sums, a vector for each of the windows."""
        return [get(total) for total in self.sums]


class _NarrowSums:
    """The same in 16 bits, twice as many to a register, for windows whose sums fit; see _fits_words.

    A register of codes is taken as words, even + 256 * odd. Their sum modulo 2^16, less 256 times the sum of the odd
    codes, is the sum of the even ones: three operations a register, and no byte moves to another lane.
    """

    def __init__(self, windows: list[Place]) -> None:
        """windows: the vectors of codes of one pixel."""
        self.windows = windows
        # several places are picked from one run of codes
        runs = dict.fromkeys((int(place.index), place.count) for place in windows)
        self.runs = {run: registers(2, vector("uint16", run[1] // 2)) for run in runs}
        for (_, count), sums in self.runs.items():
            for total in sums:
                put(total, splat(T.uint16(0), count // 2))

    def add(self, x: Buffer, start: Expr) -> None:
        """Adds the pixel whose codes begin at start."""
        for (first, count), (words, odd) in self.runs.items():
            pair = T.bind(T.reinterpret(vector("uint16", count // 2), load(x, start + first, count)))
            put(words, get(words) + pair)
            put(odd, get(odd) + T.shift_right(pair, splat(T.uint16(8), count // 2)))

    def totals(self) -> list[Expr]:
        """Returns the sums, a vector of int32 for each of the windows."""
        halves = {}
        for (first, count), (words, odd) in self.runs.items():
            even = T.bind(get(words) - T.shift_left(get(odd), splat(T.uint16(8), count // 2)))
            halves[first, count] = [even, get(odd)]
        found = []
        for place in self.windows:
            lanes = [lane % 2 * (place.count // 2) + lane // 2 for lane in place.lanes]
            picked = T.Shuffle(halves[int(place.index), place.count], [T.int32(lane) for lane in lanes])
            found.append(T.Cast(vector("int32", place.size), picked))
        return found


def _fits_words(spec: AvgPool2dSpec) -> bool:
    """Says whether the sum of any window of uint8 fits 16 bits."""
    return spec.dtype == "uint8" and math.prod(spec.kernel) * 255 < 1 << 16


def _mean(isa: Isa, spec: AvgPool2dSpec, total: Expr, offset: Expr, factor: Expr, zero_point: Expr, lanes: int) -> Expr:
    """Returns the mean of windows as rounded int32."""
    scale = splat(factor, lanes)
    shift = splat(T.Cast("float32", zero_point), lanes)
    plain = T.Cast(vector("float32", lanes), total)
    centered = T.Cast(vector("float32", lanes), total - splat(offset, lanes))
    value = {
        "codes": lambda: plain * scale,
        "quotient": lambda: plain / scale,
        "scaled": lambda: centered * scale,
        "scaled_shifted": lambda: rounded_product(centered, scale) + shift,
        "fused": lambda: fma(centered, scale, shift),
    }[spec.arithmetic]()
    return round_to_s32(isa, value, lanes)


def pack_avg_pool2d(spec: AvgPool2dSpec, factor: npt.ArrayLike, zero_point: int) -> list[npt.NDArray[Any]]:
    """Returns [factors f32 [out_h * out_w], codes s32 [1]]; factor is one number or [out_h, out_w]."""
    factors = np.broadcast_to(np.asarray(factor, np.float32), (spec.out_h, spec.out_w))
    return [np.ascontiguousarray(factors).reshape(-1), np.array([zero_point], np.int32)]


def avg_pool2d_reference(
    spec: AvgPool2dSpec, x: npt.NDArray[Any], factor: npt.ArrayLike, zero_point: int
) -> npt.NDArray[Any]:
    """Returns the means as AvgPool2dSpec defines them."""
    factors = np.broadcast_to(np.asarray(factor, np.float32), (spec.out_h, spec.out_w))
    shift = np.float32(zero_point)
    out = np.zeros(spec.out_shape, np.float64)
    for row in range(spec.out_h):
        for column in range(spec.out_w):
            first_row = row * spec.stride[0] - spec.padding[0]
            first_column = column * spec.stride[1] - spec.padding[1]
            window = x[
                :,
                max(first_row, 0) : max(first_row + spec.kernel[0], 0),
                max(first_column, 0) : max(first_column + spec.kernel[1], 0),
            ]
            plain = window.astype(np.int64).sum((1, 2)).astype(np.float32)
            centered = (window.astype(np.int64) - zero_point).sum((1, 2)).astype(np.float32)
            scale = factors[row, column]
            if spec.arithmetic == "codes":
                mean = np.rint(plain * scale)
            elif spec.arithmetic == "quotient":
                mean = np.rint(plain / scale)
            elif spec.arithmetic == "scaled":
                mean = np.rint(centered * scale) + shift
            elif spec.arithmetic == "scaled_shifted":
                mean = np.rint(centered * scale + shift)
            else:
                mean = np.rint(
                    fma_f32(centered, np.broadcast_to(scale, centered.shape), np.broadcast_to(shift, centered.shape))
                )
            out[:, row, column] = mean
    codes: npt.NDArray[Any] = np.clip(out, *code_range(spec.dtype)).astype(spec.dtype)
    return codes
