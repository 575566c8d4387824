"""The command line: what each command prints and writes, and how it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qtorch_relay import target as targets
from qtorch_relay._version import __version__
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.demo.digits import Digits, DigitsNet, FloatLogits, quantize
from qtorch_relay.demo.programs import save_model
from qtorch_relay.runtime import load
from tests.command import Run, runner

COMMANDS = (
    "demo",
    "ops",
    "targets",
    "import",
    "compile",
    "run",
    "compare",
    "bench",
    "calibrate",
    "accuracy",
    "merge",
    "report",
    "export-relay",
)
INPUT = ("--input", "x:1,1,8,8")
ENGINE = ("--engine", "fbgemm")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a saved int8 model, the demo's network with random weights."""
    path = tmp_path_factory.mktemp("model") / "digits.pt"
    torch.manual_seed(0)
    images = torch.rand(64, 1, 8, 8)
    labels = torch.zeros(64, dtype=torch.int64)
    with quantized_engine("fbgemm"), torch.inference_mode():
        digits = Digits(images, labels, images, labels)
        save_model(quantize(DigitsNet().eval(), digits, "fbgemm", lambda items, _: items), path)
    return path


@pytest.fixture(scope="session")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the model as a bundle."""
    from qtorch_relay.pipeline import compile as compile_for

    path = tmp_path_factory.mktemp("bundle") / "digits.qtr"
    compile_for(str(model), [("x", (1, 1, 8, 8))], engine="fbgemm").save(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Returns a .npy file with an input of the model."""
    path = tmp_path / "image.npy"
    np.save(path, np.random.default_rng(0).random((1, 1, 8, 8), "float32"))
    return path


def test_help_imports_neither_torch_nor_a_compiler() -> None:
    code = (
        "import sys; from qtorch_relay.cli import main; sys.argv = ['qtorch-relay', '--help']\n"
        "try: main()\n"
        "finally: print('LOADED', [m for m in ('torch', 'tvm', 'tvm_ffi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout
    for command in COMMANDS:
        assert re.search(rf"^\W+{command} ", done.stdout, re.MULTILINE), command


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "qtorch_relay", "--help"], capture_output=True, text=True, check=True)
    assert "qtorch-relay" in done.stdout


