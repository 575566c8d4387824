"""Training with simulated quantization: repeatable, better than what it starts from, refusals in words."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from calibration.batches import ArrayBatches
from calibration.evaluate import evaluate, expected_outputs
from calibration.qat import Training, train_quantized
from calibration.recipes import scheme_of
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import CalibrationError


def spoiled(network: nn.Module) -> nn.Module:
    """Returns the digits network with its classifier's weights disturbed: training has something to mend."""
    model = copy.deepcopy(network)
    with torch.no_grad():
        noise = torch.randn(model.classifier.weight.shape, generator=torch.Generator().manual_seed(1))
        model.classifier.weight.add_(0.7 * noise)
    return model


@pytest.mark.parametrize(("mode", "engine"), [("fx", "fbgemm"), ("eager", "onednn")])
def test_it_trains(mode: str, engine: str, network: nn.Module, training: ArrayBatches, test: ArrayBatches) -> None:
    model, scheme = spoiled(network), scheme_of("qat_w8c_a8", engine)
    before = copy.deepcopy(model.state_dict())
    made = train_quantized(model, scheme, training, Training(epochs=4, learning_rate=1e-2), mode)
    expected = expected_outputs(model, test)
    with quantized_engine(engine):
        found = evaluate(made.model, test, expected, "")
    assert found.accuracy > expected.answers().accuracy + 0.03
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert made.table.trained
    assert len(made.table.tensors) >= 5


def test_the_same_seed_gives_the_same_model(network: nn.Module, training: ArrayBatches) -> None:
    scheme, x = scheme_of("qat_w8c_a8", "fbgemm"), training.inputs[0]
    made = [train_quantized(network, scheme, training, Training(epochs=2)) for _ in range(2)]
    assert made[0].table == made[1].table
    with quantized_engine("fbgemm"):
        assert torch.equal(made[0].model(x)[1], made[1].model(x)[1])


def test_without_labels_it_learns_the_float_models_outputs(network: nn.Module, training: ArrayBatches) -> None:
    scheme, unlabelled = scheme_of("qat_w8c_a8", "fbgemm"), ArrayBatches(training.inputs)
    made = train_quantized(network, scheme, unlabelled, Training(epochs=2, learning_rate=1e-3))
    with quantized_engine("fbgemm"):
        found = evaluate(made.model, unlabelled, expected_outputs(network, unlabelled), "")
    assert found.accuracy is None
    assert found.sqnr_db > 20


def test_refusals(network: nn.Module, training: ArrayBatches) -> None:
    scheme = scheme_of("qat_w8c_a8", "fbgemm")
    with pytest.raises(CalibrationError, match="accepted are 1 epoch or more, and a rate above 0"):
        Training(0)
    with pytest.raises(CalibrationError, match="recipe static_w8c_a8 trains nothing"):
        train_quantized(network, scheme_of("static_w8c_a8", "fbgemm"), training)
    with pytest.raises(CalibrationError, match="choose a lower learning rate"):
        train_quantized(network, scheme, training, Training(1, 1e30))
