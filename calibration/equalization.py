"""Cross-layer equalization: scales move between neighbouring layers until no channel wastes its codes."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from calibration.fusion import trace

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
# f(s * x) == s * f(x) for s > 0
_HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Dropout2d)
_HOMOGENEOUS_CALLS = (torch.relu, nn.functional.relu, nn.functional.leaky_relu, "relu", "relu_", "contiguous")
# the same, in each plane of its own
_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
_MOST_ROUNDS = 50
_SETTLED = 1e-3


@dataclass(frozen=True)
class Pair:
    """Two layers, by path, of which the first feeds the second alone through functions that are homogeneous."""

    first: str
    second: str


@dataclass(frozen=True)
class Equalization:
    """What equalization did. rounds: over all pairs, until scales change by less than a thousandth."""

    pairs: tuple[Pair, ...]
    rounds: int


def equalize(model: nn.Module) -> tuple[nn.Module, Equalization]:
    """Returns a copy of a float model (batch norms folded) whose neighbouring layers are equalized, and what was done.

    For channel i between two layers, with r1[i] the largest |weight| of the first layer's output channel and r2[i] that
    of the second's input channel:

        s[i] = sqrt(r1[i] * r2[i]) / r2[i];   W1[i] /= s[i], b1[i] /= s[i], W2[:, i] *= s[i]

    after which both ranges are sqrt(r1[i] * r2[i]). The float function is the same, since what lies between is
    homogeneous: ReLU, LeakyReLU, pooling; ReLU6 is not. Chains (pointwise, depthwise, pointwise) settle over rounds,
    at equal ranges in all layers.

    Raises: CalibrationError if torch.fx cannot trace the model.
    Source: M. Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1.
    """
    equalized = copy.deepcopy(model)
    pairs = tuple(find_pairs(equalized))
    change, rounds = float("inf") if pairs else 0.0, 0
    with torch.no_grad():
        while change >= _SETTLED and rounds < _MOST_ROUNDS:
            change, rounds = max(_equalize_pair(equalized, pair) for pair in pairs), rounds + 1
    return equalized, Equalization(pairs, rounds)


def find_pairs(model: nn.Module) -> Iterator[Pair]:
    """Yields the pairs of layers that can be equalized: both run once, and share their weights with nobody."""
    graph = trace(model)
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    targets = [str(node.target) for node in calls]
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))

    def is_free(path: str) -> bool:
        layer = graph.get_submodule(path)
        alone = all(owners[id(parameter)] == 1 for parameter in layer.parameters())
        return isinstance(layer, _LAYERS) and targets.count(path) == 1 and alone

    for node in calls:
        if is_free(str(node.target)):
            second = _fed_alone(graph, node)
            if second is not None and is_free(second):
                yield Pair(str(node.target), second)


def _fed_alone(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """Returns the path of the layer that a layer feeds channel by channel, and nothing else; None if there is none."""
    first = graph.get_submodule(str(node.target))
    is_flat = False
    while len(node.users) == 1:
        [node] = node.users
        module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, _LAYERS):
            return str(node.target) if _fits(first, module, is_flat=is_flat) else None
        pools = isinstance(module, _POOLS) or node.target is nn.functional.max_pool2d
        if pools and isinstance(first, nn.Linear):
            return None  # its features are the last axis, which pools mix
        if isinstance(module, nn.Flatten) or node.target is torch.flatten:
            is_flat = True
        elif not (pools or isinstance(module, _HOMOGENEOUS) or node.target in _HOMOGENEOUS_CALLS):
            return None
    return None


def _fits(first: nn.Module, second: nn.Module, *, is_flat: bool) -> bool:
    """Whether output channel i of the first layer is input channel i of the second.

    Flattened channels are one feature each only where there are as many features as channels.
    """
    if isinstance(second, nn.Linear):
        return _outputs(first) == second.in_features and is_flat != isinstance(first, nn.Linear)
    return not isinstance(first, nn.Linear) and not is_flat and _outputs(first) == second.in_channels


def _outputs(layer: nn.Module) -> int:
    return int(layer.weight.shape[0])


def _equalize_pair(model: nn.Module, pair: Pair) -> float:
    """Equalizes two layers in place; returns the largest change of a scale, |s - 1|."""
    first, second = model.get_submodule(pair.first), model.get_submodule(pair.second)
    grouped = _by_input_channel(second)
    r1 = first.weight.double().abs().flatten(1).amax(dim=1)
    r2 = grouped.double().abs().amax(dim=(1, 3)).flatten()
    # a channel that is zero on one side stays: there is nothing to balance
    s = torch.where((r1 > 0) & (r2 > 0), torch.sqrt(r1 / r2.clamp_min(torch.finfo(r2.dtype).tiny)), 1.0)
    first.weight.copy_(first.weight.double() / s.reshape(-1, *[1] * (first.weight.dim() - 1)))
    if first.bias is not None:
        first.bias.copy_(first.bias.double() / s)
    grouped.copy_(grouped.double() * s.reshape(len(grouped), 1, -1, 1))
    return float((s - 1).abs().max())


def _by_input_channel(layer: nn.Module) -> Tensor:
    """Returns a view [groups, outputs, inputs, rest] of a layer's weight; input channel g * inputs + i is [g, :, i]."""
    groups = getattr(layer, "groups", 1)
    outputs, inputs = layer.weight.shape[:2]
    return layer.weight.view(groups, outputs // groups, inputs, -1)
