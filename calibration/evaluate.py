"""What a model answers on labelled data, and how far its outputs are from another model's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calibration.batches import Batches, Track, first_output, untracked
from qtorch_relay.errors import CalibrationError


@dataclass(frozen=True)
class Answers:
    """A model's outputs on data, summed up.

    samples: how many; correct: how many have the label as their greatest output, None without labels.
    loss: mean cross entropy with the labels, None without.
    sqnr_db: 10 * log10(sum(expected**2) / sum((found - expected)**2)) against a model's outputs that are expected;
        infinite where they are equal.
    """

    samples: int
    correct: int | None
    loss: float | None
    sqnr_db: float

    @property
    def accuracy(self) -> float | None:
        """The share of right answers, None without labels."""
        return None if self.correct is None else self.correct / self.samples


@dataclass(frozen=True, eq=False)
class Expected:
    """A model's first output for each batch of some data, and the batch's labels."""

    outputs: tuple[Tensor, ...]
    labels: tuple[Tensor | None, ...]

    def answers(self) -> Answers:
        """Returns the answers of the model itself."""
        return _sum_up(zip(self.outputs, self.outputs, self.labels, strict=True))


def expected_outputs(model: nn.Module, batches: Batches, track: Track = untracked) -> Expected:
    """Returns what a model gives for each batch."""
    outputs, labels = [], []
    with torch.inference_mode():
        for batch in track(batches, "float model", len(batches)):
            outputs.append(first_output(model(*batch.inputs)))
            labels.append(batch.labels)
    return Expected(tuple(outputs), tuple(labels))


def evaluate(
    model: nn.Module, batches: Batches, expected: Expected, description: str, track: Track = untracked
) -> Answers:
    """Returns a model's answers beside those that are expected; the engine must be set.

    Raises: CalibrationError if labels are not below the number of outputs.
    """
    with torch.inference_mode():
        tracked = track(batches, description, len(batches))
        found = (first_output(model(*batch.inputs)) for batch in tracked)
        return _sum_up(zip(found, expected.outputs, expected.labels, strict=True))


def _sum_up(triples: Iterable[tuple[Tensor, Tensor, Tensor | None]]) -> Answers:
    """Returns the answers of (found, expected, labels) for each batch."""
    signal = noise = loss = 0.0
    samples = correct = labelled = 0
    for found, right, labels in triples:
        signal += float(right.double().square().sum())
        noise += float((found.double() - right.double()).square().sum())
        samples += len(found)
        if labels is not None:
            _check_labels(found, labels)
            correct += int((found.argmax(dim=1) == labels).sum())
            loss += float(nn.functional.cross_entropy(found.double(), labels, reduction="sum"))
            labelled += len(labels)
    if labelled < samples:
        return Answers(samples, None, None, _decibels(signal, noise))
    return Answers(samples, correct, loss / samples, _decibels(signal, noise))


def _check_labels(found: Tensor, labels: Tensor) -> None:
    if (
        found.dim() != 2
        or len(found) != len(labels)
        or not 0 <= int(labels.min()) <= int(labels.max()) < found.shape[1]
    ):
        raise CalibrationError(
            f"the model's first output has the shape {list(found.shape)}, which does not fit labels from "
            f"{int(labels.min())} to {int(labels.max())}; accepted is [samples, classes]"
        )


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
