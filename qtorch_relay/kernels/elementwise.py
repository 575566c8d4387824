"""Quantize, dequantize, add and mul; the formulas are those of qtorch_relay.numerics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.engine_constants import fixed_point_add_factors, mul_multiplier
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.pointwise import MIN_CHUNK_SIZE, CodeWriter, Place, consecutive, round_to_s32, splat_at
from qtorch_relay.kernels.pointwise_spec import AddSpec, DequantizeSpec, FixedAddSpec, MulSpec, QuantizeSpec
from qtorch_relay.kernels.store_lanes import store_lanes
from qtorch_relay.kernels.tir import Buffer, Expr, fma, load, prim_func, rounded_product, splat, store, vector
from qtorch_relay.qparams import PerTensor, code_range

F32 = np.float32
Arrays = list[npt.NDArray[Any]]


def build_quantize(isa: Isa, spec: QuantizeSpec) -> PrimFunc:
    """Returns quantize(x, factors, out): clamp(rne(fma(x, 1 / scale, zero point))), NaN gives the highest code."""
    low, high = code_range(spec.out_dtype)

    def quantized(x: Expr, factors: Buffer, lanes: int) -> Expr:
        value = fma(x, splat_at(factors, 0, lanes), splat_at(factors, 1, lanes))
        # a minimum is its second operand where one is NaN
        value = T.max(T.min(value, splat(T.float32(high), lanes)), splat(T.float32(low), lanes))
        return round_to_s32(isa, value, lanes)

    def flat(x: Buffer, factors: Buffer, out: Buffer) -> None:
        writer = CodeWriter(isa, out, spec.out_dtype, None, T.int32(low), T.int32(high), consecutive(isa))
        writer.range(
            math.prod(spec.shape),
            lambda place: quantized(place.load(x), factors, place.size),
        )

    def to_channels_last(x: Buffer, factors: Buffer, out: Buffer) -> None:
        _, channels, height, width = spec.shape
        pixels = height * width
        loop = T.parallel if math.prod(spec.shape) >= 2 * MIN_CHUNK_SIZE else T.serial
        with loop(0, spec.shape[0] * height) as row:
            image, first = T.bind(row // height), T.bind(row % height * width)
            planes = T.bind(image * (channels * pixels) + first)

            def codes(column: Expr, lanes: int) -> list[Expr]:
                return [
                    quantized(load(x, planes + channel * pixels + column, lanes), factors, lanes)
                    for channel in range(channels)
                ]

            start = T.bind((image * pixels + first) * channels)
            whole = width // isa.LANES * isa.LANES if channels <= MAX_INTERLEAVED else 0
            if whole:
                with T.serial(0, whole // isa.LANES) as block:
                    column = T.bind(block * isa.LANES)
                    _store_interleaved(isa, out, codes(column, isa.LANES), start + column * channels, spec.out_dtype)
            if whole < width:
                with T.serial(whole, width) as column, T.serial(0, channels) as channel:
                    code = quantized(load(x, planes + channel * pixels + column, 1), factors, 1)
                    store(out, T.Cast(spec.out_dtype, code), start + column * channels + channel, 1)

    arguments = [
        ("x", spec.shape, "float32"),
        ("factors", (2,), "float32"),
        ("out", spec.out_shape, spec.out_dtype),
    ]
    return prim_func("quantize", arguments, to_channels_last if spec.channels_last else flat)


MAX_INTERLEAVED = 4
"""Most channels whose bytes are interleaved in a register: one int32 lane holds a pixel."""


def _store_interleaved(isa: Isa, out: Buffer, channels: list[Expr], address: Expr, dtype: str) -> None:
    """Writes the codes of 16 pixels, the channels of each side by side."""
    lanes = isa.LANES
    pixels = T.bitwise_and(channels[0], splat(T.int32(255), lanes))
    for index, channel in enumerate(channels[1:], 1):
        byte = T.bitwise_and(channel, splat(T.int32(255), lanes))
        pixels = T.bitwise_or(pixels, T.shift_left(byte, splat(T.int32(8 * index), lanes)))
    every_byte = T.bind(T.reinterpret(vector(dtype, 4 * lanes), pixels))
    kept = [4 * lane + byte for lane in range(lanes) for byte in range(len(channels))]
    store_lanes(out, every_byte, kept, address)


def pack_quantize(spec: QuantizeSpec, qparams: PerTensor) -> Arrays:
    """Returns [factors f32 [2]]: 1 / scale, zero point."""
    return [np.array([F32(1) / F32(qparams.scale), qparams.zero_point], F32)]


def build_dequantize(isa: Isa, spec: DequantizeSpec) -> PrimFunc:
    """Returns dequantize(x, factors, out): scale * float(x - zero point)."""

    def body(x: Buffer, factors: Buffer, out: Buffer) -> None:
        def real(index: Expr, lanes: int) -> Expr:
            centered = Place(index, tuple(range(lanes)), lanes).floats(x) - splat_at(factors, 1, lanes)
            return centered * splat_at(factors, 0, lanes)

        size, lanes = math.prod(spec.shape), isa.LANES
        if size >= lanes:
            with T.serial(0, -(-size // lanes)) as block:
                index = T.bind(T.min(block * lanes, size - lanes))
                store(out, real(index, lanes), index, lanes)
        else:
            with T.serial(0, size) as index:
                store(out, real(index, 1), index, 1)

    arguments = [("x", spec.shape, spec.in_dtype), ("factors", (2,), "float32"), ("out", spec.shape, "float32")]
    return prim_func("dequantize", arguments, body)


def pack_dequantize(spec: DequantizeSpec, qparams: PerTensor) -> Arrays:
    """Returns [factors f32 [2]]: scale, zero point."""
    return [np.array([qparams.scale, qparams.zero_point], F32)]


def build_add(isa: Isa, spec: AddSpec) -> PrimFunc:
    """Returns add(lhs, rhs, factors, codes, out); see numerics.add_f32_fma and add_f32_scalar."""

    def body(lhs: Buffer, rhs: Buffer, factors: Buffer, codes: Buffer, out: Buffer) -> None:
        def fused(place: Place) -> Expr:
            sa, za, sb, zb, inverse = (splat_at(factors, i, place.size) for i in range(5))
            total = fma(sa, place.floats(lhs), za) + fma(sb, place.floats(rhs), zb)
            return round_to_s32(isa, total * inverse, place.size)

        def scalar(place: Place) -> Expr:
            sa, _, sb, _, inverse, za, zb, zero_point = (splat_at(factors, i, place.size) for i in range(8))
            left = rounded_product(place.floats(lhs) - za, sa)
            right = rounded_product(place.floats(rhs) - zb, sb)
            return round_to_s32(isa, rounded_product(left + right, inverse) + zero_point, place.size)

        CodeWriter(isa, out, spec.dtype, codes[0], codes[1], codes[2]).range(spec.vector_size, fused)
        CodeWriter(isa, out, spec.dtype, None, codes[1], codes[2]).range(
            math.prod(spec.shape), scalar, spec.vector_size
        )

    arguments = [
        ("lhs", spec.shape, spec.dtype),
        ("rhs", spec.shape, spec.dtype),
        ("factors", (8,), "float32"),
        ("codes", (3,), "int32"),
        ("out", spec.shape, spec.dtype),
    ]
    return prim_func("add", arguments, body)


def pack_add(
    spec: AddSpec, lhs: PerTensor, rhs: PerTensor, out: PerTensor, low: int | None = None, high: int | None = None
) -> Arrays:
    """Returns [factors f32 [8], codes s32 [3]]: sa, sa * -za, sb, sb * -zb, 1 / sy, za, zb, zy; zy, low, high.

    low, high: a clamp of the codes within the dtype's range; low = zy is a relu.
    """
    left, right = F32(lhs.scale), F32(rhs.scale)
    _check_steps("add", 255 * (lhs.scale + rhs.scale) / out.scale)
    factors = [left, left * F32(-lhs.zero_point), right, right * F32(-rhs.zero_point), F32(1) / F32(out.scale)]
    return [np.array([*factors, lhs.zero_point, rhs.zero_point, out.zero_point], F32), _codes(out, low, high)]


def _check_steps(op: str, steps: float) -> None:
    """Raises UnsupportedQuantSchemeError if an op can reach so many steps of its output scale that int32 overflows."""
    if not steps < 2.0**30:
        raise UnsupportedQuantSchemeError(
            f"{op} can reach {steps:.3g} steps of its output scale, more than the 2^30 an int8 kernel computes "
            "exactly; check the output scale, or compile with target 'generic'"
        )


def _codes(out: PerTensor, low: int | None, high: int | None) -> npt.NDArray[np.int32]:
    """Returns zero point, lowest and highest code."""
    least, greatest = code_range(out.dtype)
    return np.array([out.zero_point, least if low is None else low, greatest if high is None else high], np.int32)


def build_fixed_add(isa: Isa, spec: FixedAddSpec) -> PrimFunc:
    """Returns fixed_add(lhs, rhs, factors, codes, out); see numerics.add_fixed_point."""

    def body(lhs: Buffer, rhs: Buffer, factors: Buffer, codes: Buffer, out: Buffer) -> None:
        def value(place: Place) -> Expr:
            lanes = place.size
            left_point, right_point, left_factor, right_factor = (splat(factors[i], lanes) for i in range(4))
            shift, mask, threshold = (splat(factors[i], lanes) for i in range(4, 7))
            left, right = place.codes(lhs) - left_point, place.codes(rhs) - right_point
            # |255 * 2^22 + 255 * 2^22| < 2^31
            total = T.bind(left * left_factor + right * right_factor)
            sign = T.shift_right(total, splat(T.int32(31), lanes))
            # the remainder is lowered by 1 below zero: ties go away from zero
            remainder = T.bitwise_and(total, mask) + sign
            up = T.Cast(vector("int32", lanes), remainder > threshold)
            return T.shift_right(total, shift) + up

        CodeWriter(isa, out, spec.dtype, codes[0], codes[1], codes[2]).range(math.prod(spec.shape), value)

    arguments = [
        ("lhs", spec.shape, spec.dtype),
        ("rhs", spec.shape, spec.dtype),
        ("factors", (7,), "int32"),
        ("codes", (3,), "int32"),
        ("out", spec.shape, spec.dtype),
    ]
    return prim_func("fixed_add", arguments, body)


def pack_fixed_add(
    spec: FixedAddSpec, lhs: PerTensor, rhs: PerTensor, out: PerTensor, low: int | None = None, high: int | None = None
) -> Arrays:
    """Returns [factors s32 [7], codes s32 [3]]: za, zb, both multipliers, shift, mask, threshold; zy, low, high."""
    fixed = fixed_point_add_factors(lhs.scale, rhs.scale, out.scale)
    mask = (1 << fixed.shift) - 1
    factors = [lhs.zero_point, rhs.zero_point, fixed.lhs_multiplier, fixed.rhs_multiplier, fixed.shift, mask, mask >> 1]
    return [np.array(factors, np.int32), _codes(out, low, high)]


def build_mul(isa: Isa, spec: MulSpec) -> PrimFunc:
    """Returns mul(lhs, rhs, factors, codes, out); see numerics.mul_f32."""

    def body(lhs: Buffer, rhs: Buffer, factors: Buffer, codes: Buffer, out: Buffer) -> None:
        def product(left: Place, right: Place) -> Expr:
            lanes = left.size
            # |qa - za| * |qb - zb| <= 255 * 255 < 2^24: exact in f32
            exact = (left.floats(lhs) - splat_at(factors, 0, lanes)) * (right.floats(rhs) - splat_at(factors, 1, lanes))
            return round_to_s32(isa, exact * splat_at(factors, 2, lanes), lanes)

        writer = CodeWriter(isa, out, spec.dtype, codes[0], codes[1], codes[2])
        if not spec.per_channel:
            writer.range(math.prod(spec.shape), lambda place: product(place, place))
            return
        batch, height, width, channels = spec.shape
        loop = T.parallel if math.prod(spec.shape) >= 2 * MIN_CHUNK_SIZE else T.serial
        with loop(0, batch * height) as row, T.serial(0, width) as column:
            start = T.bind((row * width + column) * channels)
            right = T.bind(row // height * channels - start)
            writer.row(start, channels, lambda place: product(place, place.moved(right)))

    arguments = [
        ("lhs", spec.shape, spec.dtype),
        ("rhs", spec.rhs_shape, spec.dtype),
        ("factors", (3,), "float32"),
        ("codes", (3,), "int32"),
        ("out", spec.shape, spec.dtype),
    ]
    return prim_func("mul", arguments, body)


def pack_mul(
    spec: MulSpec, lhs: PerTensor, rhs: PerTensor, out: PerTensor, low: int | None = None, high: int | None = None
) -> Arrays:
    """Returns [factors f32 [3], codes s32 [3]]: za, zb, multiplier; zy, low, high."""
    multiplier = mul_multiplier(lhs.scale, rhs.scale, out.scale)
    _check_steps("mul", 255 * 255 * float(multiplier))
    return [np.array([lhs.zero_point, rhs.zero_point, multiplier], F32), _codes(out, low, high)]
