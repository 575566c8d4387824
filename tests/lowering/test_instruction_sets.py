"""Whole networks for the instruction sets of x86 that this host runs: 0 differing codes in every layer."""

from __future__ import annotations

import pytest
import torch

import qtorch_relay as qr
from accuracy_reports.layers.compare import compare_captured
from accuracy_reports.zoo import quantized_model, random_images
from qtorch_relay import target as target_table
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.cli.options import summarize_report

SIZE = 64
NETWORKS = [("resnet18", "fbgemm"), ("mobilenet_v2", "fbgemm"), ("shufflenet_v2_x1_0", "onednn")]
ISAS = ("x86-avx2", "x86-avx512")


@pytest.mark.parametrize(("name", "engine"), NETWORKS)
def test_all_layers_equal_pytorch(name: str, engine: str) -> None:
    runnable = [isa for isa in ISAS if target_table.missing_on_host(target_table.resolve(isa)) is None]
    if not runnable:
        pytest.skip(f"this host runs none of {', '.join(ISAS)}")
    network = quantized_model(name, engine, image_size=SIZE)
    captured = capture_model(network.module, [("x", network.input_shape)], engine)
    inputs = [random_images(1, SIZE, seed=1).numpy()]
    torch.set_num_threads(1)  # PyTorch's vector tails depend on the number of threads
    reference = run_reference(captured, inputs)
    for isa in runnable:
        result = compare_captured(captured, reference, inputs, isa)
        assert result.path == "kernels"
        first = result.first_differing
        assert first is None, f"{first.op} in {first.scope}: {first.differing} of {first.elements} differ"
        assert [output.differing for output in result.outputs] == [0] * len(result.outputs)


class _Bounded(torch.nn.Module):
    """Two convolutions with a bound between them that leaves codes of 7 bits to the second."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.first, self.second = torch.nn.Conv2d(16, 24, 3), torch.nn.Conv2d(24, 40, 3)
        self.bound = torch.nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.second(self.bound(self.first(self.quant(x)))))


@pytest.mark.parametrize("isa", ISAS)
def test_a_bound_of_the_codes_proves_the_fast_form(isa: str) -> None:
    torch.manual_seed(0)
    module = _Bounded().eval()
    module.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.backends.quantized.engine = "fbgemm"
    prepared = torch.ao.quantization.prepare(module)
    example = torch.randn(1, 16, 9, 9) * 20
    prepared(example)
    converted = torch.ao.quantization.convert(prepared)
    compiled = qr.compile(torch.jit.trace(converted, example), [("x", example)], target=isa, engine="fbgemm")
    # codes of 6.0 at a scale of 6 / 127 are at most 127
    assert compiled.report["products"] == {"widened to int32": 1, "summed in int16 (proven to fit)": 1}
    assert "products: 1 x widened to int32, 1 x summed in int16 (proven to fit)" in summarize_report(compiled.report)
    if target_table.missing_on_host(target_table.resolve(isa)) is None:
        expected = converted(example).detach().numpy()
        assert (compiled(example.numpy()) == expected).all()
