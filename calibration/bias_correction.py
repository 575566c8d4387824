"""Bias correction: what rounding the weights adds to each output channel on average is taken out of its bias."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from calibration.batches import Batches, Track, untracked
from calibration.flows import weighted_layers
from calibration.recipes import TRANSPOSED, Scheme


def rounded_weight(layer: nn.Module, scheme: Scheme) -> Tensor:
    """Returns a layer's weight after quantization: codes times scales, in float32."""
    observer = layer_weight_observer(layer, scheme)
    weight = layer.weight.detach()
    scales, zero_points = observer.calculate_qparams()
    limits = int(observer.quant_min), int(observer.quant_max)
    if scales.numel() == 1:
        return torch.fake_quantize_per_tensor_affine(weight, float(scales), int(zero_points), *limits)
    return torch.fake_quantize_per_channel_affine(weight, scales, zero_points.int(), observer.ch_axis, *limits)


def layer_weight_observer(layer: nn.Module, scheme: Scheme) -> Any:
    """Returns the observer of a layer's weight, which has seen it."""
    observer = scheme.weight(per_channel=scheme.recipe.per_channel and not isinstance(layer, TRANSPOSED))()
    observer(layer.weight.detach())
    return observer


def bias_corrections(
    fused: nn.Module, scheme: Scheme, batches: Batches, track: Track = untracked
) -> dict[str, tuple[float, ...]]:
    """Returns what to add to the bias of each weighted layer of a fused float model, [channels] by layer.

        correction[c] = -E[(layer(x; Wq) - layer(x; W))[c]]

    x: the layer's inputs in the float model on the data, all samples and positions; Wq: the quantized weight. With it
    added, the layer with its quantized weight has the float layer's mean in every channel. Sums are in float64, so
    memory does not grow with the data.

    Source: M. Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2
    (the empirical form of appendix D).
    """
    model = copy.deepcopy(fused).eval()
    layers = weighted_layers(model)
    shifts = {path: _MeanShift(layer, rounded_weight(layer, scheme)) for path, layer in layers.items()}
    handles = [layer.register_forward_hook(shifts[path].add) for path, layer in layers.items()]
    with torch.inference_mode():
        for batch in track(batches, "correcting biases", len(batches)):
            model(*batch.inputs)
    for handle in handles:
        handle.remove()
    return {path: tuple((-shift.mean).tolist()) for path, shift in shifts.items() if shift.count}


def correct_biases(fused: nn.Module, corrections: dict[str, tuple[float, ...]]) -> nn.Module:
    """Returns a copy of a fused float model with the corrections added to its biases."""
    model = copy.deepcopy(fused)
    layers = weighted_layers(model)
    for path, values in corrections.items():
        layer, addend = layers[path], torch.tensor(values, dtype=torch.float64)
        bias = torch.zeros_like(addend) if layer.bias is None else layer.bias.detach().double()
        layer.bias = nn.Parameter((bias + addend).float(), requires_grad=False)
    return model


class _MeanShift:
    """The running mean, by output channel, of what a changed weight adds to a layer's output."""

    def __init__(self, layer: nn.Module, changed: Tensor) -> None:
        # a layer of the same form without bias, whose output is the difference: layers are linear in their weight
        self.difference = copy.deepcopy(layer)
        self.difference.bias = None
        self.difference.weight = nn.Parameter(changed - layer.weight.detach(), requires_grad=False)
        self.sum: Tensor | float = 0.0
        self.count = 0

    def add(self, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """Takes in what the layer was called with."""
        shift = self.difference(*args)
        channels = shift.dim() - 1 if isinstance(self.difference, nn.Linear) else 1
        rows = shift.double().movedim(channels, 0).flatten(1)
        self.sum = self.sum + rows.sum(dim=1)
        self.count += rows.shape[1]

    @property
    def mean(self) -> Tensor:
        """The mean by channel, [channels] float64."""
        return torch.as_tensor(self.sum) / self.count
