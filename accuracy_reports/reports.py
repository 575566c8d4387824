"""`make reports`: the results in accuracy_reports/results, a folder for each network, and an index page over them.

- digits: the demo's CNN on all of scikit-learn's 360 test images, every layer on all of them.
- torchvision's eight quantizable networks with seeded weights on seeded images, which have no labels: whether answers,
  codes and layers are PyTorch's. With --imagenet their published weights and ImageNet's validation set (downloads).

Exit status 1 if a code or an answer is not PyTorch's, or the digits fall below what they must reach. A network whose
record is there is left as it is, unless --again is given: a run that was stopped goes on. --latencies again measures
only the latencies of such records, when the machine has nothing else to do; none leaves them out, on a busy one.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from accuracy_reports.layers.blame import sentences
from accuracy_reports.pages.html import render
from accuracy_reports.pages.index import write_index
from accuracy_reports.record import FLOAT, INT8, OURS, Record, read_record, write_record
from accuracy_reports.runs.coordinator import RECORD, REPORT, run, with_layers
from accuracy_reports.runs.prepare import Request, prepare
from accuracy_reports.runs.programs import open_programs
from accuracy_reports.runs.setup import Data, Setup
from accuracy_reports.zoo import IMAGE_SIZES, float_model, pretrained, quantized_model, random_images
from calibration.data import find_preprocessing
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.output_files import atomic_write
from qtorch_relay.peers.timing import interleave

RESULTS = Path(__file__).parent / "results"
DIGITS, ENGINE = "digits", "fbgemm"
LEAST_FLOAT_TOP1 = 0.97
MOST_INT8_LOSS = 0.01
_CALLS = 15  # of each program
LATENCIES = ("run", "again", "none")


@dataclass(frozen=True)
class Options:
    """What is asked. images: of each seeded network; layer_images: on how many of them its layers are compared.

    work: where the networks' files are kept, None = nowhere. latencies: one of LATENCIES.
    """

    output: Path
    images: int
    layer_images: int
    threads: int
    imagenet: Path | None
    work: Path | None
    latencies: str
    command: str


def make_record(name: str, options: Options, folder: Path, bars: Progress, known: Record | None = None) -> Record:
    """Returns the record of a network, of a known one with other latencies. folder: for the network's files."""

    def working(text: str) -> AbstractContextManager[Any]:
        bars.console.print(f"{name}: {text}", markup=False)
        return warnings.catch_warnings()

    request = _request(name, options, folder)
    setup, header = prepare(request, folder, working)
    if known is not None:
        return with_latencies(known, setup)
    found = run(setup, header, folder)
    if name != DIGITS and options.imagenet is None:
        found = _without_labels(found)
    with working("layers three ways"):
        count = found.dataset.images if name == DIGITS else options.layer_images
        found = with_layers(found, setup, count) if count else found
    return replace(found, model=replace(found.model, name=name))


def _request(name: str, options: Options, folder: Path) -> Request:
    common = {"threads": options.threads, "command": options.command}
    if name == DIGITS:
        return Request(Data(DIGITS), engine=ENGINE, **common)  # type: ignore[arg-type]
    int8_file, float_file = folder / f"{name}_int8.pt", folder / f"{name}.pt"
    images_file = folder / "images.npz"
    size = IMAGE_SIZES[name]
    request = Request(Data(str(images_file)), int8_file, float_model=float_file, engine=ENGINE, **common)  # type: ignore[arg-type]
    if options.imagenet is not None:
        weights = pretrained(name)
        data = Data(str(options.imagenet), find_preprocessing(weights.preprocessing))
        request = replace(request, data=data, engine=weights.engine)
        networks = {int8_file: weights.int8, float_file: weights.floats}
    elif int8_file.exists() and float_file.exists() and images_file.exists():
        return request
    else:
        images = random_images(options.images, size, seed=1).numpy()
        np.savez(images_file, images=images, labels=np.arange(len(images)))
        floats = float_model(name, ENGINE, "eager").module
        networks = {int8_file: quantized_model(name, ENGINE).module, float_file: floats}
    with quantized_engine(request.engine):
        for file, module in networks.items():
            torch.jit.save(torch.jit.trace(module.eval(), torch.zeros(1, 3, size, size), check_trace=False), file)
    return request


def with_latencies(found: Record, setup: Setup) -> Record:
    """Returns a record with the latencies of programs that take turns on the first images."""
    (batch,) = setup.data.open().batches(np.arange(setup.batch), setup.batch)
    calls = {program.name: partial(program.call, program.convert(batch.images)) for program in open_programs(setup)}
    medians = {name: median(values) for name, values in interleave(calls, _CALLS).items()}
    rows = (
        replace(row, latency_ms=medians[row.name], images_per_s=1e3 * setup.batch / medians[row.name])
        if row.name in medians
        else row
        for row in found.programs
    )
    return replace(found, programs=tuple(rows))


