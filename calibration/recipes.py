"""Recipes: what is quantized and when its ranges are found, by name; and the qconfigs they become for an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.ao import quantization as q
from torch.ao.quantization.observer import PlaceholderObserver

from calibration.engines import engine_limits
from calibration.observers.names import (
    DEFAULT_ACTIVATION,
    DEFAULT_WEIGHT,
    ObserverName,
    check_weight_observer,
    parse_observer,
    weight_observer,
)
from qtorch_relay.errors import CalibrationError

# PyTorch's kernels of transposed convolutions take a scale per tensor only.
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, *TRANSPOSED)
_TRANSPOSED_FUNCTIONS = (
    nn.functional.conv_transpose1d,
    nn.functional.conv_transpose2d,
    nn.functional.conv_transpose3d,
)
DYNAMIC_LAYERS = (nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell)


@dataclass(frozen=True)
class StaticRecipe:
    """Weights and activations are codes; ranges of activations come from calibration data."""

    name: str
    per_channel: bool
    summary: str


@dataclass(frozen=True)
class DynamicRecipe:
    """Weights of linear and recurrent layers are codes; activations are quantized as they come. Takes no data."""

    name: str
    per_channel: bool
    summary: str


@dataclass(frozen=True)
class QatRecipe:
    """As a static recipe, but weights and ranges are trained on with quantization simulated. Takes labelled data."""

    name: str
    per_channel: bool
    summary: str


Recipe: TypeAlias = StaticRecipe | DynamicRecipe | QatRecipe

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        StaticRecipe("static_w8c_a8", True, "int8 weights with a scale per channel, 8-bit activations"),
        StaticRecipe("static_w8t_a8", False, "int8 weights with a scale per tensor, 8-bit activations"),
        DynamicRecipe(
            "dynamic_w8c", True, "linear layers with a scale per channel, activations quantized as they come"
        ),
        QatRecipe("qat_w8c_a8", True, "as static_w8c_a8 after some epochs of training with simulated quantization"),
    )
}

DEFAULT_RECIPE, DEFAULT_ENGINE = "static_w8c_a8", "fbgemm"


def recipe_named(name: str) -> Recipe:
    """Returns a recipe.

    Raises: CalibrationError if it is unknown.
    """
    if name not in RECIPES:
        raise CalibrationError(f"recipe {name!r} is unknown; accepted are {', '.join(RECIPES)}")
    return RECIPES[name]


@dataclass(frozen=True)
class Scheme:
    """A recipe for an engine with observers: everything that decides scales and zero points, but the data.

    Raises: CalibrationError if the recipe does not take the observers.
    """

    recipe: Recipe
    engine: str
    observer: ObserverName
    weight_observer: str

    def __post_init__(self) -> None:
        engine_limits(self.engine)
        check_weight_observer(self.weight_observer)
        if isinstance(self.recipe, StaticRecipe):
            return
        if self.observer.name != DEFAULT_ACTIVATION:
            why = "trains its ranges" if isinstance(self.recipe, QatRecipe) else "finds its ranges when the model runs"
            raise CalibrationError(f"recipe {self.recipe.name} {why}; leave out the observer {self.observer}")
        if self.weight_observer != DEFAULT_WEIGHT:
            raise CalibrationError(
                f"recipe {self.recipe.name} takes weights by their extremes; leave out {self.weight_observer}"
            )

    def activation(self) -> Any:
        """Returns a factory of observers of activations: quint8, affine."""
        return _Factory(self.observer, engine_limits(self.engine).quant_max)

    def weight(self, *, per_channel: bool) -> Any:
        """Returns a factory of observers of weights."""
        return weight_observer(self.weight_observer, per_channel=per_channel)

    def qconfig(self) -> q.QConfig:
        """Returns the qconfig of ordinary layers."""
        return q.QConfig(activation=self.activation(), weight=self.weight(per_channel=self.recipe.per_channel))

    def transposed_qconfig(self) -> q.QConfig:
        """Returns the qconfig of transposed convolutions."""
        return q.QConfig(activation=self.activation(), weight=self.weight(per_channel=False))

    def mapping(self) -> q.QConfigMapping:
        """Returns the mapping FX takes: PyTorch's own for the engine, with the scheme's observers."""
        mapping = q.get_default_qconfig_mapping(self.engine)
        default = mapping.global_qconfig.activation
        for kind, qconfig in mapping.object_type_qconfigs.items():
            if kind in (*TRANSPOSED, *_TRANSPOSED_FUNCTIONS):
                mapping.set_object_type(kind, self.transposed_qconfig())
            elif qconfig.activation is default:
                mapping.set_object_type(kind, q.QConfig(activation=self.activation(), weight=qconfig.weight))
        return mapping.set_global(self.qconfig())

    def qat_mapping(self) -> q.QConfigMapping:
        """Returns the mapping FX trains with: PyTorch's own."""
        return q.get_default_qat_qconfig_mapping(self.engine)

    def dynamic_qconfigs(self) -> dict[type[nn.Module], q.QConfig]:
        """Returns what `quantize_dynamic` takes; only linear layers have kernels with a scale per channel."""
        per_channel = q.QConfig(
            activation=PlaceholderObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=255, is_dynamic=True),
            weight=self.weight(per_channel=True),
        )
        return {kind: per_channel if kind is nn.Linear else q.default_dynamic_qconfig for kind in DYNAMIC_LAYERS}


def scheme_of(recipe: str, engine: str, observer: str | None = None, weight: str | None = None) -> Scheme:
    """Returns the scheme of names; observers left out are PyTorch's defaults.

    Raises: CalibrationError if a name is unknown, or the recipe does not take an observer.
    """
    return Scheme(
        recipe_named(recipe), engine, parse_observer(observer or DEFAULT_ACTIVATION), weight or DEFAULT_WEIGHT
    )


@dataclass(frozen=True)
class _Factory:
    """Makes observers of activations; a qconfig holds factories, and compares them to see whether layers agree."""

    observer: ObserverName
    quant_max: int

    def __call__(self, **options: Any) -> Any:
        return self.observer.make(dtype=torch.quint8, quant_min=0, quant_max=self.quant_max, **options)
