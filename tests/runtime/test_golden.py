"""The golden run: what counts as equal, and for programs of other machines, what PyTorch gives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import qtorch_relay as qr
from qtorch_relay.errors import BundleError
from qtorch_relay.qparams import PerTensor
from qtorch_relay.runtime.bundle import read_variants
from qtorch_relay.runtime.golden import compare_golden, from_steps, golden_inputs, rounded_to_steps, to_steps
from qtorch_relay.runtime.interface import HOST_PROGRAM, PROGRAM, PYTORCH, Golden
from qtorch_relay.runtime.specs import TensorSpec

FLOATS = TensorSpec("y", (4,), "float32")
CODES = TensorSpec("y", (4,), "uint8", PerTensor(0.5, 3, "uint8"))
EXPECTED = np.array([1.0, -100.0, 3.0, np.nan], "float32")


def compare(source: str, found: npt.ArrayLike, expected: npt.NDArray[np.generic] = EXPECTED) -> str:
    spec = FLOATS if expected.dtype == np.float32 else CODES
    return str(compare_golden(Golden((), (expected,), source), [spec], [np.asarray(found, expected.dtype)]))


def test_equal_outputs_pass_whoever_gave_them() -> None:
    assert compare(PROGRAM, EXPECTED).startswith("4 of 4 elements equal what the program gave")
    assert compare(PYTORCH, EXPECTED) == "4 of 4 elements equal PyTorch's own output"


def test_floats_of_another_program_may_be_rounded_otherwise() -> None:
    step = np.spacing(np.float32(100))
    near = EXPECTED + np.array([32 * step, 0, 0, 0], "float32")
    far = EXPECTED + np.array([40 * step, 0, 0, 0], "float32")
    assert compare(PYTORCH, near) == "3 of 4 elements equal PyTorch's own output, 1 floats differ by their rounding"
    with pytest.raises(BundleError, match=r"in 1 of 4 elements, by up to 40 float steps; golden is PyTorch's"):
        compare(PYTORCH, far)
    with pytest.raises(BundleError, match=r"differs from the golden output in 1 of 4 elements"):
        compare(PROGRAM, near)


@pytest.mark.parametrize("wrong", [[1, -100, 3, 4], [np.nan, -100, 3, np.nan], [1, -np.inf, 3, np.nan]])
def test_nan_and_infinity_are_no_rounding(wrong: list[float]) -> None:
    with pytest.raises(BundleError, match=r"by up to .* float steps"):
        compare(PYTORCH, wrong)


def test_one_code_is_too_many() -> None:
    codes = np.array([1, 2, 3, 255], "uint8")
    with pytest.raises(BundleError, match="in 1 of 4 elements; golden is PyTorch's"):
        compare(PYTORCH, [1, 2, 3, 254], codes)


class Quantized(torch.nn.Module):
    """Codes in and out, of any batch."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        y = torch.quantize_per_tensor(x, 0.05, 100, torch.quint8)
        z = torch.ops.quantized.add(y, y, 0.11, 90)
        return z, {"float": z.dequantize()}


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_a_program_for_another_machine_has_pytorchs_output(engine: str, tmp_path: Path) -> None:
    script = torch.jit.script(Quantized())
    compiled = qr.compile(script, [("x", ("n", 3))], target=_elsewhere(), engine=engine, kernels=False)
    compiled.save(tmp_path / "model.qtr")
    [variant] = read_variants(tmp_path / "model.qtr")
    assert variant.golden is not None
    assert variant.golden.source == PYTORCH
    (x,) = golden_inputs(variant.interface)
    assert (variant.golden.inputs[0] == x).all()
    codes, floats = script(torch.from_numpy(x))
    assert x.shape == (2, 3)
    assert (variant.golden.outputs[0] == codes.int_repr().numpy()).all()
    assert (variant.golden.outputs[1] == floats["float"].numpy()).all()


def test_a_module_has_the_output_of_its_program_for_this_host(tmp_path: Path) -> None:
    infos = [("x", (2, 3))]
    mod, params = qr.from_pytorch(torch.jit.script(Quantized()), infos, engine="fbgemm")
    compiled = qr.compile((mod, params), target=_elsewhere(), kernels=False)
    assert compiled.golden is not None
    assert compiled.golden.source == HOST_PROGRAM
    here = qr.compile((mod, params), kernels=False)
    for golden, output in zip(compiled.golden.outputs, here.run_flat(compiled.golden.inputs), strict=True):
        assert (golden == output).all()


def test_inputs_that_pytorch_does_not_take_are_told() -> None:
    class Lookup(torch.nn.Module):
        def forward(self, table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            y = torch.quantize_per_tensor(table, 0.05, 100, torch.quint8)
            return torch.index_select(y.dequantize(), 0, index)

    infos = [("table", (1, 4)), ("index", ((3,), "int64"))]
    compiled = qr.compile(torch.jit.script(Lookup()), infos, target=_elsewhere(), engine="fbgemm", kernels=False)
    assert compiled.golden is None
    assert "no self-test: PyTorch fails on the seeded inputs for it" in compiled.report["messages"][-1]


def _elsewhere() -> str:
    from qtorch_relay.target import host_cpu

    return "arm-neon" if host_cpu().machine == "x86_64" else "x86-avx2"


def test_floats_are_kept_as_steps_to_the_bit(tmp_path: Path) -> None:
    compiled = qr.compile(torch.jit.script(Quantized()), [("x", (8, 300))], engine="fbgemm", kernels=False)
    compiled.save(tmp_path / "model.qtr")
    with zipfile.ZipFile(tmp_path / "model.qtr") as archive:
        assert archive.getinfo("golden.bin").file_size == 2432 + 2432 + 4 * 2400
    golden = qr.load(tmp_path / "model.qtr").golden
    assert golden is not None
    assert (golden.inputs[0].view("u4") == golden_inputs(compiled.interface)[0].view("u4")).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_steps_are_exact_in_every_float_type(dtype: str) -> None:
    steps = np.arange(-127, 128).astype(np.int8)
    floats = from_steps(steps, dtype)
    assert floats.dtype == dtype
    found = to_steps(floats)
    assert found is not None
    assert (found == steps).all()
    assert (rounded_to_steps(floats) == floats).all()


@pytest.mark.parametrize("value", [0.01, -0.0, 4.0, np.nan, np.inf])
def test_other_floats_are_kept_as_they_are(value: float) -> None:
    assert to_steps(np.array([1.0, value], "float32")) is None


def test_a_golden_input_of_other_floats_survives(tmp_path: Path) -> None:
    compiled = qr.compile(torch.jit.script(Quantized()), [("x", (2, 3))], engine="fbgemm", kernels=False)
    x = np.full((2, 3), 0.3, "float32")
    compiled.golden = Golden((x,), compiled.run_flat([x]))
    compiled.save(tmp_path / "model.qtr")
    loaded = qr.load(tmp_path / "model.qtr")
    loaded.self_test()
    assert loaded.golden is not None
    assert (loaded.golden.inputs[0] == x).all()
