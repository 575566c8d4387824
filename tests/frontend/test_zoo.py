"""The smaller torchvision networks, every layer through kernels and portable code: 0 differing codes.

`make zoo` does the same for all eight at full size.
"""

from __future__ import annotations

import pytest

from accuracy_reports.layers.compare import compare_captured
from accuracy_reports.zoo import quantized_model, random_images
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model
from tests.frontend.models import UNOPTIMIZED

# (network, engine, flow, qat, image size); every engine, flow and kind of training occurs.
NETWORKS = [
    ("resnet18", "fbgemm", "eager", False, 64),
    ("resnet18", "onednn", "fx", False, 64),
    ("resnet18", "qnnpack", "eager", True, 64),
    ("mobilenet_v2", "fbgemm", "eager", True, 64),
    ("mobilenet_v2", "onednn", "eager", False, 64),
    ("mobilenet_v3_large", "fbgemm", "fx", True, 64),
    ("mobilenet_v3_large", "qnnpack", "eager", False, 64),
    ("shufflenet_v2_x1_0", "fbgemm", "eager", False, 64),
    ("shufflenet_v2_x1_0", "x86", "fx", False, 64),
]


@pytest.mark.parametrize(("name", "engine", "flow", "qat", "size"), NETWORKS)
def test_all_layers_equal_pytorch(name: str, engine: str, flow: str, qat: bool, size: int) -> None:
    network = quantized_model(name, engine, flow=flow, qat=qat, image_size=size)
    captured = capture_model(network.module, [("x", network.input_shape)], engine)
    inputs = [random_images(1, size, seed=1).numpy()]
    reference = run_reference(captured, inputs)
    for target, path in (("host", "kernels"), (UNOPTIMIZED, "portable")):
        result = compare_captured(captured, reference, inputs, target)
        assert result.path == path
        first = result.first_differing
        assert first is None, f"{first.op} in {first.scope}: {first.differing} of {first.elements} differ"
        assert [output.differing for output in result.outputs] == [0] * len(result.outputs)
        assert len(result.layers) > 30
