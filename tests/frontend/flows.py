"""Every way of PyTorch to quantize a model, as functions (float model, example, engine) -> quantized model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.ao import quantization as q
from torch.ao.quantization import backend_config as backends
from torch.ao.quantization import quantize_fx

Flow = Callable[[nn.Module, torch.Tensor], nn.Module]


class Eager(nn.Module):
    """A model between the stubs that eager quantization needs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.quant = q.QuantStub()
        self.model = model
        self.dequant = q.DeQuantStub()

    def forward(self, x):
        return self.dequant(self.model(self.quant(x)))


def eager(qconfig: Any, *, qat: bool = False, fuse: bool = True) -> Flow:
    """Eager mode: fuse, prepare, run, convert."""

    def flow(model: nn.Module, x: torch.Tensor) -> nn.Module:
        wrapped = Eager(copy.deepcopy(model)).train(qat)
        if fuse and hasattr(wrapped.model, "fused"):
            (q.fuse_modules_qat if qat else q.fuse_modules)(wrapped.model, wrapped.model.fused, inplace=True)
        wrapped.qconfig = qconfig
        prepared = (q.prepare_qat if qat else q.prepare)(wrapped)
        prepared(x)
        return q.convert(prepared.eval())

    return flow


def fake_quantized(qconfig: Any) -> Flow:
    """Eager quantization-aware training, its fake quantization left in: the model as it trains, in eval mode."""

    def flow(model: nn.Module, x: torch.Tensor) -> nn.Module:
        wrapped = Eager(copy.deepcopy(model)).train()
        if hasattr(wrapped.model, "fused"):
            q.fuse_modules_qat(wrapped.model, wrapped.model.fused, inplace=True)
        wrapped.qconfig = qconfig
        prepared = q.prepare_qat(wrapped)
        prepared(x)
        prepared.apply(q.disable_observer)
        return prepared.eval()

    return flow


def fx(qconfig: Any, *, qat: bool = False, backend: Any = None, reference: bool = False) -> Flow:
    """FX graph mode; qconfig is a QConfigMapping or a QConfig for the whole model."""

    def flow(model: nn.Module, x: torch.Tensor) -> nn.Module:
        mapping = qconfig if isinstance(qconfig, q.QConfigMapping) else q.QConfigMapping().set_global(qconfig)
        prepare = quantize_fx.prepare_qat_fx if qat else quantize_fx.prepare_fx
        prepared = prepare(copy.deepcopy(model).train(qat), mapping, (x,), backend_config=backend)
        prepared(x)
        convert = quantize_fx.convert_to_reference_fx if reference else quantize_fx.convert_fx
        return convert(prepared.eval(), backend_config=backend)

    return flow


def dynamic(qconfig: Any) -> Flow:
    """torch.ao.quantization.quantize_dynamic; qconfig is one, or a dtype."""

    def flow(model: nn.Module, x: torch.Tensor) -> nn.Module:
        if isinstance(qconfig, torch.dtype):
            return q.quantize_dynamic(model, {nn.Linear}, qconfig)
        return q.quantize_dynamic(model, dict.fromkeys((nn.Linear, nn.Embedding, nn.EmbeddingBag), qconfig))

    return flow


def recurrent(dtype: torch.dtype) -> Flow:
    """quantize_dynamic of the modules it takes by default: linear layers, LSTM, GRU and cells."""
    return lambda model, x: q.quantize_dynamic(model, dtype=dtype)


def per_tensor_weights() -> Any:
    """A qconfig for transposed convolutions, which PyTorch quantizes per tensor only."""
    return q.QConfig(activation=q.default_observer, weight=q.default_weight_observer)


def asymmetric_weights() -> Any:
    """A qconfig whose weights have zero points."""
    weight = q.MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_affine)
    return q.QConfig(activation=q.default_observer, weight=weight)


def symmetric_onednn() -> Any:
    """onednn's backend: convolution with a residual, linear with leaky ReLU and tanh fused."""
    return backends.get_onednn_backend_config()


# ---- models


class ConvNet(nn.Module):
    """Convolution, batch norm and ReLU, a depthwise one, a residual, a pool and a linear layer."""

    fused = (["conv", "bn", "relu"], ["depthwise", "depthwise_bn"], ["fc", "fc_relu"])

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.depthwise_bn = nn.BatchNorm2d(16)
        self.sum = nn.quantized.FloatFunctional()
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(16, 16)
        self.fc_relu = nn.ReLU()

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        x = self.sum.add(self.depthwise_bn(self.depthwise(x)), x)
        x = torch.flatten(self.pool(x), 1)
        return self.fc_relu(self.fc(x))


class ConvNetFx(ConvNet):
    """The same with Python's sum, which FX knows."""

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        x = self.depthwise_bn(self.depthwise(x)) + x
        x = torch.flatten(self.pool(x), 1)
        return self.fc_relu(self.fc(x))


class Linears(nn.Module):
    """Linear layers alone and with what is fused into them, on three dimensions."""

    fused = (["second", "relu"],)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 24)
        self.second = nn.Linear(24, 16, bias=False)
        self.relu = nn.ReLU()
        self.third = nn.Linear(16, 16)

    def forward(self, x):
        return self.third(self.relu(self.second(self.first(x))))


