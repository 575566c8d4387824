"""ImageNet's validation set, as it comes and sorted, through `qtorch-relay accuracy`; killed on the way."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from accuracy_reports.record import OURS, Record, read_record
from accuracy_reports.runs.journal import JOURNAL
from tests.accuracy_reports.runs.small_runs import ENGINE, what_counts, write_models
from tests.calibration.data.trees import sort_into_folders, synsets, write_flat

CLASSES, IMAGES, CHUNK = 1000, 1100, 8
BROKEN = "ILSVRC2012_val_00000777.JPEG"
MAIN = "import sys; from qtorch_relay.cli import main; sys.argv[0] = 'qtorch-relay'; main()"
LIMIT_S = 300


@dataclass(frozen=True)
class Tree:
    """The same images in both layouts, an int8 and a float model, and where runs go."""

    flat: Path
    folders: Path
    models: tuple[Path, Path]
    runs: Path

    def command(self, data: Path, run: str, *more: str) -> list[str]:
        settings = ["--engine", ENGINE, "--resize", "18", "--crop", "16", "--chunk", str(CHUNK), "--workers", "2"]
        settings += ["--layers", "0"]
        paths = [str(self.models[0]), "--float", str(self.models[1]), "--data", str(data), "-o", str(self.runs / run)]
        return [sys.executable, "-c", MAIN, "accuracy", *paths, *settings, *more]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("imagenet")
    by_id = synsets(CLASSES)
    ids = [*range(1, CLASSES + 1), *range(1, IMAGES - CLASSES + 1)]
    random.Random(1).shuffle(ids)
    write_flat(folder / "val", by_id, ids)
    (folder / "val" / BROKEN).write_bytes((folder / "val" / BROKEN).read_bytes()[:200])
    sort_into_folders(folder / "val", folder / "sorted", by_id, ids)
    (folder / "runs").mkdir()
    return Tree(folder / "val", folder / "sorted", write_models(folder, CLASSES), folder / "runs")


def finish(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)


def kill_after(command: list[str], journal: Path, lines: int) -> None:
    """Runs a command and kills it, as nothing can prevent, when its journal has so many lines."""
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, "it was done before it was killed"
            assert time.monotonic() - started < LIMIT_S
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(tree: Tree) -> Record:
    done = finish(tree.command(tree.flat, "undisturbed"))
    assert done.returncode == 0, done.stderr
    assert (tree.runs / "undisturbed" / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    return read_record(tree.runs / "undisturbed" / "record.json")


def test_three_kills_change_nothing(tree: Tree, undisturbed: Record) -> None:
    command, folder = tree.command(tree.flat, "killed", "--json"), tree.runs / "killed"
    for lines in (12, 40, 75):
        kill_after(command, folder / JOURNAL, lines)
    assert not (folder / "record.json").exists()
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'00000000 {"chunk"')
    done = finish(command)
    assert done.returncode == 0, done.stderr
    assert "images are in" in done.stderr
    found = read_record(folder / "record.json")
    assert what_counts(found) == what_counts(undisturbed)
    assert json.loads(done.stdout)["programs"][0]["images"] == IMAGES - 1
    assert (folder / JOURNAL).read_bytes().count(b"\n") == 1 + -(-IMAGES // CHUNK)  # every chunk once


def test_the_numbers_of_images_classes_and_codes(tree: Tree, undisturbed: Record) -> None:
    assert undisturbed.dataset.images == IMAGES
    assert len(undisturbed.dataset.classes) == CLASSES
    assert [broken.id for broken in undisturbed.broken] == [str(tree.flat / BROKEN)]
    ours = undisturbed.program(OURS)
    assert ours.images == IMAGES - 1
    assert (ours.differing_codes.count, ours.differing_codes.of) == (0, (IMAGES - 1) * CLASSES)


def test_sorted_folders_give_the_same_totals(tree: Tree, undisturbed: Record) -> None:
    done = finish(tree.command(tree.folders, "sorted"))
    assert done.returncode == 0, done.stderr
    found: Any = read_record(tree.runs / "sorted" / "record.json")
    assert what_counts(found)[1] == what_counts(undisturbed)[1]
    assert found.changed == undisturbed.changed
    assert [Path(broken.id).name for broken in found.broken] == [BROKEN]
    assert f"broken: {found.broken[0].id}" in done.stderr
    assert "1100 images, 1 broken" in done.stdout


def test_a_class_folder_too_few_is_refused_before_the_run(tree: Tree) -> None:
    hidden = sorted(tree.folders.iterdir())[500]
    hidden.rename(tree.folders.with_name("hidden"))
    done = finish(tree.command(tree.folders, "refused"))
    tree.folders.with_name("hidden").rename(hidden)
    assert done.returncode == 2
    assert "there are 999 classes, the model has 1000" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tree.runs / "refused" / JOURNAL).exists()
