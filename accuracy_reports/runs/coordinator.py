"""The coordinator: gives chunks away, journals what comes back, adds it up. It may be killed at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from accuracy_reports.record import Layers, Record
from accuracy_reports.runs.chunks import ChunkResult, Evaluator
from accuracy_reports.runs.journal import JOURNAL, Header, Journal
from accuracy_reports.runs.setup import Setup
from accuracy_reports.runs.totals import Totals

RECORD, REPORT = "record.json", "report.html"

# Yields the results of all these chunks, in any order; a chunk may come twice, from a worker that was given up on.
Schedule: TypeAlias = Callable[[Setup, Sequence[int]], Iterator[ChunkResult]]


def here(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
    """Evaluates chunks in this process, one after the other."""
    return Evaluator(setup).stream(chunks)


def run(
    setup: Setup,
    header: Header,
    folder: Path,
    schedule: Schedule = here,
    tell: Callable[[int, int, Totals], None] = lambda done, images, totals: None,
) -> Record:
    """Runs what the folder's journal does not have yet, and returns the record of all.

    tell: called with how many images are done, of how many, and the totals so far, at first and after every chunk.

    Raises:
        JournalError: the journal is of another run, damaged, or in use.
        QTorchRelayError: a program cannot go on; what is done is in the journal.
    """
    totals = Totals(header.question)
    with Journal(folder / JOURNAL, header) as journal:
        images = images_in(header, header.chunks)
        for result in journal.results():
            totals.add(result)
        tell(images_in(header, journal.done), images, totals)
        todo = journal.todo
        for result in schedule(setup, todo) if todo else ():
            if journal.add(result):
                totals.add(result)
                tell(images_in(header, journal.done), images, totals)
        if journal.todo:
            raise AssertionError(f"the schedule left out the chunks {journal.todo}")
    return record_of(header, totals)


def images_in(header: Header, chunks: Sequence[int] | set[int] | range) -> int:
    """Returns how many images chunks have; only the last chunk of all may have fewer than the others."""
    question = header.question
    return sum(min(question.chunk, question.dataset.images - chunk * question.chunk) for chunk in chunks)


def with_layers(record: Record, setup: Setup, count: int) -> Record:
    """Returns a record with what each layer does on so many images, evenly spaced; broken ones are left out.

    Raises:
        QTorchRelayError: the model cannot be taken apart, or none of the images can be read.
    """
    from accuracy_reports.layers.three_ways import compare_three_ways  # TVM's compiler, which nothing else here needs

    dataset = setup.data.open()
    float_model = None if setup.float_model is None else str(setup.float_model)
    layers = compare_three_ways(
        str(setup.int8_model),
        float_model,
        [("x", ((1, *dataset.shape), "float32"))],
        ([batch.images] for batch in dataset.batches(dataset.spread(min(count, len(dataset))), 1) if len(batch.images)),
        setup.engine,
        record.model.target,
        float_name=setup.float_model.name if setup.float_model else "float",
    )
    return replace(record, layers=layers)


def record_of(header: Header, totals: Totals, layers: Layers | None = None) -> Record:
    """Returns the record of a run that is done; of a shard, the dataset is the shard's share."""
    dataset = replace(header.question.dataset, images=images_in(header, header.chunks))
    return Record(header.environment, header.model, dataset, totals.programs, totals.broken, totals.changed, layers)
