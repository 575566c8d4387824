"""Machine code checks what it was written to check, not the arguments that the virtual machine makes itself, and takes
those that begin at any address."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qtorch_relay._tvm import IRBuilder, T, tirx, tvm
from qtorch_relay.tir.pipeline import NAME


def _negate(*, checks: bool) -> Any:
    with IRBuilder() as builder, T.prim_func():
        T.func_name("negate")
        x = T.match_buffer(T.arg("x", T.handle()), (4,), "int32")
        y = T.match_buffer(T.arg("y", T.handle()), (4,), "int32")
        with (T.serial if checks else T.vectorized)(0, 4) as i:
            if checks:
                with T.Assert(x[i] >= 0, "negative", "IndexError"):
                    pass
            T.buffer_store(y, -x[i], [i])
    return builder.get().with_attr("global_symbol", "negate")


@pytest.mark.parametrize("checks", [False, True])
def test_only_functions_with_asserts_of_their_own_keep_any(checks: bool) -> None:
    mod = tirx.transform.BindTarget(tvm.target.Target("llvm", host="llvm"))(
        tvm.IRModule({"negate": _negate(checks=checks)})
    )
    lower, _, _ = tirx.get_tir_pipeline(NAME)
    assert ("assert" in lower(mod).script()) == checks


def test_no_alignment_is_assumed() -> None:
    alignments = re.findall(r"(?:load|store) <4 x i32>.*, align (\d+)", _code(checks=False))
    assert set(alignments) == {"4"}


def test_no_alignment_is_asserted() -> None:
    code = _code(checks=True)
    assert "negative" in code, "its own assert is there"
    assert "Misaligned" not in code


def _code(*, checks: bool) -> str:
    mod = tvm.IRModule({"negate": _negate(checks=checks)})
    return str(tvm.compile(mod, target="llvm", tir_pipeline=NAME).mod.inspect_source("ll"))
