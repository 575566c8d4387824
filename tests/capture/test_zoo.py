"""The zoo's networks are reproducible, spread their codes, and are captured exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accuracy_reports.zoo import IMAGE_SIZES, UnknownModelError, quantized_model, random_images
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import EngineError
from qtorch_relay.qparams import QuantizedTensor

pytestmark = [
    pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support:UserWarning"),
]
# (name, engine, flow, qat, from TorchScript); resnext101, resnet50 and inception_v3 take too long here.
LIGHT = [
    ("resnet18", "fbgemm", "eager", False, False),
    ("mobilenet_v2", "qnnpack", "fx", True, False),
    ("mobilenet_v3_large", "onednn", "eager", False, True),
    ("shufflenet_v2_x1_0", "x86", "fx", False, True),
]


@pytest.mark.parametrize(("name", "engine", "flow", "qat", "scripted"), LIGHT)
def test_networks_are_captured_exactly_and_spread_their_codes(name, engine, flow, qat, scripted):
    module, shape = quantized_model(name, engine, flow, qat, image_size=64, calibration_images=1)
    images = random_images(3, 64, seed=5)
    with quantized_engine(engine), torch.no_grad():
        expected = module(images)
        given = torch.jit.freeze(torch.jit.script(module)) if scripted else module
    captured = capture_model(given, [("x", shape)], engine)
    run = run_reference(captured, [images[:1]])
    with quantized_engine(engine), torch.no_grad():
        assert torch.equal(run.output, module(images[:1]))
    assert not any(node.blocks for node in captured.graph.nodes)
    assert not any(node.name == "aten::size" for node in captured.graph.nodes)
    distinct = [
        len(np.unique(v.codes)) for v in run.values.values() if isinstance(v, QuantizedTensor) and v.codes.size > 999
    ]
    assert np.median(distinct) > 60
    assert min(distinct) > 5
    assert len(expected[0].unique()) > 30  # logits differ between classes
    assert (expected[0] != expected[1]).float().mean() > 0.5  # and between images


def test_equal_arguments_give_equal_models():
    images = random_images(1, 32)
    with quantized_engine("fbgemm"):
        first, second = (quantized_model("resnet18", "fbgemm", image_size=32, seed=3).module(images) for _ in range(2))
        other = quantized_model("resnet18", "fbgemm", image_size=32, seed=4).module(images)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_transform_input_puts_float_ops_before_quantize():
    module, shape = quantized_model("googlenet", "fbgemm", image_size=32, transform_input=True)
    captured = capture_model(module, [("x", shape)], "fbgemm")
    names = [node.name for node in captured.graph.nodes]
    assert names.index("aten::mul") < names.index("aten::quantize_per_tensor")
    images = random_images(1, 32)
    with quantized_engine("fbgemm"):
        assert torch.equal(run_reference(captured, [images]).output, module(images))


def test_what_the_zoo_lacks_is_named():
    with pytest.raises(UnknownModelError, match="'vgg11' is unknown; accepted are resnet18"):
        quantized_model("vgg11", "fbgemm")
    with pytest.raises(UnknownModelError, match="flow 'pt2e' is unknown; accepted are eager, fx"):
        quantized_model("resnet18", "fbgemm", "pt2e")
    with pytest.raises(UnknownModelError, match="resnet18 has no transform_input"):
        quantized_model("resnet18", "fbgemm", transform_input=True)
    with pytest.raises(EngineError, match="'tpu'"):
        quantized_model("resnet18", "tpu")
    assert len(IMAGE_SIZES) == 8
