"""The scale and zero point of a float tensor chosen when the program runs, and its codes with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qtorch_relay._tvm import PrimFunc, T
from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicQuantizeSpec
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.pointwise import CodeWriter, Place, consecutive, round_to_s32
from qtorch_relay.kernels.tir import (
    Buffer,
    Expr,
    fma,
    get,
    lanes_of,
    load,
    pick,
    prim_func,
    put,
    registers,
    rounded_product,
    splat,
    store,
    vector,
)
from qtorch_relay.qparams import code_range
from qtorch_relay.tir.qparams import scale_as, scale_of, zero_point_of

RUNS = 4
"""Vectors compared side by side: a minimum takes 4 cycles, two of them start in each."""


def build_choose_qparams(isa: Isa, spec: ChooseQparamsSpec) -> PrimFunc:
    """Returns choose_qparams(x, scale, zero_point): numerics.dynamic.choose_scale of the range of x and 0.

    NaN is skipped. Which zero is found does not matter: the range is compared with 0 and divided, never printed.
    """

    def body(x: Buffer, scale: Buffer, zero_point: Buffer) -> None:
        # variables of their own: TVM's simplifier binds the variable of a let once more where it sees through others
        ends = registers(2, "float32")
        for end, value in zip(ends, _range(isa, x, math.prod(spec.shape)), strict=True):
            put(end, value)
        low, high = (get(end) for end in ends)
        steps = spec.quant_max - spec.quant_min
        store(scale, scale_as(scale_of(low, high, steps), spec.arithmetic), 0, 1)
        store(zero_point, zero_point_of(low, high, spec.quant_min, spec.quant_max), 0, 1)

    outputs = [(name, shape, dtype) for name, (shape, dtype) in zip(("scale", "zero_point"), spec.outputs, strict=True)]
    return prim_func("choose_qparams", [("x", spec.shape, "float32"), *outputs], body)


def _range(isa: Isa, x: Buffer, size: int) -> tuple[Expr, Expr]:
    """Returns the least and the greatest of 0 and so many elements."""
    lanes = isa.LANES if size >= isa.LANES else 1
    runs = RUNS if size >= RUNS * lanes and lanes > 1 else 1
    lows, highs = (registers(runs, vector("float32", lanes)) for _ in range(2))
    for variable in (*lows, *highs):
        put(variable, splat(T.float32(0), lanes))
    block = runs * lanes
    if size:
        with T.serial(0, -(-size // block)) as index:
            # the last block begins early: to see an element twice changes nothing
            start = T.bind(T.min(index * block, size - block) if size % block else index * block)
            for run, (low, high) in enumerate(zip(lows, highs, strict=True)):
                value = T.bind(load(x, start + run * lanes, lanes))
                # a minimum is its second operand where one is NaN
                put(low, T.min(value, get(low)))
                put(high, T.max(value, get(high)))
    return _folded(lows, T.min), _folded(highs, T.max)


def _folded(variables: list[Buffer], choose: Any) -> Expr:
    """Returns the one number that choose makes of all lanes of some vectors."""
    value = get(variables[0])
    for variable in variables[1:]:
        value = choose(get(variable), value)
    value = T.bind(value)
    while (lanes := lanes_of(value)) > 1:
        halves = range(lanes // 2), range(lanes // 2, lanes)
        value = T.bind(choose(*(pick(value, half) for half in halves)))
    return value


def why_not_dynamic_quantize(spec: DynamicQuantizeSpec) -> str | None:
    """Returns why this kernel does not take a spec, or None."""
    if spec.arithmetic == "rounded" and spec.out_dtype != "uint8":
        return "rounded twice NaN becomes 0, which is the lowest code of uint8 only"
    return None


def build_dynamic_quantize(isa: Isa, spec: DynamicQuantizeSpec) -> PrimFunc:
    """Returns quantize(x, scale, zero_point, out): clamp(rne(x * (1 / scale) + zero point)), in one rounding or two.

    fused: NaN becomes the highest code. rounded: NaN becomes 0.
    """
    low, high = code_range(spec.out_dtype)

    def body(x: Buffer, scale: Buffer, zero_point: Buffer, out: Buffer) -> None:
        inverse = T.bind(T.float32(1) / scale[0])
        shift = T.bind(T.Cast("float32", zero_point[0]))

        def quantized(place: Place) -> Expr:
            real, lanes = place.load(x), place.size
            if spec.arithmetic == "fused":
                value = fma(real, splat(inverse, lanes), splat(shift, lanes))
            else:
                number = T.max(real, splat(T.float32(-np.inf), lanes))
                value = rounded_product(number, splat(inverse, lanes)) + splat(shift, lanes)
            # a minimum is its second operand where one is NaN
            value = T.max(T.min(value, splat(T.float32(high), lanes)), splat(T.float32(low), lanes))
            return round_to_s32(isa, value, lanes)

        writer = CodeWriter(isa, out, spec.out_dtype, None, T.int32(low), T.int32(high), consecutive(isa))
        writer.range(math.prod(spec.shape), quantized)

    arguments = [
        ("x", spec.shape, "float32"),
        ("scale", (), "float32"),
        ("zero_point", (), "int32"),
        ("out", spec.out_shape, spec.out_dtype),
    ]
    return prim_func("quantize_dynamic", arguments, body)
