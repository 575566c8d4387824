"""Calibration data as the rest sees it: batches that can be gone through again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from qtorch_relay.errors import CalibrationError

# Passes on the items of an iterable of known length while it shows the description and how far it is.
Track: TypeAlias = Callable[[Iterable[Any], str, int], Iterable[Any]]


def untracked(items: Iterable[Any], description: str, total: int) -> Iterable[Any]:
    """Returns the items: the Track that shows nothing."""
    return items


@dataclass(frozen=True, eq=False)
class Batch:
    """What a model is called with, and the labels [N] int64 of its answers; None where there are none."""

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None

    @property
    def size(self) -> int:
        """How many samples it holds."""
        return len(self.inputs[0])


class Batches(Protocol):
    """Batches that are the same each time they are iterated over."""

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches."""

    def __len__(self) -> int:
        """How many batches there are."""


@dataclass(frozen=True, eq=False)
class ArrayBatches:
    """Batches of tensors in memory, [N, ...] each, and of labels [N].

    Raises: CalibrationError if there is no sample, or the lengths differ.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        lengths = {len(tensor) for tensor in (*self.inputs, *([] if self.labels is None else [self.labels]))}
        if len(lengths) > 1:
            raise CalibrationError(f"the arrays hold different numbers of samples: {sorted(lengths)}")
        if not self.inputs or lengths == {0}:
            raise CalibrationError("there is no calibration data; give at least one sample")
        if self.batch_size < 1:
            raise CalibrationError(f"the batch size is {self.batch_size}; accepted is 1 or more")

    def __len__(self) -> int:
        return math.ceil(len(self.inputs[0]) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.inputs[0]), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield Batch(
                tuple(tensor[part] for tensor in self.inputs), None if self.labels is None else self.labels[part]
            )


def first_batch(batches: Batches) -> Batch:
    """Returns the first batch.

    Raises: CalibrationError if there is none.
    """
    for batch in batches:
        return batch
    raise CalibrationError("there is no calibration data; give at least one sample")


def first_output(output: Any) -> Tensor:
    """Returns the first tensor of a model's output, as floats: what accuracy and distortion are told by.

    Raises: CalibrationError if there is none.
    """
    todo = [output]
    while todo:
        value = todo.pop(0)
        if isinstance(value, Tensor):
            return value.dequantize() if value.is_quantized else value.to(torch.float32)
        if isinstance(value, dict):
            todo[:0] = value.values()
        elif isinstance(value, list | tuple):
            todo[:0] = value
    raise CalibrationError(f"the model returns no tensor, but {type(output).__name__}")
