"""From what a user asks to a Setup and the header of its journal: everything is checked before the run starts.

What takes long (compiling, exporting) is kept in the run's folder, for when the run goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from accuracy_reports import record
from accuracy_reports.environment import describe_environment
from accuracy_reports.record import FLOAT, INT8, ONNX_RUNTIME, OURS
from accuracy_reports.runs.journal import JOURNAL, Header, Question, read_header, refuse_differences
from accuracy_reports.runs.logits import LogitsForm
from accuracy_reports.runs.programs import tensors_of
from accuracy_reports.runs.setup import Data, Setup
from accuracy_reports.runs.trial import check_float_model, check_images_fit, logits_of_bundle, logits_of_model
from calibration.data import Dataset
from qtorch_relay.capture.engine import resolve_engine
from qtorch_relay.capture.notes import noted_engine
from qtorch_relay.demo.model_files import write_digits
from qtorch_relay.errors import BundleError, InvalidInputError
from qtorch_relay.output_files import atomic_write
from qtorch_relay.peers import PeerUnavailableError, export_onnx, frozen_runner, onnxruntime_session
from qtorch_relay.runtime import load, set_num_threads
from qtorch_relay.runtime.bundle import read_manifest
from qtorch_relay.runtime.interface import Interface
from qtorch_relay.target import check_runnable, resolve

BUNDLE, ONNX = "model.qtr", "model.onnx"
CHUNK_IMAGES = 64
_READ_BYTES = 4 << 20
# Shows that something takes a while.
Working: TypeAlias = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Request:
    """What a user asks.

    model: TorchScript or a bundle; None = the digits demo's. int8_model: what a bundle was made of. batch: None = the
    bundle's, or 1. chunk: None = CHUNK_IMAGES or a batch more. peers: whether ONNX Runtime is run. shard: the i-th of
    n. restart: forgets the journal that is there, once all is checked. command: as the user gave it. elsewhere: our
    program runs on a board, so this host need not be able to.
    """

    data: Data
    model: Path | None = None
    int8_model: Path | None = None
    float_model: Path | None = None
    engine: str | None = None
    target: str = "host"
    threads: int = 1
    batch: int | None = None
    chunk: int | None = None
    workers: int | None = None
    peers: bool = True
    shard: tuple[int, int] = (1, 1)
    restart: bool = False
    command: str = ""
    elsewhere: bool = False


def prepare(request: Request, folder: Path, working: Working) -> tuple[Setup, Header]:
    """Returns the setup of a run in a folder, and the header its journal must have.

    Raises:
        QTorchRelayError: anything is missing, damaged, or does not fit.
    """
    set_num_threads(request.threads)
    dataset = request.data.open()
    images = len(dataset.spread(request.data.images))
    known = None if request.restart else read_header(folder / JOURNAL)
    if request.model is None:
        with working("digits demo: the network"):
            request = _with_digits(request, folder)
    prepared = _Preparation(request, folder, working, dataset, images, known).finish()
    if request.restart:
        (folder / JOURNAL).unlink(missing_ok=True)
    return prepared


class _Preparation:
    """The steps of prepare; known: what the folder's journal says, if there is one."""

    def __init__(
        self, request: Request, folder: Path, working: Working, dataset: Dataset, images: int, known: Header | None
    ) -> None:
        assert request.model is not None
        self.request, self.folder, self.working = request, folder, working
        self.dataset, self.images, self.known = dataset, images, known
        self.model = request.model
        self.is_bundle = self.model.suffix == ".qtr"
        if self.is_bundle and (request.engine is not None or request.target != "host"):
            raise InvalidInputError(f"{self.model} is compiled already, so --engine and --target cannot change it")
        if not self.is_bundle and request.int8_model is not None:
            raise InvalidInputError(f"{self.model} is itself what PyTorch runs; --int8 is for a bundle (.qtr)")
        self.int8_model = request.int8_model if self.is_bundle else self.model
        self.bundle = self.model if self.is_bundle else folder / BUNDLE
        files = {OURS: self.model, INT8: self.int8_model, FLOAT: request.float_model}
        self.sha256 = {name: sha256_of(path) for name, path in files.items() if path is not None}
        if self.is_bundle:
            program = self._read_bundle()
            self.engine, self.target = program.engine, program.target.name
            self.batch = request.batch or _batch_of(program)
        else:
            resolved = resolve(request.target)
            if not request.elsewhere:
                check_runnable(resolved)
            self.engine, self.target = resolve_engine(noted_engine(self.model, request.engine)), resolved.name
            self.batch = request.batch or 1
        self.shape = (self.batch, *dataset.shape)
        if self.is_bundle:
            check_images_fit(self.bundle, program, self.shape)
        self.made = self._made_before()

    def finish(self) -> tuple[Setup, Header]:
        """Takes all steps."""
        request = self.request
        logits = self._logits()
        self.dataset.check_classes(logits.classes)
        compiled = self._compiled()
        missing = {} if request.float_model else {FLOAT: "no float model was given (--float)"}
        if self.int8_model is None:
            missing[INT8] = "no TorchScript file was given beside the bundle (--int8)"
        onnx_model = self._onnx(logits, missing)
        chunk = request.chunk or -(-CHUNK_IMAGES // self.batch) * self.batch
        if chunk % self.batch:
            raise InvalidInputError(f"a chunk has {chunk} images; accepted are multiples of the batch of {self.batch}")
        setup = Setup(
            request.data, self.bundle, self.int8_model, request.float_model, onnx_model, self.engine, logits,
            request.threads, self.batch, chunk, request.workers,
        )  # fmt: skip
        question = Question(
            self.sha256, self.engine, self._described(logits), logits, self.batch, chunk,
            tuple(name for name in (FLOAT, INT8, OURS, ONNX_RUNTIME) if name not in missing), missing,
        )  # fmt: skip
        made = {path.name: sha256_of(path) for path in (None if self.is_bundle else self.bundle, onnx_model) if path}
        model = record.Model(
            self.model.name, str(self.engine), self.target, str(compiled.report.get("path", "kernels")),
            tuple(map(str, compiled.inputs)), tuple(map(str, compiled.report.get("messages", ()))),
        )  # fmt: skip
        environment = describe_environment(request.command, request.threads)
        return setup, Header(question, model, environment, made, request.shard)

    def _made_before(self) -> frozenset[str]:
        """Returns the files in the folder that are what this run would make.

        Raises:
            JournalError: the folder is of another run.
        """
        known = self.known
        if known is None:
            return frozenset()
        pairs: dict[str, tuple[object, object]] = {
            "the model files": (known.question.sha256, self.sha256),
            "--engine": (known.question.engine, self.engine),
            "--batch": (known.question.batch, self.batch),
            "--target": (known.model.target, self.target),
        }
        # Before anything in the folder of another run is made anew.
        refuse_differences(pairs, self.folder / JOURNAL)
        paths = {name: self.folder / name for name in known.made}
        return frozenset(name for name, path in paths.items() if path.is_file() and sha256_of(path) == known.made[name])

    def _logits(self) -> LogitsForm:
        """Returns where the logits are, after one run of what PyTorch runs; a run that goes on knows it."""
        if self.known is not None and self.made:
            return self.known.question.logits
        with self.working("running each model once"):
            if self.int8_model is None:
                logits = logits_of_bundle(self._read_bundle(), self.batch)
            else:
                logits = logits_of_model(self.int8_model, self.engine, self.shape)
            if self.request.float_model is not None:
                check_float_model(self.request.float_model, logits, self.shape)
        return logits

    def _read_bundle(self) -> Interface:
        """Returns what the bundle's program takes and gives: that which this host runs, or the first for a board."""
        if self.request.elsewhere:
            return read_manifest(self.bundle).variants[0].interface
        return load(self.bundle).interface

    def _compiled(self) -> Interface:
        if self.is_bundle:
            return self._read_bundle()
        if BUNDLE in self.made:
            with suppress(BundleError):  # unchanged, so written by another version of the format
                return self._read_bundle()
        with self.working(f"compiling for {self.target}"):
            from qtorch_relay.pipeline import compile as compile_for  # TVM's compiler: seconds that a resumed run saves

            model = compile_for(str(self.model), [("x", (self.shape, "float32"))], self.target, self.engine)
            model.save(self.bundle)
        return model.interface

    def _onnx(self, logits: LogitsForm, missing: dict[str, str]) -> Path | None:
        """Returns the model as ONNX if ONNX Runtime takes it; else says why not in missing."""
        path = self.folder / ONNX
        if self.int8_model is None or not self.request.peers:
            missing[ONNX_RUNTIME] = "left out (--no-peers, or on a board)" if self.int8_model else missing[INT8]
            return None
        if ONNX in self.made:
            return path
        if self.made and self.known is not None and ONNX_RUNTIME in self.known.question.missing:
            missing[ONNX_RUNTIME] = self.known.question.missing[ONNX_RUNTIME]
            return None
        try:
            with self.working("exporting to ONNX"):
                module, _ = frozen_runner(self.int8_model, self.engine)
                data = export_onnx(LogitsAlone(module, logits.index), [torch.zeros(self.shape)])
                onnxruntime_session(data, self.request.threads)
        except PeerUnavailableError as error:
            missing[ONNX_RUNTIME] = str(error)
            return None
        with atomic_write(path) as file:
            file.write(data)
        return path

    def _described(self, logits: LogitsForm) -> record.Dataset:
        classes = self.dataset.classes or tuple(map(str, range(logits.classes)))
        words = str(self.dataset.images.preprocessing or "as it is in the data")
        return record.Dataset(self.dataset.name, self.images, classes, words, self.dataset.fingerprint)


class LogitsAlone(torch.nn.Module):
    """A model that returns its logits alone and as floats, as exporters expect it."""

    def __init__(self, model: torch.nn.Module, index: int) -> None:
        super().__init__()
        self.model = model
        self.index = index

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits as floats."""
        tensor = tensors_of(self.model(images))[self.index]
        return tensor.dequantize() if tensor.is_quantized else tensor


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file. Raises: InvalidInputError if it cannot be read."""
    try:
        found = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                found.update(block)
        return found.hexdigest()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error


def _batch_of(compiled: Interface) -> int:
    first = compiled.inputs[0].shape[0] if compiled.inputs and compiled.inputs[0].shape else 1
    return first if isinstance(first, int) else 1


def _with_digits(request: Request, folder: Path) -> Request:
    """Returns the request for the demo's model, which is trained unless the folder has it."""
    int8_model, float_model = write_digits(folder, resolve_engine(request.engine))
    return replace(request, model=int8_model, float_model=request.float_model or float_model)
