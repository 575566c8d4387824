"""One program for any batch: a dimension that is a name in input_infos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import qtorch_relay as qr
from accuracy_reports.zoo import quantized_model, random_images
from qtorch_relay.capture.engine import ENGINES, quantized_engine
from qtorch_relay.cli import app
from qtorch_relay.coverage import cover
from qtorch_relay.errors import FloatModelWarning, InvalidInputError, UnsupportedOpError
from qtorch_relay.pipeline import IMPORTED_SIZES, LOWERED_SIZES
from tests.frontend.models import UNOPTIMIZED, Conv, quantize, weight

BATCHES = (1, 2, 5)
# At a size from which the program was inferred it is right by construction.
assert set(BATCHES) - {*IMPORTED_SIZES, *LOWERED_SIZES}


class Net(nn.Module):
    """Convolutions, a residual, pools, a view with the batch in it, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 16, 3, 2, 1, relu=True)
        self.depthwise = Conv(16, 16, 3, 1, 1, groups=16, relu=True)
        self.point = Conv(16, 16, 1)
        self.linear = torch.ops.quantized.linear_prepack(weight((10, 64), 3, per_channel=True), torch.randn(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(quantize(x))
        x = torch.ops.quantized.add_relu(self.point(self.depthwise(x)), x, 0.09, 0)
        x = nn.functional.max_pool2d(torch.ops.quantized.hardswish(x, 0.07, 12), 2)
        x = nn.functional.adaptive_avg_pool2d(x, (2, 2))
        x = x.reshape(x.size(0), -1)
        return torch.ops.quantized.linear(x, self.linear, 0.2, 90).dequantize()


def make_net(engine: str) -> nn.Module:
    with quantized_engine(engine):
        torch.manual_seed(0)
        return Net().eval()


def check(compiled: qr.CompiledModel, model: nn.Module, engine: str, shape: tuple[int, ...]) -> None:
    for batch in BATCHES:
        x = torch.randn((batch, *shape), generator=torch.Generator().manual_seed(batch))
        with quantized_engine(engine), torch.no_grad():
            expected = model(x)
        assert torch.equal(compiled(x), expected), batch


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_any_batch_gives_pytorchs_result(engine: str, kernels: bool, tmp_path: Path) -> None:
    model = make_net(engine)
    target = "host" if kernels else UNOPTIMIZED
    compiled = qr.compile(model, [("x", ("n", 3, 12, 12))], target, engine, kernels=kernels)
    check(compiled, model, engine, (3, 12, 12))
    compiled.save(tmp_path / "net.qtr")
    loaded = qr.load(tmp_path / "net.qtr")
    loaded.self_test()
    check(loaded, model, engine, (3, 12, 12))
    assert [str(spec) for spec in (*loaded.inputs, *loaded.outputs)] == [
        "x: float32 [n, 3, 12, 12]",
        "output0: float32 [n, 10]",
    ]


@pytest.mark.parametrize(
    ("name", "engine", "flow"), [("resnet18", "fbgemm", "eager"), ("mobilenet_v2", "onednn", "fx")]
)
def test_networks_use_the_kernels_they_use_for_one_image(name: str, engine: str, flow: str) -> None:
    network = quantized_model(name, engine, flow=flow, image_size=64)
    any_batch = qr.compile(network.module, [("x", ("n", 3, 64, 64))], "host", engine)
    one = qr.compile(network.module, [("x", (1, 3, 64, 64))], "host", engine)
    assert any_batch.report["kernels"] == one.report["kernels"]
    for batch in BATCHES:
        images = random_images(batch, 64, seed=batch)
        with quantized_engine(engine), torch.no_grad():
            assert torch.equal(any_batch(images), network.module(images)), batch


def test_the_report_says_how_the_batch_is_computed() -> None:
    compiled = qr.compile(make_net("fbgemm"), [("x", ("n", 3, 12, 12))], "host", "fbgemm")
    assert compiled.report["path"] == "kernels"
    assert compiled.report["messages"][0] == "n is any size: kernels compute one sample after the other"


def test_the_module_is_symbolic_and_can_be_compiled_as_a_pair() -> None:
    model = make_net("fbgemm")
    mod, params = qr.from_pytorch(model, [("x", ("n", 3, 12, 12))], "fbgemm")
    assert "R.Tensor((n, 3, 12, 12)" in str(mod)
    check(qr.compile((mod, params), target="host"), model, "fbgemm", (3, 12, 12))


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.ops.quantized.add(quantize(x), quantize(y), 0.1, 50)
        return total, torch.cat([total, total]).dequantize()


def test_all_inputs_have_the_same_batch() -> None:
    infos = [("x", ("n", 4)), ("y", ("n", 4))]
    compiled = qr.compile(TwoInputs(), infos, UNOPTIMIZED, "fbgemm", kernels=False)
    assert str(compiled.outputs[1]) == "output1: float32 [2*n, 4]"
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    for ours, theirs in zip(compiled(x, y), TwoInputs()(x, y), strict=True):
        assert torch.equal(ours.dequantize(), theirs.dequantize())
    with pytest.raises(InvalidInputError, match="n is 3 in input x and 2 in input y; it must be the same in all"):
        compiled(x, y[:2])
    with pytest.raises(InvalidInputError, match=r"input x is float32 \[3, 5\]; accepted is float32 \[n, 4\]"):
        compiled(torch.zeros(3, 5), y)
    with pytest.raises(InvalidInputError, match=r"accepted is float32 \[n, 4\]"):
        compiled(x[:0], y[:0])


def test_a_sequence_length_can_be_the_named_dimension() -> None:
    class Words(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = quantize(x)
            return torch.ops.quantized.mul(q, q, 0.2, 50).permute(0, 2, 1).dequantize()

    compiled = qr.compile(Words(), [("x", (2, "length", 6))], "host", "fbgemm")
    for length in (1, 4, 9):
        x = torch.randn(2, length, 6)
        assert torch.equal(compiled(x), Words()(x))
    assert any("sample by sample" in message for message in compiled.report["messages"])


class DependsOnBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x).dequantize() * (1.0 / x.size(0))


class SquareOfBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([quantize(x)] * x.size(0)).dequantize()


@pytest.mark.parametrize("model", [DependsOnBatch(), SquareOfBatch()])
def test_a_model_that_is_not_one_program_for_every_batch_is_refused(model: nn.Module) -> None:
    message = (
        r"not the same program for every n \(tried n = 2, n = 3, n = 1, n = 37\): in .*; "
        "give n as a number in input_infos"
    )
    with pytest.raises(UnsupportedOpError, match=message):
        qr.compile(model, [("x", ("n", 4))], UNOPTIMIZED, "fbgemm", kernels=False)


class Head(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x)[:100]


class Tail(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x)[-100:]


class Rest(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x)[100:]


class OneOfParts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x).split(100)[0]


class OneOfTensorSplit(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x).tensor_split((100,))[0]


@pytest.mark.parametrize("model", [Head(), Tail(), Rest(), OneOfParts(), OneOfTensorSplit()])
def test_a_part_of_fixed_size_of_the_named_dimension_is_refused(model: nn.Module) -> None:
    with pytest.raises(UnsupportedOpError, match="what it takes has another size from some n on; give n as a number"):
        qr.from_pytorch(model, [("x", ("n", 4))], "fbgemm")


class Limited(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes = torch.quantize_per_tensor(x, 0.05, 61, torch.quint8)
        return codes[: min(x.size(0), 20)].dequantize()


def test_a_size_that_a_number_of_the_model_limits_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="not the same program for every n"):
        qr.from_pytorch(torch.jit.script(Limited()), [("x", ("n", 4))], "fbgemm")


class Repeated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x).dequantize().repeat(1, x.size(0))


