"""The journal of a run: a header, then a line for each chunk that is done. What is in it survives a kill.

Lines are only added, and are on the disk before the next chunk is waited for. Each starts with its own checksum; a last
line that a kill tore is cut off, and its chunk is done again.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from accuracy_reports import record
from accuracy_reports.runs.chunks import ChunkResult, chunk_count
from accuracy_reports.runs.logits import CONFIG, LogitsForm
from qtorch_relay.errors import OutputPathError, QTorchRelayError

JOURNAL = "journal.jsonl"
FORMAT: Final = "qtorch_relay accuracy journal"
_MAX_LINE_BYTES = 64 << 20
_T = TypeVar("_T")


class JournalError(QTorchRelayError):
    """A journal is damaged, of another run, or in use."""


@dataclass(frozen=True, config=CONFIG)
class Question:
    """What is asked: runs and shards that agree in it are parts of one.

    sha256: of the model files, by what they are run as. dataset: images: how many are asked for, in all shards.
    programs: what is run, in order. missing: what is not, and why.
    """

    sha256: dict[str, str]
    engine: str | None
    dataset: record.Dataset
    logits: LogitsForm
    batch: int
    chunk: int
    programs: tuple[str, ...]
    missing: dict[str, str]


@dataclass(frozen=True, config=CONFIG)
class Header:
    """The first line of a journal: the question, and where and by what it is answered.

    made: sha256 of the files in the run's folder that were made of the model, by name. shard: the i-th of n.
    """

    question: Question
    model: record.Model
    environment: record.Environment
    made: dict[str, str]
    shard: tuple[int, int] = (1, 1)
    format: Literal["qtorch_relay accuracy journal"] = FORMAT
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        i, n = self.shard
        if not 1 <= i <= n:
            raise ValueError(f"shard {i}/{n}")

    @property
    def chunks(self) -> range:
        """The numbers of the shard's chunks: every n-th, so that all shards see all of a sorted dataset."""
        question = self.question
        return range(self.shard[0] - 1, chunk_count(question.dataset.images, question.chunk), self.shard[1])

    def check(self, result: ChunkResult) -> None:
        """Raises JournalError unless a result is one of this run's."""
        question = self.question
        if result.chunk not in self.chunks:
            raise JournalError(f"chunk {result.chunk} is none of this run's")
        images = len(result.indices) + len(result.broken)
        expected = min(question.chunk, question.dataset.images - result.chunk * question.chunk)
        classes = question.logits.classes
        answered = [label for answers in result.answers.values() for top in answers.top for label in top]
        if images != expected:
            raise JournalError(f"chunk {result.chunk} has {images} images, not {expected}")
        if tuple(result.answers) != question.programs:
            raise JournalError(f"chunk {result.chunk} has answers of {', '.join(result.answers)}")
        if max((*result.labels, *answered), default=0) >= classes:
            raise JournalError(f"chunk {result.chunk} has a class beyond the {classes} of the model")


_HEADER: TypeAdapter[Header] = TypeAdapter(Header)
_CHUNK: TypeAdapter[ChunkResult] = TypeAdapter(ChunkResult)


class Journal:
    """A journal that is written: nobody else can open it meanwhile.

    Use it as a context. A chunk is added once: a result that is there already changes nothing.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Opens a run's journal, or begins it.

        Raises:
            JournalError: it is in use, damaged, or of a run that asks something else.
            OutputPathError: it cannot be written.
        """
        self.path = path
        self.header = header
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise OutputPathError(f"cannot write {path}: {error.strerror}") from error
        try:
            _lock(self._file, path)
            self.done = self._resume()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def todo(self) -> list[int]:
        """The chunks that are not in it yet."""
        return [chunk for chunk in self.header.chunks if chunk not in self.done]

    def add(self, result: ChunkResult) -> bool:
        """Writes a result, and returns when it is on the disk; False if the chunk was there before.

        Raises:
            JournalError: it is none of this run's.
            OutputPathError: the disk is full.
        """
        self.header.check(result)
        if result.chunk in self.done:
            return False
        self._write(_CHUNK.dump_json(result))
        self.done.add(result.chunk)
        return True

    def results(self) -> Iterator[ChunkResult]:
        """Yields what is in it."""
        _, results = read_journal(self.path)
        yield from results

    def _resume(self) -> set[int]:
        end = _end_of_whole_lines(self._file)
        if end == 0:
            self._file.truncate(0)
            self._write(_HEADER.dump_json(self.header))
            _sync_folder(self.path.parent)
            return set()
        self._file.seek(0)
        there = _read(self._file.readline(_MAX_LINE_BYTES), _HEADER, self.path, 1)
        check_same_run(there, self.header, self.path)
        done = {result.chunk for result in _results(self._file, there, self.path)}
        self._file.truncate(end)
        return done

    def _write(self, data: bytes) -> None:
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"%08x %b\n" % (zlib.crc32(data), data))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputPathError(f"cannot write {self.path}: {error.strerror}") from error


