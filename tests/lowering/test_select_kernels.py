"""What becomes a kernel, with which spec, what does not and why, and that the codes stay, tolerance 0."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from qtorch_relay import qnn
from qtorch_relay import target as targets
from qtorch_relay._tvm import PrimFunc, relax
from qtorch_relay.engine_constants import fixed_point_add_factors, mul_multiplier
from qtorch_relay.kernels import (
    AddSpec,
    AvgPool2dSpec,
    ChooseQparamsSpec,
    ConcatenateSpec,
    Conv2dAddSpec,
    Conv2dSpec,
    DenseSpec,
    DequantizeSpec,
    DynamicDenseSpec,
    DynamicQuantizeSpec,
    FixedAddSpec,
    LookupSpec,
    MaxPool2dSpec,
    MulSpec,
    PairSaturatedDepthwiseSpec,
    Piece,
    QuantizeSpec,
    select,
)
from qtorch_relay.lowering.match import KernelCall, Program
from qtorch_relay.lowering.rebuild import bindings_of, op_name, users_of
from qtorch_relay.lowering.select_kernels import MATCHERS, select_kernels
from qtorch_relay.qnn.verify import verify
from tests.lowering.build import (
    ISA,
    KERNELS,
    Arrays,
    Case,
    Emit,
    Inputs,
    assert_same_results,
    compile_all,
    constant,
    execute,
    to_codes,
)

needs_vnni = pytest.mark.skipif(
    targets.missing_on_host(targets.resolve(ISA)) is not None, reason=f"runs code for {ISA}"
)
U8_MAP: Inputs = {"x": ((2, 5, 4, 8), "uint8")}
TWO_MAPS: Inputs = {"a": ((2, 5, 4, 8), "uint8"), "b": ((2, 5, 4, 8), "uint8")}
WITH_RESIDUAL: Inputs = {"x": ((2, 5, 4, 8), "uint8"), "residual": ((2, 5, 4, 16), "uint8")}
BY_CHANNEL: Inputs = {"a": ((2, 5, 4, 8), "uint8"), "b": ((2, 1, 1, 8), "uint8")}
ROWS: Inputs = {"x": ((3, 40), "uint8")}
EVEN = {"rounding": "TONEAREST_EVEN"}
PARAMETERS = (0.03, 5, 0.05, 9, 0.08, 3)
op = relax.op


@dataclass(frozen=True)
class Selected(Case):
    """A program that becomes one call of the kernel that takes spec."""

    spec: Any = None


@dataclass(frozen=True)
class Refused(Case):
    """A program that does not become one kernel: the binding reported and a part of the reason, "" if none is.

    kernels: how many calls of each kernel there are nevertheless, by the beginning of its name.
    """

    binding: str = ""
    reason: str = ""
    kernels: dict[str, int] = field(default_factory=dict)


def _conv(x: Any, weight: Any = None, kernel_zero_point: Any = 0, **options: Any) -> Any:
    options = {"data_layout": "NHWC", "padding": (1, 1), **options}
    weight = constant(1, (6, 8 // options.get("groups", 1), 3, 3), "int8") if weight is None else weight
    channels = int(weight.ty.shape.values[3 if options.get("kernel_layout") == "HWIO" else 0])
    return qnn.conv2d(x, weight, 9, kernel_zero_point, 0.5, 0.25, (3, 3), channels, **options)


def _depthwise(x: Any, accumulation: str) -> Any:
    return _conv(x, constant(2, (8, 1, 3, 3), "int8"), groups=8, accumulation=accumulation)


def _dense(x: Any, kernel_zero_point: Any = 0, dtype: str = "int8") -> Any:
    return qnn.dense(x, constant(1, (6, 40), dtype), 9, kernel_zero_point, 0.5, 0.25, 6)


def _at_least(value: int, dtype: str = "uint8") -> Callable[[Any], Any]:
    return lambda x: op.maximum(x, relax.const(value, dtype))


def _bias(shape: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda sums: op.add(sums, constant(7, shape, "int32"))


def _codes(channels: int, **options: Any) -> Callable[[Any], Any]:
    return lambda sums: to_codes(sums, channels, **options)


def _chain(*steps: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a body: the first step from the inputs, each further one from the value before; names y0, y1, ..."""

    def body(emit: Emit, *inputs: Any) -> Any:
        value = emit(steps[0](*inputs), "y0")
        for i, step in enumerate(steps[1:], 1):
            value = emit(step(value), f"y{i}")
        return value

    return body


