"""Elementwise ops and concatenation: the codes of every engine, tolerance 0, over all codes and at the tails."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.numerics import core as numerics
from qtorch_relay.qparams import PerTensor

from .reference_torch import (
    ENGINES,
    TORCH_DTYPES,
    all_codes,
    binary,
    codes_of,
    random_codes,
    random_qparams,
    tensor,
)

F32 = np.float32
FLOAT_ENGINES = ("fbgemm", "onednn", "x86")


def near_ties(rng: np.random.Generator, qparams: PerTensor, count: int) -> npt.NDArray[np.float32]:
    """Returns floats a few units in the last place from the middle of two codes, some beyond the range."""
    steps = rng.integers(-300, 300, count) + rng.choice([0.5, 0.25, 0.0], count, p=[0.8, 0.1, 0.1])
    values = (steps * float(F32(qparams.scale))).astype(F32)
    moved = (values.view(np.int32) + rng.integers(-2, 3, count).astype(np.int32)).view(F32)
    return np.where(values == 0, F32(0), moved).astype(F32)


def tie_qparams(rng: np.random.Generator, dtype: str = "uint8") -> tuple[PerTensor, PerTensor, PerTensor]:
    """Returns parameters of two inputs and an output with nearly simple ratios of scales: sums often end in a half."""
    scale = float(rng.uniform(0.005, 0.1))
    ratios = (1.0, float(rng.choice([0.5, 0.75, 1, 2])), float(rng.choice([1, 2, 4])))
    near = [scale * ratio * (1 + int(rng.integers(-2, 3)) * 6e-8) for ratio in ratios]
    return (
        random_qparams(rng, dtype, near[0]),
        random_qparams(rng, dtype, near[1]),
        random_qparams(rng, dtype, near[2]),
    )


def all_pairs(dtype: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    lhs, rhs = np.meshgrid(all_codes(dtype), all_codes(dtype))
    return lhs, rhs


def test_fma_rounds_once() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(0, 10.0 ** rng.uniform(-6, 6, 4000)).astype(F32) for _ in range(2))
    c = (-a.astype(np.float64) * b * (1 + rng.choice([0, 1e-7, 1e-3, 1], 4000))).astype(F32)
    # a sum just above the middle of two float32: rounding to float64 first gives the middle, then the even neighbour
    a, b, c = np.append(a, F32(2**-40)), np.append(b, F32(2**-40)), np.append(c, F32(1))
    a, b, c = np.append(a, F32(1 + 2**-23)), np.append(b, F32(2**-24)), np.append(c, F32(1))
    for product, x, y, z in zip(numerics.fma_f32(a, b, c), a, b, c, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        below, above = np.nextafter(product, F32(-np.inf)), np.nextafter(product, F32(np.inf))
        error = abs(Fraction(float(product)) - exact)
        assert error <= abs(Fraction(float(below)) - exact)
        assert error <= abs(Fraction(float(above)) - exact)
    assert numerics.fma_f32(F32(1 + 2**-23), F32(2**-24), F32(1)) == F32(1 + 2**-23)


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("count", [1, 7, 8, 33, 100_003])
def test_quantize(dtype: str, count: int) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        qparams = random_qparams(rng, dtype)
        x = near_ties(rng, qparams, count)
        found = torch.quantize_per_tensor(torch.from_numpy(x), qparams.scale, qparams.zero_point, TORCH_DTYPES[dtype])
        np.testing.assert_array_equal(numerics.quantize_f32(x, qparams), codes_of(found))


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_quantize_extremes(dtype: str) -> None:
    special = [np.nan, -np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 3e9, -3e9, 2.2e9, 1e-45, 0.0, -0.0, 0.5, 1.5, -0.5]
    x = np.array(special, F32)
    for zero_point in (0, 1, 100, 127):
        qparams = PerTensor(1.0, zero_point, dtype)
        found = torch.quantize_per_tensor(torch.from_numpy(x), 1.0, zero_point, TORCH_DTYPES[dtype])
        np.testing.assert_array_equal(numerics.quantize_f32(x, qparams), codes_of(found))


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_dequantize(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        qparams = random_qparams(rng, dtype, float(rng.uniform(1e-4, 1)))
        codes = all_codes(dtype)
        found = tensor(codes, qparams).dequantize().numpy()
        np.testing.assert_array_equal(numerics.dequantize_f32(codes, qparams), found)


@pytest.mark.parametrize("engine", FLOAT_ENGINES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("relu", [False, True])
def test_add_of_all_pairs(engine: str, dtype: str, relu: bool) -> None:
    lhs, rhs = all_pairs(dtype)
    for seed in range(4):
        lhs_q, rhs_q, out = tie_qparams(np.random.default_rng(seed), dtype)
        found = binary("add_relu" if relu else "add", engine, (lhs, lhs_q), (rhs, rhs_q), out)
        # 65 536 codes: whole vectors only, however many threads share them
        np.testing.assert_array_equal(numerics.add_f32_fma(lhs, lhs_q, rhs, rhs_q, out, relu), found)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 130, 7840, 40_000, 70_001])
def test_add_tail(count: int) -> None:
    rng = np.random.default_rng(count)
    lhs_q, rhs_q, out = tie_qparams(np.random.default_rng(1))
    lhs, rhs = all_pairs("uint8")
    body, tail = (f(lhs, lhs_q, rhs, rhs_q, out) for f in (numerics.add_f32_fma, numerics.add_f32_scalar))
    chosen = rng.choice(np.flatnonzero(body != tail), count)
    found = binary("add", "fbgemm", (lhs.flat[chosen], lhs_q), (rhs.flat[chosen], rhs_q), out)
    vector = numerics.vector_mask(count, threads=torch.get_num_threads())
    np.testing.assert_array_equal(np.where(vector, body.flat[chosen], tail.flat[chosen]), found)


@pytest.mark.parametrize(
    ("rhs_size", "channels_last", "run"),
    [
        ((1, 1), (True, False), 72),
        ((1, 1), (False, False), 45),
        ((9, 5), (True, True), None),
        ((9, 5), (True, False), 1),
        ((9, 5), (False, True), 1),
    ],
)
def test_add_runs_of_layouts(rhs_size: tuple[int, int], channels_last: tuple[bool, bool], run: int | None) -> None:
    rng = np.random.default_rng(0)
    lhs_q, rhs_q, out = tie_qparams(np.random.default_rng(1))
    lhs, rhs = random_codes(rng, (2, 72, 9, 5)), random_codes(rng, (2, 72, *rhs_size))
    found = binary("add", "fbgemm", (lhs, lhs_q), (rhs, rhs_q), out, channels_last)
    body, tail = (
        f(lhs, lhs_q, np.broadcast_to(rhs, lhs.shape), rhs_q, out)
        for f in (numerics.add_f32_fma, numerics.add_f32_scalar)
    )
    assert (body != tail).any()
    shape = (2, 9, 5, 72) if channels_last[0] else lhs.shape
    vector = numerics.vector_mask(lhs.size, run).reshape(shape)
    vector = vector.transpose(0, 3, 1, 2) if channels_last[0] else vector
    np.testing.assert_array_equal(np.where(vector, body, tail), found)


@pytest.mark.parametrize("relu", [False, True])
def test_add_fixed_point_of_all_pairs(relu: bool) -> None:
    lhs, rhs = all_pairs("uint8")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        lhs_q, rhs_q, out = (
            tie_qparams(rng) if seed % 2 else (random_qparams(rng), random_qparams(rng), random_qparams(rng))
        )
        found = binary("add_relu" if relu else "add", "qnnpack", (lhs, lhs_q), (rhs, rhs_q), out)
        np.testing.assert_array_equal(numerics.add_fixed_point(lhs, lhs_q, rhs, rhs_q, out, relu), found)


@pytest.mark.parametrize("ratio", [2.0**-10, 1.0, 255.0])
@pytest.mark.parametrize("count", [1, 7, 9, 33])
def test_add_fixed_point_extremes(ratio: float, count: int) -> None:
    rng = np.random.default_rng(count)
    lhs_q, rhs_q, out = (random_qparams(rng, scale=scale) for scale in (ratio, min(ratio, 0.5), 1.0))
    lhs, rhs = random_codes(rng, (count,)), random_codes(rng, (count,))
    found = binary("add", "qnnpack", (lhs, lhs_q), (rhs, rhs_q), out)
    np.testing.assert_array_equal(numerics.add_fixed_point(lhs, lhs_q, rhs, rhs_q, out), found)


@pytest.mark.parametrize("scale", [2.0**-11, 256.0])
def test_add_fixed_point_refuses_ratios_beyond_its_shift(scale: float) -> None:
    codes, qparams = random_codes(np.random.default_rng(0), (4,)), PerTensor(scale, 0, "uint8")
    with pytest.raises(UnsupportedQuantSchemeError, match="larger input scale"):
        numerics.add_fixed_point(codes, qparams, codes, qparams, PerTensor(1.0, 0, "uint8"))


def test_add_of_broadcast_operands_is_float_on_qnnpack() -> None:
    rng = np.random.default_rng(0)
    lhs_q, rhs_q, out = tie_qparams(rng)
    lhs, rhs = random_codes(rng, (2, 64, 16, 16)), random_codes(rng, (2, 64, 1, 1))
    found = binary("add", "qnnpack", (lhs, lhs_q), (rhs, rhs_q), out, (True, False))
    np.testing.assert_array_equal(numerics.add_f32_fma(lhs, lhs_q, rhs, rhs_q, out), found)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("relu", [False, True])
def test_mul_of_all_pairs(engine: str, dtype: str, relu: bool) -> None:
    lhs, rhs = all_pairs(dtype)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        lhs_q, rhs_q = random_qparams(rng, dtype), random_qparams(rng, dtype)
        scale = lhs_q.scale * rhs_q.scale * 2 * int(rng.integers(1, 300)) * (1 + int(rng.integers(-3, 4)) * 3e-8)
        out = random_qparams(rng, dtype, scale)
        op = "mul_relu" if relu else "mul"
        found = binary(op, engine, (lhs, lhs_q), (rhs, rhs_q), out)
        np.testing.assert_array_equal(numerics.mul_f32(lhs, lhs_q, rhs, rhs_q, out, relu), found)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_mul_of_squeeze_and_excitation(engine: str, channels_last: bool) -> None:
    rng = np.random.default_rng(0)
    lhs_q, rhs_q = random_qparams(rng), random_qparams(rng)
    out = random_qparams(rng, scale=lhs_q.scale * rhs_q.scale * 30)
    lhs, rhs = random_codes(rng, (2, 72, 7, 7)), random_codes(rng, (2, 72, 1, 1))
    expected = numerics.mul_f32(lhs, lhs_q, rhs, rhs_q, out)
    found = binary("mul", engine, (lhs, lhs_q), (rhs, rhs_q), out, (channels_last, False))
    np.testing.assert_array_equal(expected, found)
    swapped = binary("mul", engine, (rhs, rhs_q), (lhs, lhs_q), out, (False, channels_last))
    np.testing.assert_array_equal(expected, swapped)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "mixed"])
@pytest.mark.parametrize("relu", [False, True])
def test_cat(engine: str, dtype: str, layout: str, relu: bool) -> None:
    for seed, channels in enumerate([(24, 24), (58, 58), (64, 96, 32), (3, 7, 41)]):
        rng = np.random.default_rng(seed)
        first, second, out = tie_qparams(rng, dtype)
        given = [out if seed == 0 else first, second, first][: len(channels)]
        inputs = [random_codes(rng, (2, count, 6, 5), dtype) for count in channels]
        last = [layout == "channels_last" or (layout == "mixed" and index == 0) for index in range(len(channels))]
        tensors = [tensor(*pair) for pair in zip(inputs, given, last, strict=True)]
        op = torch.ops.quantized.cat_relu if relu else torch.ops.quantized.cat
        with quantized_engine(engine):
            found = codes_of(op(tensors, 1, out.scale, out.zero_point))
        expected = numerics.concatenate(inputs, given, out, 1, all(last), relu)
        np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_cat_along_other_axes(axis: int) -> None:
    rng = np.random.default_rng(0)
    first, second, out = tie_qparams(rng)
    inputs = [random_codes(rng, (2, 24, 6, 6)) for _ in range(2)]
    tensors = [tensor(inputs[0], first, True), tensor(inputs[1], second, True)]
    found = codes_of(torch.ops.quantized.cat(tensors, axis, out.scale, out.zero_point))
    np.testing.assert_array_equal(numerics.concatenate(inputs, [first, second], out, axis, True), found)


@pytest.mark.parametrize("channels_last", [False, True])
def test_aten_cat_takes_the_first_inputs_parameters(channels_last: bool) -> None:
    rng = np.random.default_rng(0)
    given = [PerTensor(0.05, 77, "uint8"), PerTensor(0.05009, 77, "uint8")]
    inputs = [random_codes(rng, (2, 24, 6, 6)) for _ in range(2)]
    result = torch.cat([tensor(*pair, channels_last) for pair in zip(inputs, given, strict=True)], 1)
    assert result.q_scale() == given[0].scale
    expected = numerics.concatenate(inputs, given, given[0], 1, channels_last)
    np.testing.assert_array_equal(expected, codes_of(result))


Unary = Callable[[torch.Tensor, PerTensor], torch.Tensor]
UNARY_OPS: dict[str, Unary] = {
    "relu": lambda x, out: torch.relu(x),
    "hardtanh": lambda x, out: torch.nn.functional.hardtanh(x, -0.31, 1.7),
    "clamp": lambda x, out: torch.clamp(x, -0.4, 2.3),
    "hardswish": lambda x, out: torch.ops.quantized.hardswish(x, out.scale, out.zero_point),
    "hardsigmoid": lambda x, out: torch.nn.functional.hardsigmoid(x),
    "sigmoid": lambda x, out: torch.sigmoid(x),
    "tanh": lambda x, out: torch.tanh(x),
    "leaky_relu": lambda x, out: torch.ops.quantized.leaky_relu(x, 0.01, False, out.scale, out.zero_point),
    "elu": lambda x, out: torch.ops.quantized.elu(x, out.scale, out.zero_point, 1.0, 1, 1),
}
SCALAR_CODE_DIFFERS = {"hardswish", "leaky_relu"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("name", UNARY_OPS)
def test_table_of_all_codes_is_the_op(name: str, dtype: str, engine: str) -> None:
    op, codes = UNARY_OPS[name], all_codes(dtype)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        qparams = random_qparams(rng, dtype, float(rng.choice([1 / 16, 1 / 32, 6 / 255, 0.037])))
        out = random_qparams(rng, dtype, qparams.scale / 2)
        with quantized_engine(engine):
            body = codes_of(op(tensor(codes, qparams), out))
            tail = np.concatenate([codes_of(op(tensor(part, qparams), out)) for part in np.split(codes, 8)])
            if name not in SCALAR_CODE_DIFFERS:
                np.testing.assert_array_equal(body, tail)
            for shape in ((100,), (1, 17, 5, 3), (2, 72, 1, 1), (1, 16, 20, 20)):
                index = rng.integers(0, 256, shape)
                found = codes_of(op(tensor(codes[index], qparams), out))
                vector = numerics.vector_mask(index.size).reshape(shape)
                np.testing.assert_array_equal(np.where(vector, body[index], tail[index]), found)


def test_clamp_bounds_are_quantized_by_scalar_code() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        qparams = random_qparams(rng)
        bounds = np.sort(near_ties(rng, qparams, 2))
        found = codes_of(torch.clamp(tensor(all_codes("uint8"), qparams), float(bounds[0]), float(bounds[1])))
        low, high = numerics.quantize_f32_scalar(bounds, qparams)
        np.testing.assert_array_equal(np.minimum(np.maximum(all_codes("uint8"), low), high), found)
