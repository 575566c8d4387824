"""torch.grid_sample(codes, grid): quint8 codes interpolated at run-time places, as PyTorch's quantized kernel does.

Source: aten/src/ATen/native/GridSampler.cpp _grid_sampler_2d_cpu_quantized; GridSampler.h for the coordinates. The file
is compiled without fused multiply-adds, so each product is rounded; fences keep LLVM from contracting them.
"""

from __future__ import annotations

import math
from typing import Any

from qtorch_relay._tvm import IRBuilder, PrimFunc, T, TensorType, relax, tvm
from qtorch_relay.dimensions import is_fixed
from qtorch_relay.tir.functions import variable
from qtorch_relay.tir.math import f32, f64, fma, rounded_product
from qtorch_relay.tir.ops import call_tir_op, define_tir_op

Expr = Any
ZEROS, BORDER, REFLECTION = range(3)


def grid_sample(codes: Expr, grid: Expr, *, zero_point: int, padding: int, align_corners: bool) -> Expr:
    """Returns codes [N, C, H, W] interpolated at grid [N, h, w, (x, y)] of float32, from -1 to 1 across the map.

    padding: what lies outside: ZEROS (the zero point), BORDER or REFLECTION. align_corners: -1 and 1 are the centers of
    the outermost elements, else their outer edges.
    """
    return call_tir_op(
        "torch.grid_sample", [codes, grid], zero_point=zero_point, padding=padding, align_corners=align_corners
    )


def _place(coordinate: Expr, size: Expr, padding: int, align_corners: bool) -> Expr:
    """Returns the place on an axis of this int64 size that a coordinate means, in elements."""
    last = T.Cast("float32", size - 1)
    if align_corners:
        place = _kept(rounded_product((coordinate + f32(1)) / f32(2), last))
    else:
        place = _kept((rounded_product(coordinate + f32(1), T.Cast("float32", size)) - f32(1)) / f32(2))
    if padding == REFLECTION:
        low, high = (T.int64(0), 2 * (size - 1)) if align_corners else (T.int64(-1), 2 * size - 1)
        place = _kept(_reflected(place, low, high))
    if padding in (BORDER, REFLECTION):
        # std::min(last, std::max(place, 0)): NaN becomes last
        place = _kept(T.Select(place < f32(0), f32(0), place))
        place = _kept(T.Select(place < last, place, last))
    return place


def _kept(value: Expr) -> Expr:
    """Returns a value that is computed once: TVM's passes put the expression of a binding wherever it is used."""
    place = variable(str(value.ty.dtype))
    T.buffer_store(place, value, [0])
    return place[0]


def _reflected(place: Expr, twice_low: Expr, twice_high: Expr) -> Expr:
    """Returns a place reflected at both ends until it lies between them."""
    low = _kept(T.Cast("float32", twice_low) / f32(2))
    span = _kept(T.Cast("float32", twice_high - twice_low) / f32(2))
    distance = _kept(T.fabs(place - low))
    # PyTorch takes the parity of an int32 of this quotient; what fits none is even as a float, and as INT_MIN
    flips = _kept(T.floor(distance / span))
    is_even = flips - f32(2) * T.floor(flips / f32(2)) == f32(0)
    extra = _kept(_remainder(distance, span))
    return T.Select(twice_low == twice_high, f32(0), T.Select(is_even, extra + low, span - extra + low))


def _remainder(value: Expr, divisor: Expr) -> Expr:
    """Returns C's fmod of two positive float32 numbers, which is exact, as this is.

    In steps whose quotients stay under 2**53: each is a whole number that float64 holds, at most one too large, and
    what is left of value is a float64 too, so that fma rounds nothing.
    """
    rest = _kept(T.Cast("float64", value))
    for scale in (2.0**100, 2.0**50, 1.0):
        unit = _kept(T.Cast("float64", divisor) * f64(scale))
        left = _kept(fma(-T.trunc(rest / unit), unit, rest))
        rest = _kept(T.Select(left < f64(0), left + unit, left))
    return T.Cast("float32", rest)


