"""Float ops against PyTorch: to the bit where a quantize may follow, within float rounding elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.nn import functional

import qtorch_relay
from accuracy_reports.layers.compare import compare_captured
from accuracy_reports.zoo import import_torchvision, random_images, randomize
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model, from_torch
from qtorch_relay.errors import FloatModelWarning, UnsupportedOpError
from qtorch_relay.frontend.importer import import_graph

EXACT = 0.0
# Sums in another order, and exp, tanh and erf of another library: a few float32 roundings (6e-8 of the range each).
ROUNDING = 2e-6
# The same through tens of layers, each of which amplifies what it is given.
NETWORK = 1e-4

FloatFunction = Callable[..., Any]


class Calls(nn.Module):
    """A module that only calls a function; parameters and submodules can be given by name."""

    def __init__(self, function: FloatFunction, **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(self, *tensors)


@dataclass(frozen=True)
class Case:
    """A module and how far it may be from PyTorch, as a fraction of the range of each output."""

    function: FloatFunction
    shapes: tuple[tuple[int, ...], ...] = ((2, 6, 9, 8),)
    tolerance: float = ROUNDING
    parts: Callable[[], dict[str, Any]] = dict


def _trained_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.1, 2.0)
    return norm


def _convolutions() -> dict[str, Any]:
    return {
        "a": nn.Conv2d(6, 8, 3, 2, 1),
        "b": nn.Conv2d(6, 12, (1, 3), dilation=2, groups=3, bias=False),
        "c": nn.Conv2d(6, 6, 4, padding="same", groups=6),
        "d": nn.Conv2d(6, 5, 1, padding="valid"),
    }


def _norms() -> dict[str, Any]:
    return {"a": _trained_norm(6), "b": nn.BatchNorm2d(6, affine=False, eps=1e-3)}


def _shaken(module: nn.Module) -> nn.Module:
    """Returns a module whose parameters are not what they are initialized to: a norm's 1 and 0 hide errors."""
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def _linears() -> dict[str, Any]:
    return {"a": nn.Linear(8, 5), "b": nn.Linear(8, 7, bias=False)}


def _masked(x: torch.Tensor) -> torch.Tensor:
    """Adds a mask that is filled block by block, as in torchvision's Swin Transformer."""
    mask = x.new_zeros(x.shape[2:])
    for i, rows in enumerate((slice(0, 3), slice(3, 7), slice(7, None))):
        mask[rows, i:] = i
    mask = mask.unsqueeze(0) - mask.unsqueeze(1)[:1]
    return x + mask.masked_fill(mask != 0, -100.0)


def _numbers(x: torch.Tensor) -> torch.Tensor:
    """Returns a tensor with 9 in place of NaN, which equals nothing."""
    return x.masked_fill(x != x, 9)


