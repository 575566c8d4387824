"""Equalization leaves the float function as it is and makes neighbouring ranges equal."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.ao.quantization import quantize_fx

from calibration.batches import ArrayBatches
from calibration.equalization import Pair, equalize, find_pairs
from calibration.quantize import Options, quantize
from calibration.recipes import scheme_of
from qtorch_relay.capture.engine import quantized_engine
from tests.calibration.networks import Mobile, Residual, images, mobile, seeded


def fused_mobile() -> nn.Module:
    return quantize_fx.fuse_fx(mobile())


def unbalanced() -> Mobile:
    """mobile() with channels of very different ranges, as depthwise networks have after batch norms are folded."""
    model = mobile()
    chain = (model.expand, model.depthwise, model.grouped)
    with torch.no_grad():
        for block, after in zip(chain, (*chain[1:], model.project), strict=True):
            factors = 10 ** torch.linspace(-1.5, 1.5, block[1].weight.numel())
            block[1].weight.mul_(factors)
            block[1].bias.mul_(factors)
            weight = after[0].weight  # takes the factors back: the function is mobile()'s
            weight.view(after[0].groups, -1, *weight.shape[1:]).div_(factors.view(after[0].groups, 1, -1, 1, 1))
    return model


def test_the_float_function_is_the_same() -> None:
    fused, x = quantize_fx.fuse_fx(unbalanced()), images()
    equalized, done = equalize(fused)
    expected, found = fused(x), equalized(x)
    assert len(done.pairs) == 4
    # float32 rounding of scaled weights: three parts in a million of the largest output
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-6 * float(expected.detach().abs().max()))
    assert not torch.equal(fused.get_submodule("expand.0.0").weight, equalized.get_submodule("expand.0.0").weight)
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=0)  # the model that was given stays


def test_ranges_of_neighbours_are_equal_afterwards() -> None:
    equalized, done = equalize(quantize_fx.fuse_fx(unbalanced()))
    assert 1 < done.rounds < 50
    for pair in done.pairs:
        first, second = equalized.get_submodule(pair.first), equalized.get_submodule(pair.second)
        outputs = first.weight.abs().flatten(1).amax(1)
        groups = getattr(second, "groups", 1)
        split = second.weight.reshape(groups, second.weight.shape[0] // groups, second.weight.shape[1], -1)
        inputs = split.abs().amax(dim=(1, 3)).flatten()
        torch.testing.assert_close(outputs, inputs, rtol=5e-3, atol=0)


def test_pairs_end_where_scales_would_not_pass() -> None:
    # the first layer feeds a sum too, the third ReLU6, and a layer that runs twice has two neighbours
    assert list(find_pairs(seeded(Residual()))) == []
    assert Pair("expand.0.0", "depthwise.0.0") in list(find_pairs(fused_mobile()))


def test_flattened_planes_are_no_channels() -> None:
    # 8 channels of 2 x 2 become 32 features: feature i is not channel i
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(32, 4))
    assert list(find_pairs(model)) == []
    pooled = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    assert list(find_pairs(pooled)) == [Pair("0", "3")]
    # a linear layer on the last axis mixes columns, not channels
    assert list(find_pairs(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Linear(8, 4)))) == []


def test_shared_weights_stay() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert list(find_pairs(nn.Sequential(first, nn.ReLU(), second))) == []


def test_dead_channels_stay_finite() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[2].weight[:, 2] = 0
    equalized, _ = equalize(model)
    assert all(torch.isfinite(parameter).all() for parameter in equalized.parameters())
    x = torch.randn(5, 3)
    torch.testing.assert_close(equalized(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_one_scale_for_a_tensor_is_enough_after_it(engine: str) -> None:
    model, x = unbalanced(), images()
    errors = {}
    for is_equalized in (False, True):
        made = quantize(
            model, scheme_of("static_w8t_a8", engine, "minmax"), ArrayBatches((x,)), Options("fx", is_equalized)
        )
        with quantized_engine(engine):
            errors[is_equalized] = float((made.model(x) - model(x)).square().mean())
        assert made.table.equalized is is_equalized
    assert errors[True] < errors[False] / 10
