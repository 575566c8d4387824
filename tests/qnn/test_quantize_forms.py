"""qnn.quantize and qnn.dequantize: two roundings, int32 codes, vectors and run-time parameters, against numerics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qtorch_relay import qnn
from qtorch_relay.numerics import core
from qtorch_relay.numerics import quantize as wide
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.qnn.verify import verify
from qtorch_relay.qparams import PerChannel, PerTensor
from tests.matrix.quantize import reals, scaled
from tests.qnn.build import module, run

SCALES = (1e-8, 0.037, 1e4)
CODE = {"uint8": 7, "int8": -5, "int32": 16777217}


def _compute(body: Any, *arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    names = [f"x{number}" for number in range(len(arrays))]
    mod = module({name: (array.shape, str(array.dtype)) for name, array in zip(names, arrays, strict=True)}, body)
    verify(mod)
    return run(CanonicalizeOps()(mod), *arrays)


@pytest.mark.parametrize("run_time", [False, True])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", CODE)
def test_one_scale(dtype: str, scale: float, run_time: bool) -> None:
    x, qparams = reals((3000,), scale), PerTensor(scale, CODE[dtype], dtype)
    arithmetic = "rounded" if dtype == "int32" else "fused"
    expected = wide.quantize_s32(x, qparams) if dtype == "int32" else core.quantize_f32(x, qparams)
    real = wide.dequantize_s32 if dtype == "int32" else core.dequantize_f32
    parameters = (np.array(scale, np.float32), np.array(CODE[dtype], np.int32))

    def quantize(x: Any, *given: Any) -> Any:
        return qnn.quantize(x, *(given or parameters), out_dtype=dtype, arithmetic=arithmetic)

    def dequantize(codes: Any, *given: Any) -> Any:
        return qnn.dequantize(codes, *(given or parameters))

    inputs = parameters if run_time else ()
    np.testing.assert_array_equal(_compute(quantize, x, *inputs), expected)
    np.testing.assert_array_equal(_compute(dequantize, expected, *inputs), real(expected, qparams))


@pytest.mark.parametrize("run_time", [False, True])
@pytest.mark.parametrize("dtype", CODE)
def test_a_vector_of_scales(dtype: str, run_time: bool) -> None:
    scales = np.array([1e-8, 0.037, 0.31, 1e4], np.float32)
    points = np.array([0, 3, 100, 127], np.int32)
    x = scaled(reals((20, 4, 30), 1.0), scales, 1)
    qparams = PerChannel(scales.astype(np.float64), points.astype(np.int64), 1, dtype)
    expected = wide.quantize_channels(x, qparams)

    def quantize(x: Any, *given: Any) -> Any:
        return qnn.quantize(x, *(given or (scales, points)), axis=1, out_dtype=dtype, arithmetic="rounded")

    def dequantize(codes: Any, *given: Any) -> Any:
        return qnn.dequantize(codes, *(given or (scales, points)), axis=1)

    inputs = (scales, points) if run_time else ()
    np.testing.assert_array_equal(_compute(quantize, x, *inputs), expected)
    found = _compute(dequantize, expected, *inputs)
    np.testing.assert_array_equal(found, wide.dequantize_channels(expected, qparams))