PAIR = ((2, 6, 9, 8), (2, 6, 9, 8))
CASES: dict[str, Case] = {
    "numbers": Case(lambda _, x: (x + 0.3, x * 0.458 + -0.03, 1.7 - x, x / 3, x - 2, 2 * x), tolerance=EXACT),
    "two_dtypes": Case(lambda _, x: (x + x.double(), x * x.double()[0, 0, 0, 0], x - x.half()), tolerance=EXACT),
    "two_tensors": Case(lambda _, x, y: (x + y, x * y + y, x - y, x / y, x * y[:, :1, :1]), PAIR, EXACT),
    "zero_dimensions": Case(lambda _, x: (x[0, 0, 0, 0] * 0.3 + 2, x + x[0, 0, 0, 0]), tolerance=EXACT),
    "in_place": Case(lambda _, x, y: (x * 2).add_(y).mul_(y).sub_(0.1), PAIR, EXACT),
    "alpha": Case(
        lambda _, x, y: (torch.add(x, y, alpha=0.3), torch.sub(x, y, alpha=1.7), torch.rsub(x, 0.5, alpha=2)),
        ((2, 8, 8, 8), (2, 8, 8, 8)),  # no vector tail, where PyTorch adds without fusing
        EXACT,
    ),
    "constants": Case(
        lambda m, x: (x * m.scale + m.shift, x * m.one),
        tolerance=EXACT,
        parts=lambda: {
            "scale": torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).reshape(6, 1, 1),
            "shift": torch.rand(8),
            "one": torch.tensor(0.7),
        },
    ),
    "clamps": Case(
        lambda _, x: (
            functional.relu(x),
            functional.relu6(x * 3),
            functional.hardtanh(x, -0.5, 0.25),
            x.clamp(min=0.1),
            x.clamp(-1, 1),
            x.clamp(max=0.5),
            functional.leaky_relu(x, 0.1),
        ),
        tolerance=EXACT,
    ),
    "exponentials": Case(lambda _, x: (torch.sigmoid(x * 5), functional.silu(x * 5)), tolerance=EXACT),
    "gates": Case(lambda _, x: (functional.glu(x, 1), functional.glu(x * 5))),
    "roots": Case(
        lambda _, x: (
            x.abs(),
            x.ceil() + x.floor() - x.trunc(),
            -x.round(),
            x.sign(),
            x.reciprocal(),
            x.abs().rsqrt(),
            x.square(),
            x**2,
            x**3,
            x**-1,
            functional.prelu(x, x[0, :, 0, 0]),
            torch.maximum(x, x.flip(-1)),
            torch.minimum(x, x.flip(-1)),
        ),
        tolerance=EXACT,
    ),
    "functions": Case(
        lambda _, x: (
            x.exp(),
            x.abs().log(),
            x.sin() * x.cos(),
            x.erf(),
            x.expm1(),
            x.exp2(),
            x.abs().log1p(),
            x.abs().log2() + x.abs().log10(),
            functional.softplus(x * 9, 2, 5),
            functional.mish(x),
            functional.logsigmoid(x * 9),
            (x.abs() + 1).sqrt() + x.abs() ** 0.5,
            x.abs() ** 1.7,
        )
    ),
    "moments": Case(
        lambda _, x: (
            x.sum((2, 3)),
            x.sum(1, keepdim=True),
            x.var(),
            x.var(1),
            x.var((2, 3), correction=0, keepdim=True),
        )
    ),
    "activations": Case(
        lambda _, x: (
            functional.hardswish(x * 3),
            functional.hardsigmoid(x * 3),
            torch.tanh(x),
            functional.gelu(x, approximate="tanh"),
            functional.elu(x, 0.7),
            x.log_softmax(1),
        )
    ),
    # as PyTorch computes them on AVX-512
    "vectors": Case(
        lambda _, x: (
            functional.gelu(x * 3),
            torch.softmax(x * 3, -1),
            torch.softmax(x, 1),
            torch.softmax(x[0, 0, 0, 0], 0),
            _numbers(torch.softmax(x.masked_fill(x > 1, math.inf), -1)),
            x.log_softmax(-1),
            x[:, :, :8].log_softmax(0),
            x.flatten(1).log_softmax(-1),
        ),
        tolerance=EXACT,
    ),
    "convolutions": Case(lambda m, x: (m.a(x), m.b(x), m.c(x), m.d(x)), parts=_convolutions),
    "batch_norms": Case(lambda m, x: (m.a(x), m.b(x)), tolerance=EXACT, parts=_norms),
    "linears": Case(
        lambda m, x: (m.a(x), m.b(x[0, 0]), x @ x.transpose(2, 3), torch.addmm(x[0, 0], x[1, 1, :, :], x[1, 2, :8])),
        parts=_linears,
    ),
    "products": Case(
        lambda _, x, y: (
            torch.addmm(x[0, 0], x[0, 0], x[1, 1, :8], beta=0.3, alpha=2),
            torch.baddbmm(x[0, :, :, :1] * math.inf, x[0], y[1, :, :8], beta=0),
            torch.einsum("b g i d, b g j d -> b g i j", x, y),
            torch.einsum("...id,...jd->...ij", x, y),
            torch.einsum("ij,jk", x[0, 0], y[0, 0, :8]),
        ),
        PAIR,
    ),
    "norms": Case(
        lambda m, x: (
            m.a(x * 3 + 5),
            functional.instance_norm(x),
            functional.group_norm(x, 2),
        ),
        parts=lambda: {"a": _shaken(nn.GroupNorm(3, 6))},
    ),
    "layer_norms": Case(
        lambda m, x: (
            m.a(x * 3 + 5),
            m.b(x),
            functional.layer_norm(x[..., :5], (5,)),
            functional.layer_norm(x, (9, 8), x[0, 0]),
            functional.layer_norm(x, (9, 8), None, x[0, 0]),
        ),
        tolerance=EXACT,
        parts=lambda: {"a": _shaken(nn.LayerNorm(8)), "b": _shaken(nn.LayerNorm((6, 9, 8)))},
    ),
    "choices": Case(
        lambda _, x, y: (
            x.masked_fill(y > 0.3, -100.0),
            torch.where(x < y, x, 0.5),
            torch.where((x >= y) | (x == 0) & ~(y != x), 1.0, y),
            x.masked_fill(torch.zeros_like(x).masked_fill(y <= 0, 1) == 1, 7),
            x.expand(3, -1, -1, -1, -1).sub(y[0, 0]).unflatten(2, (3, -1)),
            x.split([2, 4], 1)[1] + x.split(4, 1)[1][:, :1].expand_as(y[:, 2:]),
        ),
        PAIR,
        EXACT,
    ),
    "max_pools": Case(
        lambda _, x: (
            functional.max_pool2d(x, 3, 2, 1),
            functional.max_pool2d(x, 2, ceil_mode=True),
            functional.max_pool2d(x, (3, 2), 2, (1, 0), (2, 1), ceil_mode=True),
            functional.max_pool2d(x[:, :, :4, :], 2, 3, 1, ceil_mode=True),
        ),
        tolerance=EXACT,
    ),
    "average_pools": Case(
        lambda _, x: (
            functional.avg_pool2d(x, 2),
            functional.avg_pool2d(x, 3, 2, 1),
            functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
            functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            functional.avg_pool2d(x, (2, 3), 2, (0, 1), divisor_override=5),
            functional.avg_pool2d(x[:, :, :4, :], 2, 3, 1, ceil_mode=True),
            functional.adaptive_avg_pool2d(x, 1),
            functional.adaptive_avg_pool2d(x, (4, 3)),
            functional.adaptive_avg_pool2d(x[:, :, :1, :1], (6, None)),
        )
    ),
    "means": Case(
        lambda _, x: (x.mean([2, 3]), x.mean((1, -1), keepdim=True), x.mean(1), x.mean(0, dtype=torch.float32))
    ),
    "masks_made_in_place": Case(lambda _, x: _masked(x), tolerance=EXACT),
    "shapes": Case(
        lambda _, x, y: (torch.cat([x, y], 1), x.flatten(1), x[:, 2].unsqueeze(1), x.chunk(2, 1)[1].view(2, -1)),
        PAIR,
        EXACT,
    ),
}


