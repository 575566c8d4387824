"""What a user can get wrong is one sentence, of the right kind, and says what to do."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import qtorch_relay
from qtorch_relay.capture.engine import quantized_engine, resolve_engine
from qtorch_relay.capture.inputs import InputArgument, InputSpec, parse_input_infos
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model, from_torch
from qtorch_relay.errors import EngineError, FloatModelWarning, InvalidInputError, ModelFileError
from qtorch_relay.qparams import PerTensor


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.trace(nn.Linear(4, 3), torch.zeros(1, 4)).save(path)
    return path


def test_files_are_read_from_str_and_path(model_file):
    for path in (model_file, str(model_file)):
        assert [node.name for node in from_torch(path, [("x", (1, 4))]).nodes] == ["aten::linear"]


def truncated(path, model_file):
    path.write_bytes(model_file.read_bytes()[:-200])


def damaged(path, model_file):
    with zipfile.ZipFile(model_file) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if ".py" not in name:
                target.writestr(name, source.read(name))


def altered(path, model_file):
    data = bytearray(model_file.read_bytes())
    with zipfile.ZipFile(model_file) as source:
        weights = next(info for info in source.infolist() if "/data/" in info.filename and info.file_size >= 4)
        stored = source.read(weights)
    data[data.index(stored) + 1] ^= 1
    path.write_bytes(data)


def misnamed(path, model_file):
    path.write_bytes(model_file.read_bytes().replace(b"constants.pkl", b"c\xe5nstants.pkl"))


def bundle(path, model):
    with pytest.warns(FloatModelWarning):
        compiled = qtorch_relay.compile(str(model), [("x", (1, 4))])
    compiled.save(path)


BAD_FILES = [
    ("missing.pt", lambda path, model: None, r"no such file"),
    ("folder", lambda path, model: path.mkdir(), r"is a directory"),
    ("text.pt", lambda path, model: path.write_text("hello"), r"is not TorchScript; save the model with"),
    ("empty.pt", lambda path, model: path.write_bytes(b""), r"is not TorchScript"),
    ("old.pt", lambda path, model: path.write_bytes(pickle.dumps({"a": 1})), r"is not TorchScript"),
    ("state.pt", lambda path, model: torch.save({"w": torch.ones(2)}, path), r"torch\.save\), not TorchScript; save"),
    ("module.pt", lambda path, model: torch.save(nn.Linear(2, 2), path), r"torch\.save\), not TorchScript"),
    ("zip.pt", lambda path, model: zipfile.ZipFile(path, "w").close(), r"is a zip file, not TorchScript"),
    ("bundle.pt", bundle, r"is a bundle, compiled already: qtorch_relay\.load reads it"),
    ("truncated.pt", truncated, r"is truncated or damaged; save it again"),
    ("altered.pt", altered, r"is damaged: the checksum of its member \S+ differs; save it again"),
    ("misnamed.pt", misnamed, r"damaged"),
    ("damaged.pt", damaged, r"cannot be loaded; torch\.jit\.load says: \S+"),
]


@pytest.mark.parametrize(("name", "make", "message"), BAD_FILES, ids=[row[0] for row in BAD_FILES])
def test_bad_files_are_model_file_errors(tmp_path, model_file, name, make, message):
    path = tmp_path / name
    make(path, model_file)
    with pytest.raises(ModelFileError, match=message) as caught:
        from_torch(path, [("x", (1, 4))])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_exported_programs_that_cannot_be_read_or_run(tmp_path):
    program = torch.export.export(nn.Linear(4, 3), (torch.zeros(1, 4),))
    with pytest.raises(InvalidInputError, match="the model cannot be traced with input 'x', float32 \\[2, 4\\]"):
        from_torch(program, [("x", (2, 4))])
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/version", "1")
    with pytest.raises(ModelFileError, match=r"cannot be loaded; torch.export.load says: "):
        from_torch(tmp_path / "model.pt2", [("x", (1, 4))])


@pytest.mark.parametrize("model", [{}, None, nn.functional.relu, torch.zeros(1)])
def test_other_objects_are_refused(model):
    with pytest.raises(InvalidInputError, match=r"the model is a \w+; accepted are a torch\.jit\.ScriptModule"):
        from_torch(model, [("x", (1, 4))])


GOOD_INPUTS = [
    ([("x", (1, 4))], InputSpec("x", (1, 4), "float32")),
    ([("x", [1, 4])], InputSpec("x", (1, 4), "float32")),
    ([("x", torch.Size([1, 4]))], InputSpec("x", (1, 4), "float32")),
    ([("x", ((1, 4), "int64"))], InputSpec("x", (1, 4), "int64")),
    ([("x", ((1, 4), torch.uint8))], InputSpec("x", (1, 4), "uint8")),
    ([("x", ((1, 4), np.float32))], InputSpec("x", (1, 4), "float32")),
    ([("x", ((1, 4), np.dtype("int8")))], InputSpec("x", (1, 4), "int8")),
    ([("x", ())], InputSpec("x", (), "float32")),
    ([torch.zeros(2, 3)], InputSpec(None, (2, 3), "float32")),
    ((np.zeros((2, 3)),), InputSpec(None, (2, 3), "float64")),
    (torch.zeros(2, 3, dtype=torch.int32), InputSpec(None, (2, 3), "int32")),
    ([("x", np.zeros((2, 3), "int8"))], InputSpec("x", (2, 3), "int8")),
    ([("x", ("n", 4))], InputSpec("x", ("n", 4), "float32")),
    ([("x", ((1, 4), "quint8", 0.5, 3))], InputSpec("x", (1, 4), "uint8", PerTensor(0.5, 3, "uint8"))),
    (
        [torch.quantize_per_tensor(torch.zeros(1, 4), 0.5, -3, torch.qint8)],
        InputSpec(None, (1, 4), "int8", PerTensor(0.5, -3, "int8")),
    ),
]


@pytest.mark.parametrize(("infos", "spec"), GOOD_INPUTS)
def test_input_infos(infos, spec):
    assert parse_input_infos(infos) == (InputArgument(spec.name, spec),)


BAD_INPUTS = [
    (None, "input_infos is a NoneType"),
    ({"x": (1, 4)}, "input_infos is a dict"),
    (("x", (1, 4)), "put it into a list"),
    ([(1, 4)], r"an entry of input_infos is \(1, 4\)"),
    ([("x", 4)], "has shape 4"),
    ([("x", (1, "2c"))], "a shape is a tuple of integers"),
    ([("x", (1, 0))], "every dimension must be an integer above 0"),
    ([("x", (1, -1))], "every dimension must be an integer above 0"),
    ([("x", ((1, 4), "float31"))], "dtype 'float31'; accepted are float32"),
    ([("x", (1, 4)), ("x", (1, 4))], "input names must differ"),
    ([("1x", (1, 4))], "must start with a letter"),
    ([torch.quantize_per_tensor(torch.zeros(1, 4), 1.0, 0, torch.quint8)], r"quint8 \[1, 4\]: aten::linear"),
    ([("x", ((1, 4), "quint8"))], "a quantized input is"),
    ([("x", ((1, 4), "float32", 0.1, 3))], "a quantized input is"),
    ([("x", ((1, 4), "quint8", "0.1", 3))], "has scale '0.1'"),
    ([("x", [(1, 4), (1, 4)])], "input 'input' of the model is a Tensor"),
    ([("x", {1: (1, 4)})], "keys are strings"),
    ([], r"the model takes 1 input \(input\), input_infos \(--input\) describes 0"),
    ([("x", (1, 4)), ("y", (1, 4))], r"the model takes 1 input \(input\), input_infos \(--input\) describes 2"),
    ([("x", (1, 5))], r"cannot run on input 'x', float32 \[1, 5\]: aten::linear.* given float32 \[1, 5\].*; check the"),
    ([("x", (1 << 40, 1 << 20))], r"there is not the memory for input 'x', float32 \[\d+, \d+\]; check its shape"),
    ([("x", ((1, 4), "int64"))], r"aten::linear.*says: .*; check the shapes"),
]


@pytest.mark.parametrize(("infos", "message"), BAD_INPUTS)
def test_bad_inputs_are_input_errors(model_file, infos, message):
    with pytest.raises(InvalidInputError, match=message):
        from_torch(model_file, infos)


@pytest.mark.parametrize("infos", [[], [("x", (1, 5))], [("x", (1, 4)), ("y", (1, 4))], [("x", ((1, 4), "int64"))]])
def test_a_module_that_cannot_be_traced_is_an_input_error(infos):
    with pytest.raises(InvalidInputError, match=r"the model cannot be traced with .*input.*; check input_infos"):
        from_torch(nn.Linear(4, 3), infos)


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


@pytest.mark.parametrize("make", [lambda x: (x, 3), lambda x: (x, None), lambda x: {"a": x, "b": (x, [x])}])
def test_what_a_trace_cannot_return_is_said(make):
    with pytest.raises(
        InvalidInputError, match=r"because of what it returns: .* script the model with torch\.jit\.script"
    ):
        from_torch(Returns(make), [("x", (1, 4))])


def fail(x):
    raise AssertionError("expected 3 channels")


@pytest.mark.parametrize(
    ("make", "message"), [(lambda x: {"a": x}["b"], "'b'"), (lambda x: x.no, "'no'"), (fail, "expected 3 channels")]
)
def test_an_exception_of_the_model_is_quoted(make, message):
    with pytest.raises(
        InvalidInputError, match=rf"cannot be traced with input 'x', float32 \[1, 4\]: .*{message}.*; check"
    ):
        from_torch(Returns(make), [("x", (1, 4))])


class ListsOfTensors(nn.Module):
    def forward(self, xs):
        # type: (List[Tensor]) -> Tensor
        return xs[0]


def test_inputs_that_nest_otherwise_are_refused():
    with pytest.raises(InvalidInputError, match=r"input 'xs' of the model is a List\[Tensor\]; accepted are tensors"):
        from_torch(torch.jit.script(ListsOfTensors()), [("xs", (1, 4))])
    with pytest.raises(InvalidInputError, match=r"input 'xs' of the model is a List\[Tensor\]; accepted are tensors"):
        from_torch(torch.jit.script(ListsOfTensors()), [("xs", {"a": (1, 4)})])


class Difference(nn.Module):
    def forward(self, a, b):
        return a - b


def test_inputs_in_another_order_than_the_models_are_refused():
    with pytest.raises(InvalidInputError, match=r"input 0 of the model is 'a', input_infos calls it 'b'.*order: a, b"):
        from_torch(Difference(), [("b", (1, 4)), ("a", (1, 4))])
    assert [i.value.name for i in from_torch(Difference(), [("x", (1, 4)), ("y", (1, 4))]).inputs] == ["x", "y"]


def test_an_empty_path_is_named():
    with pytest.raises(ModelFileError, match="the path of the model is empty"):
        from_torch("", [("x", (1, 4))])


def test_names_of_inputs_are_the_callers_or_the_models(model_file):
    assert from_torch(model_file, [("data", (1, 4))]).inputs[0].value.name == "data"
    assert from_torch(model_file, torch.zeros(1, 4)).inputs[0].value.name == "input"


def test_engines():
    before = torch.backends.quantized.engine
    assert resolve_engine(None) == before
    with quantized_engine("qnnpack") as name:
        assert name == torch.backends.quantized.engine == "qnnpack"
    assert torch.backends.quantized.engine == before
    with pytest.raises(EngineError, match="'cuda'; accepted are fbgemm, onednn, x86, qnnpack"):
        from_torch(nn.Linear(4, 3), [("x", (1, 4))], engine="cuda")


def test_an_engine_missing_from_the_build_is_named(monkeypatch):
    monkeypatch.setattr("qtorch_relay.capture.engine._supported", lambda: ["qnnpack", "none"])
    with pytest.raises(EngineError, match="'fbgemm' is missing from this build of PyTorch, which has qnnpack"):
        resolve_engine("fbgemm")


def test_reference_checks_its_inputs(model_file):
    captured = capture_model(model_file, [("x", (1, 4))])
    for inputs, message in [
        ([], "0 inputs given"),
        ({"y": torch.zeros(1, 4)}, "inputs are named y; the model's are x"),
        ([torch.zeros(2, 4)], r"is torch\.float32 \(2, 4\); the model was captured for float32 \(1, 4\)"),
        ([np.zeros((1, 4))], r"is torch\.float64"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            run_reference(captured, inputs)