def test_the_version_is_told(run: Run) -> None:
    answer = run("--version")
    assert (answer.status, answer.out) == (0, f"qtorch-relay {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_an_example(run: Run, command: str) -> None:
    answer = run(command, "--help")
    assert answer.status == 0
    assert f"Example: qtorch-relay {command}" in re.sub(r"\s+", " ", answer.out)


def test_targets(run: Run) -> None:
    answer = run("targets", "--json")
    rows = {row["name"]: row for row in answer.json()["targets"]}
    boards = {row["name"] for row in answer.json()["boards"]}
    assert {"raspberrypi4", "graviton3", "cortex-a76"} < boards
    assert list(rows) == [target.name for target in targets.TARGETS]
    assert rows["generic"]["missing"] is None
    table = run("targets").out
    assert all(name in table for name in {*rows, *boards})


def test_ops(run: Run) -> None:
    answer = run("ops", "--json")
    lowering = {row["op"]: row["lowering"] for row in answer.json()}
    assert "qnn.conv2d" in lowering["quantized::conv2d.new"]
    assert "quantized::conv2d" in run("ops").out


def test_import_prints_the_ir_and_the_coverage(run: Run, model: Path) -> None:
    answer = run("import", model, *INPUT, *ENGINE)
    assert answer.status == 0
    assert "qnn.conv2d" in answer.out
    assert re.search(r"quantized::conv2d_relu\S*\W+int8\W+3 ", answer.out)
    assert re.search(r"aten::dequantize\S*\W+float\W+1 ", answer.out)


class WithUnsupportedOps(torch.nn.Module):
    """An op that is refused, two that nobody knows (one of them three times), and one in a form that is not known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bicubic")
        return torch.special.i0(torch.special.i0(torch.special.i0(y))) + torch.erfinv(y)


def test_import_lists_every_unsupported_op_with_its_line_and_what_comes_nearest(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "unsupported.pt"
    torch.jit.save(torch.jit.trace(WithUnsupportedOps(), torch.zeros(1, 1, 4, 4)), path)
    answer = run("import", path, "--input", "x:1,1,4,4", *ENGINE)
    assert answer.status == 2
    assert answer.out == ""
    text = " ".join(answer.err.split())
    for op in ("aten::erfinv (1 times)", "aten::i0 (3 times)", "aten::upsample_bicubic2d.vec (1 times)"):
        assert op in text
    assert re.search(r"aten::erfinv \(1 times\) \(test_cli.py:\d+\)", text)
    assert "no kernel of it for quantized tensors nearest: aten::upsample_bilinear2d" in text
    assert "keep such parts in PyTorch" in text


def test_a_quantized_input_is_described_by_its_parameters(run: Run, tmp_path: Path) -> None:
    class Relu(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)

    x = torch.quantize_per_tensor(torch.linspace(-1, 1, 64).reshape(1, 64), 0.01, 120, torch.quint8)
    torch.jit.save(torch.jit.trace(Relu(), x), tmp_path / "relu.pt")
    np.save(tmp_path / "x.npy", x.int_repr().numpy())
    files = ("--data", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    answer = run("run", tmp_path / "relu.pt", "--input", "x:1,64:quint8:0.01:120", *ENGINE, *files)
    assert answer.status == 0, answer.err
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), torch.relu(x).int_repr().numpy())
    answer = run("run", tmp_path / "relu.pt", "--input", "x:1,64:quint8:0.01:many", *ENGINE, *files)
    assert answer.status == 2
    assert "ends in '0.01:many'" in answer.err


def test_import_as_json_and_to_a_file(run: Run, model: Path, tmp_path: Path) -> None:
    answer = run("import", model, *INPUT, *ENGINE, "-o", tmp_path / "digits.qnn", "--json")
    data = answer.json()
    assert {"op", "kind", "count", "lowering"} == set(data["ops"][0])
    assert (tmp_path / "digits.qnn").read_text() == data["ir"]


@pytest.mark.filterwarnings("default:nothing in this model is int8")
def test_a_float_model_is_imported_with_a_warning(run: Run, tmp_path: Path) -> None:
    save_model(FloatLogits(DigitsNet().eval()), tmp_path / "float.pt")
    answer = run("import", tmp_path / "float.pt", *INPUT)
    assert answer.status == 0, answer.err
    assert "warning: nothing in this model is int8" in answer.err
    assert " 0 of " in answer.out


def test_compile_writes_a_bundle(run: Run, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "digits.qtr"
    answer = run("compile", model, *INPUT, *ENGINE, "-o", path)
    assert answer.status == 0
    assert f"{path}: " in answer.out
    load(path).self_test()
    data = run("compile", model, *INPUT, *ENGINE, "-o", path, "--target", "generic", "--json").json()
    assert (data["target"], data["engine"], data["size_bytes"]) == ("generic", "fbgemm", path.stat().st_size)
    assert "no int8 kernels for generic" in " ".join(data["report"]["messages"])
    assert [file.name for file in tmp_path.iterdir()] == ["digits.qtr"]


def test_compile_for_several_targets(run: Run, model: Path, tmp_path: Path) -> None:
    path, host = tmp_path / "digits.qtr", targets.resolve("host").name
    data = run("compile", model, *INPUT, *ENGINE, "-o", path, "--target", f"generic,{host}", "--json").json()
    assert (data["target"], list(data["reports"])) == (f"generic,{host}", ["generic", host])
    assert load(path).target.name == host
    load(path, "generic").self_test()
    timed = run("bench", path, "--target", "generic", "--rounds", 3, "--no-peers", "--json")
    assert timed.status == 0, timed.err
    assert timed.json()["target"] == "generic"
    answer = run("compile", model, *INPUT, *ENGINE, "-o", path, "--target", "generic,generic")
    assert answer.status == 2
    assert "the targets are generic, generic; give one or more, each once" in answer.err
    answer = run("compile", model, *INPUT, *ENGINE, "-o", path, "--target", f"generic,{host}", "--tune", 1)
    assert answer.status == 2
    assert "tune times kernels for one target, and 2 are given" in answer.err


@pytest.mark.skipif(
    targets.host_cpu().machine == "aarch64" or shutil.which("aarch64-linux-gnu-g++") is None,
    reason="compiles for another machine, ARM",
)
def test_compile_for_a_board_says_where_the_golden_output_is_from(run: Run, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "digits.qtr"
    answer = run("compile", model, *INPUT, *ENGINE, "-o", path, "--target", "arm-neon,arm-dotprod")
    assert answer.status == 0, answer.err
    assert "target arm-neon,arm-dotprod, engine fbgemm" in answer.out
    assert "  arm-dotprod: kernels: " in answer.out
    assert "golden output, for the self-test: PyTorch's own output" in answer.out


@pytest.mark.skipif(targets.resolve("host").kernels is None, reason="tunes kernels")
@pytest.mark.filterwarnings("default:.* is no tuning cache")
def test_compile_tunes(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QTORCH_RELAY_CACHE_DIR", str(tmp_path))
    answer = run("compile", model, *INPUT, *ENGINE, "-o", tmp_path / "digits.qtr", "--tune", 1)
    assert answer.status == 0, answer.err
    assert "layers take other tiles than planned" in answer.out
    assert "tuning" in answer.err
    assert (tmp_path / "tuning.json").exists()
    (tmp_path / "tuning.json").write_text("bad")
    answer = run("compile", model, *INPUT, *ENGINE, "-o", tmp_path / "digits.qtr", "--tune", 0)
    assert answer.status == 0, answer.err
    assert "warning: " in answer.err
    assert "is ignored, it is no tuning cache" in answer.err
    load(tmp_path / "digits.qtr").self_test()


def test_run_a_bundle_and_a_model_file_alike(run: Run, model: Path, bundle: Path, image: Path, tmp_path: Path) -> None:
    assert run("run", bundle, "--data", image, "-o", tmp_path / "a.npz", "--repeat", 3).status == 0
    assert run("run", model, "--data", image, *ENGINE, "-o", tmp_path / "b.npz").status == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert sorted(a) == sorted(b) == ["output0", "output1"]
        assert all((a[name] == b[name]).all() for name in a)
        with quantized_engine("fbgemm"), torch.inference_mode():
            codes, floats = torch.jit.load(model)(torch.from_numpy(np.load(image)))
        assert (a["output0"] == codes.int_repr().numpy()).all()
        assert (a["output1"] == floats.numpy()).all()


def test_run_takes_inputs_by_name(run: Run, bundle: Path, image: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "named.npz", x=np.load(image))
    data = run("run", bundle, "--data", tmp_path / "named.npz", "--json").json()
    assert [output["dtype"] for output in data["outputs"]] == ["uint8", "float32"]
    np.savez(tmp_path / "other.npz", y=np.load(image))
    assert (
        "no input is named y; the model takes 1 input (x: " in run("run", bundle, "--data", tmp_path / "other.npz").err
    )


def test_bench_times_the_peers_that_take_the_model(run: Run, model: Path) -> None:
    answer = run("bench", model, *INPUT, *ENGINE, "--rounds", 5, "--json")
    assert answer.status == 0, answer.err
    data = answer.json()
    assert {"qtorch_relay", "PyTorch fbgemm"} <= set(data["latency_ms"])
    assert {"ONNX Runtime", "OpenVINO"} <= set(data["latency_ms"]) | set(data["missing"])
    assert all(latency > 0 for latency in data["latency_ms"].values())
    assert "measuring" in answer.err


def test_bench_of_a_bundle_has_no_peers(run: Run, bundle: Path) -> None:
    answer = run("bench", bundle, "--rounds", 5)
    assert answer.status == 0, answer.err
    assert "qtorch_relay" in answer.out
    assert "PyTorch" not in answer.out


def test_bench_of_the_layers(run: Run, model: Path, bundle: Path) -> None:
    data = run("bench", model, *INPUT, *ENGINE, "--layers", "--rounds", 3, "--json").json()
    assert all(layer["latency_us"] > 0 for layer in data["layers"])
    if targets.resolve("host").kernels is not None:
        convs = [layer for layer in data["layers"] if (layer["kernel"] or "").startswith("conv2d")]
        assert [layer["macs"] for layer in convs][:1] == [8 * 8 * 9 * 16]
    answer = run("bench", bundle, "--layers", "--rounds", 3)
    assert answer.status == 0, answer.err
    assert "of the time" in answer.out
    assert "\na call: " in answer.out


@pytest.mark.parametrize("more", [(), ("--portable",), ("--threads", 1)])
def test_compare_finds_no_difference(run: Run, model: Path, more: tuple[object, ...]) -> None:
    answer = run("compare", model, *INPUT, *ENGINE, *more)
    assert answer.status == 0, answer.err
    assert "\n0 differing elements" in answer.out
    assert "quantized::conv2d_relu" in answer.out


def test_compare_with_given_inputs_as_json(run: Run, model: Path, image: Path) -> None:
    data = run("compare", model, "--data", image, *ENGINE, "--json").json()
    assert data["differing"] == 0
    assert data["first_differing"] is None
    assert all(layer["elements"] > 0 for layer in data["layers"])


UNKNOWN = "unknown target 'x86-sse9'; known are host"
UNSAID = "does not say what the model takes; say it with --input x:1,3,224,224"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "none.pt", *INPUT), "none.pt: no such file"),
        (("import", "text.pt", *INPUT), "text.pt is not TorchScript"),
        (("import", "short.pt", *INPUT), "short.pt is truncated or damaged"),
        (("import", "good.pt"), UNSAID),
        (("import", "text.pt"), "text.pt is not TorchScript"),
        (("compile", "good.pt", "-o", "out.qtr"), UNSAID),
        (("import", "good.pt", "--input", "x"), "'x' is not NAME:SHAPE[:DTYPE]"),
        (("import", "good.pt", "--input", "x:1,4a"), "'x:1,4a' has the shape '1,4a'"),
        (("import", "good.pt", "--input", "x:1,1,8,8:float99"), "float99"),
        (("import", "good.pt", *INPUT, "--input", "y:1"), "the model takes 1 input"),
        (("import", "good.pt", "--input", "x:1,3,8,8"), ""),
        (("import", "good.pt", *INPUT, "--engine", "mkl"), "engine is 'mkl'; accepted are"),
        (("import", "good.pt", *INPUT, "-o", "no/where.qnn"), "the folder no does not exist"),
        (("compile", "good.pt", *INPUT, "-o", "out.qtr", "--target", "x86-sse9"), UNKNOWN),
        (("compile", "good.pt", *INPUT, "-o", "no/out.qtr"), "the folder no does not exist"),
        (("compile", "good.pt", *INPUT, "-o", "."), "it is a folder"),
        (("compile", "good.pt", *INPUT, "-o", "good.pt"), "give a bundle a name that ends in .qtr"),
        (("run", "good.pt", "--data", "image.npy", "--target", "ELSEWHERE"), "this host"),
        (("run", "good.pt", "--data", "image.npy", "--threads", 0), "number of threads 0"),
        (("run", "none.qtr", "--data", "image.npy"), "cannot load none.qtr: there is no such file"),
        (("run", "text.qtr", "--data", "image.npy"), "cannot load text.qtr: it is not a bundle"),
        (("run", "good.qtr", "--data", "none.npy"), "none.npy: there is no such file"),
        (("run", "good.qtr", "--data", "text.npy"), "text.npy is not a .npy or .npz file of plain arrays"),
        (("run", "good.qtr", "--data", "pickled.npy"), "pickled.npy is not a .npy or .npz file of plain arrays"),
        (("run", "good.pt", "--data", "good.pt"), "good.pt is not a .npy or .npz file of plain arrays: its member"),
        (("run", "good.qtr", "--data", "empty.npz"), "empty.npz is not a .npy or .npz file of plain arrays: it holds"),
        (("run", "good.qtr", "--data", "image.npy", *ENGINE), "is compiled already, so --engine cannot change it"),
        (
            ("run", "good.qtr", "--data", "image.npy", "--target", "x86-sse9"),
            "it has no program for x86-sse9, only for",
        ),
        (("run", "good.qtr", "--data", "wrong.npy"), "input x is float64 [2]; accepted is float32 [1, 1, 8, 8]"),
        (("run", "good.qtr", "--data", "two.npz"), "2 were given; the model takes 1 input"),
        (("run", "good.qtr", "--data", "image.npy", "-o", "out.txt"), "give a name that ends in .npy or .npz"),
        (
            ("run", "good.qtr", "--data", "image.npy", "-o", "out.npy"),
            "the model has 2 outputs; give a name that ends in .npz",
        ),
        (("run", "good.qtr", "--data", "image.npy", "-o", "no/out.npz"), "the folder no does not exist"),
        (("compare", "good.pt", *INPUT, "--target", "ELSEWHERE"), "this host"),
        (("compare", "none.pt", *INPUT), "none.pt: no such file"),
        (("demo", "--engine", "mkl"), "engine is 'mkl'; accepted are"),
        (("demo", "-o", "no"), "the folder no does not exist; make it first"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_errors_are_one_message_and_status_2(
    run: Run,
    model: Path,
    bundle: Path,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    message: str,
) -> None:
    elsewhere = "arm-neon" if targets.host_cpu().machine == "x86_64" else "x86-avx2"
    monkeypatch.chdir(tmp_path)
    for name in ("text.pt", "text.qtr", "text.npy"):
        Path(name).write_text("just text")
    Path("good.pt").write_bytes(model.read_bytes())
    Path("short.pt").write_bytes(model.read_bytes()[:-2000])
    Path("good.qtr").write_bytes(bundle.read_bytes())
    np.save("wrong.npy", np.zeros(2))
    np.save("pickled.npy", np.array([{}]), allow_pickle=True)
    np.savez("empty.npz")
    np.savez("two.npz", np.zeros(1), np.zeros(1))
    before = sorted(tmp_path.rglob("*"))
    answer = run(*(elsewhere if word == "ELSEWHERE" else word for word in arguments))
    assert answer.status == 2
    assert message in answer.err
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("arguments", [("frobnicate",), ("run",), ("compile", "x.pt"), ("run", "x.qtr", "--wrong")])
def test_usage_errors_are_status_2(run: Run, arguments: tuple[str, ...]) -> None:
    answer = run(*arguments)
    assert answer.status == 2
    assert "Traceback" not in answer.err
