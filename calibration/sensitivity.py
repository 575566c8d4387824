"""Sensitivity: what each layer's quantization alone costs, measured on the float model with that layer simulated."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calibration.batches import Batches, Track, untracked
from calibration.bias_correction import rounded_weight
from calibration.evaluate import Answers, evaluate, expected_outputs
from calibration.flows import single_layers, weighted_layers
from calibration.observed import TensorRange, observed_tensors, replace_observer
from calibration.quantize import Fused


@dataclass(frozen=True)
class LayerCost:
    """What is lost when one layer alone is quantized, its weight and its output.

    can_stay: whether it is a layer that can stay in float; else an operation or an input.
    sqnr_db: of the model's outputs against the float model's. accuracy_drop: in points of a hundred, loss_rise: of the
    cross entropy; None without labels.
    """

    layer: str
    can_stay: bool
    sqnr_db: float
    accuracy_drop: float | None
    loss_rise: float | None


def sensitivities(
    fused: Fused, ranges: dict[str, TensorRange], batches: Batches, track: Track = untracked
) -> tuple[LayerCost, ...]:
    """Returns what each layer costs, the most expensive first: by the distortion of the model's outputs.

    A layer that is quantized has its weight rounded to its codes, and its output to the codes of its range, in float32:
    the codes that int8 kernels compute, but for the rounding of their multipliers.

    Source: as the QuantizationDebugger of TensorFlow Lite and NVIDIA's sensitivity profile (one layer at a time).
    """
    simulated, layers = Simulated(fused, ranges), single_layers(fused.model)
    expected = expected_outputs(fused.model, batches, track)
    plain = expected.answers()
    costs = []
    for name in track(simulated.names, "layer by layer", len(simulated.names)):
        with simulated.quantized(name):
            found = evaluate(simulated.model, batches, expected, name)
        costs.append(_cost(name, name in layers, found, plain))
    return tuple(sorted(costs, key=lambda cost: cost.sqnr_db))


def _cost(name: str, can_stay: bool, found: Answers, plain: Answers) -> LayerCost:
    drop = None if found.accuracy is None or plain.accuracy is None else 100 * (plain.accuracy - found.accuracy)
    rise = None if found.loss is None or plain.loss is None else found.loss - plain.loss
    return LayerCost(name, can_stay, found.sqnr_db if math.isfinite(found.sqnr_db) else math.inf, drop, rise)


class Simulated:
    """A prepared float model in which layers can be quantized one at a time."""

    def __init__(self, fused: Fused, ranges: dict[str, TensorRange]) -> None:
        self.model = copy.deepcopy(fused.prepare()).eval()
        self.switches: dict[str, _Switch] = {}
        for name, tensor in observed_tensors(self.model).items():
            self.switches[name] = _Switch(ranges[name])
            replace_observer(self.model, tensor, self.switches[name])
        self.layers = weighted_layers(self.model)
        self._rounded = {path: rounded_weight(layer, fused.scheme) for path, layer in self.layers.items()}
        self.names = [*self.switches, *(path for path in self.layers if path not in self.switches)]

    @contextmanager
    def quantized(self, name: str) -> Iterator[None]:
        """Quantizes a layer's weight and output while the block runs."""
        layer, switch = self.layers.get(name), self.switches.get(name)
        weight = None if layer is None else layer.weight.data
        try:
            if layer is not None:
                layer.weight.data = self._rounded[name]
            if switch is not None:
                switch.is_on = True
            yield
        finally:
            if layer is not None:
                layer.weight.data = weight
            if switch is not None:
                switch.is_on = False


class _Switch(nn.Module):
    """Rounds a tensor to the codes of its range where it is on."""

    def __init__(self, range_: TensorRange) -> None:
        super().__init__()
        self.range, self.is_on = range_, False

    def forward(self, x: Tensor) -> Tensor:
        """Returns the tensor, rounded or as it is."""
        if not self.is_on:
            return x
        r = self.range
        return torch.fake_quantize_per_tensor_affine(x, r.scale, r.zero_point, r.quant_min, r.quant_max)
