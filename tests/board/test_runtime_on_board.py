"""`python -m qtorch_relay.runtime` on emulated boards: the right program, PyTorch's codes, and refusals in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.board.conftest import CPUS, Classifier
from tools.emulated_board import Board
from tools.emulated_board.board import PROJECT

RUNTIME = ("-m", "qtorch_relay.runtime")


@pytest.mark.parametrize(("cpu", "target"), CPUS.items())
def test_each_cpu_takes_its_program_and_gives_pytorchs_codes(
    board: Callable[..., Board], classifier: Classifier, tmp_path: Path, cpu: str, target: str
) -> None:
    this = board(cpu)
    tested = this.run([*RUNTIME, classifier.every, "--json"])
    assert tested.returncode == 0, tested.stderr + tested.stdout
    told = json.loads(tested.stdout)
    assert (told["target"], told["passed"]) == (target, True)
    assert told["self_test"] == "12 of 12 elements equal PyTorch's own output"
    files = ["--data", classifier.image_file(tmp_path), "-o", tmp_path / "logits.npy"]
    done = this.run([*RUNTIME, "run", classifier.every, *files])
    assert done.returncode == 0, done.stderr
    assert (np.load(tmp_path / "logits.npy") == classifier.expected).all()


def test_a_lesser_program_can_be_asked_for(board: Callable[..., Board], classifier: Classifier) -> None:
    done = board("max").run([*RUNTIME, classifier.every, "--target", "arm-neon"])
    assert "runs       arm-neon (NEON), engine qnnpack" in done.stdout, done.stderr
    assert "self-test  passed" in done.stdout


def test_missing_instructions_are_refused_in_words(board: Callable[..., Board], classifier: Classifier) -> None:
    done = board("cortex-a53").run([*RUNTIME, classifier.dotprod])
    assert done.returncode == 2
    assert "target arm-dotprod (NEON dotprod) needs the CPU flag asimddp; this host (aarch64) lacks it" in done.stderr
    assert "can run generic, arm-neon" in done.stderr
    asked = board("cortex-a53").run([*RUNTIME, "bench", classifier.every, "--target", "arm-i8mm"])
    assert asked.returncode == 2
    assert "needs the CPU flags asimddp, i8mm" in asked.stderr


def test_calls_and_layers_are_timed(board: Callable[..., Board], classifier: Classifier) -> None:
    done = board("cortex-a76").run([*RUNTIME, "bench", classifier.every, "--rounds", "2", "--layers"])
    assert done.returncode == 0, done.stderr
    assert "all layers, one by one" in done.stdout


@pytest.fixture(scope="session")
def installed(board: Callable[..., Board], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the wheel unpacked: what `pip install --no-deps qtorch-relay` gives a board."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = folder / "source"  # a build leaves folders behind
    source.mkdir()
    for name in ("qtorch_relay", "calibration", "accuracy_reports"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source / name)
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, cwd=folder)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_alone_runs_a_bundle(
    board: Callable[..., Board], classifier: Classifier, installed: Path, tmp_path: Path
) -> None:
    this = board("cortex-a53", project=installed)
    assert this.run(["-c", "import torch"]).returncode != 0
    assert this.run(["-c", "import typer"]).returncode != 0
    # Of the wheels that are there, apache-tvm, apache-tvm-ffi, typing_extensions and numpy are enough.
    others = ("ml_dtypes", "psutil", "cloudpickle", "tornado")
    hide = f"import sys; sys.modules.update(dict.fromkeys({others}))"
    start = "from qtorch_relay.runtime.command_line import main; sys.exit(main(sys.argv[1:]))"
    done = this.run(["-c", f"{hide}; {start}", classifier.every], cwd=tmp_path)
    assert "self-test  passed: 12 of 12 elements equal PyTorch's own output" in done.stdout, done.stderr
