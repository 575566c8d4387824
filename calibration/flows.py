"""The two ways PyTorch quantizes a model, eager mode and FX, behind one interface: fuse, prepare, convert."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.ao import quantization as q
from torch.ao.nn import intrinsic
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import quantize_fx

from calibration.float_runs import pass_floats_on
from calibration.fusion import first_line, fuse_eager, trace
from calibration.observed import FLOAT_ISLAND_STUB
from calibration.recipes import TRANSPOSED, WEIGHTED, Scheme
from qtorch_relay.errors import CalibrationError

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
MODES = ("auto", "eager", "fx")

Example = tuple[Tensor, ...]


class Flow(Protocol):
    """A way to quantize. Models go in whole and stay as they are; copies come out."""

    name: str

    def fuse(self, model: nn.Module) -> nn.Module:
        """Returns the float model with batch norms folded and layers fused, in eval mode."""

    def prepare(self, fused: nn.Module, scheme: Scheme, example: Example, in_float: Collection[str] = ()) -> nn.Module:
        """Returns a fused model that watches its tensors; in_float: layers that are not quantized."""

    def prepare_qat(self, model: nn.Module, scheme: Scheme, example: Example) -> nn.Module:
        """Returns a model in train mode, with quantization simulated."""

    def convert(self, prepared: nn.Module) -> nn.Module:
        """Returns the int8 model, its weights packed for the engine that is set."""


class FxFlow:
    """FX graph mode: for models whose forward torch.fx can trace."""

    name = "fx"

    def fuse(self, model: nn.Module) -> nn.Module:
        """Returns the fused graph."""
        trace(copy.deepcopy(model))  # its error says what to do
        return quantize_fx.fuse_fx(copy.deepcopy(model).eval())

    def prepare(self, fused: nn.Module, scheme: Scheme, example: Example, in_float: Collection[str] = ()) -> nn.Module:
        """Returns the graph with observers."""
        mapping = scheme.mapping()
        for name in in_float:
            mapping.set_module_name(name, None)
        prepared = quantize_fx.prepare_fx(copy.deepcopy(fused), mapping, example)
        return pass_floats_on(prepared, in_float) if in_float else prepared

    def prepare_qat(self, model: nn.Module, scheme: Scheme, example: Example) -> nn.Module:
        """Returns the graph with fake quantization."""
        trace(copy.deepcopy(model))
        return quantize_fx.prepare_qat_fx(copy.deepcopy(model).train(), scheme.qat_mapping(), example)

    def convert(self, prepared: nn.Module) -> nn.Module:
        """Returns the graph of quantized ops."""
        return quantize_fx.convert_fx(copy.deepcopy(prepared).eval())


class EagerFlow:
    """Eager mode: for models that say with QuantStub and DeQuantStub what is quantized."""

    name = "eager"

    def fuse(self, model: nn.Module) -> nn.Module:
        """Returns the model with its chains fused."""
        return fuse_eager(model, training=False).eval()

    def prepare(self, fused: nn.Module, scheme: Scheme, example: Example, in_float: Collection[str] = ()) -> nn.Module:
        """Returns the model with observers."""
        model = copy.deepcopy(fused)
        _set_qconfigs(model, scheme.qconfig(), scheme.transposed_qconfig())
        for name in in_float:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, FloatIsland(model.get_submodule(name), scheme.qconfig()))
        return q.prepare(model, inplace=True)

    def prepare_qat(self, model: nn.Module, scheme: Scheme, example: Example) -> nn.Module:
        """Returns the model with fake quantization."""
        fused = fuse_eager(model, training=True)
        qconfig = q.get_default_qat_qconfig(scheme.engine)
        per_tensor = q.QConfig(activation=qconfig.activation, weight=q.default_weight_fake_quant)
        _set_qconfigs(fused, qconfig, per_tensor)
        return q.prepare_qat(fused, inplace=True)

    def convert(self, prepared: nn.Module) -> nn.Module:
        """Returns the model of quantized modules."""
        return q.convert(copy.deepcopy(prepared).eval(), inplace=True)


class FloatIsland(nn.Module):
    """A layer kept in float between quantized ones: dequantize, the layer, quantize again."""

    def __init__(self, layer: nn.Module, qconfig: Any) -> None:
        super().__init__()
        self.dequantize = q.DeQuantStub()
        self.layer = layer
        for module in layer.modules():
            module.qconfig = None
        setattr(self, FLOAT_ISLAND_STUB, q.QuantStub(qconfig))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the layer's output, of the kind of its input's."""
        requantized: Tensor = getattr(self, FLOAT_ISLAND_STUB)(self.layer(self.dequantize(x)))
        return requantized


def _set_qconfigs(model: nn.Module, ordinary: q.QConfig, transposed: q.QConfig) -> None:
    """Sets the qconfig of a whole eager model, and those of layers that take no ordinary one."""
    model.qconfig = ordinary
    for module in model.modules():
        if isinstance(module, TRANSPOSED):
            module.qconfig = transposed
        elif isinstance(module, _EMBEDDINGS):
            module.qconfig = q.float_qparams_weight_only_qconfig


def has_stubs(model: nn.Module) -> bool:
    """Whether a model is prepared for eager mode."""
    return any(isinstance(module, q.QuantStub | q.QuantWrapper) for module in model.modules())


def choose_flow(model: nn.Module, mode: str) -> Flow:
    """Returns the way to quantize a model. mode "auto": eager where the model has a QuantStub, else FX.

    Raises: CalibrationError if the mode is unknown, or eager is asked for and the model has no stubs.
    """
    if mode not in MODES:
        raise CalibrationError(f"mode {mode!r} is unknown; accepted are {', '.join(MODES)}")
    if mode == "eager" and not has_stubs(model):
        raise CalibrationError(
            "the model has no torch.ao.quantization.QuantStub, so eager mode would quantize nothing; leave --mode out"
        )
    return EagerFlow() if mode == "eager" or (mode == "auto" and has_stubs(model)) else FxFlow()


def weighted_layers(fused: nn.Module) -> dict[str, nn.Module]:
    """Returns the layers of a fused model that have a quantizable weight, by the path of the whole fused layer.

    The value is the convolution or linear layer itself.
    """
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for path, module in fused.named_modules():
        first = module[0] if isinstance(module, intrinsic.modules.fused._FusedModule) else module
        if isinstance(first, WEIGHTED) and first not in inside:
            found[path] = first
            inside.update(module.modules())
    return found


def single_layers(fused: nn.Module) -> set[str]:
    """Returns the paths of the layers of a fused model that take one tensor and give one: each can stay in float."""
    weighted = weighted_layers(fused)
    parts = {path for whole in weighted for path, _ in fused.get_submodule(whole).named_modules(prefix=whole)} - set(
        weighted
    )
    alone = {path for path, module in fused.named_modules() if path and not any(module.children())}
    others = (q.QuantStub, q.DeQuantStub, FloatFunctional, nn.Identity)
    return set(weighted) | {path for path in alone - parts if not isinstance(fused.get_submodule(path), others)}


def run_example(model: nn.Module, example: Example) -> Any:
    """Returns the model's output.

    Raises: CalibrationError if the model does not take the data.
    """
    shapes = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}" for tensor in example)
    try:
        with torch.inference_mode():
            return model(*example)
    except CalibrationError:
        raise
    except Exception as error:  # a model's forward may raise anything
        raise CalibrationError(
            f"the model does not take the data ({shapes}): {type(error).__name__}: {first_line(error)}"
        ) from error
