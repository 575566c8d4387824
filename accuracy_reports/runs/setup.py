"""Everything an evaluation hangs on, resolved: whoever has a Setup computes the same answers, in any process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accuracy_reports.runs.logits import LogitsForm
from calibration.data import Dataset, Preprocessing, open_dataset


@dataclass(frozen=True)
class Data:
    """Which images, as open_dataset takes them; images: how many of them, None = all."""

    path: str
    preprocessing: Preprocessing | None = None
    labels_file: Path | None = None
    synsets_file: Path | None = None
    classes_file: Path | None = None
    incomplete: bool = False
    images: int | None = None

    def open(self) -> Dataset:
        """Returns the dataset. Raises: DatasetError."""
        return open_dataset(
            self.path,
            self.preprocessing,
            labels_file=self.labels_file,
            synsets_file=self.synsets_file,
            classes_file=self.classes_file,
            incomplete=self.incomplete,
        )


@dataclass(frozen=True)
class Setup:
    """What is evaluated, and how. It can be pickled and sent to another process that sees the same files.

    bundle: our compiled program; int8_model, float_model: TorchScript, run by PyTorch; onnx_model: of int8_model. None
        = that program is not run.
    engine: PyTorch's, for int8_model. threads: of every program. batch: images of a call. chunk: images that are
        evaluated and recorded together, a multiple of batch. workers: threads that decode; None = one for each CPU.
    """

    data: Data
    bundle: Path
    int8_model: Path | None
    float_model: Path | None
    onnx_model: Path | None
    engine: str | None
    logits: LogitsForm
    threads: int
    batch: int
    chunk: int
    workers: int | None = None