def read_journal(path: Path) -> tuple[Header, Iterator[ChunkResult]]:
    """Returns the header of a journal, and its results one by one.

    Raises:
        JournalError: it is missing or damaged; of a line, when the results come to it.
    """
    header = read_header(path)
    if header is None:
        raise JournalError(f"{path} is missing or empty; give the folder of an accuracy run")

    def results() -> Iterator[ChunkResult]:
        with path.open("rb") as file:
            file.readline(_MAX_LINE_BYTES)
            yield from _results(file, header, path)

    return header, results()


def read_header(path: Path) -> Header | None:
    """Returns the header of a journal; None if there is no journal, or not even the header was written.

    Raises:
        JournalError: it is damaged, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_LINE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from error
    return _read(line, _HEADER, path, 1) if line.endswith(b"\n") else None


def check_same_run(there: Header, ours: Header, path: Path) -> None:
    """Raises JournalError unless a run can go on: the same question, asked of the same programs on the same machine."""
    theirs, wanted = there.question, ours.question
    pairs = {
        "the model files": (theirs.sha256, wanted.sha256),
        "the images, their labels or preprocessing": (theirs.dataset, wanted.dataset),
        "--engine": (theirs.engine, wanted.engine),
        "--batch": (theirs.batch, wanted.batch),
        "--chunk": (theirs.chunk, wanted.chunk),
        "the programs": ((theirs.programs, theirs.logits), (wanted.programs, wanted.logits)),
        "--shard": (there.shard, ours.shard),
        "--target": (there.model.target, ours.model.target),
        "--threads": (there.environment.num_threads, ours.environment.num_threads),
        "the CPU": (there.environment.cpu, ours.environment.cpu),
        "the versions of the packages": (there.environment.versions, ours.environment.versions),
    }
    refuse_differences(pairs, path)


def refuse_differences(pairs: Mapping[str, tuple[object, object]], path: Path) -> None:
    """Raises JournalError if what a journal has, by name, is not what is asked for."""
    differing = [name for name, (old, new) in pairs.items() if old != new]
    if differing:
        raise JournalError(
            f"{path} is of a run with other settings: {', '.join(differing)} differ; give another folder with "
            "--output, or begin anew with --restart"
        )


def _results(file: BinaryIO, header: Header, path: Path) -> Iterator[ChunkResult]:
    """Yields the results behind the header; a torn last line is left out."""
    seen: set[int] = set()
    number, line = 2, file.readline(_MAX_LINE_BYTES)
    while line:
        following = file.readline(_MAX_LINE_BYTES)
        if not following and not _is_whole(line):
            return
        result = _read(line, _CHUNK, path, number)
        header.check(result)
        if result.chunk in seen:
            raise JournalError(f"{path}, line {number}: chunk {result.chunk} is there twice")
        seen.add(result.chunk)
        yield result
        number, line = number + 1, following


def _read(line: bytes, adapter: TypeAdapter[_T], path: Path, number: int) -> _T:
    if not _is_whole(line):
        raise JournalError(f"{path}, line {number}: its checksum is wrong; the journal is damaged, begin anew")
    try:
        return adapter.validate_json(line[9:])
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]
        raise JournalError(
            f"{path}, line {number} is none of an accuracy run's: "
            f"{'.'.join(map(str, reason['loc'])) or 'it'}: {reason['msg']}"
        ) from None


def _is_whole(line: bytes) -> bool:
    return line.endswith(b"\n") and line[:9] == b"%08x " % zlib.crc32(line[9:-1])


def _end_of_whole_lines(file: BinaryIO) -> int:
    """Returns where the file ends without a torn last line."""
    file.seek(0)
    start = end = 0
    last = b""
    while line := file.readline(_MAX_LINE_BYTES):
        start, end, last = end, end + len(line), line
    return end if _is_whole(last) else start


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError(f"{path} is in use: another run writes it; wait for it, or give another folder") from None
    except OSError as error:  # some network file systems cannot
        raise OutputPathError(f"{path} cannot be locked ({error.strerror}); give a folder on another disk") from error


def _sync_folder(folder: Path) -> None:
    """Makes a new file's name last, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
