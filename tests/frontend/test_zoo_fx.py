"""torchvision's classifiers without a quantizable form, quantized by FX, saved and loaded: 0 differing codes.

`make zoo-fx` does the same for eleven of them at full size; here are a small one, and others made small.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from accuracy_reports.zoo import ZooModel, import_torchvision, random_images, randomize, vary_parameters
from accuracy_reports.zoo_fx_report import compare_fx_model, compare_network
from tests.frontend.models import UNOPTIMIZED
from tests.frontend.test_floating import NETWORK, _quantized

SIZE = 32
models = import_torchvision().models


def _convnext() -> nn.Module:
    block = models.convnext.CNBlockConfig
    network: nn.Module = models.ConvNeXt([block(16, 32, 1), block(32, None, 1)], num_classes=10)
    return network


def _swin() -> nn.Module:
    # 8x8 patches in windows of 4x4, the second block's shifted; 4x4 after the merge, in windows as large as that
    network: nn.Module = models.SwinTransformer([4, 4], 16, [2, 1], [2, 4], [4, 4], num_classes=10)
    return network


def _vision_transformer() -> nn.Module:
    network: nn.Module = models.VisionTransformer(SIZE, 8, 2, 4, 32, 64, num_classes=10)
    return network


def _densenet() -> nn.Module:
    network: nn.Module = models.DenseNet(8, (2, 2), 16, num_classes=10)
    return network


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # PyTorch's vector tails depend on the number of threads


def test_a_small_network_of_codes_throughout_is_equal() -> None:
    row = compare_fx_model("squeezenet1_1", "fbgemm", size=64)
    assert (row.path, row.wrong, row.differing_codes, row.differing_floats, row.output_differing) == (
        "kernels",
        (),
        0,
        0,
        0,
    )
    assert row.layers > 30


@pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max")
@pytest.mark.parametrize("make", [_convnext, _swin, _vision_transformer, _densenet])
def test_networks_are_equal_up_to_the_rounding_of_floats(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, images = make(), random_images(2, SIZE)
    vary_parameters(network)
    randomize(network, images)
    shape = (1, 3, SIZE, SIZE)
    in_float = compare_network(make.__name__, ZooModel(network.eval(), shape), "fbgemm", target=UNOPTIMIZED)
    assert (in_float.wrong, in_float.codes) == ((), 0)
    assert in_float.output_fraction <= NETWORK
    quantized = ZooModel(_quantized(network, images, "fx"), shape)
    row = compare_network(make.__name__, quantized, "fbgemm", target=UNOPTIMIZED)
    assert (row.wrong, row.differing_codes) == ((), 0)
    assert row.largest_ulp <= 2