def test_an_op_whose_attributes_depend_on_the_size_is_named() -> None:
    with pytest.raises(UnsupportedOpError, match=r"in \w+, the attributes of relax\.tile differ: .*1, 2.* becomes"):
        qr.from_pytorch(Repeated(), [("x", ("n", 4))], "fbgemm")


class Floats(nn.Module):
    """Float functions whose arithmetic depends on where a vector ends."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gates = torch.sigmoid(x), nn.functional.silu(x), nn.functional.gelu(x)
        return *gates, x.softmax(-1), x.softmax(1), x.log_softmax(-1), nn.functional.layer_norm(x, (33,))


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="PyTorch has other vectors")
def test_float_functions_of_any_size_are_equal() -> None:
    with pytest.warns(FloatModelWarning):
        compiled = qr.compile(Floats(), [("x", (3, "n", 33))], "host", "fbgemm")
    for size in (1, 2, 7, 40):
        x = torch.randn(3, size, 33) * 3
        for ours, theirs in zip(compiled(x), Floats()(x), strict=True):
            assert torch.equal(ours, theirs)


class Wide(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return quantize(x)[:, -100:100].dequantize()


def test_a_part_cut_short_along_another_dimension_is_accepted() -> None:
    compiled = qr.compile(Wide(), [("x", ("n", 4))], UNOPTIMIZED, "fbgemm", kernels=False)
    x = torch.randn(50, 4)
    assert torch.equal(compiled(x), Wide()(x))


def test_import_prints_the_program_for_any_batch() -> None:
    assert "float32[n, 3, 12, 12]" in cover(make_net("fbgemm"), [("x", ("n", 3, 12, 12))], "fbgemm").ir


def test_one_dimension_can_be_named() -> None:
    with pytest.raises(InvalidInputError, match="the sizes n, m are names; one can be"):
        qr.from_pytorch(TwoInputs(), [("x", ("n", 4)), ("y", ("m", 4))], "fbgemm")


def test_the_command_line_takes_a_named_batch(tmp_path: Path) -> None:
    model = make_net("fbgemm")
    with quantized_engine("fbgemm"):
        torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 12, 12)), tmp_path / "net.pt")
    run: Any = CliRunner().invoke
    compiled = [str(tmp_path / "net.pt"), "--input", "x:n,3,12,12", "--engine", "fbgemm"]
    made = run(app, ["compile", *compiled, "-o", str(tmp_path / "net.qtr")])
    assert made.exit_code == 0, made.output
    x = np.random.default_rng(0).standard_normal((3, 3, 12, 12), np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = ["run", str(tmp_path / "net.qtr"), "--data", str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npy")]
    assert run(app, arguments).exit_code == 0
    with quantized_engine("fbgemm"), torch.no_grad():
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model(torch.from_numpy(x)).numpy())


def test_a_quantized_embedding_of_any_number_of_indices_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="embedding is made for one number of elements, which depends on n"):
        qr.from_pytorch(torch.ao.nn.quantized.Embedding(10, 8), [("i", (("n", 5), "int64"))], "fbgemm")
