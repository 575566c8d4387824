"""The verifier: each rule has a call that breaks it, and the message names the binding, the op and what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qtorch_relay import qnn
from qtorch_relay._tvm import relax
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.verify import verify
from tests.qnn.build import module

X = ((1, 4, 6, 6), "uint8")
SUMS = ((1, 4, 6, 6), "int32")
FLOATS = ((1, 4, 6, 6), "float32")
WEIGHT = ((8, 4, 3, 3), "int8")
Inputs = dict[str, tuple[tuple[int, ...], str]]


_SUM_FACTORS = ("input_factor", "kernel_factor", "addend", "residual_factor", "output_factor")


def conv(x: Any, w: Any, **changes: Any) -> Any:
    arguments = {
        "input_zero_point": 3,
        "kernel_zero_point": 0,
        "input_scale": 0.5,
        "kernel_scale": 0.25,
        "kernel_size": (3, 3),
        "channels": 8,
    }
    return qnn.conv2d(x, w, **{**arguments, **changes})


BROKEN: dict[str, tuple[Inputs, Callable[..., Any], str]] = {
    "scale_of_zero": (
        {"x": FLOATS},
        lambda x: qnn.quantize(x, 0.0, 0),
        "output_scale must be finite and greater than 0",
    ),
    "negative_scale": ({"x": X}, lambda x: qnn.dequantize(x, -1.0, 0), "input_scale must be finite"),
    "scale_not_finite": ({"x": X}, lambda x: qnn.dequantize(x, np.inf, 0), "input_scale must be finite"),
    "zero_point_above_range": (
        {"x": FLOATS},
        lambda x: qnn.quantize(x, 1.0, 256, out_dtype="uint8"),
        "must lie in [0, 255] for uint8, found [256]",
    ),
    "zero_point_below_range": (
        {"x": FLOATS},
        lambda x: qnn.quantize(x, 1.0, -129, out_dtype="int8"),
        "must lie in [-128, 127] for int8",
    ),
    "scales_not_as_long_as_the_axis": (
        {"x": X},
        lambda x: qnn.dequantize(x, [0.5, 0.5, 0.5], 0, axis=1),
        "one number or a vector of 4, found shape (3,)",
    ),
    "axis_outside_the_tensor": ({"x": X}, lambda x: qnn.dequantize(x, 0.5, 0, axis=4), "axis 4 is outside"),
    "data_of_wrong_dtype": ({"x": X}, lambda x: qnn.quantize(x, 0.5, 0), "data must be float32, found uint8"),
    "transposed_channels_that_do_not_match": (
        {"x": X, "w": ((8, 4, 3, 3), "int8")},
        lambda x, w: qnn.conv2d_transpose(x, w, 3, 0, 0.5, 0.25),
        "4 input channels and a weight for 8 do not go together with 1 groups",
    ),
    "transposed_kernel_size_of_another_weight": (
        {"x": X, "w": ((4, 8, 3, 3), "int8")},
        lambda x, w: qnn.conv2d_transpose(x, w, 3, 0, 0.5, 0.25, kernel_size=(2, 2)),
        "kernel_size is (2, 2), the weight's (3, 3)",
    ),
    "transposed_output_without_pixels": (
        {"x": X, "w": ((4, 8, 1, 1), "int8")},
        lambda x, w: qnn.conv2d_transpose(x, w, 3, 0, 0.5, 0.25, padding=(3, 3)),
        "the output of (1, 4, 6, 6) would be empty",
    ),
    "residual_of_another_shape": (
        {"x": SUMS, "r": ((1, 4, 6, 5), "uint8")},
        lambda x, r: qnn.requantize_add(x, r, 0.5, 0.5, 0, 0.5, 0, 1, factors=dict.fromkeys(_SUM_FACTORS, 1.0)),
        "residual must have data's shape (1, 4, 6, 6), found (1, 4, 6, 5)",
    ),
    "unknown_rounding": (
        {"x": SUMS},
        lambda x: qnn.requantize(x, 0.5, 0, 0.5, 0, rounding="DOWN"),
        "rounding must be one of",
    ),
    "unknown_arithmetic": (
        {"x": SUMS},
        lambda x: qnn.requantize(x, 0.5, 0, 0.5, 0, arithmetic="exact"),
        "arithmetic must be one of",
    ),
    "extension_with_relay_rounding": (
        {"x": SUMS},
        lambda x: qnn.requantize(
            x,
            0.5,
            0,
            0.5,
            0,
            arithmetic="accumulator",
            factors={"addend": [0.0] * 6, "addend_factor": 1.0, "multiplier": 1.0},
        ),
        "rounds TONEAREST_EVEN",
    ),
    "addend_not_as_long_as_the_axis": (
        {"x": SUMS},
        lambda x: qnn.requantize(
            x,
            0.5,
            0,
            0.5,
            0,
            axis=1,
            rounding="TONEAREST_EVEN",
            arithmetic="accumulator",
            factors={"addend": [0.0] * 6, "addend_factor": 1.0, "multiplier": 1.0},
        ),
        "addend must have shape (4,), found (6,)",
    ),
    "conv_groups_that_do_not_divide": ({"x": X, "w": WEIGHT}, lambda x, w: conv(x, w, groups=3), "with 3 groups"),
    "conv_with_empty_output": (
        {"x": ((1, 4, 2, 2), "uint8"), "w": WEIGHT},
        lambda x, w: conv(x, w),
        "would be empty",
    ),
    "conv_kernel_scales_of_wrong_length": (
        {"x": X, "w": WEIGHT},
        lambda x, w: conv(x, w, kernel_scale=[0.5] * 4),
        "vector of 8, found shape (4,)",
    ),
    "dense_features_that_differ": (
        {"x": ((2, 5), "uint8"), "w": ((3, 4), "int8")},
        lambda x, w: qnn.dense(x, w, 0, 0, 0.5, 0.5, 3),
        "must end in the weight's 4 input features",
    ),
    "dense_units_that_differ": (
        {"x": ((2, 4), "uint8"), "w": ((3, 4), "int8")},
        lambda x, w: qnn.dense(x, w, 0, 0, 0.5, 0.5, 4),
        "units is 4, the weight has 3 rows",
    ),
    "add_of_two_dtypes": (
        {"a": X, "b": ((1, 4, 6, 6), "int8")},
        lambda a, b: qnn.add(a, b, 0.5, 0, 0.5, 0, 0.5, 0),
        "lhs is uint8, rhs is int8",
    ),
    "concatenate_of_two_dtypes": (
        {"a": X, "b": ((1, 4, 6, 6), "int8")},
        lambda a, b: qnn.concatenate([a, b], [0.5, 0.5], [0, 0], 0.5, 0, 1),
        "all inputs must be uint8 or all int8",
    ),
    "concatenate_shapes_that_differ": (
        {"a": X, "b": ((1, 4, 5, 6), "uint8")},
        lambda a, b: qnn.concatenate([a, b], [0.5, 0.5], [0, 0], 0.5, 0, 1),
        "differ outside axis 1",
    ),
    "concatenate_scales_missing": (
        {"a": X, "b": X},
        lambda a, b: qnn.concatenate([a, b], [0.5], [0, 0], 0.5, 0, 1),
        "2 inputs, but 1 input_scales",
    ),
    "lookup_table_too_short": (
        {"x": X},
        lambda x: qnn.lookup(x, np.zeros(255, np.uint8), 0.5, 0, 0.5, 0, "relu"),
        "table must have shape (256,)",
    ),
    "requantize_ties_to_even_in_fixed_point": (
        {"x": SUMS},
        lambda x: qnn.requantize(x, 0.5, 0, 0.5, 0, rounding="TONEAREST_EVEN", compute_dtype="int64"),
        "TONEAREST_EVEN is for a float compute_dtype",
    ),
    "mul_vectors_along_two_axes": (
        {"a": X, "b": X},
        lambda a, b: qnn.mul(a, b, [0.5] * 4, 0, [0.5] * 6, 0, 0.5, 0, lhs_axis=1, rhs_axis=2),
        "must lie along one axis of both sides",
    ),
    "subtract_axis_outside_the_tensor": (
        {"a": X, "b": X},
        lambda a, b: qnn.subtract(a, b, 0.5, 0, 0.5, 0, 0.5, 0, lhs_axis=4),
        "lhs_axis 4 is outside a tensor of rank 4",
    ),
    "softmax_of_uint8": ({"x": X}, lambda x: qnn.softmax(x, 0.5, 0, 0.5, 0), "x must be int8, found uint8"),
    "softmax_scale_above_one": (
        {"x": ((1, 4), "int8")},
        lambda x: qnn.softmax(x, 1.5, 0, 0.5, 0),
        "scale must be at most 1",
    ),
    "leaky_relu_alpha": ({"x": X}, lambda x: qnn.leaky_relu(x, 1.0, 0.5, 0, 0.5, 0), "alpha must lie between 0 and 1"),
    "unary_zero_point": ({"x": X}, lambda x: qnn.tanh(x, 0.5, -1, 0.5, 0), "zero_point must lie in [0, 255]"),
    "simulated_zero_point": (
        {"x": FLOATS},
        lambda x: qnn.simulated_quantize(x, 0.5, 200),
        "output_zero_point must lie in [-128, 127] for int8",
    ),
    "batch_matmul_of_floats": (
        {"a": ((1, 4, 6), "float32"), "b": ((1, 4, 6), "int8")},
        lambda a, b: qnn.batch_matmul(a, b, 0, 0, 0.5, 0.5),
        "x must be uint8 or int8, found float32",
    ),
    "dense_pack_default_layout": (
        {"a": ((2, 15), "uint8"), "b": ((2, 3, 4, 5), "int8")},
        lambda a, b: qnn.contrib_dense_pack(a, b, 0, 0, 0.5, 0.5),
        "kernel_layout must be NC4n5c",
    ),
    "avg_pool2d_zero_points_that_differ": (
        {"x": X},
        lambda x: qnn.avg_pool2d(x, 0.5, 3, 0.5, 4, (2, 2), (2, 2), (0, 0), arithmetic="scaled", factor=0.25),
        "must share one zero point",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rule_is_named(name: str) -> None:
    inputs, body, message = BROKEN[name]
    mod = module(inputs, body)
    with pytest.raises(VerifyError) as error:
        verify(mod)
    assert message in str(error.value)
    assert str(error.value).startswith("y = qnn.")


def test_zero_point_that_is_not_constant_is_refused() -> None:
    mod = module(
        {"x": X, "z": ((), "int32")},
        lambda x, z: qnn.requantize(x, 0.5, z, 0.25, 0),
    )
    with pytest.raises(VerifyError, match="input_zero_point must be a constant"):
        verify(mod)


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    with pytest.raises(Exception, match="do not broadcast"):
        module(
            {"a": X, "b": ((1, 3, 6, 6), "uint8")},
            lambda a, b: qnn.add(a, b, 0.5, 0, 0.5, 0, 0.5, 0),
        )


def test_unknown_layout_is_refused() -> None:
    with pytest.raises(VerifyError, match="layout 'OIWH' is unknown; accepted are NCHW"):
        module({"x": X, "w": WEIGHT}, lambda x, w: conv(x, w, kernel_layout="OIWH"))


def test_extremes_pass() -> None:
    verify(module({"x": FLOATS}, lambda x: qnn.quantize(x, 1e-30, 255, out_dtype="uint8")))
    verify(module({"x": FLOATS}, lambda x: qnn.quantize(x, 1e30, -128, out_dtype="int8")))


def test_relax_accepts_a_module_of_qnn_ops() -> None:
    mod = module({"x": X, "w": WEIGHT}, conv)
    assert relax.analysis.well_formed(mod) is not False
    assert "qnn.conv2d" in mod.script()