def largest_deviation(ours: Any, theirs: Any) -> float:
    """Returns the largest difference as a fraction of the range of its tensor."""
    if isinstance(theirs, tuple):
        return max(largest_deviation(a, b) for a, b in zip(ours, theirs, strict=True))
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    return float((ours - theirs).abs().max() / (theirs.max() - theirs.min()).clamp_min(1e-30))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")  # instance_norm checks its input's size
@pytest.mark.parametrize("name", CASES)
def test_float_ops_equal_pytorch(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    module = Calls(case.function, **case.parts()).eval()
    inputs = [torch.randn(shape) for shape in case.shapes]
    with pytest.warns(FloatModelWarning):
        compiled = qtorch_relay.compile(module, [(f"x{i}", shape) for i, shape in enumerate(case.shapes)])
    with torch.no_grad():
        expected = module(*[x.clone() for x in inputs])
    assert largest_deviation(compiled(*inputs), expected) <= case.tolerance


# `make zoo-float` compares eleven networks at full size
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "shufflenet_v2_x1_0", "squeezenet1_1"])
def test_float_networks_equal_pytorch(name: str) -> None:
    size = 64
    torch.manual_seed(0)
    module = getattr(import_torchvision().models, name)(weights=None)
    images = random_images(2, size)
    randomize(module, images)
    with pytest.warns(FloatModelWarning, match="nothing in this model is int8"):
        compiled = qtorch_relay.compile(module, [("x", (1, 3, size, size))])
    with torch.no_grad():
        assert largest_deviation(compiled(images[:1]), module(images[:1])) <= NETWORK


class TransformsInput(nn.Module):
    """What torchvision's GoogLeNet and Inception3 do to their input with transform_input=True, and a convolution."""

    def __init__(self, transform: FloatFunction) -> None:
        super().__init__()
        self.transform_input = True
        self.transform = transform
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.conv(self.quant(self.transform(self, x))))


