"""mod.script() of a module with qnn ops reads well, and from_script makes the same module of it."""

from __future__ import annotations

from typing import Any

import pytest

from qtorch_relay._tvm import relax, tvm
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.script import from_script, qnn, script_constants
from qtorch_relay.qnn.verify import verify
from tests.qnn.build import module
from tests.qnn.cases import Case
from tests.qnn.relay_rows import ALL_CASES as CASES

TEXT = """
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((2, 3), dtype="uint8")) -> R.Tensor((2, 3), dtype="float32"):
        with R.dataflow():
            y: R.Tensor((2, 3), dtype="float32") = qnn.dequantize(x, R.const(0.5, "float32"), R.const(3, "int32"))
            R.output(y)
        return y
"""


def _module(case: Case) -> Any:
    return module({name: (array.shape, str(array.dtype)) for name, array in case.inputs.items()}, case.body)


def test_script_writes_operands_and_named_attributes() -> None:
    text = _module(next(case for case in CASES if case.name == "conv2d")).script()
    assert 'qnn.conv2d(x, w, R.const(9, "int32"), R.const(0, "int32"), R.const(0.5, "float32")' in text
    assert "strides=[1, 1]" in text
    assert "T.Call" not in text


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_script_reads_back(case: Case) -> None:
    mod = _module(case)
    back = from_script(mod.script(), script_constants(mod))
    tvm.ir.assert_structural_equal(mod, back)
    verify(back)


def test_attributes_left_out_have_the_builders_defaults() -> None:
    call = from_script(TEXT)["main"].body.blocks[0].bindings[0].value
    assert {key: call.attrs[key] for key in ("axis", "out_dtype", "arithmetic")} == {
        "axis": -1,
        "out_dtype": "float32",
        "arithmetic": "relay",
    }


def test_unknown_and_missing_attributes_are_refused() -> None:
    x = relax.Var("x", relax.TensorType((1, 4), "uint8"))
    with pytest.raises(VerifyError, match="missing: units"):
        qnn.dense(x, x, out_dtype="int32")
    with pytest.raises(VerifyError, match="attributes are axis"):
        qnn.dequantize(x, x, x, axes=1)
