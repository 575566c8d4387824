"""An accuracy run counts right, goes on after a stop, and shards make up the whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from accuracy_reports.record import FLOAT, INT8, ONNX_RUNTIME, OURS, Record
from accuracy_reports.runs.chunks import ChunkResult, Evaluator, top_classes
from accuracy_reports.runs.journal import JOURNAL, Journal, JournalError, read_journal
from accuracy_reports.runs.merge import merge
from accuracy_reports.runs.prepare import BUNDLE, ONNX, prepare
from accuracy_reports.runs.setup import Data, Setup
from calibration.data import DatasetError, open_dataset
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import QTorchRelayError
from qtorch_relay.peers import frozen_runner
from tests.accuracy_reports.runs.small_runs import (
    CLASSES,
    ENGINE,
    evaluate,
    request,
    silently,
    what_counts,
    write_arrays,
    write_models,
)

IMAGES = 61


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("data") / "images.npz", IMAGES, CLASSES)


@pytest.fixture(scope="module")
def whole(models: tuple[Path, Path], arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A run that nothing disturbed, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, evaluate(request(models, arrays), folder)


def test_the_numbers_are_those_of_plain_pytorch(
    models: tuple[Path, Path], arrays: Path, whole: tuple[Path, Record]
) -> None:
    _, record = whole
    dataset = open_dataset(arrays)
    [batch] = dataset.batches(range(IMAGES), IMAGES)
    counts = {}
    for name, path in zip((INT8, FLOAT), models, strict=True):
        _, run = frozen_runner(path, ENGINE)
        counts[name] = torch.cat([run([torch.from_numpy(image[None])]) for image in batch.images]).numpy()
    for name, logits in counts.items():
        program = record.program(name)
        order = np.argsort(-logits, axis=1, kind="stable")
        assert program.top1.count == (order[:, 0] == dataset.labels).sum()
        assert program.top5.count == (order[:, :5] == dataset.labels[:, None]).any(1).sum()
        assert program.agreement.count == (order[:, 0] == counts[INT8].argmax(1)).sum()
        assert program.latency_ms > 0
    changed = (counts[FLOAT].argmax(1) != counts[INT8].argmax(1)).sum()
    assert sum(row.images for row in record.changed if row.program == FLOAT) == changed > 0


def test_the_best_classes_are_those_of_a_stable_sort() -> None:
    logits = np.random.default_rng(0).integers(0, 6, (200, 30)).astype(np.float32)  # most are equal to others
    np.testing.assert_array_equal(top_classes(logits), np.argsort(-logits, axis=1, kind="stable")[:, :5])
    logits[:, 7] = np.nan
    assert not (top_classes(logits) == 7).any()
    assert top_classes(logits[:, :3]).shape == (200, 3)


def test_our_codes_are_pytorchs_and_onnx_runtime_runs_beside(whole: tuple[Path, Record]) -> None:
    folder, record = whole
    assert [program.name for program in record.programs] == [FLOAT, INT8, OURS, ONNX_RUNTIME]
    ours, peer = record.program(OURS), record.program(ONNX_RUNTIME)
    assert (ours.differing_codes.count, ours.differing_codes.of) == (0, IMAGES * CLASSES)
    assert ours.differing_images.count == 0
    assert peer.differing_codes.of == IMAGES * CLASSES
    assert peer.images == IMAGES
    assert record.program(FLOAT).differing_codes is None
    assert {path.name for path in folder.iterdir()} == {JOURNAL, BUNDLE, ONNX}


def test_a_wrong_code_is_counted(models: tuple[Path, Path], arrays: Path, tmp_path: Path) -> None:
    def schedule(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        evaluator = Evaluator(setup)
        ours = evaluator.programs[2]
        step = setup.logits.scale

        def read(output: object) -> object:
            logits = ours.read(output)
            wrong = logits.floats.copy()
            wrong[0, 3] += 40 * step  # class 3 wins
            return setup.logits.of_floats(wrong)

        evaluator.programs[2] = replace(ours, read=read)
        return evaluator.stream(chunks)

    record = evaluate(request(models, arrays, peers=False), tmp_path / "run", schedule)
    ours = record.program(OURS)
    assert (ours.differing_codes.count, ours.differing_images.count) == (IMAGES, IMAGES)
    assert ours.agreement.count < IMAGES
    assert {row.found for row in record.changed if row.program == OURS} == {3}


def stop_after(count: int) -> Callable[[Setup, Sequence[int]], Iterator[ChunkResult]]:
    def schedule(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        for number, result in enumerate(Evaluator(setup).stream(chunks)):
            if number == count:
                raise KeyboardInterrupt
            yield result

    return schedule


def test_a_stopped_run_goes_on_with_the_same_totals(
    models: tuple[Path, Path], arrays: Path, whole: tuple[Path, Record], tmp_path: Path
) -> None:
    asked, folder = request(models, arrays), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        evaluate(asked, folder, stop_after(3))
    stamp = (folder / BUNDLE).stat().st_mtime_ns
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'0123abcd {"chunk":3,"ind')  # what a kill leaves of a line
    with pytest.raises(KeyboardInterrupt):
        evaluate(asked, folder, stop_after(2))
    given = []

    def last(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        given.extend(chunks)
        yield from Evaluator(setup).stream(chunks)

    record = evaluate(asked, folder, last)
    assert given == [5, 6, 7]
    assert what_counts(record) == what_counts(whole[1])
    assert (folder / BUNDLE).stat().st_mtime_ns == stamp  # compiled once
    assert what_counts(evaluate(asked, folder, nothing)) == what_counts(whole[1])


def nothing(_: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
    raise AssertionError(f"chunks {chunks} are done already")


def test_results_may_come_in_any_order_and_twice(
    models: tuple[Path, Path], arrays: Path, whole: tuple[Path, Record], tmp_path: Path
) -> None:
    def disordered(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        evaluator = Evaluator(setup)
        for chunk in [*reversed(chunks), *chunks]:
            yield evaluator.evaluate(chunk)

    assert what_counts(evaluate(request(models, arrays), tmp_path / "run", disordered)) == what_counts(whole[1])


def test_batches_change_no_answer(
    models: tuple[Path, Path], arrays: Path, whole: tuple[Path, Record], tmp_path: Path
) -> None:
    record = evaluate(request(models, arrays, batch=4), tmp_path / "run")
    assert record.program(OURS) is not None
    for name in (FLOAT, INT8, OURS):
        assert record.program(name).batch == 4
        assert record.program(name).top1 == whole[1].program(name).top1
    assert record.program(OURS).differing_codes.count == 0


def test_a_bundle_runs_with_and_without_what_it_was_made_of(
    models: tuple[Path, Path], arrays: Path, whole: tuple[Path, Record], tmp_path: Path
) -> None:
    bundle = whole[0] / BUNDLE
    asked = replace(request(models, arrays, peers=False), engine=None, model=bundle)
    alone = evaluate(replace(asked, float_model=None), tmp_path / "alone")
    assert alone.program(OURS).top1 == whole[1].program(OURS).top1
    assert alone.program(OURS).agreement is None
    assert {row.name: row.problem is None for row in alone.programs} == {
        OURS: True, INT8: False, FLOAT: False, ONNX_RUNTIME: False,
    }  # fmt: skip
    beside = evaluate(replace(asked, int8_model=models[0]), tmp_path / "beside")
    assert beside.program(OURS).differing_codes == whole[1].program(OURS).differing_codes


def shards(models: tuple[Path, Path], arrays: Path, folder: Path, count: int) -> list[Path]:
    asked = request(models, arrays, peers=False)
    for i in range(1, count + 1):
        evaluate(replace(asked, shard=(i, count)), folder / str(i))
    return [folder / str(i) for i in range(1, count + 1)]


def test_a_model_without_codes_is_compared_in_floats(arrays: Path, tmp_path: Path) -> None:
    with quantized_engine(ENGINE), torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, CLASSES)).eval()
        dynamic = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, torch.qint8)
        torch.jit.trace(dynamic, torch.zeros(1, 3, 16, 16)).save(str(tmp_path / "dynamic.pt"))
    asked = replace(request((tmp_path / "dynamic.pt", tmp_path), arrays, batch=3, chunk=9), float_model=None)
    record = evaluate(asked, tmp_path / "run")
    ours = record.program(OURS)
    assert ours.differing_codes is None
    assert (ours.differing_floats.count, ours.differing_floats.of) == (0, IMAGES * CLASSES)
    assert ours.agreement.count == IMAGES


def test_shards_make_up_the_whole_and_nothing_else(models: tuple[Path, Path], arrays: Path, tmp_path: Path) -> None:
    asked = request(models, arrays, peers=False)
    expected = evaluate(asked, tmp_path / "whole")
    parts = shards(models, arrays, tmp_path, 3)
    merged = merge(list(reversed(parts)), "qtorch-relay merge")
    assert what_counts(merged) == what_counts(expected)
    assert merged.environment.command == "qtorch-relay merge"
    with pytest.raises(JournalError, match="shard 2/3 is missing"):
        merge([parts[0], parts[2]], "")
    with pytest.raises(JournalError, match=r"are both shard 1/3; give each once"):
        merge([parts[0], parts[1], parts[0], parts[2]], "")
    with pytest.raises(JournalError, match=r"is one of 3 shards, .* one of 1; they overlap"):
        merge([*parts, tmp_path / "whole"], "")
    with pytest.raises(JournalError, match=r"journal.jsonl is missing or empty"):
        merge([*parts, tmp_path / "nothing"], "")
    evaluate(replace(asked, shard=(2, 3), chunk=4), tmp_path / "other")
    with pytest.raises(JournalError, match=r"differ in chunk"):
        merge([parts[0], tmp_path / "other", parts[2]], "")
    lines = (parts[1] / JOURNAL).read_bytes().splitlines(keepends=True)
    (parts[1] / JOURNAL).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(JournalError, match=r"2: 2 of 3 chunks are done; finish it first"):
        merge(parts, "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 2}, "--batch differ"),
        ({"chunk": 4}, "--chunk differ"),
        ({"engine": "qnnpack"}, "--engine differ"),
        ({"threads": 2}, "--threads differ"),
        ({"float_model": None}, "the model files differ"),
        ({"shard": (1, 2)}, "--shard differ"),
        ({"target": "x86-avx2"}, "--target differ"),
    ],
)
def test_a_journal_of_other_settings_is_refused(
    models: tuple[Path, Path], arrays: Path, whole: tuple[Path, Record], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(JournalError, match=f"{message}; give another folder with --output, or .*--restart"):
        evaluate(replace(request(models, arrays), **settings), whole[0])


def test_a_journal_of_other_images_is_refused(
    models: tuple[Path, Path], whole: tuple[Path, Record], tmp_path: Path
) -> None:
    other = write_arrays(tmp_path / "images.npz", IMAGES + 1, CLASSES)
    with pytest.raises(JournalError, match="the images, their labels or preprocessing differ"):
        evaluate(request(models, other), whole[0])


@pytest.fixture
def journal(whole: tuple[Path, Record], tmp_path: Path) -> Path:
    """A copy of a whole journal."""
    (tmp_path / JOURNAL).write_bytes((whole[0] / JOURNAL).read_bytes())
    return tmp_path / JOURNAL


def change_line(path: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    """Changes the JSON of a line, and writes the checksum that it should have then."""
    lines = path.read_bytes().splitlines()
    data = change(lines[number][9:])
    lines[number] = b"%08x %b" % (zlib.crc32(data), data)
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def read_all(path: Path) -> list[ChunkResult]:
    _, results = read_journal(path)
    return list(results)


def test_a_journal_is_read_only_whole(journal: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(read_all(journal)) == 8
    journal.write_bytes(b"".join(lines)[:-2])
    assert len(read_all(journal)) == 7
    journal.write_bytes(b"".join([*lines[:3], lines[3][:50] + b"\n", *lines[4:]]))
    with pytest.raises(JournalError, match="line 4: its checksum is wrong"):
        read_all(journal)
    journal.write_bytes(b"".join([*lines, lines[2]]))
    with pytest.raises(JournalError, match="line 10: chunk 1 is there twice"):
        read_all(journal)
    journal.write_bytes(lines[0][:-1])
    with pytest.raises(JournalError, match="missing or empty"):
        read_all(journal)


@pytest.mark.parametrize(
    ("number", "old", "new", "message"),
    [
        (0, b'"version":1', b'"version":2', "version: Input should be 1"),
        (0, b'"shard":[1,1]', b'"shard":[2,1]', "shard 2/1"),
        (0, b'{"question"', b'{"foreign":1,"question"', "foreign: Unexpected keyword"),
        (2, b'"chunk":1', b'"chunk":8', "chunk 8 is none of this run's"),
        (2, b'"indices":[8,', b'"indices":[', "has 7 images, but lists of"),
        (2, b'"top":[[', b'"top":[[10,', "a class beyond the 10"),
        (2, OURS.encode(), b"another", "has answers of PyTorch float, PyTorch int8, another"),
        (2, b'"latency_ms":[', b'"latency_ms":[-1,', "greater than or equal to 0"),
    ],
)
def test_what_anybody_could_have_written_is_checked(
    journal: Path, number: int, old: bytes, new: bytes, message: str
) -> None:
    change_line(journal, number, lambda data: data.replace(old, new, 1))
    with pytest.raises(JournalError, match=message):
        read_all(journal)


def test_a_journal_in_use_is_refused(journal: Path) -> None:
    header, _ = read_journal(journal)
    with Journal(journal, header), pytest.raises(JournalError, match="is in use: another run writes it"):
        Journal(journal, header)


def test_broken_images_are_told_and_not_counted(models: tuple[Path, Path], arrays: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.npz"
    cut.write_bytes(arrays.read_bytes())
    asked = request(models, cut, peers=False)
    setup, header = prepare(asked, tmp_path, silently)
    evaluator = Evaluator(setup)
    read = evaluator.dataset.images.read

    class Some:
        """The images, of which whole chunks and single ones cannot be read."""

        shape, preprocessing, contents = evaluator.dataset.shape, None, ""

        def read(self, index: int) -> np.ndarray:
            from calibration.data import BrokenImageError

            if index < 8 or index == 20:
                raise BrokenImageError(f"image {index}", "torn")
            return read(index)

    evaluator.dataset = replace(evaluator.dataset, images=Some())
    from accuracy_reports.runs.coordinator import run

    record = run(setup, header, tmp_path, lambda _, chunks: evaluator.stream(chunks))
    assert [broken.id for broken in record.broken] == [f"image {i}" for i in (*range(8), 20)]
    assert record.dataset.images == IMAGES
    assert {program.images for program in record.programs if program.problem is None} == {IMAGES - 9}
    assert record.program(OURS).differing_codes.of == (IMAGES - 9) * CLASSES


@pytest.mark.parametrize(
    "form", ["more labels", "sizes", "chunk", "engine of a bundle", "size of a bundle", "model", "float model"]
)
def test_what_does_not_fit_is_refused_before_the_run(
    models: tuple[Path, Path], arrays: Path, whole: tuple[Path, Record], tmp_path: Path, form: str
) -> None:
    asked, error, message = request(models, arrays, peers=False), QTorchRelayError, ""
    if form == "more labels":
        other = write_arrays(tmp_path / "images.npz", 20, CLASSES + 30)
        asked, error, message = replace(asked, data=Data(str(other))), DatasetError, "the model has 10 classes"
    elif form == "sizes":
        asked, message = replace(asked, data=Data("digits")), r"does not run on images \[1, 1, 8, 8\]: "
    elif form == "chunk":
        asked, message = replace(asked, batch=4, chunk=6), "accepted are multiples of the batch of 4"
    elif form == "engine of a bundle":
        asked, message = replace(asked, model=whole[0] / BUNDLE), "compiled already, so --engine and --target"
    elif form == "size of a bundle":
        asked = replace(asked, model=whole[0] / BUNDLE, engine=None, batch=2)
        message = r"takes x: float32 \[1, 3, 16, 16\], the images are \[2, 3, 16, 16\]"
    elif form == "float model":
        (tmp_path / "other").mkdir()
        other = write_models(tmp_path / "other", CLASSES + 1)[1]
        asked, message = replace(asked, float_model=other), r"gives logits \[1, 11\], the int8 model \[1, 10\]"
    else:
        asked, message = replace(asked, model=tmp_path / "missing.pt"), "missing.pt cannot be read: No such file"
    with pytest.raises(error, match=message):
        evaluate(asked, tmp_path / "run")
    assert not (tmp_path / "run" / JOURNAL).exists()
