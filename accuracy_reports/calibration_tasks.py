"""Tasks that calibration methods are compared on: real images, and activations that min-max cannot take."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calibration.batches import ArrayBatches
from qtorch_relay.demo.digits import DigitsNet, load_digits, train

_CALIBRATION_IMAGES = 512
_EXPOSURE_DEVIATION = 1.5


@dataclass(frozen=True, eq=False)
class Task:
    """A float network, data to calibrate it with and other data to measure it on."""

    name: str
    summary: str
    network: nn.Module
    calibration: ArrayBatches
    test: ArrayBatches


class Exposed(nn.Module):
    """Convolutions and a linear layer without biases: an image twice as bright gives logits twice as large."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.second = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.third = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(32, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [N, 10] of images [N, 1, 8, 8]."""
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.classifier(torch.flatten(self.pool(self.relu(self.third(x))), 1))


def make_tasks() -> tuple[Task, ...]:
    """Returns the tasks, their networks trained with fixed seeds.

    Raises: QTorchRelayError: scikit-learn, which holds the images, is not installed.
    """
    network = train(load_digits(), lambda items, _: items)
    return digits_task(network), unbalanced_task(network), exposure_task()


def digits_task(network: DigitsNet) -> Task:
    """Returns the demo's network on scikit-learn's digits."""
    digits = load_digits()
    return Task(
        "digits",
        "the demo's network (3 convolutions, a residual sum, a linear layer) on scikit-learn's digits",
        network,
        ArrayBatches((digits.train_images[:_CALIBRATION_IMAGES],), digits.train_labels[:_CALIBRATION_IMAGES]),
        ArrayBatches((digits.test_images,), digits.test_labels),
    )


def unbalanced_task(network: DigitsNet) -> Task:
    """Returns the digits' network with channels of very different ranges, its function unchanged.

    Output channel i of `down` is multiplied by 10**(-1 .. 1), the classifier's input channel i is divided by it: what
    folding batch norms does to depthwise networks.
    """
    plain, changed = digits_task(network), copy.deepcopy(network)
    norm, classifier = changed.down[1], changed.classifier
    factors = 10 ** torch.linspace(-1, 1, norm.num_features)
    with torch.no_grad():
        norm.weight.mul_(factors)
        norm.bias.mul_(factors)
        classifier.weight.div_(factors)
    return Task(
        "unbalanced digits",
        "the same function, with channels of one layer scaled by 0.1 to 10 and scaled back in the next",
        changed,
        plain.calibration,
        plain.test,
    )


def exposure_task() -> Task:
    """Returns a homogeneous network on digits whose brightness is log-normal.

    Each image is multiplied by exp(1.5 * n), n normal: all activations are heavy-tailed, and the few brightest images
    set the range that min-max sees. In float the answers do not depend on brightness.
    """
    digits = load_digits()
    network = _train_exposed(digits.train_images, digits.train_labels)
    generator = torch.Generator().manual_seed(11)

    def exposed(images: Tensor) -> Tensor:
        return images * torch.exp(_EXPOSURE_DEVIATION * torch.randn((len(images), 1, 1, 1), generator=generator))

    return Task(
        "exposures",
        "digits, each as bright as exp(1.5 n), n normal, by a network without biases: heavy-tailed activations",
        network,
        ArrayBatches((exposed(digits.train_images[:_CALIBRATION_IMAGES]),), digits.train_labels[:_CALIBRATION_IMAGES]),
        ArrayBatches((exposed(digits.test_images),), digits.test_labels),
    )


def _train_exposed(images: Tensor, labels: Tensor, epochs: int = 12, batch: int = 64) -> Exposed:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = Exposed()
        steps = epochs * -(-len(images) // batch)
        optimizer = torch.optim.Adam(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=steps)
        for _ in range(epochs):
            for part in torch.randperm(len(images)).split(batch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[part]), labels[part]).backward()
                optimizer.step()
                schedule.step()
    return network.eval()
