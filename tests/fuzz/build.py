"""Networks drawn at random as PyTorch modules, quantized by each of PyTorch's flows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.ao import quantization
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import quantize_fx
from torch.nn import functional

from tests.fuzz.graph import Network, Step

_MODULES: dict[str, Any] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardsigmoid": nn.Hardsigmoid,
}
_ARITHMETIC = ("add", "mul", "cat", "add_scalar", "mul_scalar")


class Drawn(nn.Module):
    """Runs the steps of a network. eager: arithmetic goes through FloatFunctional, inputs and outputs through stubs."""

    def __init__(self, network: Network, *, eager: bool) -> None:
        super().__init__()
        self.network = network
        self.eager = eager
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        read = {i for step in network.steps for i in step.inputs}
        self.outputs = [i for i in range(1, len(network.steps) + 1) if i not in read]
        shapes = _channels(network)
        for i, step in enumerate(network.steps):
            if step.module_of is None:
                made = self._module(step, shapes[step.inputs[0]])
                if made is not None:
                    self.add_module(f"step{i}", made)

    def _module(self, step: Step, features: int) -> nn.Module | None:
        if step.op in _MODULES:
            return _MODULES[step.op]()
        if step.op in _ARITHMETIC:
            return FloatFunctional() if self.eager else None
        options = step.options
        if step.op == "conv":
            bias = options["bias"] and "bn" not in options["after"]
            conv = nn.Conv2d(
                features,
                options["channels"],
                options["kernel"],
                options["stride"],
                options["padding"],
                groups=options["groups"],
                bias=bias,
            )
            norm = [_norm(options["channels"])] if "bn" in options["after"] else []
            return nn.Sequential(conv, *norm, *([nn.ReLU()] if "relu" in options["after"] else []))
        if step.op == "linear":
            linear = nn.Linear(features, options["features"], bias=options["bias"])
            return nn.Sequential(linear, *([nn.ReLU()] if options["after"] else []))
        return None

    def fusable(self) -> list[list[str]]:
        """Returns the lists of modules that eager mode fuses."""
        lists = [
            [f"{name}.{i}" for i in range(len(module))]
            for name, module in self.named_children()
            if isinstance(module, nn.Sequential)
        ]
        return [names for names in lists if len(names) > 1]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = [self.quant(x) if self.eager else x]
        for i, step in enumerate(self.network.steps):
            number = i if step.module_of is None else step.module_of
            values.append(self._run(step, getattr(self, f"step{number}", None), [values[k] for k in step.inputs]))
        return tuple(self.dequant(values[i]) if self.eager else values[i] for i in self.outputs)

    def _run(self, step: Step, module: Any, values: list[torch.Tensor]) -> torch.Tensor:
        x, options = values[0], step.options
        if step.op in _ARITHMETIC:
            return self._arithmetic(step, module, values)
        if module is not None:
            return module(x)
        if step.op == "hardtanh":
            return functional.hardtanh(x, -0.7, 0.9)
        if step.op == "slice":
            return x[:, options["start"] :: options["step"]]
        if step.op in ("max_pool", "avg_pool"):
            pool = functional.max_pool2d if step.op == "max_pool" else functional.avg_pool2d
            return pool(x, options["kernel"], options["stride"], options["padding"])
        if step.op == "adaptive_avg_pool":
            return functional.adaptive_avg_pool2d(x, options["size"])
        if step.op == "upsample":
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if step.op == "transpose":
            turned = x.transpose(2, 3)
            return turned.contiguous() if options["contiguous"] else turned
        if step.op == "shuffle":
            n, c, h, w = x.size()
            return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        if step.op == "flatten":
            return torch.flatten(x, 1)
        return x.mean([2, 3])

    def _arithmetic(self, step: Step, module: Any, values: list[torch.Tensor]) -> torch.Tensor:
        if step.op == "cat":
            return module.cat(values, 1) if self.eager else torch.cat(values, 1)
        if step.op in ("add_scalar", "mul_scalar"):
            value = step.options["value"]
            if self.eager:
                return getattr(module, step.op)(values[0], value)
            return values[0] + value if step.op == "add_scalar" else values[0] * value
        if self.eager:
            return getattr(module, "add_relu" if step.options["relu"] else step.op)(*values)
        result = values[0] + values[1] if step.op == "add" else values[0] * values[1]
        return functional.relu(result) if step.options["relu"] else result


def _channels(network: Network) -> list[int]:
    """Returns how many channels or features each value has, by running the shapes."""
    sizes = [network.shape[0]]
    with torch.no_grad():
        values = [torch.zeros(network.batch, *network.shape)]
        for step in network.steps:
            x = values[step.inputs[0]]
            if step.op == "conv":
                o = step.options
                weight = torch.zeros(o["channels"], x.shape[1] // o["groups"], o["kernel"], o["kernel"])
                made = functional.conv2d(x, weight, None, o["stride"], o["padding"], 1, o["groups"])
            elif step.op == "linear":
                made = torch.zeros(network.batch, step.options["features"])
            elif step.op in _MODULES or step.op in ("add", "mul", "add_scalar", "mul_scalar"):
                made = x
            elif step.op == "cat":
                made = torch.cat([values[i] for i in step.inputs], 1)
            else:
                made = Drawn._run(None, step, None, [x])  # type: ignore[arg-type]
            values.append(made)
            sizes.append(made.shape[1])
    return sizes


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -0.5, 0.5)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


def quantized(network: Network) -> tuple[nn.Module, torch.Tensor]:
    """Returns the quantized module, for the engine that is set, and an input it was not calibrated with."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(network.seed)
        images = [torch.randn(network.batch, *network.shape) for _ in range(3)]
        module = Drawn(network, eager="eager" in network.flow)
        build = _eager if "eager" in network.flow else _fx
        return build(module, network, images[:2]), images[2]


def _eager(module: Drawn, network: Network, images: list[torch.Tensor]) -> nn.Module:
    qat = network.flow == "eager_qat"
    module.train(qat)
    if module.fusable():
        fuse = quantization.fuse_modules_qat if qat else quantization.fuse_modules
        module = fuse(module, module.fusable())
    get = quantization.get_default_qat_qconfig if qat else quantization.get_default_qconfig
    module.qconfig = get(network.engine)
    prepared = quantization.prepare_qat(module) if qat else quantization.prepare(module)
    for image in images:
        prepared(image)
    return quantization.convert(prepared.eval())


def _fx(module: Drawn, network: Network, images: list[torch.Tensor]) -> nn.Module:
    qat = network.flow == "fx_qat"
    get = quantization.get_default_qat_qconfig_mapping if qat else quantization.get_default_qconfig_mapping
    prepare = quantize_fx.prepare_qat_fx if qat else quantize_fx.prepare_fx
    prepared = prepare(module.train(qat), get(network.engine), (images[0],))
    for image in images:
        prepared(image)
    return quantize_fx.convert_fx(prepared.eval())
