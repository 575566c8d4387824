"""The whole path: a float model and data, or a table instead of data, to an int8 model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.ao import quantization as q
from torch.ao.nn.quantized import FloatFunctional

from calibration.batches import Batches, Track, first_batch, untracked
from calibration.bias_correction import bias_corrections, correct_biases, layer_weight_observer
from calibration.engines import scrambled_layers
from calibration.equalization import Equalization, equalize
from calibration.flows import Example, Flow, choose_flow, run_example, single_layers, weighted_layers
from calibration.observed import (
    ObservedTensor,
    TensorRange,
    fix_ranges,
    never_seen,
    observed_tensors,
    read_range,
    refusing_nonfinite,
)
from calibration.recipes import DYNAMIC_LAYERS, DynamicRecipe, Scheme, StaticRecipe
from calibration.table import CalibrationTable, WeightRange, fingerprint, make_table
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import CalibrationError


@dataclass(frozen=True)
class Options:
    """What is done to the float model before it is observed, and how. in_float: layers that stay in float."""

    mode: str = "auto"
    equalize: bool = False
    correct_bias: bool = False
    in_float: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Quantized:
    """An int8 model, and the table that makes it again. messages: what the user should know."""

    model: nn.Module
    table: CalibrationTable
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Fused:
    """A float model ready to be observed: fused, equalized and corrected as the options say."""

    flow: Flow
    scheme: Scheme
    model: nn.Module
    example: Example
    source: str
    equalization: Equalization | None = None
    corrections: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def prepare(self, in_float: Collection[str] = ()) -> nn.Module:
        """Returns the model with observers; in_float: layers without."""
        with without_torchs_warnings():
            return self.flow.prepare(self.model, self.scheme, self.example, in_float)

    def convert(self, ranges: dict[str, TensorRange], in_float: Collection[str] = ()) -> nn.Module:
        """Returns the int8 model with these ranges; the engine must be set.

        Raises: CalibrationError if a tensor has no range.
        """
        prepared = self.prepare(in_float)
        missing = fix_ranges(prepared, ranges)
        if missing:
            raise CalibrationError(f"there are no ranges for {', '.join(missing)}; calibrate with data")
        with without_torchs_warnings():
            return self.flow.convert(prepared)

    def table(self, ranges: dict[str, TensorRange], samples: int, in_float: Collection[str] = ()) -> CalibrationTable:
        """Returns the table of ranges found on so many samples."""
        layers = weighted_layers(self.model)
        return make_table(
            self.scheme,
            self.flow.name,
            self.source,
            self.example,
            samples,
            tensors=tuple(ranges.values()),
            weights=tuple(weight_range(p, layer, self.scheme) for p, layer in layers.items() if p not in in_float),
            equalized=self.equalization is not None,
            bias_corrections=self.corrections,
            in_float=tuple(in_float),
        )


def weight_range(path: str, layer: nn.Module, scheme: Scheme) -> WeightRange:
    """Returns how a layer's weight is quantized."""
    scales, _ = layer_weight_observer(layer, scheme).calculate_qparams()
    return WeightRange(path, tuple(scales.tolist()), 0 if scales.numel() > 1 else None)


def quantize(
    model: nn.Module, scheme: Scheme, batches: Batches, options: Options | None = None, track: Track = untracked
) -> Quantized:
    """Returns a float model quantized by a static recipe.

    Args:
        model: stays as it is.
        batches: calibration data; labels are not used.
        track: shows progress.

    Raises:
        CalibrationError: the model, the data or the options do not fit; a tensor holds NaN.
        EngineError: this build of PyTorch lacks the engine.
    """
    options = options or Options()
    with quantized_engine(scheme.engine):
        fused = fuse(model, scheme, batches, options, track)
        check_layers(fused, options.in_float)
        found = observe(fused, batches, options.in_float, track)
        table = fused.table(found.ranges, found.samples, options.in_float)
        return Quantized(fused.convert(found.ranges, options.in_float), table, found.messages)


def quantize_with_table(model: nn.Module, table: CalibrationTable) -> Quantized:
    """Returns a float model quantized with the ranges of a table: the same codes as when the table was made.

    Raises: CalibrationError if the table was made for other weights, or by training, or does not fit the model.
    """
    if table.trained:
        raise CalibrationError(f"recipe {table.recipe} trains the weights, so its table cannot make the model again")
    found = fingerprint(model)
    if found != table.model:
        raise CalibrationError(
            f"the table was made for other weights ({table.model[:19]}..., the model's are {found[:19]}...); "
            "calibrate again with data"
        )
    example = table.example()
    run_example(model.eval(), example)
    with quantized_engine(table.engine):
        if isinstance(table.scheme().recipe, DynamicRecipe):
            return quantize_dynamic(model, table.scheme(), example)
        fused = Fused(choose_flow(model, table.mode), table.scheme(), nn.Identity(), example, found)
        float_model, equalization = _fused_model(model, fused.flow, equalized=table.equalized)
        layers = weighted_layers(float_model)
        named = {*table.bias_corrections, *(weight.layer for weight in table.weights)} - set(layers)
        unknown = sorted(named | set(table.in_float) - single_layers(float_model))
        if unknown:
            raise CalibrationError(f"the table has layers that the model lacks: {', '.join(unknown)}")
        float_model = correct_biases(float_model, table.bias_corrections)
        layers = weighted_layers(float_model)
        changed = [w.layer for w in table.weights if weight_range(w.layer, layers[w.layer], fused.scheme) != w]
        if changed:
            raise CalibrationError(f"the table's weight scales are not those of {', '.join(changed)}; calibrate again")
        corrections = dict(table.bias_corrections)
        fused = replace(fused, model=float_model, equalization=equalization, corrections=corrections)
        return Quantized(fused.convert(table.ranges(), table.in_float), table)