def _build(
    codes_shape: list[Any], grid_shape: list[Any], zero_point: int, padding: int, align_corners: bool
) -> PrimFunc:
    """Returns grid_sample(codes, grid, out); extents that are not fixed are variables of the function's own."""
    batch, channels, rows, columns = _extents(codes_shape, "codes")
    _, height, width, two = [batch, *_extents(grid_shape, "grid")[1:]]
    with IRBuilder() as builder, T.prim_func():
        T.func_name("grid_sample")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8})
        handles = [T.arg(name, T.handle()) for name in ("codes", "grid", "out")]
        codes = T.match_buffer(handles[0], (batch, channels, rows, columns), "uint8")
        grid = T.match_buffer(handles[1], (batch, height, width, two), "float32")
        out = T.match_buffer(handles[2], (batch, channels, height, width), "uint8")
        with T.parallel(0, math.prod([batch, height])) as line, T.serial(0, width) as w:
            n, h = T.floordiv(line, height), T.floormod(line, height)
            x, y = (
                _place(grid[n, h, w, i], T.Cast("int64", size), padding, align_corners)
                for i, size in ((0, columns), (1, rows))
            )
            _emit_place(codes, out, (n, h, w), x, y, zero_point)
    return builder.get()


def _emit_place(codes: Any, out: Any, where: tuple[Expr, Expr, Expr], x: Expr, y: Expr, zero_point: int) -> None:
    """Emits the codes of all channels at one place."""
    n, h, w = where
    _, channels, rows, columns = codes.shape
    # NaN fails both comparisons, and is not cast. PyTorch casts, and its sums of what comes of it fit no int32 either:
    # their lowest byte is 0, as for places so far away that all weights are 0.
    near = [T.bind(T.And(place <= f32(2.0**62), place >= f32(-(2.0**62)))) for place in (x, y)]
    left, top = (
        _kept(T.Cast("int64", T.Select(is_near, T.floor(place), f32(0))))
        for is_near, place in zip(near, (x, y), strict=True)
    )
    right, bottom = left + T.int64(1), top + T.int64(1)
    to_right, to_bottom = _kept(T.Cast("float32", right) - x), _kept(T.Cast("float32", bottom) - y)
    to_left, to_top = _kept(x - T.Cast("float32", left)), _kept(y - T.Cast("float32", top))
    corners = [
        (row, column, _kept(rounded_product(across, down)))
        for row, column, across, down in (
            (top, left, to_right, to_bottom),
            (top, right, to_left, to_bottom),
            (bottom, left, to_right, to_top),
            (bottom, right, to_left, to_top),
        )
    ]
    with T.serial(0, channels) as c:
        total = None
        for row, column, weight in corners:
            inside = T.And(T.And(row >= 0, row < rows), T.And(column >= 0, column < columns))
            # not Select, which reads both
            code = T.if_then_else(inside, T.Cast("float32", codes[n, c, row, column]), f32(zero_point))
            share = _kept(rounded_product(code, weight))
            total = share if total is None else _kept(total + share)
        code = T.Select(T.And(*near), T.nearbyint(total), f32(0))
        T.buffer_store(out, T.Cast("uint8", T.Cast("int32", code)), [n, c, h, w])


def _extents(shape: list[Any], name: str) -> list[Any]:
    return [int(size) if is_fixed(size) else tvm.tirx.Var(f"{name}{i}", "int64") for i, size in enumerate(shape)]


def _infer(call: Any, _builder: Any) -> Any:
    (batch, channels, _, _), (_, height, width, _) = (argument.ty.shape.values for argument in call.args)
    return TensorType([batch, channels, height, width], "uint8")


def _legalize(builder: Any, call: Any) -> Expr:
    codes_shape, grid_shape = (list(argument.ty.shape.values) for argument in call.args)
    function = _build(
        codes_shape,
        grid_shape,
        zero_point=int(call.attrs["zero_point"]),
        padding=int(call.attrs["padding"]),
        align_corners=bool(call.attrs["align_corners"]),
    )
    kernel = builder.add_func(function.without_attr("global_symbol"), "grid_sample")
    return relax.call_tir(kernel, list(call.args), call.ty)


define_tir_op("torch.grid_sample", "codes interpolated at run-time places", ("codes", "grid"), _infer, _legalize)
