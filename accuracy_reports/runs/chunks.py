"""What programs answer on one chunk of images: the unit that is recorded, redone after a kill, and given away.

A chunk's result hangs on the setup and the chunk's number alone, the latencies excepted. So it does not matter who
computes it, when, or how often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass

from accuracy_reports.record import FLOAT, INT8
from accuracy_reports.runs.logits import CONFIG
from accuracy_reports.runs.programs import open_programs, run_padded
from accuracy_reports.runs.setup import Setup
from calibration.data import Batch, Dataset
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.peers import Logits, Program

TOP = 5
_WARM_UP_CALLS = 3

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=CONFIG)
class Answers:
    """What one program answered. top: its TOP best classes for each image, best first, of equal ones the lower first.

    differing: of each image, how many codes are not PyTorch int8's, or floats where the model's logits are no codes;
        None of PyTorch float, and where PyTorch int8 is not run.
    latency_ms: of each call.
    """

    top: tuple[tuple[Count, ...], ...]
    differing: tuple[Count, ...] | None
    latency_ms: tuple[Annotated[float, Field(ge=0)], ...]


@dataclass(frozen=True, config=CONFIG)
class Unread:
    """An image that could not be read: its index in the dataset, its path, and why."""

    index: Count
    path: str
    reason: str


@dataclass(frozen=True, config=CONFIG)
class ChunkResult:
    """A chunk: the indices of the images that could be read, their labels, and the programs' answers in that order."""

    chunk: Count
    indices: tuple[Count, ...]
    labels: tuple[Count, ...]
    broken: tuple[Unread, ...]
    answers: dict[str, Answers]

    def __post_init__(self) -> None:
        count = len(self.indices)
        lengths = {len(self.labels), *(len(answers.top) for answers in self.answers.values())}
        lengths |= {len(answers.differing) for answers in self.answers.values() if answers.differing is not None}
        if lengths != {count}:
            raise ValueError(f"chunk {self.chunk} has {count} images, but lists of {sorted(lengths)}")


def chunk_count(images: int, chunk: int) -> int:
    """Returns how many chunks so many images make."""
    return -(-images // chunk)


class Evaluator:
    """Evaluates chunks of a setup in this process: the dataset and the programs, opened and warmed up."""

    def __init__(
        self,
        setup: Setup,
        open_all: Callable[[Setup], Sequence[Program]] = open_programs,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Opens everything. open_all: makes the programs, with PyTorch int8 before what is compared with it."""
        self.setup = setup
        self.dataset: Dataset = setup.data.open()
        self.selected = self.dataset.spread(setup.data.images)
        self.programs = list(open_all(setup))
        self._clock = clock
        zeros = np.zeros((setup.batch, *self.dataset.shape), np.float32)
        for program in self.programs:
            for _ in range(_WARM_UP_CALLS):
                run_padded(program, zeros, setup.batch, clock)

    def evaluate(self, chunk: int) -> ChunkResult:
        """Returns what the programs answer on one chunk."""
        return next(self.stream([chunk]))

    def stream(self, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        """Yields the results of chunks, in ascending order; the next one is decoded while one is computed."""
        size, order = self.setup.chunk, sorted(chunks)
        # Only the last chunk may be shorter, so batches of this size are chunks.
        indices = np.concatenate([self.selected[k * size : (k + 1) * size] for k in order] or [self.selected[:0]])
        batches = self.dataset.batches(indices, size, self.setup.workers)
        for number, batch in zip(order, batches, strict=True):
            yield self._evaluate(number, batch)

    def _evaluate(self, chunk: int, batch: Batch) -> ChunkResult:
        expected: Logits | None = None
        answers = {}
        for program in self.programs if len(batch.images) else ():
            logits, latencies_ms = run_padded(program, batch.images, self.setup.batch, self._clock)
            if program.name == INT8:
                expected = logits
            answers[program.name] = _answers(program.name, logits, expected, latencies_ms, self.setup.logits.classes)
        return ChunkResult(
            chunk,
            tuple(batch.indices.tolist()),
            tuple(batch.labels.tolist()),
            tuple(Unread(broken.index, broken.path, broken.reason) for broken in batch.broken),
            answers or {program.name: Answers((), None, ()) for program in self.programs},
        )


def top_classes(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Returns the best classes of logits [n, classes], [n, TOP at most], best first.

    Of equal logits, which are common among 256 codes, the lower class comes first in every program; NaN comes last.
    """
    # Five searches take a tenth of a sort's time.
    left = np.where(np.isnan(logits), -np.inf, logits)
    rows, best = np.arange(len(left)), []
    for _ in range(min(TOP, left.shape[1])):
        best.append(left.argmax(axis=1))
        left[rows, best[-1]] = -np.inf
    return np.stack(best, axis=1)


def _answers(name: str, logits: Logits, expected: Logits | None, latencies_ms: list[float], classes: int) -> Answers:
    if logits.floats.ndim != 2 or logits.floats.shape[1] != classes:
        raise InvalidInputError(f"{name} gives logits {list(logits.floats.shape)}, the model has {classes} classes")
    top = top_classes(logits.floats)
    differing = None
    if expected is not None and name != FLOAT:
        unequal = logits.floats != expected.floats if expected.codes is None else logits.codes != expected.codes
        differing = tuple(np.count_nonzero(unequal, axis=1).tolist())
    return Answers(tuple(map(tuple, top.tolist())), differing, tuple(latencies_ms))
