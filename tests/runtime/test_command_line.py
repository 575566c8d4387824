"""`python -m qtorch_relay.runtime`: what a board tells, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qtorch_relay import target as targets
from qtorch_relay.runtime import CompiledModel
from qtorch_relay.runtime.command_line import main


@pytest.fixture(scope="session")
def bundle(linear: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("board") / "linear.qtr"
    linear.save(path)
    return str(path)


def test_a_bundle_alone_is_tested(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([bundle]) == 0
    told = capsys.readouterr().out
    assert f"runs       {targets.resolve('host').name} (" in told
    assert "self-test  passed: 16 of 16 elements equal what the program gave" in told
    assert "kernels    1 x matmul" in told


def test_json_has_the_same(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", bundle, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is True
    assert told["programs"] == {targets.resolve("host").name: None}
    assert set(told["cpu_flags"]) == targets.host_cpu().flags


def test_a_wrong_result_is_status_1(
    bundle: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_flat = CompiledModel.run_flat
    monkeypatch.setattr(CompiledModel, "run_flat", lambda *args: tuple(-output for output in run_flat(*args)))
    assert main([bundle]) == 1
    assert "self-test  FAILED: self-test: output output0" in capsys.readouterr().out


def test_arrays_are_run(bundle: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x = np.ones((2, 8), "float32")
    np.save(tmp_path / "x.npy", x)
    arguments = ["run", bundle, "--data", str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npz")]
    assert main(arguments) == 0
    assert "output1: float32 [2, 4], " in capsys.readouterr().out
    with np.load(tmp_path / "y.npz") as outputs:
        assert list(outputs) == ["output0", "output1"]
        assert (outputs["output0"] == np.maximum(outputs["output1"], 0)).all()
    assert main([*arguments, "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["outputs"]] == ["output0", "output1"]


def test_latencies_and_layers(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", bundle, "--rounds", "3", "--threads", "1"]) == 0
    assert "3 calls on 1 thread(s)" in capsys.readouterr().out
    assert main(["bench", bundle, "--rounds", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["least_ms"] <= told["latency_ms"] <= told["p90_ms"]
    assert main(["bench", bundle, "--rounds", "3", "--layers"]) == 0
    assert "all layers, one by one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.qtr"], "error: cannot load none.qtr: there is no such file"),
        (["run", "BUNDLE", "--data", "none.npy"], "error: none.npy: there is no such file"),
        (["test", "BUNDLE", "--target", "arm-i8mm"], "it has no program for arm-i8mm, only for"),
        (["bench", "BUNDLE", "--threads", "0"], "error: number of threads 0; accepted is an integer from 1 to"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    bundle: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([bundle if word == "BUNDLE" else word for word in arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_input_of_that_shape_leaves_no_output(
    bundle: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 8), "float32"))
    assert main(["run", bundle, "--data", str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npz")]) == 2
    assert "input x is float32 [3, 8]; accepted is float32 [2, 8]" in capsys.readouterr().err
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize("arguments", [["bench", "m.qtr", "--rounds", "0"], ["run", "m.qtr"], ["test"]])
def test_wrong_options_are_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: " in capsys.readouterr().err


ALONE = """
import sys
from qtorch_relay.runtime.command_line import main
status = main(sys.argv[1:])
foreign = {"torch", "tvm", "typer", "click", "rich"} & set(sys.modules)
assert not foreign, foreign
sys.exit(status)
"""


def test_the_command_needs_no_library_but_the_runtimes(bundle: str) -> None:
    for command in (["test"], ["bench", "--rounds", "1", "--layers"]):
        subprocess.run([sys.executable, "-c", ALONE, *command, bundle], check=True, stdout=subprocess.DEVNULL)


def test_a_board_without_tvm_is_told_what_to_install(bundle: str) -> None:
    code = (
        f"import runpy, sys; sys.modules['tvm_ffi'] = None; sys.argv[1:] = [{bundle!r}]; "
        "runpy.run_module('qtorch_relay.runtime', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "tvm_ffi is missing: TVM's runtime library is not installed; install it with: pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "test,run,bench" in capsys.readouterr().out