def quantize_dynamic(model: nn.Module, scheme: Scheme, example: Example) -> Quantized:
    """Returns a float model whose linear and recurrent layers are quantized dynamically. Takes no data.

    Raises: CalibrationError if the model has no such layer.
    """
    layers = {path: module for path, module in model.named_modules() if isinstance(module, DYNAMIC_LAYERS)}
    if not layers:
        raise CalibrationError(
            f"recipe {scheme.recipe.name} quantizes linear and recurrent layers, of which the model has none; "
            "static_w8c_a8 quantizes convolutions"
        )
    with quantized_engine(scheme.engine), without_torchs_warnings():
        quantized = q.quantize_dynamic(copy.deepcopy(model).eval(), scheme.dynamic_qconfigs())
    linear = {path: layer for path, layer in layers.items() if isinstance(layer, nn.Linear)}
    table = make_table(
        scheme,
        "eager",
        fingerprint(model),
        example,
        samples=0,
        tensors=(),
        weights=tuple(weight_range(path, layer, scheme) for path, layer in linear.items()),
    )
    return Quantized(quantized, table)


def fuse(model: nn.Module, scheme: Scheme, batches: Batches, options: Options, track: Track = untracked) -> Fused:
    """Returns a float model fused, equalized and corrected.

    Raises: CalibrationError if the recipe is not a static one, or the model cannot be traced or called.
    """
    if not isinstance(scheme.recipe, StaticRecipe):
        raise CalibrationError(f"recipe {scheme.recipe.name} observes no data; use a static one")
    example = first_batch(batches).inputs
    run_example(model.eval(), example)
    flow = choose_flow(model, options.mode)
    float_model, equalization = _fused_model(model, flow, equalized=options.equalize)
    if not weighted_layers(float_model):
        raise CalibrationError("the model has no convolution and no linear layer, so there is nothing to quantize")
    fused = Fused(flow, scheme, float_model, example, fingerprint(model), equalization)
    if not options.correct_bias:
        return fused
    corrections = bias_corrections(float_model, scheme, batches, track)
    return replace(fused, model=correct_biases(float_model, corrections), corrections=corrections)


def _fused_model(model: nn.Module, flow: Flow, *, equalized: bool) -> tuple[nn.Module, Equalization | None]:
    with without_torchs_warnings():
        fused = flow.fuse(model)
    return equalize(fused) if equalized else (fused, None)


@dataclass(frozen=True, eq=False)
class Observation:
    """The ranges of tensors by name, the number of samples they come from, messages about tensors that never came."""

    ranges: dict[str, TensorRange]
    samples: int
    messages: tuple[str, ...]


def observe(fused: Fused, batches: Batches, in_float: Collection[str] = (), track: Track = untracked) -> Observation:
    """Returns the ranges of all tensors on the data.

    Raises: CalibrationError if a tensor holds NaN or infinite values.
    """
    prepared, samples = fused.prepare(in_float).eval(), 0
    with refusing_nonfinite(prepared), torch.inference_mode():
        for batch in track(batches, "calibrating", len(batches)):
            prepared(*batch.inputs)
            samples += batch.size
    tensors = observed_tensors(prepared)
    with without_torchs_warnings():
        ranges = {
            name: read_range(tensor) for name, tensor in track(list(tensors.items()), "choosing ranges", len(tensors))
        }
    return Observation(
        ranges, samples, (*_idle(prepared, tensors), *scrambled_layers(fused.scheme.engine, fused.model))
    )


def _idle(prepared: nn.Module, tensors: dict[str, ObservedTensor]) -> list[str]:
    """Returns a message about layers that never ran; a FloatFunctional may be there for a sum that a block lacks."""
    modules = dict(prepared.named_modules())
    idle = [
        name
        for name, tensor in tensors.items()
        if never_seen(tensor) and not isinstance(modules.get(name), FloatFunctional)
    ]
    return [f"never ran on the data, so their outputs have scale 1: {', '.join(idle)}"] if idle else []


def check_layers(fused: Fused, names: Collection[str]) -> None:
    """Raises CalibrationError for layers to keep in float that the model does not have."""
    known = sorted(single_layers(fused.model))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CalibrationError(
            f"there are no layers {', '.join(unknown)} to keep in float; accepted are {', '.join(known)}"
        )


@contextmanager
def without_torchs_warnings() -> Iterator[None]:
    """Holds back what torch.ao says about itself: that it moves to another project, that reduce_range is going."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch(\.|$)")
        warnings.filterwarnings("ignore", message=r".*(deprecated|reduce_range|must run observer)")
        yield
