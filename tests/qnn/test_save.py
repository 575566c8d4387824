"""A module survives the way to a file and back: structurally equal, the same text, the same codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtorch_relay import qnn
from qtorch_relay._tvm import relax, tvm
from qtorch_relay.errors import ModelFileError
from qtorch_relay.qnn.load import load_module, module_of_json
from qtorch_relay.qnn.save import module_json
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.qnn.verify import verify
from tests.qnn.build import module, run
from tests.qnn.cases import Case
from tests.qnn.relay_rows import ALL_CASES as CASES


def _module(case: Case) -> Any:
    return module({name: (array.shape, str(array.dtype)) for name, array in case.inputs.items()}, case.body)


def _there_and_back(mod: Any, folder: Path) -> Any:
    qnn.save_module(mod, folder / "module.json")
    return qnn.load_module(folder / "module.json")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_module_with_qnn_ops_is_structurally_equal(case: Case, tmp_path: Path) -> None:
    mod = _module(case)
    back = _there_and_back(mod, tmp_path)
    tvm.ir.assert_structural_equal(mod, back)
    assert back.script() == mod.script()
    verify(back)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_canonical_module_is_structurally_equal(case: Case, tmp_path: Path) -> None:
    mod = CanonicalizeOps()(_module(case))
    tvm.ir.assert_structural_equal(mod, _there_and_back(mod, tmp_path))


@pytest.mark.parametrize("name", ["requantize_fbgemm_per_channel", "conv2d_asymmetric_weights", "add_float32"])
def test_loaded_module_gives_the_same_codes(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    back = CanonicalizeOps()(_there_and_back(_module(case), tmp_path))
    np.testing.assert_array_equal(run(back, *case.inputs.values()), case.expected(*case.inputs.values()))


def test_symbolic_batch_branches_tuples_and_shapes(tmp_path: Path) -> None:
    n = tvm.tirx.Var("n", "int64")
    x, flag = relax.Var("x", relax.TensorType((n, 4), "uint8")), relax.Var("flag", relax.TensorType((), "bool"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, flag], attrs={"num_input": 2}):
        with builder.dataflow():
            pair = builder.emit(relax.Tuple([x, relax.op.concat([x, x], 0)]))
            flat = builder.emit(relax.op.reshape(relax.TupleGetItem(pair, 1), relax.ShapeExpr([n * 8])))
            result = builder.emit_output(relax.Tuple([flat, x]))
        builder.emit_func_output(result)
    mod = builder.finalize()
    back = _there_and_back(mod, tmp_path)
    tvm.ir.assert_structural_equal(mod, back)
    assert relax.analysis.well_formed(back) is not False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(version=2), "version 1"),
        (lambda data: data["functions"]["main"].pop("blocks"), "KeyError"),
        (lambda data: _first_call(data).update(call="tirx.exp"), "a call of 'tirx.exp'"),
        (lambda data: _first_call(data).update(attrs_type="ir.Span"), "attributes of kind 'ir.Span'"),
        (lambda data: _constants(data)[0]["const"].__setitem__(1, [1000, 1000]), "expected 4000000"),
        (lambda data: _constants(data)[0]["const"].__setitem__(2, "!"), "damaged"),
        (lambda data: _extent(data).__setitem__(0, "float32"), "damaged: InternalError"),
        (lambda data: data["functions"]["main"].update(result=_nested(400)), "nests its expressions too deep"),
    ],
)
def test_altered_file_is_refused(change: Any, message: str) -> None:
    mod = module({"x": ((1, 4), "uint8")}, lambda x: qnn.dequantize(x, [0.5, 1, 2, 3], 0, axis=1))
    data = json.loads(module_json(mod))
    change(data)
    with pytest.raises(ModelFileError, match=message):
        module_of_json(json.dumps(data))


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(ModelFileError, match="is JSON; this is not"):
        module_of_json("[" * 100_000)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot read .*: No such file or directory"):
        load_module(tmp_path / "missing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelFileError, match="is not text"):
        load_module(tmp_path / "bytes.json")


def _extent(data: Any) -> Any:
    """The first extent of the first parameter: ["int64", 1]."""
    return data["functions"]["main"]["params"][0]["type"]["tensor"][1][0]["number"]


def _nested(depth: int) -> Any:
    value: Any = {"var": 0}
    for _ in range(depth):
        value = {"tuple": [value]}
    return value


def _first_call(data: Any) -> Any:
    value: Any = data["functions"]["main"]["blocks"][0]["bindings"][0]["value"]
    return value


def _constants(data: Any) -> list[Any]:
    return [argument for argument in _first_call(data)["args"] if "const" in argument]
