"""Sensitivity blames the layer that is hard to quantize, and the search keeps no layer in float that it need not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_fx

from calibration.batches import ArrayBatches, Batches
from calibration.evaluate import evaluate, expected_outputs
from calibration.flows import single_layers
from calibration.mixed import quantize_within
from calibration.quantize import Options, fuse, observe, quantize, quantize_with_table
from calibration.recipes import scheme_of
from calibration.sensitivity import sensitivities
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import CalibrationError
from tests.calibration.networks import Stubbed, images, mobile

SCHEME = scheme_of("static_w8t_a8", "fbgemm", "minmax")
LAYERS = ("expand", "depthwise", "grouped", "project")


def with_a_bad_layer(name: str) -> nn.Module:
    """mobile() with one channel of a layer 100 times too large, which the next layer takes back.

    The function is mobile()'s; the codes of the layer's other channels are all but lost.
    """
    model = mobile()
    norm = model.get_submodule(name)[1]
    norm.weight[0] *= 100
    norm.bias[0] *= 100
    after = [*LAYERS, "classifier"][LAYERS.index(name) + 1]
    if after == "classifier":
        model.classifier.weight[:, 0] /= 100
    else:
        conv = model.get_submodule(after)[0]
        conv.weight.view(conv.groups, -1, *conv.weight.shape[1:])[0, :, 0] /= 100
    return model


def teacher_data(model: nn.Module, count: int = 200) -> ArrayBatches:
    """Images labelled by the float model itself: its accuracy is 1."""
    x = images(count, seed=6)
    return ArrayBatches((x,), model(x).argmax(dim=1), 50)


@pytest.mark.parametrize("mode", ["eager", "fx"])
@pytest.mark.parametrize("bad", LAYERS)
def test_the_planted_layer_is_blamed(bad: str, mode: str) -> None:
    model, prefix = with_a_bad_layer(bad), ""
    if mode == "eager":
        model, prefix = Stubbed(model).eval(), "network."
    data = teacher_data(model)
    fused = fuse(model, SCHEME, data, Options(mode))
    with quantized_engine("fbgemm"):
        costs = sensitivities(fused, observe(fused, data).ranges, data)
    assert costs[0].layer == f"{prefix}{bad}.0"
    assert costs[0].can_stay
    assert costs[0].sqnr_db < costs[1].sqnr_db - 6
    assert costs[0].loss_rise > max(cost.loss_rise for cost in costs[1:])
    names = {cost.layer for cost in costs}
    assert {f"{prefix}{name}.0" for name in LAYERS} | {f"{prefix}classifier"} <= names


def test_a_cost_is_that_of_the_layer_quantized_by_hand() -> None:
    model, data = mobile(), teacher_data(mobile())
    fused = fuse(model, SCHEME, data, Options("fx"))
    with quantized_engine("fbgemm"):
        ranges = observe(fused, data).ranges
        costs = {cost.layer: cost for cost in sensitivities(fused, ranges, data)}
    x, r = data.inputs[0], ranges["classifier"]
    pooled = torch.flatten(model.pool(model.project(model.grouped(model.depthwise(model.expand(x))))), 1)
    scale = model.classifier.weight.abs().max() / 127.5
    weight = torch.clamp(torch.round(model.classifier.weight / scale), -128, 127) * scale
    out = nn.functional.linear(pooled, weight, model.classifier.bias)
    codes = torch.clamp(torch.round(out / r.scale) + r.zero_point, r.quant_min, r.quant_max)
    noise = ((codes - r.zero_point) * r.scale - model(x)).square().sum()
    assert costs["classifier"].sqnr_db == pytest.approx(
        float(10 * torch.log10(model(x).square().sum() / noise)), abs=0.05
    )


def accuracy_of(model: nn.Module, data: Batches, float_model: nn.Module) -> float:
    with quantized_engine("fbgemm"):
        found = evaluate(model, data, expected_outputs(float_model, data), "")
    assert found.accuracy is not None
    return found.accuracy


@pytest.mark.parametrize("is_prepared", [False, True], ids=["plain", "with stubs"])
@pytest.mark.parametrize(("bad", "after"), [("depthwise", "grouped"), ("grouped", "project")])
def test_only_the_bad_layer_and_its_reader_stay_in_float(bad: str, after: str, is_prepared: bool) -> None:
    model: nn.Module = with_a_bad_layer(bad)
    prefix = "network." if is_prepared else ""
    model = Stubbed(model).eval() if is_prepared else model
    data = teacher_data(model)
    found = quantize_within(model, SCHEME, data, data, 30.0)
    # the codes of the channel that is too large are bad on both sides: where it is made, and where it is read
    assert {kept.cost.layer for kept in found.kept} == {f"{prefix}{bad}.0", f"{prefix}{after}.0"}
    assert found.drop <= 30.0 < min(kept.drop_without for kept in found.kept)
    assert found.float_accuracy == 1
    assert found.accuracy == accuracy_of(found.quantized.model, data, model)
    again = quantize_with_table(model, found.quantized.table)
    with quantized_engine("fbgemm"):
        assert torch.equal(again.model(data.inputs[0]), found.quantized.model(data.inputs[0]))


def test_nothing_stays_in_float_that_need_not() -> None:
    model = with_a_bad_layer("grouped")
    data = teacher_data(model)
    generous = quantize_within(model, SCHEME, data, data, 100.0)
    assert generous.kept == ()
    assert generous.tried == 1
    strict = quantize_within(model, SCHEME, data, data, 5.0)
    assert strict.drop <= 5.0
    assert len(strict.kept) < 6
    # what is claimed of each layer, checked by quantizing with all others in float
    names = [kept.cost.layer for kept in strict.kept]
    for kept in strict.kept:
        others = tuple(name for name in names if name != kept.cost.layer)
        made = quantize_with_table(model, replace(strict.quantized.table, in_float=others))
        assert 100 * (1 - accuracy_of(made.model, data, model)) == pytest.approx(kept.drop_without)
        assert kept.drop_without > 5.0


def test_layers_in_float_hand_floats_on() -> None:
    model, data = mobile(), teacher_data(mobile())
    every = tuple(sorted(single_layers(quantize_fx.fuse_fx(mobile()))))
    made = quantize(model, SCHEME, data, Options(in_float=every))
    with quantized_engine("fbgemm"):
        torch.testing.assert_close(made.model(data.inputs[0]), model(data.inputs[0]), rtol=0, atol=1e-4)
    # between the last two layers there are a pool and a flattening: floats too
    some = quantize(model, SCHEME, data, Options(in_float=("project.0", "classifier")))
    assert "flatten" not in [name for tensor in some.table.tensors for name in (tensor.name, *tensor.also)]


class Narrow(nn.Module):
    """Its answer hangs on the last bits of its input: no layer in float helps in eager mode, the input is codes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.layer.weight.data = torch.tensor([[1e4, -1e4, 0.0, 0.0], [-1e4, 1e4, 0.0, 0.0]])
        self.layer.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_what_cannot_be_met_is_said() -> None:
    model = Stubbed(Narrow()).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.ones(200, 4) + 1e-4 * torch.randn((200, 4), generator=generator)
    with torch.no_grad():
        data = ArrayBatches((x,), model(x).argmax(dim=1), 50)
    with pytest.raises(CalibrationError, match=r"even with all 1 layers in float accuracy drops by .* --mode fx hands"):
        quantize_within(model, SCHEME, data, data, 1.0, Options("eager"))
    with pytest.raises(CalibrationError, match="--max-drop needs labels"):
        quantize_within(model, SCHEME, data, ArrayBatches((x,)), 1.0)
    with pytest.raises(CalibrationError, match="accepted is 0 or more"):
        quantize_within(model, SCHEME, data, data, -1.0)
    with pytest.raises(CalibrationError, match="does not fit labels from 7 to 7"):
        quantize_within(model, SCHEME, data, ArrayBatches((x,), torch.full((200,), 7)), 1.0)
