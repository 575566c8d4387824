"""Small float networks to quantize, seeded."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.ao import quantization as q


class Block(nn.Sequential):
    """A convolution, batch normalization and an activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, act: nn.Module, groups: int = 1, stride: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            act,
        )


class Mobile(nn.Module):
    """A pointwise, a depthwise, a grouped and a pointwise block, pooled into a classifier: nothing but chains."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = Block(3, 16, 1, nn.ReLU())
        self.depthwise = Block(16, 16, 3, nn.ReLU(), groups=16)
        self.grouped = Block(16, 24, 3, nn.LeakyReLU(0.1), groups=4)
        self.project = Block(24, 16, 1, nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.grouped(self.depthwise(self.expand(x))))
        return self.classifier(torch.flatten(self.pool(x), 1))


class Residual(nn.Module):
    """Chains that end at a sum, at ReLU6 and at a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.relu6 = nn.Conv2d(8, 8, 1), nn.ReLU6()
        self.twice = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = x + self.second(x)
        x = self.relu6(self.third(x))
        return self.last(self.twice(self.twice(x)))


class Stubbed(nn.Module):
    """A network prepared for eager mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.quant, self.network, self.dequant = q.QuantStub(), network, q.DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.network(self.quant(x)))


class Branching(nn.Module):
    """Control flow on data: FX cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


def seeded(model: nn.Module, seed: int = 3) -> nn.Module:
    """Returns a model with seeded weights, its batch norms neither 0 nor 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            bound = 1 / max(1, parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.5
            with torch.no_grad():
                parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
            if isinstance(module, nn.BatchNorm2d) and name == "weight":
                parameter.data.add_(1)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.rand(module.running_mean.shape, generator=generator) - 0.5)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model.eval().requires_grad_(False)


def images(count: int = 48, seed: int = 4) -> Tensor:
    """Returns images [count, 3, 8, 8], each with colours and a contrast of its own."""
    generator = torch.Generator().manual_seed(seed)
    colours, contrasts = (torch.randn((count, channels, 1, 1), generator=generator) for channels in (3, 1))
    return colours + contrasts * torch.randn((count, 3, 8, 8), generator=generator)


def mobile() -> Mobile:
    """Returns a seeded Mobile whose outputs have mean 0 and deviation 1: `tests.calibration.networks:mobile`."""
    model = seeded(Mobile())
    assert isinstance(model, Mobile)
    outputs = model(images(200, seed=6))
    model.classifier.bias.sub_(outputs.mean(dim=0)).div_(outputs.std(dim=0))
    model.classifier.weight.div_(outputs.std(dim=0)[:, None])
    return model