class FixedParameters(nn.Module):
    """Ops whose output parameters are fixed: sigmoid, tanh, hardsigmoid, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.sigmoid, self.tanh, self.hardsigmoid = nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid()
        self.last = nn.Linear(32, 32)

    def forward(self, x):
        x = self.hardsigmoid(self.tanh(self.sigmoid(self.first(x))))
        return torch.sigmoid(self.last(x))


class BatchNorms(nn.Module):
    """Batch norms that follow no convolution, with and without ReLU, in two and three dimensions."""

    fused = (["bn", "relu"],)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.relu0 = nn.ReLU()
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.last = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.last(self.relu(self.bn(self.relu0(self.first(x)))))


class Embeddings(nn.Module):
    """An embedding and a bag, then a float layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.bag = nn.EmbeddingBag(20, 16, mode="sum", include_last_offset=False)

    def forward(self, indices):
        return self.table(indices), self.bag(indices)


class Bags(nn.Module):
    """A bag alone: PyTorch makes 8-bit lookups of 4-bit tables where nn.Embedding is quantized to 4 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 16, mode="sum", include_last_offset=False)

    def forward(self, indices):
        return self.bag(indices)


class Activations(nn.Module):
    """Activations with observers of their own, and ops that reuse their input's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.hardswish, self.elu, self.leaky = nn.Hardswish(), nn.ELU(), nn.LeakyReLU(0.1)
        self.relu6, self.pool = nn.ReLU6(), nn.MaxPool2d(2)

    def forward(self, x):
        x = self.leaky(self.elu(self.hardswish(self.conv(x))))
        return self.pool(self.relu6(x)).permute(0, 2, 3, 1).reshape(x.size(0), -1, 16)


class Residual(nn.Module):
    """A convolution whose sum with another is fused, with and without ReLU (onednn)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.conv3, self.conv4 = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        # PyTorch writes the sum into the other operand's memory, which therefore nothing else may read.
        y = self.conv2(self.conv1(x)) + self.conv3(x)
        return self.relu(self.conv2(self.conv1(x)) + self.conv4(y))


class LinearThen(nn.Module):
    """Linear layers with leaky ReLU and tanh fused into them (onednn)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.leaky = nn.Linear(32, 24), nn.LeakyReLU(0.01)
        self.second, self.tanh = nn.Linear(24, 32), nn.Tanh()

    def forward(self, x):
        return self.tanh(self.second(self.leaky(self.first(x))))


class Signals(nn.Module):
    """One-dimensional convolutions."""

    fused = (["first", "bn", "relu"],)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn, self.relu = nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU()
        self.second = nn.Conv1d(8, 16, 5, stride=2, groups=2)

    def forward(self, x):
        return self.second(self.relu(self.bn(self.first(x))))


class Volumes(nn.Module):
    """Three-dimensional convolutions and a batch norm of its own."""

    fused = (["first", "relu"], ["bn", "bn_relu"])

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv3d(3, 8, 3, padding=1), nn.ReLU()
        self.bn, self.bn_relu = nn.BatchNorm3d(8), nn.ReLU()
        self.second = nn.Conv3d(8, 4, (1, 3, 3), stride=(1, 2, 2))

    def forward(self, x):
        return self.second(self.bn_relu(self.bn(self.relu(self.first(x)))))


class Transposed(nn.Module):
    """Transposed convolutions, whose weights are quantized per tensor.

    As many channels out as in: onednn packs others in the wrong order (tests/matrix/conv_transposed.py).
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x):
        return self.up(self.down(x))


class Recurrent(nn.Module):
    """An LSTM, both directions, and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(32, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 8)

    def forward(self, x):
        x, (hidden, _) = self.lstm(x)
        x, last = self.gru(x)
        return x, hidden, last


IMAGES, ROWS = (2, 3, 16, 16), (4, 32)
EXAMPLES: dict[type[nn.Module], tuple[int, ...]] = {
    ConvNet: IMAGES,
    ConvNetFx: IMAGES,
    Linears: (2, 4, 32),
    FixedParameters: ROWS,
    BatchNorms: IMAGES,
    Embeddings: (3, 5),
    Bags: (3, 5),
    Signals: (2, 4, 32),
    Volumes: (1, 3, 4, 8, 8),
    Transposed: (1, 3, 8, 8),
    Recurrent: (2, 5, 32),
    Activations: (2, 3, 18, 18),
    Residual: IMAGES,
    LinearThen: ROWS,
}


def example_for(kind: type[nn.Module], seed: int) -> torch.Tensor:
    """Returns an input of a model."""
    generator = torch.Generator().manual_seed(seed)
    if kind in (Embeddings, Bags):
        return torch.randint(0, 20, EXAMPLES[kind], generator=generator)
    return torch.randn(EXAMPLES[kind], generator=generator)


def float_model(kind: type[nn.Module]) -> nn.Module:
    """Returns a model with seeded weights, its batch norms neither 0 nor 1."""
    torch.manual_seed(7)
    model = kind().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values, least in ((module.weight, 0.5), (module.bias, -0.5), (module.running_var, 0.5)):
                nn.init.uniform_(values, least, least + 1)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return model
