"""What a model answers on labelled data, and how far its outputs are from another model's."""

from __future__ import annotations

import math
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


def expected_outputs(model: nn.Module, batches: Batches, track: Track = untracked) -> list[Tensor]:
    """Returns a model's first output for each batch."""
    with torch.inference_mode():
        return [first_output(model(*batch.inputs)) for batch in track(batches, "float outputs", len(batches))]


def evaluate(model: nn.Module, batches: Batches, expected: list[Tensor], description: str, track: Track) -> Answers:
    """Returns a model's answers. expected: outputs that are right for each batch; the engine must be set.

    Raises: CalibrationError if labels are not below the number of outputs.
    """
    signal = noise = loss = 0.0
    samples = correct = labelled = 0
    with torch.inference_mode():
        for batch, right in zip(track(batches, description, len(batches)), expected, strict=True):
            found = first_output(model(*batch.inputs))
            signal += float(right.double().square().sum())
            noise += float((found.double() - right.double()).square().sum())
            samples += batch.size
            if batch.labels is not None:
                if found.dim() != 2 or int(batch.labels.max()) >= found.shape[1]:
                    raise CalibrationError(
                        f"the model's first output has the shape {list(found.shape)}, which does not fit labels up to "
                        f"{int(batch.labels.max())}; accepted is [samples, classes]"
                    )
                correct += int((found.argmax(dim=1) == batch.labels).sum())
                loss += float(nn.functional.cross_entropy(found.double(), batch.labels, reduction="sum"))
                labelled += batch.size
    has_labels = labelled == samples
    return Answers(
        samples, correct if has_labels else None, loss / samples if has_labels else None, _decibels(signal, noise)
    )


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
