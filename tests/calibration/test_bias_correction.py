"""After bias correction, a layer with rounded weights has the float layer's mean in every channel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_fx

from calibration.batches import ArrayBatches
from calibration.bias_correction import bias_corrections, correct_biases, rounded_weight
from calibration.flows import weighted_layers
from calibration.quantize import Options, quantize
from calibration.recipes import scheme_of
from qtorch_relay.capture.engine import quantized_engine
from tests.calibration.networks import Stubbed, images, mobile, seeded


def means_of_layers(model: nn.Module, x: torch.Tensor, changed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each layer's mean output by channel on the model's own inputs to it, with the layer's weight changed."""
    means: dict[str, torch.Tensor] = {}

    def hook(path: str):
        def take(layer: nn.Module, args: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
            twin = copy.deepcopy(layer)
            twin._forward_hooks.clear()
            twin.weight.data = changed.get(path, layer.weight.data)
            out = twin.double()(args[0].double())
            means[path] = out.mean(dim=[i for i in range(out.dim()) if i != 1])

        return take

    for path, layer in weighted_layers(model).items():
        layer.register_forward_hook(hook(path))
    with torch.no_grad():
        model(x)
    return means


@pytest.mark.parametrize("recipe", ["static_w8c_a8", "static_w8t_a8"])
def test_means_are_those_of_the_float_layer(recipe: str) -> None:
    scheme, x = scheme_of(recipe, "fbgemm", "minmax"), images()
    fused = quantize_fx.fuse_fx(mobile())
    corrections = bias_corrections(fused, scheme, ArrayBatches((x,), batch_size=7))
    rounded = {path: rounded_weight(layer, scheme) for path, layer in weighted_layers(fused).items()}
    expected = means_of_layers(copy.deepcopy(fused), x, {})
    wrong = means_of_layers(copy.deepcopy(fused), x, rounded)
    assert set(corrections) == set(expected) == {"expand.0", "depthwise.0", "grouped.0", "project.0", "classifier"}
    for path, values in corrections.items():
        # the inputs are the float model's in both, so the corrected bias must make up for exactly what was lost
        shift = wrong[path] - expected[path]
        assert float(shift.abs().max()) > 1e-6
        torch.testing.assert_close(wrong[path] + torch.tensor(values), expected[path], rtol=0, atol=1e-6)


def test_a_layer_without_bias_gets_one() -> None:
    layer = nn.Sequential(nn.Linear(4, 3, bias=False))
    corrected = correct_biases(layer, {"0": (1.0, 2.0, 3.0)})
    torch.testing.assert_close(corrected(torch.zeros(1, 4)), torch.tensor([[1.0, 2.0, 3.0]]))
    assert layer[0].bias is None


@pytest.mark.parametrize("mode", ["fx", "eager"])
def test_the_int8_outputs_are_less_biased(mode: str) -> None:
    network = seeded(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)))
    with torch.no_grad():  # one large weight makes the rounding of the others coarse
        network[2].weight.view(-1)[0] = 30 * network[2].weight.abs().max()
    model = network if mode == "fx" else Stubbed(network).eval()
    x, biases = images(96), {}
    for is_corrected in (False, True):
        scheme = scheme_of("static_w8t_a8", "onednn", "minmax")
        made = quantize(model, scheme, ArrayBatches((x,)), Options(mode, correct_bias=is_corrected))
        with quantized_engine("onednn"):
            biases[is_corrected] = (made.model(x) - model(x)).mean(dim=(0, 2, 3)).abs()
    assert float(biases[True][1:].mean()) < 0.2 * float(biases[False][1:].mean())
