"""examples/cpp: built for this host and for a board, it gives Python's five best classes and refuses in words."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.board.conftest import CPUS, Classifier
from tools.emulated_board import Board
from tools.emulated_board.board import PROJECT

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="needs CMake (Debian: cmake)")
CROSS = "aarch64-linux-gnu-g++"


def build(folder: Path, site_packages: Path, *options: str) -> Path:
    where = [f"-DSITE_PACKAGES={site_packages}", "-S", str(PROJECT / "examples" / "cpp"), "-B", str(folder)]
    subprocess.run(["cmake", *where, *options], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder / "classify"


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = find_spec("tvm_ffi")
    assert spec is not None
    assert spec.origin is not None
    return build(tmp_path_factory.mktemp("native"), Path(spec.origin).parents[1])


@pytest.fixture(scope="session")
def cross(board: Callable[..., Board], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(CROSS) is None:
        pytest.skip(f"needs {CROSS} (Debian: g++-aarch64-linux-gnu)")
    system = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={CROSS}")
    return build(tmp_path_factory.mktemp("cross"), board("max").home / "site", *system)


def run(command: list[Path | str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def classes(output: str) -> list[int]:
    return [int(number) for number in re.findall(r"^class (\d+): ", output, re.MULTILINE)]


def test_on_this_host(native: Path, classifier: Classifier, tmp_path: Path) -> None:
    done = run([native, classifier.every, classifier.image_file(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert classes(done.stdout) == classifier.best()
    logits = np.array(re.findall(r": (\S+)$", done.stdout, re.MULTILINE), np.float32)
    assert (logits == classifier.expected[0, classifier.best()]).all()


@pytest.mark.parametrize(("cpu", "target"), CPUS.items())
def test_on_a_board(
    board: Callable[..., Board], cross: Path, classifier: Classifier, tmp_path: Path, cpu: str, target: str
) -> None:
    done = board(cpu).run_program([cross, classifier.every, classifier.image_file(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"target {target}"
    assert classes(done.stdout) == classifier.best()


def test_missing_instructions_are_refused_in_words(
    board: Callable[..., Board], cross: Path, classifier: Classifier, tmp_path: Path
) -> None:
    done = board("cortex-a53").run_program([cross, classifier.dotprod, classifier.image_file(tmp_path)])
    assert done.returncode == 2
    assert "this CPU runs none of its programs; arm-dotprod needs the CPU flag asimddp" in done.stderr


def test_an_altered_bundle_is_refused(native: Path, classifier: Classifier, tmp_path: Path) -> None:
    data = classifier.every.read_bytes()
    image = classifier.image_file(tmp_path)
    path = tmp_path / "model.qtr"
    for position in range(len(data) - 40, len(data)):  # the manifest's checksum
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        done = run([native, path, image])
        assert (done.returncode, done.stderr[:29]) == (2, "error: cannot load the bundle"), done.stderr
    for part in (b"weights", b"lib"):
        names = [match.start() for match in re.finditer(re.escape(part) + rb"\d\.(bin|so)", data)]
        changed = bytearray(data)
        for start in names[: len(names) // 2]:
            changed[start + 64] ^= 1
        path.write_bytes(changed)
        assert run([native, path, image]).returncode == 2
    path.write_bytes(data[: len(data) // 2])
    assert "it is truncated, or no bundle" in run([native, path, image]).stderr


def test_ppm_images_are_normalized(native: Path, classifier: Classifier, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
    (tmp_path / "image.ppm").write_bytes(b"P6\n20 20\n255\n" + pixels.tobytes())
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    image = (pixels.astype(np.float32) / np.float32(255) - mean) / deviation
    np.save(tmp_path / "image.npy", np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
    found = [run([native, classifier.every, tmp_path / name]) for name in ("image.ppm", "image.npy")]
    assert found[0].returncode == 0, found[0].stderr
    assert found[0].stdout == found[1].stdout


@pytest.mark.parametrize("shape", [(1, 3, 20, 21), (3, 20, 20)])
def test_another_image_is_refused(native: Path, classifier: Classifier, tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "image.npy", np.zeros(shape, np.float32))
    done = run([native, classifier.every, tmp_path / "image.npy"])
    assert done.returncode == 2
    assert "error: the image is not a .npy file of float32 [1, 3, 20, 20] in C order" in done.stderr
