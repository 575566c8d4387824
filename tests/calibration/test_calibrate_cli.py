"""`qtorch-relay calibrate`, from the command line to a compiled program with PyTorch's codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.notes import read_notes
from qtorch_relay.demo import digits as demo
from qtorch_relay.demo.digits import Digits
from qtorch_relay.runtime import load
from tests.calibration.networks import images, mobile
from tests.command import Run, runner

MODEL, SMALL = "qtorch_relay.demo.digits:trained", "tests.calibration.networks:mobile"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], network: nn.Module) -> Run:
    """Returns a function that runs `qtorch-relay` here; the demo's network is trained once for all tests."""
    monkeypatch.setattr(demo, "trained", lambda: network)
    return runner(monkeypatch, capsys)


@pytest.mark.parametrize(("engine", "mode", "observer"), [("fbgemm", "eager", "entropy"), ("onednn", "fx", "mse")])
def test_from_a_float_model_to_a_program_with_pytorchs_codes(
    engine: str, mode: str, observer: str, run: Run, digits: Digits, tmp_path: Path
) -> None:
    int8, bundle, table = tmp_path / "int8.pt", tmp_path / "int8.qtr", tmp_path / "int8.calibration.json"
    options = ("--engine", engine, "--mode", mode, "--observer", observer, "--samples", 200)
    answer = run(*("calibrate", MODEL, "--data", "digits-train", "--eval", "digits", "-o", int8, *options), "--json")
    assert answer.status == 0
    told = answer.json()
    assert told["samples"] == 200
    assert told["float"]["accuracy"] - told["int8"]["accuracy"] <= 0.01
    assert run("compile", int8, "-o", bundle).status == 0  # neither --input nor --engine: the file says them
    compiled = load(bundle)
    assert compiled.engine == engine
    with quantized_engine(engine):
        reference = torch.jit.load(str(int8))
        for image in digits.test_images[:60].split(1):
            expected = [t.int_repr() if t.is_quantized else t for t in reference(image)]
            found = compiled.run_flat([image.numpy()])
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b.numpy())
    # the table alone makes the same file's codes again
    again = tmp_path / "again.pt"
    assert run("calibrate", MODEL, "--table", table, "-o", again).status == 0
    with quantized_engine(engine):
        for a, b in zip(torch.jit.load(str(again))(digits.test_images), reference(digits.test_images), strict=True):
            assert torch.equal(a.int_repr() if a.is_quantized else a, b.int_repr() if b.is_quantized else b)
    assert json.loads((tmp_path / "again.calibration.json").read_text()) == json.loads(table.read_text())


def test_compare_needs_nothing_but_the_file(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images().numpy())
    data, int8 = tmp_path / "data.npz", tmp_path / "int8.pt"
    assert run("calibrate", SMALL, "--data", data, "-o", int8, "--engine", "qnnpack").status == 0
    notes = read_notes(tmp_path / "int8.pt")
    assert notes is not None
    assert notes.engine == "qnnpack"
    assert notes.input_infos == [("x", ((1, 3, 8, 8), "float32"))]
    answer = run("compare", tmp_path / "int8.pt", "--json")
    assert answer.status == 0
    assert answer.json()["engine"] == "qnnpack"


def test_max_drop_tells_which_layers_stay_and_why(run: Run, tmp_path: Path) -> None:
    x = images(96)
    np.savez(tmp_path / "data.npz", x=x.numpy(), labels=mobile()(x).argmax(dim=1).numpy())
    answer = run(
        *("calibrate", SMALL, "--data", tmp_path / "data.npz", "-o", tmp_path / "int8.pt", "--max-drop", 3),
        *("--observer", "percentile:95", "--recipe", "static_w8t_a8"),
    )
    assert answer.status == 0
    assert "layers stay in float: accuracy 100.00% in float" in answer.out
    assert "quantized too, accuracy would drop by" in answer.out
    kept = json.loads((tmp_path / "int8.calibration.json").read_text())["in_float"]
    assert kept
    assert run("compare", tmp_path / "int8.pt").status == 0


@pytest.mark.parametrize("recipe", ["dynamic_w8c", "qat_w8c_a8", "static_w8t_a8"])
def test_other_recipes(recipe: str, run: Run, tmp_path: Path) -> None:
    data = ("--data", "digits-train", "--samples", 128, "--epochs", 1)
    more = {"dynamic_w8c": ("--input", "x:1,1,8,8"), "qat_w8c_a8": data, "static_w8t_a8": (*data, "--sensitivity")}
    answer = run("calibrate", MODEL, "--recipe", recipe, *more[recipe], "-o", tmp_path / "int8.pt")
    assert answer.status == 0
    assert ("what quantizing a layer alone costs" in answer.out) == (recipe == "static_w8t_a8")
    assert run("compare", tmp_path / "int8.pt").status == 0


def test_broken_images_are_left_out_and_told(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no image")
    answer = run(
        *("calibrate", SMALL, "--data", tmp_path / "images", "-o", tmp_path / "int8.pt"), "--resize", 8, "--crop", 8
    )
    assert answer.status == 0
    assert "left out:" in answer.err
    assert "broken.png" in answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SMALL,), "recipe static_w8c_a8 needs data; give it with --data"),
        ((SMALL, "--data", "absent.npz"), "absent.npz: no such file or folder"),
        ((SMALL, "--recipe", "int3"), "recipe 'int3' is unknown; accepted are static_w8c_a8"),
        ((SMALL, "--engine", "tpu"), "engine 'tpu' is unknown"),
        ((SMALL, "--observer", "best"), "observer 'best' is unknown"),
        ((SMALL, "--table", "absent.json"), "absent.json cannot be read: No such file"),
        ((SMALL, "--recipe", "dynamic_w8c"), "say what it takes, as --input x:1,3,224,224"),
        ((SMALL, "--recipe", "dynamic_w8c", "--equalize"), "takes no --equalize"),
        (("absent.pt", "--data", "digits"), "no such file, and not package.module:function either"),
        ((SMALL, "--data", "digits"), "the model does not take the data"),
    ],
)
def test_errors_are_one_message_and_leave_nothing(
    arguments: tuple[str, ...], message: str, run: Run, tmp_path: Path
) -> None:
    answer = run("calibrate", *arguments, "-o", tmp_path / "int8.pt")
    assert answer.status == 2
    assert f"error: {message}" in answer.err or message in answer.err
    assert list(tmp_path.iterdir()) == []