def _add(a: Any, b: Any, **options: Any) -> Any:
    return qnn.add(a, b, *PARAMETERS, **({"arithmetic": "float32"} | EVEN | options))


def _fixed_add(a: Any, b: Any) -> Any:
    return _add(a, b, arithmetic="fixed_point", factors=fixed_point_add_factors(0.03, 0.05, 0.08).operands())


def _mul(a: Any, b: Any) -> Any:
    factors = {"multiplier": mul_multiplier(0.03, 0.05, 0.08)}
    return qnn.mul(a, b, *PARAMETERS, arithmetic="float32", factors=factors, **EVEN)


def _square(x: Any, dtype: str = "uint8") -> Any:
    return qnn.lookup(x, ((np.arange(256) - 128) ** 2 // 129).astype(dtype), 0.5, 0, 0.5, 0, "square")


def _concatenate(a: Any, b: Any) -> Any:
    tables = np.stack([np.arange(256) // 2, 255 - np.arange(256)]).astype(np.uint8)
    return qnn.concatenate([a, b], [0.5, 0.5], [0, 0], 0.5, 0, 1, tables=tables)


def _avg_pool(x: Any, layout: str = "NHWC", arithmetic: str = "scaled") -> Any:
    return qnn.avg_pool2d(x, 0.5, 7, 0.5, 7, (2, 3), (1, 2), (0, 1), layout=layout, arithmetic=arithmetic, factor=0.17)


def _max_pool(x: Any, **options: Any) -> Any:
    return op.nn.max_pool2d(x, (2, 2), **({"layout": "NHWC"} | options))


def _quantize(x: Any, **options: Any) -> Any:
    return qnn.quantize(x, 0.05, 60, out_dtype="uint8", **({"arithmetic": "fused"} | options))


def _to_last(x: Any) -> Any:
    return op.permute_dims(x, [0, 2, 3, 1])


TOKENS: Inputs = {"x": ((2, 3, 40), "uint8"), "zero_point": ((), "int32"), "scale": ((), "float32")}
FLOAT_TOKENS: Inputs = {**TOKENS, "x": ((2, 3, 40), "float32")}
ARITHMETICS = {"fbgemm": "fused", "qnnpack": "rounded", "onednn": "real"}


def _dynamic_quantize(arithmetic: str = "fused", dtype: str = "uint8") -> Callable[..., Any]:
    return lambda emit, x, zero_point, scale: emit(
        qnn.quantize(x, scale, zero_point, out_dtype=dtype, arithmetic=arithmetic), "y0"
    )


def _dynamic_dense(engine: str, *, relu: bool = False, per_channel: bool = True, **options: Any) -> Callable[..., Any]:
    """A dense layer of run-time parameters, its sums made real in an engine's way."""

    def body(emit: Emit, x: Any, zero_point: Any, scale: Any) -> Any:
        rng = np.random.default_rng(3)
        factor = rng.uniform(0.001, 0.01, 6 if per_channel else ()).astype(np.float32)
        addend = rng.normal(0, 1, 6).astype(np.float32)
        kernel_zero_point = options.get("kernel_zero_point", 0)
        product = qnn.dense(x, constant(1, (6, 40), "int8"), zero_point, kernel_zero_point, scale, factor, 6)
        sums = emit(product, "y0")
        sum_scale = emit(op.multiply(scale, relax.const(factor, "float32")), "sum_scale")
        operands = {"addend": addend}
        if engine == "onednn":
            operands |= {"input_factor": scale, "kernel_factor": factor}
        if options.get("scale_is_given"):
            sum_scale = scale
        real = qnn.dequantize(sums, sum_scale, 0, arithmetic=ARITHMETICS[engine], factors=operands)
        y = emit(real, "y1")
        return emit(op.nn.relu(y), "y2") if relu else y

    return body


CONV_16 = (2, 5, 4, 8, 16, 3, 3, (1, 1), (1, 1, 1, 1))
CONV = Conv2dSpec(2, 5, 4, 8, 6, 3, 3, padding=(1, 1, 1, 1))
GROUPED = Conv2dSpec(2, 5, 4, 8, 6, 3, 3, (2, 1), (0, 1, 2, 1), (1, 2), 2)
DEPTHWISE = (2, 5, 4, 8, 8, 3, 3, (1, 1), (1, 1, 1, 1), (1, 1), 8, "uint8", "uint8", "accumulator")
REAL = Conv2dSpec(2, 5, 4, 8, 6, 3, 3, padding=(1, 1, 1, 1), requantize="real")
FUSED = Conv2dSpec(2, 5, 4, 8, 6, 3, 3, padding=(1, 1, 1, 1), requantize="fused")
FLOAT_MAP: Inputs = {"x": ((2, 3, 5, 4), "float32")}
S8_MAP: Inputs = {"x": ((2, 5, 4, 8), "int8")}


def _strided(x: Any) -> Any:
    return _conv(x, groups=2, strides=(2, 1), padding=(0, 1, 2, 1), dilation=(1, 2))


def _conv_16(emit: Emit, x: Any, name: str, scale: float = 0.5) -> Any:
    """Codes of 16 channels; the smaller the scale, the more steps of it the sums are."""
    sums = emit(_conv(x, constant(4, (16, 8, 3, 3), "int8")), f"{name}_sums")
    return emit(to_codes(sums, 16, out_scale=scale), name)


def _residual(first: bool, scale: float = 0.5) -> Callable[..., Any]:
    """Returns a body that adds a residual to a convolution's codes, as the first or the second operand."""

    def body(emit: Emit, x: Any, residual: Any) -> Any:
        codes = _conv_16(emit, x, "codes", scale)
        total = emit(_add(*((residual, codes) if first else (codes, residual))), "total")
        return emit(op.maximum(total, relax.const(40, "uint8")), "clamped")

    return body


def _two_convolutions(emit: Emit, x: Any) -> Any:
    return emit(_add(_conv_16(emit, x, "first"), _conv_16(emit, x, "second")), "total")


def _codes_and_their_sum(emit: Emit, x: Any, residual: Any) -> Any:
    codes = _conv_16(emit, x, "codes")
    return emit(relax.Tuple([emit(_add(codes, residual), "total"), codes]), "all")


SELECTED = (
    Selected("conv2d", U8_MAP, _chain(_conv, _codes(6)), CONV),
    Selected("conv2d_clamp", U8_MAP, _chain(_conv, _codes(6), _at_least(40)), CONV),
    Selected("conv2d_bias", U8_MAP, _chain(_conv, _bias((1, 1, 1, 6)), _codes(6)), CONV),
    Selected("conv2d_bias_clamp", U8_MAP, _chain(_conv, _bias((6,)), _codes(6, axis=3), _at_least(11)), CONV),
    Selected("conv2d_bias_of_one_number", U8_MAP, _chain(_conv, _bias(()), _codes(6)), CONV),
    Selected("conv2d_onednn", U8_MAP, _chain(_conv, _codes(6, engine="onednn")), REAL),
    Selected("conv2d_per_tensor", U8_MAP, _chain(_conv, _codes(6, per_channel=False)), FUSED),
    Selected("conv2d_grouped_strided_dilated", U8_MAP, _chain(_strided, _codes(6)), GROUPED),
    Selected("conv2d_add", WITH_RESIDUAL, _residual(first=False), Conv2dAddSpec(*CONV_16)),
    Selected("conv2d_add_to_residual", WITH_RESIDUAL, _residual(first=True), Conv2dAddSpec(*CONV_16)),
    Selected("conv2d_depthwise", U8_MAP, _chain(lambda x: _depthwise(x, "s32"), _codes(8)), Conv2dSpec(*DEPTHWISE)),
    Selected(
        "conv2d_depthwise_pairs",
        U8_MAP,
        _chain(lambda x: _depthwise(x, "s16_pairs"), _codes(8)),
        PairSaturatedDepthwiseSpec(*DEPTHWISE),
    ),
    Selected("dense", ROWS, _chain(_dense, _codes(6)), DenseSpec(3, 40, 6)),
    Selected("dense_bias_clamp", ROWS, _chain(_dense, _bias((6,)), _codes(6), _at_least(40)), DenseSpec(3, 40, 6)),
    *(
        Selected(
            f"dense_dynamic_{engine}{'_relu' if relu else ''}",
            TOKENS,
            _dynamic_dense(engine, relu=relu),
            DynamicDenseSpec((2, 3, 40), 6, arithmetic, relu),
        )
        for engine, arithmetic in ARITHMETICS.items()
        for relu in (False, True)
    ),
    Selected(
        "dense_dynamic_per_tensor",
        TOKENS,
        _dynamic_dense("fbgemm", per_channel=False),
        DynamicDenseSpec((2, 3, 40), 6),
    ),
    *(
        Selected(
            f"quantize_dynamic_{arithmetic}",
            FLOAT_TOKENS,
            _dynamic_quantize(arithmetic),
            DynamicQuantizeSpec((2, 3, 40), "uint8", arithmetic),
        )
        for arithmetic in ("fused", "rounded")
    ),
    *(
        Selected(
            f"choose_qparams_{arithmetic}",
            FLOAT_MAP,
            _chain(lambda x, arithmetic=arithmetic: qnn.choose_qparams(x, 0, 127, arithmetic=arithmetic)),
            ChooseQparamsSpec((2, 3, 5, 4), 0, 127, arithmetic),
        )
        for arithmetic in ("float32", "reciprocal", "float64")
    ),
    Selected("quantize", FLOAT_MAP, _chain(_quantize), QuantizeSpec((2, 3, 5, 4))),
    Selected("quantize_to_last", FLOAT_MAP, _chain(_quantize, _to_last), QuantizeSpec((2, 3, 5, 4), "uint8", True)),
    Selected("dequantize", ROWS, _chain(lambda x: qnn.dequantize(x, 0.3, 4)), DequantizeSpec((3, 40))),
    Selected("add", TWO_MAPS, _chain(_add), AddSpec((2, 5, 4, 8))),
    Selected("add_clamp", TWO_MAPS, _chain(_add, _at_least(40)), AddSpec((2, 5, 4, 8))),
    Selected("add_to_itself", U8_MAP, _chain(lambda x: _add(x, x)), AddSpec((2, 5, 4, 8))),
    Selected("add_fixed_point", TWO_MAPS, _chain(_fixed_add, _at_least(3)), FixedAddSpec((2, 5, 4, 8))),
    Selected("mul", TWO_MAPS, _chain(_mul, _at_least(3)), MulSpec((2, 5, 4, 8))),
    Selected("mul_by_channel", BY_CHANNEL, _chain(_mul), MulSpec((2, 5, 4, 8), per_channel=True)),
    Selected(
        "mul_by_channel_swapped", BY_CHANNEL, _chain(lambda a, b: _mul(b, a)), MulSpec((2, 5, 4, 8), per_channel=True)
    ),
    Selected("lookup", U8_MAP, _chain(_square), LookupSpec((2, 5, 4, 8))),
    Selected(
        "lookup_u8_to_s8", S8_MAP, _chain(lambda x: _square(x, "uint8")), LookupSpec((2, 5, 4, 8), "int8", "uint8")
    ),
    Selected(
        "concat",
        TWO_MAPS,
        _chain(lambda a, b: op.concat([a, b, a], axis=-1)),
        ConcatenateSpec(((2, 5, 4, 8), (2, 5, 4, 8)), 3, (Piece(0, 0, 8), Piece(1, 0, 8), Piece(0, 0, 8))),
    ),
    Selected(
        "concatenate_clamped",
        TWO_MAPS,
        _chain(_concatenate, lambda y: op.maximum(y, relax.const(9, "uint8"))),
        ConcatenateSpec(((2, 5, 4, 8), (2, 5, 4, 8)), 1, (Piece(0, 0, 5, 0), Piece(1, 0, 5, 1)), tables=2),
    ),
    Selected("avg_pool2d", U8_MAP, _chain(_avg_pool), AvgPool2dSpec(2, 5, 4, 8, (2, 3), (1, 2), (0, 1, 0, 1))),
    Selected(
        "max_pool2d_ceil",
        S8_MAP,
        _chain(lambda x: _max_pool(x, strides=(3, 2), padding=(1, 0, 1, 1), dilation=(1, 2), ceil_mode=True)),
        MaxPool2dSpec(2, 5, 4, 8, (2, 2), (3, 2), (1, 0, 1, 1), "int8", (1, 2), True),
    ),
)


def _and_before(*steps: Callable[..., Any], also: int) -> Callable[..., Any]:
    """As _chain, but the value of step number `also` is an output too."""

    def body(emit: Emit, *inputs: Any) -> Any:
        values = [emit(steps[0](*inputs), "y0")]
        for i, step in enumerate(steps[1:], 1):
            values.append(emit(step(values[-1]), f"y{i}"))
        return emit(relax.Tuple([values[-1], values[also]]), "all")

    return body


def _read_twice(emit: Emit, x: Any) -> Any:
    codes = emit(to_codes(emit(_conv(x), "y0"), 6), "y1")
    clamped = emit(op.maximum(codes, relax.const(40, "uint8")), "y2")
    return emit(_add(codes, clamped), "y3")


# the matched part ends before the value with a second reader
SHARED = (
    Refused("sums_are_an_output", U8_MAP, _and_before(_conv, _codes(6), also=0), "y0", "sums are used as they are"),
    Refused(
        "biased_sums_are_an_output",
        U8_MAP,
        _and_before(_conv, _bias((6,)), _codes(6), also=1),
        "y0",
        "sums are used as they are",
    ),
    Refused("codes_are_an_output", U8_MAP, _and_before(_conv, _codes(6), _at_least(40), also=1), kernels={"conv2d": 1}),
    Refused("codes_are_read_twice", U8_MAP, _read_twice, kernels={"conv2d": 1, "add_f32": 1}),
    Refused("two_convolutions", U8_MAP, _two_convolutions, kernels={"conv2d": 1, "conv2d_add": 1}),
    Refused("added_codes_are_an_output", WITH_RESIDUAL, _codes_and_their_sum, kernels={"conv2d": 1, "add_f32": 1}),
    # the sum of the codes is told from more than 2^22 steps by another kernel
    Refused("many_steps", WITH_RESIDUAL, _residual(first=True, scale=1e-5), kernels={"conv2d": 1, "add_f32": 1}),
    Refused("sum_is_an_output", TWO_MAPS, _and_before(_add, _at_least(40), also=0), kernels={"add_f32": 1}),
    Refused(
        "planar_codes_are_an_output", FLOAT_MAP, _and_before(_quantize, _to_last, also=0), kernels={"quantize_f32": 1}
    ),
)


def _variable_weight(emit: Emit, x: Any, w: Any) -> Any:
    return emit(to_codes(emit(_conv(x, w), "y0"), 6), "y1")


def _relay(sums: Any) -> Any:
    return qnn.requantize(sums, 0.01, 0, 0.5, 3, out_dtype="uint8")


def _with_zero_point(sums: Any) -> Any:
    requantized = to_codes(sums, 6)
    return relax.Call(
        requantized.op, [*requantized.args[:2], relax.const(5, "int32"), *requantized.args[3:]], requantized.attrs
    )


def _dense_u8(x: Any) -> Any:
    return _dense(x, 128, "uint8")


REFUSED = (
    Refused(
        "asymmetric_conv2d", U8_MAP, _chain(lambda x: _conv(x, None, 3), _codes(6)), "y0", "zero point other than 0"
    ),
    Refused("asymmetric_dense", ROWS, _chain(lambda x: _dense(x, [0, 0, 0, 0, 0, 1]), _codes(6)), "y0", "other than 0"),
    Refused("uint8_weights", ROWS, _chain(_dense_u8, _codes(6)), "y0", "weights are uint8"),
    Refused(
        "variable_weights",
        {**U8_MAP, "w": ((6, 8, 3, 3), "int8")},
        _variable_weight,
        "y0",
        "weights are not constant",
    ),
    Refused(
        "planar_conv2d",
        {"x": ((2, 8, 5, 4), "uint8")},
        _chain(lambda x: _conv(x, data_layout="NCHW"), _codes(6, axis=1)),
        "y0",
        "channels do not lie together",
    ),
    Refused(
        "kernel_layout",
        U8_MAP,
        _chain(lambda x: _conv(x, constant(1, (3, 3, 8, 6), "int8"), kernel_layout="HWIO"), _codes(6)),
        "y0",
        "HWIO",
    ),
    Refused("sums", U8_MAP, _chain(_conv), "y0", "sums are used as they are"),
    Refused("bias_by_row", {"x": ((2, 6, 4, 8), "uint8")}, _chain(_conv, _bias((1, 6, 1, 1)), _codes(6)), "y0", "bias"),
    Refused("requantize_relay", U8_MAP, _chain(_conv, _relay), "y0", "arithmetic relay"),
    Refused("requantize_by_column", U8_MAP, _chain(_conv, _codes(4, axis=2)), "y0", "channels do not lie together"),
    Refused("sums_with_zero_point", U8_MAP, _chain(_conv, _with_zero_point), "y0", "zero point"),
    Refused("quantize_dynamic_relay", FLOAT_TOKENS, _dynamic_quantize("relay"), "y0", "arithmetic relay"),
    Refused("quantize_dynamic_s32", FLOAT_TOKENS, _dynamic_quantize("rounded", "int32"), "y0", "codes are int32"),
    Refused("dense_of_3_dimensions", {"x": ((2, 3, 40), "uint8")}, _chain(_dense, _codes(6)), "y0", "3 dimensions"),
    Refused(
        "quantize_per_channel",
        FLOAT_MAP,
        _chain(lambda x: qnn.quantize(x, [0.1, 0.2, 0.3], [1, 2, 3], axis=1, out_dtype="uint8")),
        "y0",
        "per channel",
    ),
    Refused(
        "dequantize_per_channel",
        ROWS,
        _chain(lambda x: qnn.dequantize(x, [0.1, 0.2, 0.3], 0, axis=0)),
        "y0",
        "per channel",
    ),
    Refused(
        "dequantize_s32", {"x": ((3,), "int32")}, _chain(lambda x: qnn.dequantize(x, 0.1, 0)), "y0", "codes are int32"
    ),
    Refused("add_relay", TWO_MAPS, _chain(lambda a, b: _add(a, b, arithmetic="relay")), "y0", "arithmetic relay"),
    Refused(
        "add_upward", TWO_MAPS, _chain(lambda a, b: _add(a, b, arithmetic="relay", rounding="UPWARD")), "y0", "UPWARD"
    ),
    Refused(
        "add_of_more_steps_than_a_kernel_takes",
        TWO_MAPS,
        _chain(lambda a, b: qnn.add(a, b, 1.0, 5, 1.0, 9, 1e-9, 3, arithmetic="float32", **EVEN)),
        "y0",
        "2^30",
    ),
    Refused("add_broadcast", BY_CHANNEL, _chain(_add), "y0", "broadcast"),
    Refused("mul_relay", TWO_MAPS, _chain(lambda a, b: qnn.mul(a, b, *PARAMETERS)), "y0", "arithmetic relay"),
    Refused(
        "mul_by_row",
        {"a": ((2, 5, 4, 8), "uint8"), "b": ((2, 5, 1, 1), "uint8")},
        _chain(_mul),
        "y0",
        "than by channel",
    ),
    Refused(
        "mul_of_one_image", {"a": ((2, 5, 4, 8), "uint8"), "b": ((1, 1, 1, 8), "uint8")}, _chain(_mul), "y0", "broad"
    ),
    Refused("planar_avg_pool2d", U8_MAP, _chain(lambda x: _avg_pool(x, "NCHW")), "y0", "channels do not lie together"),
    Refused("planar_max_pool2d", U8_MAP, _chain(lambda x: _max_pool(x, layout="NCHW")), "y0", "do not lie together"),
    Refused(
        "large_window",
        {"x": ((1, 9, 9, 8), "uint8")},
        _chain(lambda x: op.nn.max_pool2d(x, (9, 9), layout="NHWC")),
        "y0",
        "81 pixels",
    ),
    Refused("float_pool", {"x": ((2, 5, 4, 8), "float32")}, _chain(_max_pool)),
    Refused("op_of_relax", TWO_MAPS, _chain(op.maximum)),
)
NOT_WHOLE = (*SHARED, *REFUSED)


def _ids(cases: tuple[Case, ...]) -> list[str]:
    return [case.name for case in cases]


def _match(mod: Any) -> Any:
    """Returns what the first matcher says that says something of the first binding."""
    main = mod["main"]
    program = Program(bindings_of(main), users_of(main))
    matchers = MATCHERS[op_name(program.bindings[0].value)]
    return next(filter(None, (matcher(program, program.bindings[0]) for matcher in matchers)))


def _kernel_functions(mod: Any) -> list[Any]:
    return [function for _, function in mod.functions_items() if isinstance(function, PrimFunc)]


def _values(mod: Any) -> list[Any]:
    """Returns the values main computes, aliases left out."""
    return [binding.value for binding in bindings_of(mod["main"]) if not isinstance(binding.value, relax.Var)]


@pytest.mark.parametrize("case", SELECTED, ids=_ids(SELECTED))
def test_whole_program_becomes_one_call(case: Selected) -> None:
    mod = case.module()
    verify(mod)
    call = _match(mod)
    assert isinstance(call, KernelCall), call
    assert type(call.spec) is type(case.spec)
    assert call.spec == case.spec
    selected, report = select_kernels(mod, ISA)
    assert report.kernels == {select(ISA, case.spec).name: 1}
    assert report.refused == []
    assert [op_name(value) for value in _values(selected)] == ["relax.call_tir"]
    assert len(_kernel_functions(selected)) == 1
    assert str(selected["main"].ret_ty) == str(mod["main"].ret_ty)


@pytest.mark.parametrize("case", NOT_WHOLE, ids=_ids(NOT_WHOLE))
def test_what_is_refused_says_why(case: Refused) -> None:
    mod = case.module()
    verify(mod)
    selected, report = select_kernels(mod, ISA)
    assert {re.split("_u8|_x64", name)[0]: count for name, count in report.kernels.items()} == case.kernels
    assert len(_kernel_functions(selected)) == sum(case.kernels.values())
    if not case.reason:
        assert report.refused == []
        return
    (binding, reason), *others = report.refused
    assert others == []
    assert binding == case.binding
    assert case.reason in reason
    assert [op_name(value) for value in _values(selected)] == [op_name(value) for value in _values(mod)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kernel_zero_point": [0, 0, 0, 0, 0, 1]}, "its weights have a zero point other than 0"),
        ({"scale_is_given": True}, "the scale of its sums is no product of its data's and its weights'"),
    ],
    ids=["asymmetric", "one_scale"],
)
def test_dynamic_dense_left_to_generic_code_says_why(options: dict[str, Any], reason: str) -> None:
    _, report = select_kernels(Case("dense", TOKENS, _dynamic_dense("fbgemm", **options)).module(), ISA)
    assert not report.kernels
    assert report.refused == [("y0", reason), ("y1", "its codes are int32")]


WITH_KERNELS = (*SELECTED, *(case for case in SHARED if case.kernels))


@pytest.fixture(scope="module")
def run() -> Callable[..., Arrays]:
    """(name, inputs) -> outputs of each case without kernels."""
    return compile_all({case.name: case.module() for case in WITH_KERNELS})


@needs_vnni
@pytest.mark.parametrize("case", WITH_KERNELS, ids=_ids(WITH_KERNELS))
def test_codes_do_not_change(case: Case, run: Callable[..., Arrays]) -> None:
    selected, _ = select_kernels(case.module(), ISA)
    assert_same_results(execute(selected, case.arrays(), KERNELS), run(case.name, case.arrays()))


def test_every_matcher_is_covered() -> None:
    used = {op_name(bindings_of(case.module()["main"])[0].value) for case in SELECTED}
    assert used == set(MATCHERS)


@needs_vnni
def test_slices_are_concatenated_from_where_they_lie() -> None:
    def body(emit: Emit, a: Any, b: Any) -> Any:
        parts = [emit(op.strided_slice(a, [3], [begin], [end]), f"part{begin}") for begin, end in ((-3, 8), (0, 6))]
        return emit(op.concat([*parts, b], axis=3), "y")

    case = Case("slices", TWO_MAPS, body)
    selected, report = select_kernels(case.module(), ISA)
    shapes = ((2, 5, 4, 8), (2, 5, 4, 8))
    spec = ConcatenateSpec(shapes, 3, (Piece(0, 5, 8), Piece(0, 0, 6), Piece(1, 0, 8)))
    assert list(report.specs.values()) == [spec]
    run = compile_all({"slices": case.module()})
    assert_same_results(execute(selected, case.arrays(), KERNELS), run("slices", case.arrays()))


def test_equal_specs_share_a_function() -> None:
    """Scales, weights and clamps are constants of the call, not of the function."""

    def body(emit: Emit, x: Any) -> Any:
        weights = [constant(seed, (8, 8, 3, 3), "int8") for seed in range(3)]
        value = emit(to_codes(emit(_conv(x, weights[0]), "c0"), 8), "y0")
        value = emit(
            op.maximum(emit(to_codes(emit(_conv(value, weights[1]), "c1"), 8), "r1"), relax.const(30, "uint8")), "y1"
        )
        return emit(to_codes(emit(_conv(value, weights[2], strides=(2, 2)), "c2"), 8), "y2")

    selected, report = select_kernels(Case("chain", U8_MAP, body).module(), ISA)
    assert report.kernels.total() == 3
    calls = [value.args[0] for value in _values(selected)]
    assert calls[0].same_as(calls[1])
    assert not calls[0].same_as(calls[2])
    assert len(_kernel_functions(selected)) == 2


def test_kernels_are_opaque_to_generic_passes() -> None:
    selected, _ = select_kernels(SELECTED[0].module(), ISA)
    (function,) = _kernel_functions(selected)
    assert int(function.attrs["op_pattern"]) == 8


def test_an_isa_without_kernels_refuses_all() -> None:
    mod = SELECTED[0].module()
    selected, report = select_kernels(mod, "generic")
    assert not report.kernels
    assert _kernel_functions(selected) == []
    ((binding, reason),) = report.refused
    assert binding == "y0"
    assert "there is no kernel for Conv2dSpec" in reason


def test_selecting_twice_changes_nothing() -> None:
    once, _ = select_kernels(SELECTED[0].module(), ISA)
    twice, report = select_kernels(once, ISA)
    assert [op_name(value) for value in _values(twice)] == ["relax.call_tir"]
    assert not report.kernels
