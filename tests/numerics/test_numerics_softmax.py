"""softmax, log_softmax and quantized::softmax in numpy against PyTorch; the outputs of the last are so fine that the
last bits of the float softmax show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.numerics.softmax import log_softmax_f32, softmax, softmax_f32, softmax_qnnpack
from qtorch_relay.qparams import PerTensor, code_range

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="PyTorch adds in another order without AVX-512"
)


def _pytorch(codes: np.ndarray, source: PerTensor, axis: int, output: PerTensor, engine: str) -> np.ndarray:
    quantized = torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), source.scale, source.zero_point)
    with quantized_engine(engine):
        return torch.ops.quantized.softmax(quantized, axis, output.scale, output.zero_point).int_repr().numpy()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("shape", [(400, 3), (400, 10), (200, 16), (200, 33), (50, 1000), (40, 9, 35), (300, 5, 2)])
def test_softmax(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(len(shape) + shape[-1])
    low, high = code_range(dtype)
    for axis in range(1, len(shape)):
        for scale in (0.002, 0.03, 0.4):
            codes = rng.integers(low, high + 1, shape).astype(dtype)
            source = PerTensor(scale, int(rng.integers(low, high + 1)), dtype)
            output = PerTensor(2 / shape[axis] / 256, low, dtype)
            expected = _pytorch(codes, source, axis, output, "fbgemm")
            np.testing.assert_array_equal(softmax(codes, source, axis, output), expected)


@pytest.mark.parametrize("shape", [(300, 2), (300, 10), (100, 33), (20, 1000), (40, 9, 35)])
def test_qnnpack_has_a_kernel_of_integers(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(shape[-1])
    output = PerTensor(1 / 256, 0, "uint8")
    for axis in range(1, len(shape)):
        for scale in (1e-4, 0.03, 7.0):
            codes = rng.integers(0, 256, shape).astype(np.uint8)
            source = PerTensor(scale, 3, "uint8")
            expected = _pytorch(codes, source, axis, output, "qnnpack")
            np.testing.assert_array_equal(softmax_qnnpack(codes, source, axis), expected)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("shape", [(400, 3), (400, 10), (200, 16), (200, 33), (50, 1000), (40, 9, 48), (40, 9, 35)])
def test_float_softmax(shape: tuple[int, ...], spread: float) -> None:
    x = (np.random.default_rng(shape[-1]).standard_normal(shape) * spread).astype(np.float32)
    for axis in range(1, len(shape)):
        np.testing.assert_array_equal(softmax_f32(x, axis), torch.from_numpy(x).softmax(axis).numpy())
        ours, theirs = log_softmax_f32(x, axis), torch.from_numpy(x).log_softmax(axis).numpy()
        # of the elements after the axis, those that fill no vector have another library's logarithm
        exact = shape[-1] if axis == len(shape) - 1 else shape[-1] // 16 * 16
        np.testing.assert_array_equal(ours[..., :exact], theirs[..., :exact])
        assert (np.abs(ours - theirs) <= np.spacing(np.abs(theirs).max())).all()