def _quantized(module: nn.Module, images: torch.Tensor, flow: str) -> nn.Module:
    torch.backends.quantized.engine = "fbgemm"
    if flow == "eager":
        module.qconfig = quantization.get_default_qconfig("fbgemm")
        prepared = quantization.prepare(module.eval())
    else:
        mapping = quantization.get_default_qconfig_mapping("fbgemm")
        prepared = quantize_fx.prepare_fx(module.eval(), mapping, (images,))
    prepared(images)
    return quantization.convert(prepared) if flow == "eager" else quantize_fx.convert_fx(prepared)


def _differing_layers(module: nn.Module, inputs: list[torch.Tensor], *, kernels: bool) -> list[tuple[str, int]]:
    captured = capture_model(module, [(f"x{i}", tuple(x.shape)) for i, x in enumerate(inputs)], "fbgemm")
    arrays = [x.numpy() for x in inputs]
    result = compare_captured(captured, run_reference(captured, arrays), arrays, kernels=kernels)
    return [(layer.op, layer.differing) for layer in (*result.layers, *result.outputs) if layer.differing]


@pytest.mark.filterwarnings("ignore:All inputs of this cat operator must share the same quantization parameters")
@pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max")
@pytest.mark.parametrize("flow", ["eager", "fx"])
@pytest.mark.parametrize("name", ["GoogLeNet", "Inception3"])
def test_codes_after_a_transform_of_the_input_are_equal(name: str, flow: str) -> None:
    transform = getattr(import_torchvision().models, name)._transform_input
    torch.manual_seed(0)
    images = random_images(1, 48)
    module = _quantized(TransformsInput(transform), images, flow)
    assert _differing_layers(module, [images], kernels=True) == []


def test_floats_between_codes_broadcast_as_in_pytorch() -> None:
    """Codes are channels-last inside; what is added to them in float is not."""

    def function(m: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        codes = functional.max_pool2d(torch.quantize_per_tensor(x, 0.05, 60, torch.quint8), 2)
        real = codes.dequantize()
        again = torch.quantize_per_tensor(m.norm(real + m.row), 0.05, 60, torch.quint8)
        return again.dequantize(), real + m.map, real * m.row, (real * 2).clamp(0, 1) + x[0, 0, 0, :8]

    torch.manual_seed(0)
    module = Calls(function, row=torch.rand(8), map=torch.rand(8, 1, 1), norm=_trained_norm(8)).eval()
    for kernels in (True, False):
        assert _differing_layers(module, [torch.randn(1, 8, 16, 16)], kernels=kernels) == []


def test_codes_with_a_number_are_equal() -> None:
    def function(_: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        codes = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8)
        q = torch.ops.quantized
        results = [q.add(codes, b) for b in (0.3, -0.088, 6.0, -20.0)] + [q.mul(codes, b) for b in (0.458, -2.0, 0.0)]
        return (*results, q.add_relu(codes, 0.4), q.mul_relu(codes, 1.5))

    assert _differing_layers(Calls(function).eval(), [torch.randn(2, 8, 8, 8) * 3], kernels=False) == []


@pytest.mark.parametrize(
    ("function", "shape", "reason"),
    [
        (lambda m, x: m.deconv(x), (1, 4, 5, 5), "a transposed convolution; accepted are plain ones"),
        (lambda m, x: m.conv1d(x), (1, 4, 5), "accepted are 4 dimensions each"),
        (lambda m, x: functional.avg_pool2d(x, 2), (4, 6, 6), r"accepted are floats \[N, C, H, W\]"),
        (lambda m, x: x.softmax(1, dtype=torch.float64), (4, 4), "without a dtype argument"),
    ],
)
def test_unsupported_forms_are_refused(function: FloatFunction, shape: tuple[int, ...], reason: str) -> None:
    parts = {
        "deconv": nn.ConvTranspose2d(4, 4, 3),
        "conv1d": nn.Conv1d(4, 4, 3),
        "double": torch.rand(5, dtype=torch.float64),
    }
    graph = from_torch(Calls(function, **parts).eval(), [("x", shape)])
    with pytest.raises(UnsupportedOpError, match=reason):
        import_graph(graph)
