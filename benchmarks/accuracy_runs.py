"""What an accuracy run costs beside the programs that it runs: time, memory, and the start of one that goes on.

    python -m benchmarks.accuracy_runs --model resnet18 --size 224 --images 400

Images are preprocessed already, so that decoding is not the limit. Weights and images are seeded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from accuracy_reports.runs.chunks import Evaluator
from accuracy_reports.runs.journal import JOURNAL, Journal
from accuracy_reports.runs.prepare import Request, prepare
from accuracy_reports.runs.setup import Data
from accuracy_reports.runs.totals import Totals
from accuracy_reports.zoo import quantized_model
from qtorch_relay.capture.engine import quantized_engine

ENGINE = "fbgemm"
_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Cost:
    """seconds: of the run; calls_s: in the programs; rss_mib: after the first chunk, the last, and the largest."""

    images: int
    prepare_s: float
    open_s: float
    seconds: float
    calls_s: float
    rss_mib: tuple[int, int, int]

    @property
    def overhead(self) -> float:
        return self.seconds / self.calls_s - 1

    def __str__(self) -> str:
        first, last, most = self.rss_mib
        return (
            f"prepared in {self.prepare_s:.1f} s, programs opened in {self.open_s:.1f} s; {self.images} images in "
            f"{self.seconds:.1f} s, {self.calls_s:.1f} s of them in the programs: {self.overhead:.1%} more; resident "
            f"{first} MiB after the first chunk, {last} MiB after the last, {most} MiB at most"
        )


def write_model(folder: Path, name: str, size: int) -> Path:
    path = folder / f"{name}.pt"
    with quantized_engine(ENGINE), torch.no_grad():
        module = quantized_model(name, ENGINE, image_size=size).module
        torch.jit.trace(module, torch.zeros(1, 3, size, size)).save(str(path))
    return path


def write_images(folder: Path, size: int, count: int) -> Path:
    """Writes normal noise, an image at a time: all of them may be larger than the memory."""
    rng, shape = np.random.default_rng(0), (3, size, size)
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
    with zipfile.ZipFile(folder / "images.npz", "w") as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(count):
                file.write(rng.standard_normal(shape).astype(np.float32).tobytes())
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array(file, rng.integers(0, 1000, count))
    return folder / "images.npz"


def measure(request: Request, folder: Path) -> Cost:
    """Runs what the folder's journal does not have yet."""
    start = time.perf_counter()
    setup, header = prepare(request, folder, _silently)
    prepared = time.perf_counter()
    evaluator = Evaluator(setup)
    opened = time.perf_counter()
    calls_s, rss_mib = 0.0, []
    with Journal(folder / JOURNAL, header) as journal:
        totals, todo = Totals(header.question), journal.todo
        begun, images = time.perf_counter(), 0
        for result in evaluator.stream(todo):
            journal.add(result)
            totals.add(result)
            images += len(result.indices)
            calls_s += sum(sum(answers.latency_ms) for answers in result.answers.values()) / 1e3
            rss_mib.append(resident_mib())
        seconds = time.perf_counter() - begun
    return Cost(images, prepared - start, opened - prepared, seconds, calls_s, (rss_mib[0], rss_mib[-1], max(rss_mib)))


def resident_mib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES >> 20


def keep_half(journal: Path) -> None:
    """Leaves what a run that was killed in the middle leaves."""
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: 1 + len(lines) // 2]))


@contextmanager
def _silently(_: str) -> Iterator[None]:
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--images", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qtorch_relay_accuracy_") as name:
        folder = Path(name)
        model = write_model(folder, options.model, options.size)
        data = write_images(folder, options.size, options.images)
        request = Request(Data(str(data)), model, engine=ENGINE)
        print(f"begun:   {measure(request, folder)}", flush=True)
        keep_half(folder / JOURNAL)
        print(f"resumed: {measure(request, folder)}", flush=True)


if __name__ == "__main__":
    main()
