"""The demo's model: scikit-learn's 1 797 images of handwritten digits, a small CNN, and its quantization by PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.nn.quantized import FloatFunctional

from qtorch_relay.errors import QTorchRelayError

INPUT_SHAPE = (1, 1, 8, 8)
_SEED = 0
_EPOCHS = 8
_BATCH = 64
_TEST_SHARE = 0.2

# Passes on the items of an iterable while it shows the description and how far it is.
Track: TypeAlias = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class Digits:
    """Images [N, 1, 8, 8] float32 in [0, 1], and their labels [N]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class ConvBnRelu(nn.Sequential):
    """A 3x3 convolution, batch normalization, ReLU: what quantization fuses into one op."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class DigitsNet(nn.Module):
    """Three convolutions, one of them with a residual connection, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.stem = ConvBnRelu(1, 16)
        self.body = ConvBnRelu(16, 16)
        self.residual = FloatFunctional()
        self.down = ConvBnRelu(16, 32, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits as the quantized tensor they are, and as floats."""
        x = self.stem(self.quant(images))
        x = self.residual.add(x, self.body(x))
        x = self.pool(self.down(x))
        logits = self.classifier(torch.flatten(x, 1))
        return logits, self.dequant(logits)


class FloatLogits(nn.Module):
    """A DigitsNet that returns the floats alone, as exporters expect it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits as floats."""
        logits: Tensor = self.network(images)[1]
        return logits


def load_digits() -> Digits:
    """Returns the images, split into train and test with a fixed seed.

    Raises:
        QTorchRelayError: scikit-learn, which holds the images, is not installed.
    """
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise QTorchRelayError(
            "the demo's images come with scikit-learn; install it with: pip install 'qtorch-relay[demo]'"
        ) from error
    data = datasets.load_digits()
    split = model_selection.train_test_split(
        data.images, data.target, test_size=_TEST_SHARE, random_state=_SEED, stratify=data.target
    )
    train_images, test_images = (torch.tensor(images, dtype=torch.float32).unsqueeze(1) / 16 for images in split[:2])
    train_labels, test_labels = (torch.tensor(labels) for labels in split[2:])
    return Digits(train_images, train_labels, test_images, test_labels)


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Lets PyTorch compute on so many threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(digits: Digits, track: Track) -> DigitsNet:
    """Returns a trained network in eval mode, the same on any number of threads."""
    # float sums depend on how threads share them, and hundreds of steps make another network of that
    with torch_threads(1), torch.random.fork_rng():
        torch.manual_seed(_SEED)
        network = DigitsNet()
        batches = -(-len(digits.train_images) // _BATCH)
        optimizer = torch.optim.Adam(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=_EPOCHS * batches)
        for _ in track(range(_EPOCHS), "training"):
            for batch in torch.randperm(len(digits.train_images)).split(_BATCH):
                optimizer.zero_grad()
                _, logits = network(digits.train_images[batch])
                nn.functional.cross_entropy(logits, digits.train_labels[batch]).backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def trained() -> DigitsNet:
    """Returns the trained network: what `qtorch-relay calibrate qtorch_relay.demo.digits:trained` quantizes.

    Raises:
        QTorchRelayError: scikit-learn, which holds the images, is not installed.
    """
    return train(load_digits(), lambda items, _: items)


def quantize(network: DigitsNet, digits: Digits, engine: str, track: Track) -> nn.Module:
    """Returns the network quantized post training, with a weight scale per channel; the engine must be set in torch."""
    with torch_threads(1), warnings.catch_warnings():
        # Deprecated by torch in favour of another project, but what today's int8 models are made with.
        warnings.filterwarnings("ignore", module=r"torch(\.|$)")
        warnings.filterwarnings("ignore", message=r".*(deprecated|reduce_range)")
        names = [[f"{block}.{i}" for i in range(3)] for block in ("stem", "body", "down")]
        fused = quantization.fuse_modules(network, names)
        fused.qconfig = quantization.QConfig(
            activation=quantization.get_default_qconfig(engine).activation,
            weight=quantization.default_per_channel_weight_observer,
        )
        prepared = quantization.prepare(fused)
        for batch in track(digits.train_images.split(_BATCH), "calibrating"):
            prepared(batch)
        converted: nn.Module = quantization.convert(prepared)
    return converted
