"""The whole path on one small model: with kernels and without, from a model and from what was imported from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qtorch_relay
from qtorch_relay import pipeline
from qtorch_relay import target as targets
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import FloatModelWarning, InvalidInputError, PortablePathWarning
from qtorch_relay.frontend.importer import ENGINE_ATTRIBUTE
from qtorch_relay.runtime.compiled_model import CompiledModel
from tests.frontend.models import UNOPTIMIZED, Conv, quantize

ISA = "x86-avx512vnni"
needs_vnni = pytest.mark.skipif(
    targets.missing_on_host(targets.resolve(ISA)) is not None, reason=f"runs code for {ISA}"
)
INPUTS = [("image", (1, 3, 9, 8))]


class Residual(nn.Module):
    """Two convolutions, an addition of both, and a broadcasting one, which has no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv(3, 8, 3, padding=1, relu=True)
        self.second = Conv(8, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        a = self.first(quantize(image))
        b = self.second(a)
        total = torch.ops.quantized.add(a, b, 0.09, 40)
        row = torch.ops.quantized.add(total, total[:, :, :1], 0.11, 30)
        return {"codes": total, "floats": row.dequantize()}


@pytest.fixture(scope="module", autouse=True)
def _engine() -> Iterator[None]:
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    yield
    torch.backends.quantized.engine = engine


@pytest.fixture(scope="module")
def model(_engine: None) -> Any:
    torch.manual_seed(0)
    return torch.jit.trace(Residual().eval(), torch.randn(INPUTS[0][1]), strict=False)


@pytest.fixture(scope="module")
def portable(model: Any) -> CompiledModel:
    return pipeline.compile(model, INPUTS, UNOPTIMIZED, kernels=False)


@pytest.fixture(scope="module")
def fast(model: Any) -> CompiledModel:
    return pipeline.compile(model, INPUTS, ISA)


def _image(seed: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(-2.8, 3.1, INPUTS[0][1]).astype(np.float32)


def _assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected) == ["codes", "floats"]
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def _assert_as_torch(compiled: CompiledModel, model: Any) -> None:
    expected = model(torch.from_numpy(_image()))
    _assert_same(
        compiled(_image()), {"codes": expected["codes"].int_repr().numpy(), "floats": expected["floats"].numpy()}
    )


def test_portable_code_has_pytorchs_codes(model: Any, portable: CompiledModel) -> None:
    _assert_as_torch(portable, model)


@needs_vnni
def test_kernels_have_the_same_codes(model: Any, portable: CompiledModel, fast: CompiledModel) -> None:
    _assert_as_torch(fast, model)
    for seed in range(3):
        _assert_same(fast(_image(seed)), portable(_image(seed)))


def test_a_pair_compiles_to_the_same(model: Any, portable: CompiledModel) -> None:
    mod, params = pipeline.from_pytorch(model, INPUTS)
    pair = pipeline.compile((mod, params), target=UNOPTIMIZED, kernels=False)
    arrays = pipeline.compile(
        (mod, {name: value.numpy() for name, value in params.items()}), target=UNOPTIMIZED, kernels=False
    )
    for compiled in (pair, arrays):
        assert (compiled.inputs, compiled.outputs) == (portable.inputs, portable.outputs)
        assert (compiled.engine, compiled.report) == (portable.engine, portable.report)
        assert list(compiled.weights) == list(portable.weights)
        _assert_same(compiled(_image()), portable(_image()))


def test_imported_parameters_are_the_last_of_main(model: Any) -> None:
    mod, params = pipeline.from_pytorch(model, INPUTS)
    assert [param.name for param in mod["main"].params] == ["image", *params]
    assert str(mod.attrs[ENGINE_ATTRIBUTE]) == "fbgemm"


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
def test_the_engine_is_carried(engine: str) -> None:
    torch.backends.quantized.engine = engine
    try:
        mod, params = pipeline.from_pytorch(Residual().eval(), INPUTS, engine)
    finally:
        torch.backends.quantized.engine = "fbgemm"
    assert str(mod.attrs[ENGINE_ATTRIBUTE]) == engine
    assert pipeline.compile((mod, params), target=UNOPTIMIZED, kernels=False).engine == engine


def test_a_module_without_an_engine_compiles(model: Any) -> None:
    mod, params = pipeline.from_pytorch(model, INPUTS)
    compiled = pipeline.compile((mod.without_attr(ENGINE_ATTRIBUTE), params), target=UNOPTIMIZED, kernels=False)
    assert compiled.engine is None


def test_report_of_kernels_counts_them_and_says_what_has_none(fast: CompiledModel) -> None:
    assert fast.report["path"] == "kernels"
    counts = {name.split("__")[0]: count for name, count in fast.report["kernels"].items()}
    assert all(name.endswith(f"__{ISA.replace('-', '_')}") for name in fast.report["kernels"])
    assert counts == {"quantize_f32_x64": 1, "conv2d_u8s8s32_1x16x4": 2, "add_f32_x64": 1, "dequantize_f32_x16": 1}
    (message,) = fast.report["messages"]
    assert "runs as generic code: its operands" in message
    assert message.endswith("broadcast")


def test_report_of_portable_code_says_why(model: Any, portable: CompiledModel) -> None:
    assert portable.report == {
        "path": "portable",
        "messages": ["the portable path was asked for: generic code, the same codes, slower"],
    }
    with pytest.warns(PortablePathWarning):
        generic = pipeline.compile(model, INPUTS, UNOPTIMIZED)
    assert generic.report == {
        "path": "portable",
        "messages": ["there are no int8 kernels for custom yet: the portable path gives the same codes, slower"],
    }


@needs_vnni
def test_tuned_programs_give_the_same(model: Any, fast: CompiledModel, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("QTORCH_RELAY_CACHE_DIR", str(tmp_path / "new"))
    told: list[float] = []
    tuned = pipeline.compile(model, INPUTS, ISA, tune=1.0, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert "distinct layers take other tiles than planned" in tuned.report["messages"][-1]
    assert (tmp_path / "new" / "tuning.json").exists()
    for seed in range(3):
        _assert_same(fast(_image(seed)), tuned(_image(seed)))


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_tuning_takes_seconds(model: Any, seconds: float) -> None:
    with pytest.raises(InvalidInputError, match=r"tune is .*; accepted are seconds, 0 or more"):
        pipeline.compile(model, INPUTS, ISA, tune=seconds)


def test_only_kernels_are_tuned(model: Any) -> None:
    for target, kernels in ((ISA, False), ("generic", True)):
        with pytest.raises(InvalidInputError, match="tune times int8 kernels"):
            pipeline.compile(model, INPUTS, target, kernels=kernels, tune=1)


@needs_vnni
def test_many_threads_get_the_same_codes(fast: CompiledModel) -> None:
    images = [_image(seed) for seed in range(20)]
    expected = [fast(image) for image in images]
    start = threading.Barrier(4)

    def call(offset: int) -> list[tuple[int, Any]]:
        start.wait()
        order = [(offset * 7 + i) % len(images) for i in range(200)]
        return [(index, fast(images[index])) for index in order]

    with ThreadPoolExecutor(4) as pool:
        for outputs in pool.map(call, range(4)):
            for index, output in outputs:
                _assert_same(expected[index], output)


@needs_vnni
def test_a_tvm_target_with_vnni_uses_kernels(model: Any, portable: CompiledModel) -> None:
    compiled = pipeline.compile(model, INPUTS, targets.resolve(ISA).to_tvm())
    assert compiled.target.name == "custom"
    assert compiled.report["path"] == "kernels"
    assert sum(compiled.report["kernels"].values()) == 5
    _assert_same(compiled(_image()), portable(_image()))


def test_strict_false_is_refused(model: Any) -> None:
    with pytest.raises(InvalidInputError, match="strict=False is reserved"):
        pipeline.from_pytorch(model, INPUTS, strict=False)


def test_a_float_model_warns_once_compiled() -> None:
    with pytest.warns(FloatModelWarning, match="nothing in this model is int8"):
        pipeline.compile(nn.ReLU().eval(), [("x", (2, 3))], UNOPTIMIZED, kernels=False)


def test_the_package_offers_the_pipeline() -> None:
    assert qtorch_relay.compile is pipeline.compile
    assert qtorch_relay.from_pytorch is pipeline.from_pytorch


class Offset(nn.Module):
    """Adds codes that follow from constants alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ones = torch.relu(torch.quantize_per_tensor(torch.ones(1, 64, 2, 2), 0.03, 90, torch.quint8))
        codes = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8)
        return torch.ops.quantized.add(codes, ones, 0.07, 101).dequantize()


def test_what_follows_from_constants_is_folded_without_kernels() -> None:
    x = torch.randn(1, 64, 2, 2)
    with quantized_engine("fbgemm"):
        compiled = qtorch_relay.compile(Offset(), [("x", tuple(x.shape))], engine="fbgemm")
        expected = Offset()(x)
    assert torch.equal(compiled(x), expected)