def without_latencies(found: Record) -> Record:
    """Returns a record that says nothing of speed."""
    rows = tuple(replace(row, latency_ms=None, images_per_s=None) for row in found.programs)
    return replace(found, programs=rows)


def _without_labels(found: Record) -> Record:
    """Returns the record of seeded images, whose labels mean nothing."""
    programs = tuple(replace(row, top1=None, top5=None) for row in found.programs)
    merged: dict[tuple[str, int, int], int] = {}
    for row in found.changed:
        key = row.program, row.expected, row.found
        merged[key] = merged.get(key, 0) + row.images
    changed = tuple(replace(found.changed[0], program=p, label=None, expected=e, found=f, images=n)
                    for (p, e, f), n in sorted(merged.items(), key=lambda item: -item[1]))  # fmt: skip
    words = "as they are: noise at every scale, normalized, seed 1"
    dataset = replace(found.dataset, name="seeded images", classes=(), preprocessing=words)
    return replace(found, programs=programs, changed=changed, dataset=dataset)


def shortcomings(name: str, found: Record) -> list[str]:
    """Returns what of a record is not as it must be, in sentences."""
    problems = []
    ours, int8, floats = found.program(OURS), found.program(INT8), found.program(FLOAT)
    if ours is None or int8 is None or floats is None:
        return [f"{name}: a program has no numbers"]
    if ours.differing is None or ours.differing.count:
        problems.append(f"{name}: output codes differ from PyTorch int8's")
    if ours.agreement is None or ours.agreement.count != ours.agreement.of:
        problems.append(f"{name}: an answer is not PyTorch int8's")
    if found.layers is None:
        problems.append(f"{name}: its layers are not compared")
    elif any(layer.own_compiler and layer.scale for layer in found.layers.layers):
        problems.append(f"{name}: codes of a layer differ from PyTorch int8's")
    if name == DIGITS and floats.top1 is not None and int8.top1 is not None:
        if floats.top1.value < LEAST_FLOAT_TOP1:
            problems.append(f"{name}: the float network has {floats.top1.value:.2%}, less than {LEAST_FLOAT_TOP1:.0%}")
        if floats.top1.value - int8.top1.value > MOST_INT8_LOSS:
            problems.append(f"{name}: int8 loses more than {MOST_INT8_LOSS:.0%}")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the results that are asked for; returns the exit status."""
    options, names, again = _parse(arguments)
    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    torch.set_num_threads(options.threads)
    problems = []
    options.output.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True)) as bars:
        for name in bars.track(names, description="reports"):
            folder = options.output / name
            folder.mkdir(exist_ok=True)
            is_there = (folder / RECORD).exists()
            measured_again = options.latencies == "again" and is_there
            if again or measured_again or not is_there:
                known = read_record(folder / RECORD) if measured_again else None
                with _folder_for_files(options.work, name) as files:
                    found = make_record(name, options, files, bars, known)
                write_record(found, folder / RECORD)
            if options.latencies == "none":
                write_record(without_latencies(read_record(folder / RECORD)), folder / RECORD)
            found = read_record(folder / RECORD)
            with atomic_write(folder / REPORT) as file:
                file.write(render(found).encode())
            problems += shortcomings(name, found)
            for line in sentences(found.layers) if found.layers is not None else ():
                bars.console.print(f"{name}: {line}", markup=False)
    write_index(options.output)
    print("\n".join(problems) or f"{options.output}: every code and every answer is PyTorch int8's")
    return 1 if problems else 0


@contextmanager
def _folder_for_files(work: Path | None, name: str) -> Iterator[Path]:
    """Yields a folder for a network's files; without work it vanishes at the end."""
    if work is not None:
        (work / name).mkdir(parents=True, exist_ok=True)
        yield work / name
        return
    with tempfile.TemporaryDirectory(prefix="qtorch_relay_reports_") as files:
        yield Path(files)


def _parse(arguments: Sequence[str] | None) -> tuple[Options, tuple[str, ...], bool]:
    parser = argparse.ArgumentParser(prog="python -m accuracy_reports.reports", description=__doc__)
    known = (DIGITS, *IMAGE_SIZES)
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument("--images", type=int, default=16, help="seeded images of each network")
    parser.add_argument(
        "--layer-images", type=int, default=4, help="on how many of them layers are compared; 0: on none"
    )
    parser.add_argument("--threads", type=int, default=1, help="of every program")
    parser.add_argument("--imagenet", type=Path, metavar="DIR", help="published weights on this validation set")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the networks' files here, and use those there")
    parser.add_argument("--latencies", choices=LATENCIES, default=LATENCIES[0], help="default: those of the run")
    parser.add_argument("--again", action="store_true", help="make records anew that are there")
    given = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "accuracy_reports.reports", *words])
    options = Options(
        given.output,
        given.images,
        given.layer_images,
        given.threads,
        given.imagenet,
        given.work,
        given.latencies,
        command,
    )
    return options, tuple(given.models), given.again


if __name__ == "__main__":
    sys.exit(main())
